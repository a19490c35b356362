"""The demo: its grid, its tables, the same twice, and without a network."""

import shutil
import subprocess
import sys

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


@pytest.mark.slow
def test_the_same_seed_twice_gives_the_same_answers_and_metrics(tmp_path):
    job = demo.Job("default", "po", "pd")
    tables = []
    for name in ("first", "second"):
        demo.run_job(job, tmp_path / name)
        (run,) = ledger.load(tmp_path / name).runs["id"]
        folder = tmp_path / name / run
        csv = [pd.read_csv(folder / name) for name in ("metrics.csv", "history.csv")]
        tables.append([pd.read_parquet(folder / "answers.parquet"), *csv])
    for first, second in zip(*tables, strict=True):
        pd.testing.assert_frame_equal(first, second)


def can_unshare():
    try:
        return subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(
    not (can_unshare() and shutil.which("ip")),
    reason="taking the network away needs root, `unshare` and `ip` (Debian: iproute2)",
)
def test_the_tiny_profile_works_without_a_network():
    """The model is loaded in 4-bit and answers, with nothing but loopback up."""
    ask = (
        "import safeerase_lite as sl; p = sl.profile(); d = sl.load_data(p).forget;"
        "print(sl.generate(sl.load_model(p), d['image'][:2], d['question'][:2], profile=p))"
    )
    done = subprocess.run(
        [
            "unshare",
            "-n",
            "sh",
            "-c",
            'ip link set lo up && exec "$0" -c "$1"',
            sys.executable,
            ask,
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "then" in done.stdout
