"""One run of a sweep: its notebook, executed by papermill in a process of its own.

So a run that dies fails alone, has threads and memory to itself, and ends with the sweep that
started it. `perform` starts the process, `python -m safeerase_lite.runs.run_process`: a line of
JSON goes in, one line comes out, and the exit status says how it went.
"""

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safeerase_lite.runs import notebook as notebooks
from safeerase_lite.runs import store
from safeerase_lite.utils import (
    UserError,
    print_any_character,
    release_lock,
    setting_aside,
    stoppable,
    take_lock,
)

RUNS_DIR = "runs_dir"  # the parameter that says where results go: never part of a run's id
COMPLETE, FAILED, LOST = 0, 2, 3  # exit statuses; any other says that the process crashed
GRACE = 60.0  # seconds after its time limit in which a run may end by itself
DASKS_OWN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_TRIM_THRESHOLD")
THREAD_LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class PlannedRun:
    """A run of a sweep, before it starts.

    Attributes:
        id: a hash of the notebook's code and of all its parameters.
        given: the parameters the sweep file states, typed.
        settings: all parameters, those left to the profile as the profile has them.
    """

    id: str
    notebook: Path
    given: dict[str, Any] = field(hash=False)
    settings: dict[str, Any] = field(hash=False)

    @property
    def label(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.given.items())


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        status: complete, failed or missing.
        reason: of a failure, in one line.
        run: the run's id in the ledger; several, if its notebook opened several there.
    """

    id: str
    status: str
    seconds: float = 0.0
    reason: str = ""
    run: str = ""


def executed_path(runs_dir: Path, run_id: str) -> Path:
    """Where the executed notebook of a complete run is."""
    return runs_dir / "notebooks" / f"{run_id}.ipynb"


def completed(runs_dir: Path, run_id: str, seconds: float = 0.0) -> Outcome | None:
    """The outcome of a run whose notebook was executed and whose results are there, undamaged."""
    try:
        opened = notebooks.opened_runs(executed_path(runs_dir, run_id))
        for run in opened:
            store.read_record(runs_dir / run, "*", "complete")
    except UserError:
        return None
    return Outcome(run_id, "complete", seconds, run=" ".join(opened))


# ---- the process that starts it ----


def perform(
    run: PlannedRun, runs_dir: Path, threads: int, retries: int, time_limit: float | None
) -> Outcome:
    """Execute one run in a process of its own, unless it is complete; arguments as in `Sweep`.

    Another sweep that is executing this run is waited for. Nothing a notebook does raises here.
    """
    executed = executed_path(runs_dir, run.id)
    executed.parent.mkdir(parents=True, exist_ok=True)
    lock = executed.with_suffix(".lock")
    with _threads[executed]:
        take_lock(lock, run.id, wait=math.inf)
        begin = time.perf_counter()
        try:
            if outcome := completed(runs_dir, run.id):
                return outcome
            notebooks.remove_partial(executed)
            with setting_aside(executed, runs_dir / "damaged"):
                notebooks.opened_runs(executed)
            for _ in range(retries + 1):
                status, message = _run_process(run, executed, runs_dir, threads, time_limit)
                if status in (COMPLETE, FAILED):
                    break
            seconds = round(time.perf_counter() - begin, 1)
            if status == COMPLETE:
                opened = " ".join(notebooks.opened_runs(executed))
                return Outcome(run.id, "complete", seconds, run=opened)
            reason = message or f"its process ended with {status}"
            return Outcome(run.id, "failed", seconds, reason)
        finally:
            release_lock(lock)


# A lock file belongs to a process; a Dask worker with several threads needs one among them, too.
_threads: dict[Path, threading.Lock] = defaultdict(threading.Lock)


def _run_process(
    run: PlannedRun, executed: Path, runs_dir: Path, threads: int, time_limit: float | None
) -> tuple[int, str]:
    """The process's exit status, and the last line of its output."""
    has_ledger = any(p.name == RUNS_DIR for p in notebooks.parameters(run.notebook))
    values = run.given | ({RUNS_DIR: str(runs_dir)} if has_ledger else {})
    process = subprocess.Popen(
        [sys.executable, "-m", "safeerase_lite.runs.run_process"],
        env=run_environment(threads),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C is for the sweep, which ends its runs itself
    )
    last_resort = threading.Timer((time_limit or math.inf) + GRACE, process.kill)
    if time_limit:
        last_resort.start()
    job = [str(run.notebook), str(executed), values, time_limit]
    process.stdin.write(json.dumps(job) + "\n")
    process.stdin.flush()  # and stays open: its end tells the process that this one ended
    lines = process.stdout.read().strip().splitlines()
    status = process.wait()
    last_resort.cancel()
    return status, lines[-1] if lines else ""


def run_environment(threads: int) -> dict[str, str]:
    """The environment of a run's process: this one's, with its threads limited.

    Dask tells malloc, for its own sake, to return every freed page. That makes a training three
    times as slow, so it is left out.
    """
    environment = {name: value for name, value in os.environ.items() if name not in DASKS_OWN}
    return environment | {"SAFEERASE_HEADLESS": "1"} | dict.fromkeys(THREAD_LIMITS, str(threads))


# ---- the process itself ----


def main() -> int:
    notebook, output, values, time_limit = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    print_any_character()
    try:
        with stoppable():
            notebooks.execute(notebook, output, values, time_limit=time_limit)
    except (UserError, notebooks.NotebookFailed) as error:
        print(error, flush=True)
        return LOST if isinstance(error, notebooks.KernelLost) else FAILED
    except KeyboardInterrupt:  # nobody is left to be told
        return LOST
    except Exception as error:  # a full disk, say: the next attempt may do better
        print(f"{type(error).__name__}: {error}".splitlines()[0], flush=True)
        return LOST
    return COMPLETE


def _end_with_parent() -> None:
    os.read(0, 1)  # nothing more is ever sent: this returns when the parent's end closes
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
