"""Runs of a sweep, each in a process of its own: how they fail, what they see, where they run."""

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import nbformat
import pandas as pd
import psutil
import pytest
from small_sweep import command, metrics, start, starts, wait_for_runs, write_sweep

from safeerase_lite.runs import executor, run_process, sweep
from safeerase_lite.utils import UserError


@pytest.fixture
def write(tmp_path):
    return partial(write_sweep, tmp_path)


def test_one_run_fails_and_the_others_do_not_care(write):
    path = write(
        "threads: 3\ngrid:\n- {seed: [0, 1]}\n- {seed: 2, mishap: diverge}\n"
        "- {seed: 3, mishap: die once}\n- {seed: 4, mishap: raise}"
    )
    runs_dir = path.parent / "runs"
    process = start(path, "--workers", "2")
    output = process.communicate()[0]
    assert process.returncode == 1, output

    runs = {run.given["seed"]: run for run in sweep.load(path).runs()}
    table = pd.read_csv(runs_dir / "sweeps" / "grid.csv", keep_default_na=False)
    status = dict(zip(table["id"], table["status"], strict=True))
    assert [status[runs[seed].id] for seed in range(5)] == [
        "complete", "complete", "failed", "complete", "failed",
    ]  # fmt: skip
    reasons = dict(zip(table["id"], table["reason"], strict=True))
    assert re.search("NonFiniteLoss: the loss is nan at step 3", reasons[runs[2].id])
    assert re.search("ValueError: no such thing", reasons[runs[4].id])
    assert all("\n" not in reason and reason in output for reason in reasons.values())

    for seed in (2, 4):
        executed = run_process.executed_path(runs_dir, runs[seed].id)
        failed = nbformat.read(executed.with_suffix(".failed.ipynb"), 4)
        errors = [out for cell in failed.cells for out in cell.get("outputs", []) if "ename" in out]
        assert errors and all("Traceback" in "\n".join(error.traceback) for error in errors)
    assert starts(path) == {0: 1, 1: 1, 2: 1, 3: 2, 4: 1}  # only a lost kernel is retried
    assert metrics(path)["seed"].tolist() == [0, 1, 3]
    assert (path.parent / "marks" / "0").read_text().split()[1] == "3"

    again = subprocess.run(command(path, "--dry-run"), capture_output=True, text=True)
    assert again.stdout.count("  complete  ") == 3
    assert list((runs_dir / "notebooks").glob(".partial-*")) == []


def test_what_was_damaged_since_is_executed_again_and_nothing_else(write):
    path = write("seeds: [0, 1, 2]")
    runs_dir, runs = path.parent / "runs", sweep.load(path).runs()
    assert start(path).wait() == 0
    before = metrics(path)
    table = runs_dir / "sweeps" / "grid.csv"
    results = pd.read_csv(table).set_index("id")["run"]
    damaged = [run_process.executed_path(runs_dir, runs[0].id), table]
    damaged.append(runs_dir / results[runs[1].id] / "metrics.csv")
    for file in damaged:
        file.write_text("")
    process = start(path)
    output = process.communicate()[0]
    assert process.returncode == 0, output
    assert f"note: {table} is empty" in output
    assert starts(path) == {0: 2, 1: 2, 2: 1}
    pd.testing.assert_frame_equal(metrics(path), before)
    again = subprocess.run(command(path, "--dry-run"), capture_output=True, text=True)
    assert again.stdout.count("  complete  ") == 3


def test_a_run_that_takes_too_long_is_stopped(write):
    path = write("time_limit: 5\nretries: 3\ngrid: {mishap: hang}")
    output = start(path).communicate()[0]
    assert "small.ipynb: stopped after its limit of 5 s" in output
    assert list((path.parent / "runs" / "notebooks").glob("*")) != []


def test_a_killed_sweep_leaves_no_process(write):
    path = write("grid: {seconds: 60}\nseeds: [0, 1]")
    process = start(path, "--workers", "2")
    wait_for_runs(path, 2, process)
    processes = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    # Kernels look once a second whether their parent is still there.
    assert psutil.wait_procs(processes, timeout=20)[1] == []


def test_one_worker_with_two_threads_runs_the_same_run_once(write, tmp_path):
    path = write("grid: {seconds: 2}\nseeds: [0]")
    [run], runs_dir = sweep.load(path).runs(), tmp_path / "runs"
    with ThreadPoolExecutor() as threads:
        tasks = [threads.submit(run_process.perform, run, runs_dir, 1, 1, None) for _ in "ab"]
        both = [task.result() for task in tasks]
    assert [outcome.status for outcome in both] == ["complete"] * 2
    assert starts(path) == {0: 1}


def test_a_scheduler_that_is_not_there_is_one_line(write, monkeypatch):
    monkeypatch.setattr(executor, "CONNECT_TIMEOUT", 1)
    path = write("seeds: [0]")
    with pytest.raises(UserError, match="no Dask scheduler answers at 127.0.0.1:9"):
        sweep.run_sweep(sweep.load(path), "grid", path.parent / "runs", scheduler="127.0.0.1:9")


def test_a_run_does_not_inherit_what_dask_tells_its_own_malloc(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "65536")
    environment = run_process.run_environment(threads=3)
    assert "MALLOC_TRIM_THRESHOLD_" not in environment
    assert environment["OMP_NUM_THREADS"] == "3" and environment["SAFEERASE_HEADLESS"] == "1"


def test_a_sweep_that_wants_gpus_is_refused_where_there_are_none(write, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    path = write("gpu: true\nseeds: [0]")
    with pytest.raises(UserError, match="there is none here"):
        sweep.run_sweep(sweep.load(path), "grid", path.parent / "runs", say=lambda line: None)


def test_without_sbatch_a_slurm_sweep_is_one_line(write):
    path = write("seeds: [0]\nslurm: {queue: short, memory: 16GB, walltime: '02:00:00'}")
    with pytest.raises(UserError, match="no sbatch here"):
        sweep.run_sweep(sweep.load(path), "grid", path.parent / "runs", say=lambda line: None)


def test_a_slurm_job_carries_one_run_at_a_time(write):
    path = write("threads: 4\nslurm: {queue: short, memory: 16GB, walltime: '02:00:00'}")
    script = sweep.job_script(sweep.load(path))
    assert "--cpus-per-task=4" in script and "--nthreads 1" in script


def test_the_slurm_job_script_is_printed_and_not_submitted(write):
    path = write("gpu: true\nthreads: 4\nslurm: {queue: short, memory: 16GB, walltime: '02:00:00'}")
    result = subprocess.run(command(path, "--dry-run"), capture_output=True, text=True)
    assert result.returncode == 0
    assert "#SBATCH -p short" in result.stdout and "#SBATCH -t 02:00:00" in result.stdout
    assert "#SBATCH --mem=15G" in result.stdout and "--resources GPU=1" in result.stdout
    assert "--cpus-per-task=4" in result.stdout


def test_a_process_ends_with_the_one_that_started_it(tmp_path):
    """So a worker that is killed leaves no kernel behind that writes on."""
    command = [sys.executable, "-m", "safeerase_lite.runs.run_process"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdin.write(json.dumps([str(tmp_path / "none.ipynb"), "out.ipynb", {}, None]) + "\n")
    process.stdin.flush()
    assert "no notebook" in process.stdout.readline()
    assert process.wait() == 2
    silent = subprocess.Popen(command, stdin=subprocess.PIPE)
    silent.stdin.close()
    assert silent.wait() != 0
