"""What is finished stays finished: runs fail alone, die and are retried, and a sweep goes on."""

import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from safeerase_lite.runs import executor, run_process
from safeerase_lite.runs import store as ledger
from safeerase_lite.runs import sweep
from safeerase_lite.utils import UserError

PARAMETERS = """\
seed: int = 0  # decides the result
seconds: float = 0.2  # how long it takes
mishap: str = "none"  # none, raise, diverge, die once or hang
runs_dir: str = ""  # the ledger"""

RUN = """\
import os, time
from pathlib import Path
import pandas as pd
from safeerase_lite.runs import store as ledger

run = ledger.open_run(runs_dir, {"seed": seed, "mishap": mishap})
marks = Path(runs_dir).parent / "marks"
marks.mkdir(exist_ok=True)
first = not (marks / f"{seed}").exists()
(marks / f"{seed}").open("a").write(f"{time.monotonic()} {os.environ['OMP_NUM_THREADS']} "
                                     f"{os.environ.get('CUDA_VISIBLE_DEVICES')}\\n")"""

MISHAP = """\
if mishap == "raise":
    raise ValueError("no such thing")
if mishap == "diverge":
    class NonFiniteLoss(RuntimeError): pass  # training's own takes seconds to import
    error = NonFiniteLoss("the loss is nan at step 3")
    run.fail(error)
    raise error
if mishap == "die once" and first:
    os._exit(9)
time.sleep(60 if mishap == "hang" else seconds)"""

COMMIT = """\
rows = {"metric": ["sarr"], "split": ["test"], "value": [seed / 7], "n": [1]}
if not run.done:  # a killed run's kernel may have committed in its last second
    run.write_metrics(pd.DataFrame(rows))
    run.commit()"""


@pytest.fixture
def write(tmp_path):
    """Write a sweep file over a notebook that takes a fifth of a second, or has a mishap."""
    parameters = new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
    cells = [parameters, *map(new_code_cell, (RUN, MISHAP, COMMIT))]
    nbformat.write(new_notebook(cells=cells), tmp_path / "small.ipynb")

    def write(text):
        path = tmp_path / "grid.yaml"
        path.write_text(f"notebook: small.ipynb\n{text}\n", encoding="utf-8")
        return path

    return write


def command(path, *more):
    runs_dir = ["--runs-dir", str(path.parent / "runs")]
    return [sys.executable, "-m", "safeerase_lite", "sweep", str(path), *runs_dir, *more]


