"""A sweep over a notebook that takes a fifth of a second, or has a mishap; started as a process."""

import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

from safeerase_lite.runs import store

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


def write_sweep(folder: Path, text: str) -> Path:
    """Write the notebook, and a sweep file over it."""
    parameters = new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
    cells = [parameters, *map(new_code_cell, (RUN, MISHAP, COMMIT))]
    nbformat.write(new_notebook(cells=cells), folder / "small.ipynb")
    path = folder / "grid.yaml"
    path.write_text(f"notebook: small.ipynb\n{text}\n", encoding="utf-8")
    return path


def command(path, *more):
    runs_dir = ["--runs-dir", str(path.parent / "runs")]
    return [sys.executable, "-m", "safeerase_lite", "sweep", str(path), *runs_dir, *more]


def start(path, *more):
    """A sweep in a process of its own."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    heeds = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a background job would not
    return subprocess.Popen(command(path, *more), start_new_session=True, preexec_fn=heeds, **pipes)


def metrics(path):
    table = store.load(path.parent / "runs").metrics
    return table.sort_values("seed")[["seed", "metric", "value"]].reset_index(drop=True)


def wait_for_runs(path, count, process):
    """Wait until so many runs of a sweep have begun."""
    marks = path.parent / "marks"
    while not marks.exists() or len(list(marks.iterdir())) < count:
        time.sleep(0.1)
        assert process.poll() is None


def starts(path):
    """seed → how often its run was begun."""
    return {
        int(mark.name): len(mark.read_text().splitlines())
        for mark in (path.parent / "marks").iterdir()
    }
