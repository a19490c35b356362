"""Where a sweep runs: a Dask cluster, a papermill process for every run.

This machine by default; a scheduler that is running already; or a SLURM job for every worker. A
worker elsewhere needs this package and the same folders (a shared file system).
"""

import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safeerase_lite.runs import notebook as notebooks
from safeerase_lite.runs.child import FINAL
from safeerase_lite.runs.sweep import (
    LEDGER,
    Outcome,
    PlannedRun,
    Sweep,
    completed,
    executed,
    found,
    record,
)
from safeerase_lite.utils import UserError, atomic_write, release_lock, take_lock

RUN_GB = 1.5  # memory set aside for each run on this machine; a tiny one holds 1.2
ANSWERS_WITHIN = 10.0  # seconds that a running scheduler may take
GRACE = 60.0  # seconds after its time limit in which a run may end by itself
QUIET = {
    "distributed.scheduler.worker-saturation": 1.0,  # no run waits for a busy worker
    "distributed.worker.profile.enabled": False,  # nothing to profile in a worker that waits
    "distributed.admin.system-monitor.interval": "10s",
}
OF_DASK = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_TRIM_THRESHOLD")
LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def run_sweep(
    sweep: Sweep,
    name: str,
    runs_dir: Path,
    *,
    workers: int | None = None,
    scheduler: str = "",
    say: Callable[[str], None] = print,
) -> dict[str, Outcome]:
    """Execute every run of a sweep that no sweep has completed; an outcome for every run, by id.

    Args:
        name: of the table `<runs_dir>/sweeps/<name>.csv`, written anew as every run ends.
        workers: runs at a time on this machine; overrules the file.
        scheduler: the address of a Dask scheduler to use instead of this machine.

    Raises:
        UserError: a bad grid, or no cluster to run it on.
    """
    sweep.runs()  # what is refused is refused before anything is written
    sweep = sweep.model_copy(update={"notebook": _copied(sweep.notebook, runs_dir)})
    runs = sweep.runs()
    known = found(runs_dir, name, runs)
    waiting = [run for run in runs if run.id not in known]
    table = record(runs_dir, name, runs, known)
    say(f"{len(runs)} runs, {len(known)} of them complete; {table}")
    if not waiting:
        return known
    begin = time.perf_counter()
    for done, outcome in enumerate(_outcomes(sweep, waiting, runs_dir, workers, scheduler, say), 1):
        known[outcome.id] = outcome
        record(runs_dir, name, runs, known)
        spent = time.perf_counter() - begin
        left = spent / done * (len(waiting) - done)
        label = next(run.label for run in waiting if run.id == outcome.id)
        how = outcome.reason or f"{outcome.seconds:.0f} s"
        say(
            f"[{len(known):{len(str(len(runs)))}d}/{len(runs)}] {spent:5.0f} s, about {left:.0f} s "
            f"left; {outcome.id} {label}: {outcome.status}, {how}"
        )
    return known


def _copied(notebook: Path, runs_dir: Path) -> Path:
    """A copy of the notebook as it is now: every run of the sweep executes that one, whatever is
    saved meanwhile."""
    text = notebook.read_text(encoding="utf-8")
    name = hashlib.sha256(text.encode()).hexdigest()[:12]
    copy = runs_dir / "sweeps" / "notebooks" / name / notebook.name
    copy.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(copy, text)
    return copy


def _outcomes(sweep, waiting, runs_dir, workers, scheduler, say) -> Iterator[Outcome]:
    """Each run's outcome, as it ends."""
    as_completed = _distributed().as_completed
    about = {"threads": sweep.threads, "retries": sweep.retries, "time_limit": sweep.time_limit}
    resources = {"GPU": 1} if sweep.gpu else {}
    with _client(sweep, len(waiting), workers, scheduler, say) as client:
        running = {
            client.submit(perform, run, runs_dir, **about, pure=False, resources=resources): run
            for run in waiting
        }
        for future in as_completed(running):
            run = running[future]
            if future.status == "finished":
                yield future.result()
            elif future.status == "error":
                yield Outcome(run.id, "failed", reason=_in_one_line(future.exception()))
            else:
                raise UserError("the scheduler went away: start the sweep again, it continues")


def _in_one_line(error: BaseException) -> str:
    if type(error).__name__ == "KilledWorker":
        return "its worker died again and again; is there memory enough?"
    return f"{type(error).__name__}: {error}".splitlines()[0]


# ---- one run, on a worker ----


def perform(
    run: PlannedRun,
    runs_dir: Path,
    *,
    threads: int = 1,
    retries: int = 1,
    time_limit: float | None = None,
) -> Outcome:
    """Execute one run in a process of its own, unless it is complete. Never raises for what a
    notebook does. Another sweep that is at this run is waited for."""
    target = executed(runs_dir, run.id)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _turns[target]:
        return _perform(run, runs_dir, target, threads, retries, time_limit)


_turns: dict[Path, threading.Lock] = defaultdict(threading.Lock)  # the file lock is a process's


def _perform(run, runs_dir, target, threads, retries, time_limit) -> Outcome:
    lock = target.with_suffix(".lock")
    take_lock(lock, run.id, wait=math.inf)
    begin = time.perf_counter()
    try:
        if there := completed(runs_dir, run.id):
            return there
        notebooks.sweep_up(target)
        for _ in range(retries + 1):
            status, said = _papermill(run, target, runs_dir, threads, time_limit)
            if status in FINAL:
                break
        seconds = round(time.perf_counter() - begin, 1)
        if status == 0:
            opened = " ".join(notebooks.opened(target))
            return Outcome(run.id, "complete", seconds, run=opened)
        return Outcome(run.id, "failed", seconds, said or f"its process ended with {status}")
    finally:
        release_lock(lock)