def start(path, *more):
    """A sweep in a process of its own."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    heeds = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a background job would not
    return subprocess.Popen(command(path, *more), start_new_session=True, preexec_fn=heeds, **pipes)


def metrics(path):
    table = ledger.load(path.parent / "runs").metrics
    return table.sort_values("seed")[["seed", "metric", "value"]].reset_index(drop=True)


def starts(path):
    """seed → how often its run was begun."""
    return {
        int(mark.name): len(mark.read_text().splitlines())
        for mark in (path.parent / "marks").iterdir()
    }


def test_one_run_fails_and_the_others_do_not_care(write):
    path = write(
        "threads: 3\ngrid:\n- {seed: [0, 1]}\n- {seed: 2, mishap: diverge}\n"
        "- {seed: 3, mishap: die once}\n- {seed: 4, mishap: raise}"
    )
    runs_dir = path.parent / "runs"
    process = start(path, "--workers", "2")
    said = process.communicate()[0]
    assert process.returncode == 1, said

    runs = {run.given["seed"]: run for run in sweep.load(path).runs()}
    table = pd.read_csv(runs_dir / "sweeps" / "grid.csv", keep_default_na=False)
    status = dict(zip(table["id"], table["status"], strict=True))
    assert [status[runs[seed].id] for seed in range(5)] == [
        "complete", "complete", "failed", "complete", "failed",
    ]  # fmt: skip
    reasons = dict(zip(table["id"], table["reason"], strict=True))
    assert re.search("NonFiniteLoss: the loss is nan at step 3", reasons[runs[2].id])
    assert re.search("ValueError: no such thing", reasons[runs[4].id])
    assert all("\n" not in reason and reason in said for reason in reasons.values())

    for seed in (2, 4):
        executed = sweep.executed_path(runs_dir, runs[seed].id)
        kept = nbformat.read(executed.with_suffix(".failed.ipynb"), 4)
        errors = [out for cell in kept.cells for out in cell.get("outputs", []) if "ename" in out]
        assert errors and all("Traceback" in "\n".join(error.traceback) for error in errors)
    assert starts(path) == {0: 1, 1: 1, 2: 1, 3: 2, 4: 1}  # only a lost kernel is retried
    assert metrics(path)["seed"].tolist() == [0, 1, 3]
    assert (path.parent / "marks" / "0").read_text().split()[1] == "3"

    again = subprocess.run(command(path, "--dry-run"), capture_output=True, text=True)
    assert again.stdout.count("  complete  ") == 3
    assert list((runs_dir / "notebooks").glob(".partial-*")) == []


def test_a_run_that_takes_too_long_is_stopped(write):
    path = write("time_limit: 5\nretries: 3\ngrid: {mishap: hang}")
    said = start(path).communicate()[0]
    assert "small.ipynb: stopped after its limit of 5 s" in said
    assert list((path.parent / "runs" / "notebooks").glob("*")) != []


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
    said = process.communicate()[0]
    assert process.returncode == 130 and "it continues" in said and "Traceback" not in said
    process = start(path, "--workers", "2")
    assert process.communicate() and process.returncode == 0
    assert len(metrics(path)) == 2 and starts(path)[0] == 1


@pytest.fixture
def scheduler(tmp_path):
    """`dask scheduler` and two `dask worker` processes on loopback: the address, the workers."""
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
    yield address, processes[1:]
    for process in processes:
        process.kill()
        process.wait()


def test_a_worker_killed_in_the_middle_of_a_run_loses_nothing(write, scheduler):
    address, workers = scheduler
    path = write("grid: {seconds: 2}\nseeds: [0, 1, 2]")
    process = start(path, "--scheduler", address)
    marks = path.parent / "marks"
    while not marks.exists() or len(list(marks.iterdir())) < 2:
        time.sleep(0.1)
        assert process.poll() is None
    workers[0].kill()
    said = process.communicate()[0]
    assert process.returncode == 0, said
    assert metrics(path)["seed"].tolist() == [0, 1, 2]
    assert sum(starts(path).values()) == 4  # the killed worker's run, begun again by the other


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


def test_one_worker_with_two_threads_runs_the_same_run_once(write, tmp_path):
    path = write("grid: {seconds: 2}\nseeds: [0]")
    [run] = sweep.load(path).runs()
    with ThreadPoolExecutor() as threads:
        both = list(threads.map(lambda _: run_process.perform(run, tmp_path / "runs", 1, 1, None), range(2)))
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


def test_each_gpu_goes_to_one_worker(write, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    path = write("gpu: true\ngrid: {seconds: 1}\nseeds: [0, 1, 2]")
    runs_dir = path.parent / "runs"
    outcomes = sweep.run_sweep(sweep.load(path), "grid", runs_dir, say=lambda line: None)
    assert {outcome.status for outcome in outcomes.values()} == {"complete"}
    seen = [mark.read_text().split()[2] for mark in (path.parent / "marks").iterdir()]
    assert set(seen) == {"4", "6"}


def test_a_sweep_that_wants_gpus_is_refused_where_there_are_none(write, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    path = write("gpu: true\nseeds: [0]")
    with pytest.raises(UserError, match="none is here"):
        sweep.run_sweep(sweep.load(path), "grid", path.parent / "runs", say=lambda line: None)


def test_no_more_runs_at_a_time_than_gpus(write, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4")
    plan = sweep.load(write("gpu: true\nworkers: 2\nseeds: [0, 1]"))
    with cluster._cluster(plan, 2, None) as local:
        assert len(local.worker_spec) == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(UserError, match="none is here"):
        cluster._cluster(plan, 2, None)


def test_without_sbatch_a_slurm_sweep_is_one_line(write):
    path = write("seeds: [0]\nslurm: {queue: short, memory: 16GB, walltime: '02:00:00'}")
    with pytest.raises(UserError, match="no sbatch is here"):
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
    child = [sys.executable, "-m", "safeerase_lite.runs.run_process"]
    process = subprocess.Popen(child, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdin.write(json.dumps([str(tmp_path / "none.ipynb"), "out.ipynb", {}, None]) + "\n")
    process.stdin.flush()
    assert "no notebook" in process.stdout.readline()
    assert process.wait() == 2
    silent = subprocess.Popen(child, stdin=subprocess.PIPE)
    silent.stdin.close()
    assert silent.wait() != 0
