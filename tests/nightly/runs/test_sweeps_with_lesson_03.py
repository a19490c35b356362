"""What a sweep promises, with the real notebook: `make accept`, about a quarter of an hour.

Eight short trainings, undisturbed, are what the others are held against, to the last digit.
"""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from safeerase_lite.runs import store as ledger
from safeerase_lite.runs import sweep

NOTEBOOK = Path(__file__).parents[3] / "notebooks" / "03_unlearn.ipynb"
EIGHT = """
parameters: {precision: dense, steps: 6}
seeds: [0, 1]
grid: {objective: [kl, po], decouple: [none, pd]}
"""


def write(folder, text=EIGHT):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "eight.yaml"
    path.write_text(f"notebook: {NOTEBOOK}\n{text}", encoding="utf-8")
    return path


def start(path, *more):
    command = [sys.executable, "-m", "safeerase_lite", "sweep", str(path), *more]
    command += ["--runs-dir", str(path.parent / "runs")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, start_new_session=True, **pipes)


def results(path):
    """Every metric and every answer, in an order of their own."""
    runs_dir = path.parent / "runs"
    metrics = ledger.load(runs_dir).metrics
    keys = ["objective", "decouple", "seed", "metric", "split", "kinds", "templates"]
    answers = pd.concat(
        pd.read_parquet(runs_dir / run / "answers.parquet").assign(run=run)
        for run in sorted(metrics["id"].unique())
    )
    return metrics.sort_values(keys, ignore_index=True), answers.reset_index(drop=True)


def assert_same(one, other):
    for table, expected in zip(one, other, strict=True):
        pd.testing.assert_frame_equal(table, expected, check_exact=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    path = write(tmp_path_factory.mktemp("undisturbed"))
    process = start(path, "--workers", "2")
    output = process.communicate()[0]
    assert process.returncode == 0, output
    return results(path)


def test_killed_three_times_at_random_moments_it_ends_the_same(tmp_path, undisturbed):
    path = write(tmp_path)
    dice = random.Random()  # truly random: whatever the moment, the end is the same
    for _ in range(3):
        process = start(path, "--workers", "2")
        time.sleep(dice.uniform(10, 90))
        process.send_signal(signal.SIGKILL)
        process.wait()
    process = start(path, "--workers", "2")
    output = process.communicate()[0]
    assert process.returncode == 0, output
    assert_same(results(path), undisturbed)


def test_on_two_dask_workers_of_which_one_is_killed_it_ends_the_same(tmp_path, undisturbed):
    path = write(tmp_path)
    where = tmp_path / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    serve = [*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    scheduler = subprocess.Popen([*serve, "--scheduler-file", str(where)], **quiet)
    while not where.exists():
        time.sleep(0.2)
    address = json.loads(where.read_text())["address"]
    work = [*dask, "worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
    workers = [subprocess.Popen([*work, "--local-directory", str(tmp_path)], **quiet) for _ in "ab"]
    try:
        process = start(path, "--scheduler", address)
        time.sleep(60)
        workers[0].kill()
        output = process.communicate()[0]
    finally:
        for process_ in (scheduler, *workers):
            process_.kill()
            process_.wait()
    assert process.returncode == 0, output
    assert_same(results(path), undisturbed)


def test_a_loss_that_is_no_number_in_the_middle_of_a_grid_fails_alone(tmp_path):
    path = write(
        tmp_path,
        "parameters: {precision: dense, steps: 6, objective: po}\n"
        "grid: {learning_rate: [1.0e-3, 1.0e+30, 2.0e-3]}\n",
    )
    process = start(path, "--workers", "2")
    output = process.communicate()[0]
    assert process.returncode == 1
    runs = sweep.load(path).runs()
    table = pd.read_csv(path.parent / "runs" / "sweeps" / "eight.csv").set_index("id")
    status = [table.loc[run.id, "status"] for run in runs]
    assert status == ["complete", "failed", "complete"], output
    assert "NonFiniteLoss: the loss is nan at step" in table.loc[runs[1].id, "reason"]
    failed = ledger.load(path.parent / "runs").runs.query("status == 'failed'")
    assert failed["learning_rate"].tolist() == [1e30]