def _papermill(
    run: PlannedRun, target: Path, runs_dir: Path, threads: int, time_limit: float | None
):
    """The process's exit status, and what it said in one line."""
    given = run.given | ({LEDGER: str(runs_dir)} if _keeps_a_ledger(run.notebook) else {})
    job = [str(run.notebook), str(target), given, time_limit]
    process = subprocess.Popen(
        [sys.executable, "-m", "safeerase_lite.runs.child"],
        env=_environment(threads),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for the sweep, which ends its runs itself
    )
    last_resort = threading.Timer((time_limit or math.inf) + GRACE, process.kill)
    if time_limit:
        last_resort.start()
    process.stdin.write(json.dumps(job) + "\n")
    process.stdin.flush()
    said = process.stdout.read().strip().splitlines()
    status = process.wait()
    last_resort.cancel()
    return status, said[-1] if said else ""


def _environment(threads: int) -> dict[str, str]:
    """This process's, less what Dask tells malloc for itself: to hand every freed page back, which
    makes a training three times as slow."""
    mine = {name: value for name, value in os.environ.items() if name not in OF_DASK}
    return mine | {"SAFEERASE_HEADLESS": "1"} | dict.fromkeys(LIMITS, str(threads))


def _keeps_a_ledger(notebook: Path) -> bool:
    return any(parameter.name == LEDGER for parameter in notebooks.parameters(notebook))


# ---- the cluster ----


def size(sweep: Sweep) -> int:
    """How many runs this machine carries at a time.

    Raises:
        UserError: the sweep wants a GPU and there is none.
    """
    if sweep.gpu:
        count = len(_gpus())
        if not count:
            raise UserError("this sweep wants a GPU for each run (gpu: true) and none is here")
        return count
    import psutil

    by_memory = psutil.virtual_memory().available / 1024**3 // RUN_GB
    return max(1, min(len(os.sched_getaffinity(0)) // sweep.threads, int(by_memory)))


def job_script(sweep: Sweep) -> str:
    """What would be handed to SLURM for each worker."""
    with _slurm(sweep) as cluster:
        return cluster.job_script()


@contextmanager
def _client(sweep: Sweep, runs: int, workers: int | None, scheduler: str, say) -> Iterator[Any]:
    Client = _distributed().Client
    import dask

    if scheduler:
        try:
            client = Client(scheduler, timeout=ANSWERS_WITHIN)
        except (OSError, ValueError) as error:
            raise UserError(f"no Dask scheduler answers at {scheduler}: {error}") from None
        with client:
            there = len(client.scheduler_info()["workers"])
            say(f"{there} workers at {scheduler}" + ("" if there else ": waiting for the first"))
            yield client
        return
    with (
        dask.config.set(QUIET),
        _cluster(sweep, runs, workers) as cluster,
        Client(cluster) as client,
    ):
        say(f"{len(cluster.worker_spec)} at a time, {sweep.threads} threads each")
        yield client


def _cluster(sweep: Sweep, runs: int, workers: int | None):
    count = min(workers or sweep.workers or size(sweep), runs)
    if sweep.slurm:
        if not shutil.which("sbatch"):
            raise UserError(
                "this sweep wants SLURM and no sbatch is here: start it on a login node"
            )
        cluster = _slurm(sweep)
        cluster.scale(jobs=count)
        return cluster
    if sweep.gpu:
        count = min(count, size(sweep))
    cluster = _local()(
        n_workers=0,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address=":0",
        memory_limit=0,  # a run's memory is its own process's, which Dask does not see
        silence_logs="CRITICAL",
        resources={"GPU": 1} if sweep.gpu else {},
    )
    cluster.gpus = _gpus() if sweep.gpu else []
    cluster.scale(count)
    return cluster


def _local() -> type:
    class OneGPUEach(_distributed().LocalCluster):
        """A local cluster whose workers see one GPU each, where it is given any."""

        gpus: list[str] = []

        def new_worker_spec(self):
            [(number, worker)] = super().new_worker_spec().items()
            if self.gpus:
                device = self.gpus[number % len(self.gpus)]
                options = worker["options"] | {"env": {"CUDA_VISIBLE_DEVICES": device}}
                worker = worker | {"options": options}
            return {number: worker}

    return OneGPUEach


def _gpus() -> list[str]:
    """The devices this process may use, by the names CUDA_VISIBLE_DEVICES has for them."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [device for device in chosen.split(",") if device]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def _slurm(sweep: Sweep):
    _distributed()
    from dask_jobqueue import SLURMCluster

    extra = ["--resources", "GPU=1"] if sweep.gpu else []
    of_a_job = {"processes": 1, "cores": 1, "job_cpu": sweep.threads}  # one run at a time
    settings = of_a_job | {"worker_extra_args": extra} | sweep.slurm
    try:
        return SLURMCluster(**settings, nanny=True)
    except (TypeError, ValueError) as error:
        raise UserError(f"slurm: {error}") from None


def _distributed():
    try:
        import distributed
    except ImportError:
        raise UserError(
            "a sweep needs Dask: pip install 'safeerase-lite[sweep]' (or dask distributed "
            "dask-jobqueue)"
        ) from None
    return distributed
