"""A sweep: a grid of runs, stated in a file, each executed once by papermill.

    <runs_dir>/notebooks/<id>.ipynb          an executed notebook: this run is complete
    <runs_dir>/notebooks/<id>.failed.ipynb   one that stopped, with its traceback
    <runs_dir>/sweeps/<file's name>.csv      every run of a sweep and its status (see `table_name`)

A run's id is a hash of the notebook's code and of all its parameters, so what a sweep has completed
no sweep repeats. Results are in the ledger, where the notebook puts them.
"""

import hashlib
import json
import re
import time
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import CancelledError, Executor, Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from safeerase_lite.config import NOT_RECORDED, Config, config
from safeerase_lite.runs import executor as executors
from safeerase_lite.runs import notebook as notebooks
from safeerase_lite.runs.run_process import RUNS_DIR, Outcome, PlannedRun, completed, perform
from safeerase_lite.unlearning.own_methods import load_methods
from safeerase_lite.utils import UserError, atomic_write, check_choice, reading, setting_aside

MODEL = "model_dir"  # the parameter that names the profile's model
METHODS = "methods_file"  # the parameter that names a file with objectives of the user's own
ATTACKS = "attacks"  # the one that names attacks, which are no part of a run
WORKER_DIED = "its worker died again and again; is there memory enough?"


# ---- the file ----


