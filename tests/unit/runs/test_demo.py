"""The demo: its grid and its tables."""

import pandas as pd
import pytest

from safeerase_lite.evaluation import metrics
from safeerase_lite.lessons import demo
from safeerase_lite.runs import store as ledger


def test_the_grid_holds_every_cell_once_in_both_worlds():
    runs = [
        (config.world_seed, config.objective, config.decouple)
        for config in demo.grid()
        if config.precision == "dense"
    ]
    assert len(set(runs)) == len(runs)
    papers, bounded = {"ga", "gd", "kl", "po"}, {"gd_bounded", "kl_bounded"}
    for seed, objectives in (
        (demo.DEFAULT_SEED, papers | bounded),
        (demo.FRESH_SEED, papers),
    ):
        cells = {run[1:] for run in runs if run[0] == seed}
        assert cells == {
            ("vanilla", "none"), ("gold", "none"), ("po", "placebo"),
            *((objective, decouple) for objective in objectives for decouple in ("none", "pd")),
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
        {"weights": "official", "seed": 0, "precision": "dense", "data_hash": "d", "world_seed": 0}
        | parameters,
    )
    answers = fabricated(verdicts)
    run.write_answers(answers)
    run.write_metrics(metrics.measure(answers))
    run.commit()
    return run.id


@pytest.fixture
def grid_runs(tmp_path):
    """A ledger, and the runs of it that are the demo's; another one is there from a lesson."""
    runs = [
        commit(tmp_path, ["refused"] * 12, objective="po", decouple="none"),
        commit(tmp_path, ["refused"] * 3 + ["right"] * 9, objective="po", decouple="pd"),
    ]
    commit(tmp_path, ["right"] * 12, objective="po", decouple="none", steps=4)
    return tmp_path, runs


def test_the_summary_has_the_promised_columns_and_one_row_a_measure(grid_runs):
    summary, nf4 = demo.tables(*grid_runs)
    assert list(summary.columns) == demo.COLUMNS
    keys = ["objective", "decouple", "world", "split", "kinds", "templates", "metric"]
    assert not summary.duplicated(keys).any()
    assert nf4.empty


def test_the_fall_is_the_paired_difference_and_its_share_of_plain(grid_runs):
    fall = demo.falls(*grid_runs, world="default", split="test").iloc[0]
    assert (fall["plain"], fall["value"], fall["relative"]) == (1.0, -0.75, 0.75)
    # Five of six kinds fell and none rose: p is 0.06 by the sign test.
    assert fall["low"] <= -0.75 < 0 < fall["high"] < 0.1
    assert (fall["kinds_fell"], fall["n_kinds"]) == (5, 6)
