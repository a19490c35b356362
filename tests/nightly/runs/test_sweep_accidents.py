"""What is complete stays complete, whatever is killed, and a sweep continues."""

import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import pandas as pd
import psutil
import pytest
from small_sweep import metrics, start, starts, wait_for_runs, write_sweep


@pytest.fixture
def write(tmp_path):
    return partial(write_sweep, tmp_path)


def test_a_sweep_killed_again_and_again_ends_as_if_it_had_not(write, tmp_path):
    path = write("grid: {seconds: 1.0}\nseeds: [0, 1, 2, 3]")
    dice = random.Random(4)
    for _ in range(3):
        process = start(path, "--workers", "2")
        deadline = time.monotonic() + dice.uniform(4, 8)
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.1)
        process.kill()
        process.communicate()
    finished = list((tmp_path / "runs" / "notebooks").glob("*[0-9a-f].ipynb"))
    times = {notebook: notebook.stat().st_mtime_ns for notebook in finished}
    process = start(path, "--workers", "2")
    assert process.communicate() and process.returncode == 0
    expected = pd.DataFrame(
        {"seed": range(4), "metric": "sarr", "value": [s / 7 for s in range(4)]}
    )
    pd.testing.assert_frame_equal(metrics(path), expected)
    assert {notebook: notebook.stat().st_mtime_ns for notebook in finished} == times
    assert list((tmp_path / "runs" / "notebooks").glob(".partial-*")) == []
    assert list((tmp_path / "runs" / "partial").glob("*/run.json")) == []


def test_two_sweeps_on_one_ledger_share_the_work(write):
    path = write("seeds: [0, 1, 2]")
    both = [start(path, "--workers", "1") for _ in range(2)]
    assert [process.communicate() and process.returncode for process in both] == [0, 0]
    assert starts(path) == dict.fromkeys(range(3), 1)
    assert len(metrics(path)) == 3


def test_ctrl_c_leaves_a_sweep_that_continues(write):
    path = write("grid: {seconds: 2}\nseeds: [0, 1]")
    process = start(path, "--workers", "1")
    while not re.match(r"\[1/2\]", process.stdout.readline()):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    output = process.communicate()[0]
    assert process.returncode == 130 and "it continues" in output and "Traceback" not in output
    process = start(path, "--workers", "2")
    assert process.communicate() and process.returncode == 0
    assert len(metrics(path)) == 2 and starts(path)[0] == 1


@pytest.fixture
def scheduler(tmp_path):
    """`dask scheduler` and two `dask worker` processes on loopback: its address, then all three."""
    where = tmp_path / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

    def dask(*arguments):
        return subprocess.Popen([sys.executable, "-m", "dask", *arguments], **quiet)

    processes = [
        dask("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
             "--scheduler-file", str(where))
    ]  # fmt: skip
    while not where.exists():
        time.sleep(0.1)
    address = json.loads(where.read_text())["address"]
    processes += [
        dask("worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard",
             "--local-directory", str(tmp_path / "dask"))
        for _ in range(2)
    ]  # fmt: skip
    yield address, *processes
    for process in processes:
        process.kill()
        process.wait()


def test_a_worker_killed_in_the_middle_of_a_run_loses_nothing(write, scheduler):
    address, _, worker, _ = scheduler
    path = write("grid: {seconds: 2}\nseeds: [0, 1, 2]")
    process = start(path, "--scheduler", address)
    wait_for_runs(path, 2, process)
    worker.kill()
    output = process.communicate()[0]
    assert process.returncode == 0, output
    assert metrics(path)["seed"].tolist() == [0, 1, 2]
    assert sum(starts(path).values()) == 4  # the killed worker's run, begun again by the other


def test_a_scheduler_that_goes_away_ends_the_sweep_in_one_line(write, scheduler):
    address, process_of_scheduler, *_ = scheduler
    path = write("grid: {seconds: 60}\nseeds: [0, 1]")
    process = start(path, "--scheduler", address)
    wait_for_runs(path, 1, process)
    process_of_scheduler.kill()
    assert process.communicate()[0].splitlines()[-1].startswith("error: the scheduler went away")
    assert process.returncode == 2


def test_a_worker_process_of_this_machine_that_dies_loses_nothing(write):
    path = write("grid: {seconds: 2}\nseeds: [0, 1, 2]")
    process = start(path, "--workers", "2")
    wait_for_runs(path, 2, process)
    workers = psutil.Process(process.pid).children()
    next(worker for worker in workers if "spawn_main" in " ".join(worker.cmdline())).kill()
    output = process.communicate()[0]
    assert process.returncode == 0, output
    assert metrics(path)["seed"].tolist() == [0, 1, 2]


def test_a_notebook_saved_while_its_sweep_runs_changes_nothing(write):
    path = write("grid: {seconds: 2}\nseeds: [0, 1]")
    process = start(path, "--workers", "1")
    while not re.match(r"\[1/2\]", process.stdout.readline()):
        assert process.poll() is None
    notebook = path.parent / "small.ipynb"
    notebook.write_text(notebook.read_text().replace("seed / 7", "seed / 3"))
    process.communicate()
    assert metrics(path)["value"].tolist() == [0, 1 / 7]


def test_a_run_names_its_folder_in_the_ledger_and_is_repeated_when_that_is_gone(write):
    path = write("seeds: [0, 1]")
    runs_dir = path.parent / "runs"
    for _ in range(2):
        assert start(path, "--workers", "2").wait() == 0
        table = pd.read_csv(runs_dir / "sweeps" / "grid.csv")
        assert all((runs_dir / run / "run.json").exists() for run in table["run"])
    shutil.rmtree(runs_dir / table["run"][0])
    assert start(path, "--workers", "2").wait() == 0
    assert metrics(path)["seed"].tolist() == [0, 1] and starts(path) == {0: 2, 1: 1}