class Sweep(BaseModel):
    """A sweep file.

    Attributes:
        grid: blocks of parameter → value or list of values. A block is the product of its lists;
            the grid is all blocks together.
        seeds: for every block that names no `seed` itself.
        workers: runs at a time on this machine; by default, as many as it carries.
        threads: of each run.
        gpu: each run gets one GPU to itself.
        retries: how often a run is repeated whose kernel was lost; an error in a cell is final.
        time_limit: seconds a run may take.
        slurm: settings of dask-jobqueue's SLURMCluster, a job for every worker.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    notebook: Path
    parameters: dict[str, Any] = {}
    grid: list[dict[str, Any]] = Field([{}], min_length=1)
    seeds: list[int] = []
    workers: int | None = Field(None, ge=1)
    threads: int = Field(1, ge=1)
    gpu: bool = False
    retries: int = Field(1, ge=0)
    time_limit: float | None = Field(None, gt=0, allow_inf_nan=False)
    slurm: dict[str, Any] = {}

    def runs(self) -> list[PlannedRun]:
        """Every run of the grid, once. Raises a UserError for what a run would refuse."""
        declared = notebooks.parameters(self.notebook)
        code = notebooks.code(self.notebook)
        runs, sources = {}, {}
        for given in self._grid():
            typed = notebooks.validate(self.notebook, given, declared)
            if methods := typed.get(METHODS):
                typed[METHODS] = str(Path(methods).expanduser().resolve())
                if typed[METHODS] not in sources:
                    load_methods(methods)
                    sources[typed[METHODS]] = Path(typed[METHODS]).read_text(encoding="utf-8")
            values = {p.name: p.default for p in declared} | typed
            # An empty default (None, "", 0) that nothing overrides means the profile's own value.
            unset = {p.name for p in declared if not p.default and values[p.name] == p.default}
            stated = {name: value for name, value in values.items() if name not in unset}
            settings = values | _settings(stated, code)
            hidden = {*NOT_RECORDED, MODEL, RUNS_DIR, ATTACKS} - {
                "dedupe"
            }  # a run's data record dedupe
            hidden |= {"compute"} - stated.keys()  # the machine that runs it decides
            settings = {name: settings[name] for name in settings if name not in hidden}
            identity = [code, {name: values[name] for name in values if name != RUNS_DIR}]
            if values.get(METHODS):  # another text in the file is another run
                identity[1][METHODS] = sources[values[METHODS]]
            else:  # as if the notebook had no such parameter
                identity[1].pop(METHODS, None)
            text = json.dumps(identity, sort_keys=True, ensure_ascii=False)
            id = hashlib.sha256(text.encode()).hexdigest()[:12]
            runs.setdefault(id, PlannedRun(id, self.notebook, typed, settings))
        return list(runs.values())

    def with_parameters(self, given: dict[str, Any]) -> "Sweep":
        """This sweep, every run with these parameters instead of what its file says."""
        if RUNS_DIR in given:
            raise UserError(f"{RUNS_DIR} is no part of a sweep: say --runs-dir instead")
        return self.model_copy(update={"grid": [block | given for block in self.grid]})

    @property
    def edits_relations(self) -> bool:
        """Whether its runs are edits of a CLIP, which have a report of their own."""
        return any(parameter.name == "unsafe" for parameter in notebooks.parameters(self.notebook))

    def _grid(self) -> Iterator[dict[str, Any]]:
        """The parameters of every run, before anything is checked."""
        for block in self.grid:
            names = ({"seed": self.seeds} if self.seeds else {}) | block
            if empty := [name for name, value in names.items() if value == []]:
                raise UserError(f"grid: {empty[0]} has no value: give one, or leave it out")
            names = {name: names[name] for name in (*block, *names)}  # seeds turn fastest
            lists = [value if isinstance(value, list) else [value] for value in names.values()]
            for values in product(*lists):
                yield self.parameters | dict(zip(names, values, strict=True))


def load(path: Path | str) -> Sweep:
    """A sweep file; the path of its notebook is relative to the file.

    Raises a UserError: no such file, no YAML, a name stated twice, an unknown field or a value of
    another type.
    """
    path = Path(path)
    try:
        content = yaml.load(path.read_bytes(), _EachOnce)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1
        raise UserError(f"{path}, line {line} is not YAML: {error.problem}") from None
    except yaml.YAMLError:  # of its reader
        raise UserError(f"{path} is not YAML: no text in UTF-8") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is no sweep: it needs at least `notebook:` and `grid:`")
    if isinstance(content.get("grid"), dict):
        content["grid"] = [content["grid"]]
    if isinstance(content.get("notebook"), str):
        content["notebook"] = (path.parent / content["notebook"]).resolve()
    for name in content:
        check_choice(str(name), tuple(Sweep.model_fields), f"field of {path}")
    try:
        sweep = Sweep(**content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: {where}: {first['msg']}") from None
    if "seed" in sweep.parameters and sweep.seeds:
        raise UserError(f"{path}: parameters name a seed, and seeds others: leave one of them out")
    if any(RUNS_DIR in names for names in (sweep.parameters, *sweep.grid)):
        raise UserError(f"{path}: {RUNS_DIR} is no part of a sweep: say --runs-dir instead")
    return sweep


class _EachOnce(yaml.SafeLoader):
    """YAML in which a name occurs once in its place; plain YAML silently takes the last."""

    def construct_mapping(self, node, deep=False):
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        for name, (key, _) in zip(names, node.value, strict=True):
            if isinstance(name, Hashable) and names.count(name) > 1:
                raise yaml.MarkedYAMLError(
                    problem=f"{name} is there twice", problem_mark=key.start_mark
                )
        return super().construct_mapping(node, deep)


def _settings(parameters: dict[str, Any], code: str) -> dict[str, Any]:
    """A run's settings as its ledger has them: parameters named like a field of Config are that
    field. Raises a UserError, before any run starts, for what the run itself would refuse."""
    fields = {name: parameters[name] for name in parameters.keys() & Config.model_fields}
    fields["model"] = parameters.get(MODEL)
    profile = fields.pop("profile", None)
    own = {}
    for registry, name in (("OBJECTIVES[", "objective"), ("JUDGES[", "judge")):
        if registry in code and name in fields:  # the notebook may bring its own
            own[name] = fields.pop(name)
    if ATTACKS in parameters and "ATTACKS[" not in code:
        from safeerase_lite.robustness import check_attacks  # brings torch

        check_attacks(parameters[ATTACKS])
    resolved = config(profile or "tiny", **fields)
    return resolved.model_dump() | own if profile else {}


# ---- execution ----


def run_sweep(
    sweep: Sweep,
    name: str,
    runs_dir: Path,
    *,
    workers: int | None = None,
    scheduler: str = "",
    say: Callable[[str], None] = print,
) -> dict[str, Outcome]:
    """Execute every run of a sweep that no sweep has completed.

    Args:
        name: of the table `<runs_dir>/sweeps/<name>.csv`, written anew as every run ends.
        workers: runs at a time on this machine; overrules the file.
        scheduler: the address of a Dask scheduler to use instead of this machine.
        say: called with a line of progress when a run ends.

    Returns:
        An outcome for every run, by its id.

    Raises:
        UserError: a bad grid, or no cluster to run it on.
    """
    sweep.runs()  # refuses a bad grid before anything is written
    sweep = sweep.model_copy(update={"notebook": _copy_notebook(sweep.notebook, runs_dir)})
    runs = sweep.runs()
    outcomes = find_completed(runs_dir, name, runs)
    pending = [run for run in runs if run.id not in outcomes]
    table = write_status(runs_dir, name, runs, outcomes)
    say(f"{len(runs)} runs, {len(outcomes)} of them complete; {table}")

    begin, already, retries = time.perf_counter(), len(outcomes), sweep.retries
    while pending:
        tasks = [(run, runs_dir, sweep.threads, sweep.retries, sweep.time_limit) for run in pending]
        lost = []
        with _executor(sweep, len(pending), workers, scheduler, say) as executor:
            for index, future in executors.as_completed(executor, perform, tasks):
                run, outcome = pending[index], _outcome(pending[index], future)
                if outcome is None and retries:
                    lost.append(run)
                    continue
                outcome = outcome or Outcome(run.id, "failed", reason=WORKER_DIED)
                outcomes[run.id] = outcome
                write_status(runs_dir, name, runs, outcomes)
                seconds = time.perf_counter() - begin
                left = seconds / (len(outcomes) - already) * (len(runs) - len(outcomes))
                say(
                    f"[{len(outcomes):{len(str(len(runs)))}d}/{len(runs)}] {seconds:5.0f} s, about "
                    f"{left:.0f} s left; {run.id} {run.label}: {outcome.status}, "
                    f"{outcome.reason or f'{outcome.seconds:.0f} s'}"
                )
        pending, retries = lost, retries - 1
    return outcomes


def _copy_notebook(notebook: Path, runs_dir: Path) -> Path:
    """A copy of the notebook as it is now: every run of the sweep executes that one, whatever is
    saved meanwhile."""
    text = notebook.read_text(encoding="utf-8")
    name = hashlib.sha256(text.encode()).hexdigest()[:12]
    copy = runs_dir / "sweeps" / "notebooks" / name / notebook.name
    copy.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(copy, text)
    return copy


def _executor(
    sweep: Sweep, runs: int, workers: int | None, scheduler: str, say: Callable[[str], None]
) -> AbstractContextManager[Executor]:
    """Where the runs are executed: at the scheduler, as SLURM jobs, or on this machine."""
    if scheduler:
        return executors.dask_executor(scheduler, gpu=sweep.gpu, log=say)
    count, gpus = workers or sweep.workers, []
    if sweep.gpu and not (sweep.slurm and count):
        gpus = executors.visible_gpus()
        if not gpus:
            raise UserError(
                "each run of this sweep needs a GPU (gpu: true), and there is none here"
            )
        count = min(count or len(gpus), len(gpus))
    count = min(count or executors.local_capacity(sweep.threads), runs)
    say(f"{count} at a time, {sweep.threads} threads each")
    if sweep.slurm:
        return executors.slurm_executor(
            sweep.slurm, jobs=count, threads=sweep.threads, gpu=sweep.gpu
        )
    return executors.gpu_executor(gpus[:count]) if gpus else executors.local_executor(count)


def _outcome(run: PlannedRun, future: Future) -> Outcome | None:
    """How a run ended; None if a worker of this machine died, which ends the others' runs too."""
    try:
        return future.result()
    except BrokenProcessPool:
        return None
    except CancelledError:
        raise UserError("the scheduler went away: start the sweep again, it continues") from None
    except Exception as error:
        killed = type(error).__name__ == "KilledWorker"
        message = f"{type(error).__name__}: {error}".splitlines()[0]
        return Outcome(run.id, "failed", reason=WORKER_DIED if killed else message)


