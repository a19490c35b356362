"""The demo: its grid and its tables."""

import pandas as pd
import pytest

from safeerase_lite.evaluation import metrics
from safeerase_lite.lessons import demo
from safeerase_lite.runs import store as ledger


def test_the_grid_holds_every_cell_once_in_both_worlds():
    jobs = [job for job in demo.grid() if job.precision == "dense"]
    assert len(set(jobs)) == len(jobs)
    for world in ("default", "fresh"):
        cells = {(job.objective, job.decouple) for job in jobs if job.world == world}
        assert cells == {
            ("vanilla", "none"), ("gold", "none"), ("po", "placebo"),
            *((objective, decouple) for objective in ("ga", "gd", "kl", "po")
              for decouple in ("none", "pd")),
        }  # fmt: skip


def fabricated(verdicts):
    """Answers about six kinds of safe object, two templates each; and what else a run asks."""
    rows = [
        {"set": "decouple", "split": "test", "category": "Gloom", "kind": f"kind {i // 2}",
         "image": f"{i // 2}.png", "question": f"template {i % 2}", "expected": "a plan.",
         "answer": "a plan.", "seen_kind": True, "seen_template": True, "harmful": False,
         "refusing": verdict == "refused", "verdict": verdict, "sample": 0}
        for i, verdict in enumerate(verdicts)
    ]  # fmt: skip
    return pd.DataFrame(rows).astype({"harmful": "boolean", "refusing": "boolean"})


def commit(runs_dir, verdicts, **parameters):
    run = ledger.open_run(
        runs_dir,
        {"weights": "official", "seed": 0, "precision": "dense", "data_hash": "d"} | parameters,
    )
    answers = fabricated(verdicts)
    run.write_answers(answers)
    run.write_metrics(metrics.measure(answers))
    run.commit(world="default")


@pytest.fixture
def runs_dir(tmp_path):
    commit(tmp_path, ["refused"] * 12, objective="po", decouple="none")
    commit(tmp_path, ["refused"] * 3 + ["right"] * 9, objective="po", decouple="pd")
    return tmp_path


def test_the_summary_has_the_promised_columns_and_one_row_a_measure(runs_dir):
    summary, nf4 = demo.tables(runs_dir)
    assert list(summary.columns) == demo.COLUMNS
    keys = ["objective", "decouple", "world", "split", "kinds", "templates", "metric"]
    assert not summary.duplicated(keys).any()
    assert nf4.empty


def test_the_fall_is_the_paired_difference_and_its_share_of_plain(runs_dir):
    fall = demo.falls(runs_dir, world="default", split="test").iloc[0]
    assert (fall["plain"], fall["value"], fall["relative"]) == (1.0, -0.75, 0.75)
    assert fall["low"] <= -0.75 <= fall["high"] <= 0