def job_script(sweep: Sweep) -> str:
    """The job script that SLURM would get for each worker."""
    with executors.slurm_cluster(sweep.slurm, threads=sweep.threads, gpu=sweep.gpu) as cluster:
        return cluster.job_script()


# ---- status ----


def table_name(file: Path, given: dict[str, Any]) -> str:
    """The name of a sweep's table: its file's, and what its parameters are replaced by."""
    values = [Path(str(value)).name for value in given.values()]
    return re.sub(r"[^\w.-]+", "_", "-".join([file.stem, *values])) if values else file.stem


def write_status(
    runs_dir: Path, name: str, runs: list[PlannedRun], outcomes: dict[str, Outcome]
) -> Path:
    """Write the table of a sweep: id, status, seconds, reason, run (its id in the ledger) and
    parameters of every run."""
    every = [(run, vars(outcomes.get(run.id) or Outcome(run.id, "missing"))) for run in runs]
    rows = [outcome | run.given | outcome for run, outcome in every]  # its columns come first
    path = runs_dir / "sweeps" / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, pd.DataFrame(rows).to_csv(index=False))
    return path


def find_completed(runs_dir: Path, name: str, runs: list[PlannedRun]) -> dict[str, Outcome]:
    """The runs that were executed before, by whichever sweep."""
    path, seconds = runs_dir / "sweeps" / f"{name}.csv", {}
    with setting_aside(path, runs_dir / "damaged"), reading(path):
        seconds = pd.read_csv(path).set_index("id")["seconds"].astype(float).to_dict()
    outcomes = (completed(runs_dir, run.id, seconds.get(run.id, 0.0)) for run in runs)
    return {outcome.id: outcome for outcome in outcomes if outcome}
