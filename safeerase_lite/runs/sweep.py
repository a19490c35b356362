"""A sweep: a grid of runs, stated in a file, each executed once by papermill, on Dask.

    <runs_dir>/notebooks/<id>.ipynb          an executed notebook: this run is complete
    <runs_dir>/notebooks/<id>.failed.ipynb   one that stopped, with its traceback
    <runs_dir>/sweeps/<file's name>.csv      every run of a sweep and how it stands

A run's id is a hash of the notebook's code and of all its parameters, so what a sweep has completed
no sweep repeats. Results are in the ledger, where the notebook puts them.
"""

import hashlib
import json
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from safeerase_lite.config import Decouple, Profile, WeightPreset, check_choice, profile
from safeerase_lite.evaluation import judges
from safeerase_lite.runs import notebook as notebooks
from safeerase_lite.utils import UserError, atomic_write

LEDGER = "runs_dir"  # the parameter that says where results go: never part of a run's id
MODEL = "model_dir"  # the parameter that names the profile's model
# What a ledger does not record as it is stated: hashes stand for the data, their parts too.
UNTOLD = ("rates", "data_dir", "categories", "checkpoint_every", "judge_consent", MODEL, LEDGER)
CHOICES = {"decouple": Decouple, "weights": WeightPreset}


# ---- what the file says ----


class Sweep(BaseModel):
    """A sweep file.

    grid: blocks of parameter → value or list of values; a block is the product of its lists, the
        grid all blocks together. seeds: for every block that names no `seed` itself.
    workers: runs at a time on this machine; none stated, as many as it carries.
    threads: of each run.  gpu: each run gets one GPU to itself.
    retries: how often a run is repeated whose kernel was lost; an error in a cell is final.
    time_limit: seconds a run may take.  slurm: settings of dask-jobqueue's SLURMCluster, a job for
        every worker.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

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

    def runs(self) -> list["PlannedRun"]:
        """Every run of the grid, once.

        Raises:
            UserError: a parameter the notebook does not have, a value of another type, an unknown
                name, or what looks like a key.
        """
        declared = notebooks.parameters(self.notebook)
        code = notebooks.code(self.notebook)
        found = {}
        for given in self._grid():
            typed = notebooks.checked(self.notebook, given, declared)
            everything = {p.name: p.default for p in declared} | typed
            empty = {p.name for p in declared if not p.default and not everything[p.name]}
            said = {name: value for name, value in everything.items() if name not in empty}
            _check_names(said, code)
            settings = everything | _fields(said)
            settings = {name: settings[name] for name in settings if name not in UNTOLD}
            run = PlannedRun(_id(code, everything), self.notebook, typed, settings)
            found.setdefault(run.id, run)
        return list(found.values())

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


@dataclass(frozen=True)
class PlannedRun:
    """A run to be: its id, its notebook, the parameters the file states, typed, and all of them,
    those left to the profile as the profile has them."""

    id: str
    notebook: Path
    given: dict[str, Any] = field(hash=False)
    settings: dict[str, Any] = field(hash=False)

    @property
    def label(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.given.items())


def load(path: Path | str) -> Sweep:
    """A sweep file; its notebook is looked for from the file's own folder.

    Raises:
        UserError: no such file, no YAML, a name stated twice, an unknown field or a value of
            another type.
    """
    path = Path(path)
    try:
        said = yaml.load(path.read_text(encoding="utf-8"), _EachOnce)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not YAML: no text in UTF-8") from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        reason = getattr(error, "problem", None) or "not text"
        raise UserError(f"{path}{line} is not YAML: {reason}") from None
    if not isinstance(said, dict):
        raise UserError(f"{path} is no sweep: it needs at least `notebook:` and `grid:`")
    if isinstance(said.get("grid"), dict):
        said["grid"] = [said["grid"]]
    if isinstance(said.get("notebook"), str):
        said["notebook"] = (path.parent / said["notebook"]).resolve()
    for name in said:
        check_choice(str(name), tuple(Sweep.model_fields), f"field of {path}")
    try:
        found = Sweep(**said)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: {where}: {first['msg']}") from None
    if "seed" in found.parameters and found.seeds:
        raise UserError(f"{path}: parameters name a seed, and seeds others: leave one of them out")
    if any(LEDGER in names for names in (found.parameters, *found.grid)):
        raise UserError(f"{path}: {LEDGER} is no part of a sweep: say --runs-dir when you start it")
    return found


class _EachOnce(yaml.SafeLoader):
    """YAML in which a name stands once in its place; plain YAML takes the last and says nothing."""

    def construct_mapping(self, node, deep=False):
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        for name, (key, _) in zip(names, node.value, strict=True):
            if isinstance(name, Hashable) and names.count(name) > 1:
                raise yaml.MarkedYAMLError(
                    problem=f"{name} stands there twice", problem_mark=key.start_mark
                )
        return super().construct_mapping(node, deep)


def _check_names(parameters: dict[str, Any], code: str) -> None:
    """Refuse what a run would refuse, before any starts. A notebook may bring its own names."""
    if parameters.get("profile"):
        _profile(parameters)
    for name, choices in CHOICES.items():
        if parameters.get(name):
            check_choice(parameters[name], choices, name)
    if parameters.get("judge") and "JUDGES[" not in code:
        judges.parse_judge_name(parameters["judge"])
    objective = parameters.get("objective")
    if objective is None or "OBJECTIVES[" in code:
        return
    from safeerase_lite.runs.experiment import UNTRAINED
    from safeerase_lite.unlearning.objectives import OBJECTIVES

    check_choice(objective, (*UNTRAINED, *OBJECTIVES), "objective")
    if objective in UNTRAINED and parameters.get("decouple", "none") != "none":
        raise UserError(f"{objective} is not unlearned: give it decouple none")


def _fields(said: dict[str, Any]) -> dict[str, Any]:
    """The profile's part of a run's settings, as a ledger has it."""
    if not said.get("profile"):
        return {}
    numbers = _profile(said)
    rate = numbers.rate(said.get("objective", ""), said.get("decouple", "none"))
    return numbers.model_dump(exclude={"name"}) | {"learning_rate": rate}


def _profile(parameters: dict[str, Any]) -> Profile:
    """A parameter named like a field of the profile is that field.

    Raises UserError as `profile` does.
    """
    fields = {name: parameters[name] for name in parameters.keys() & Profile.model_fields}
    if MODEL in parameters:
        fields["model"] = parameters[MODEL]
    return profile(parameters["profile"], **fields)


def _id(code: str, parameters: dict[str, Any]) -> str:
    kept = {name: value for name, value in parameters.items() if name != LEDGER}
    text = json.dumps([code, kept], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


# ---- how it stands ----


@dataclass(frozen=True)
class Outcome:
    """What came of a run: complete, or failed with its reason in one line. run: its id in the
    ledger, or the ids, if its notebook opened several there."""

    id: str
    status: str
    seconds: float = 0.0
    reason: str = ""
    run: str = ""


def executed(runs_dir: Path, run_id: str) -> Path:
    """Where a complete run's notebook is."""
    return runs_dir / "notebooks" / f"{run_id}.ipynb"


def completed(runs_dir: Path, run_id: str, seconds: float = 0.0) -> Outcome | None:
    """The outcome of a run whose notebook was executed and whose results are still there."""
    notebook = executed(runs_dir, run_id)
    opened = notebooks.opened(notebook) if notebook.exists() else None
    if opened is None or not all((runs_dir / run / "run.json").exists() for run in opened):
        return None
    return Outcome(run_id, "complete", seconds, run=" ".join(opened))


def record(runs_dir: Path, name: str, runs: list[PlannedRun], known: dict[str, Outcome]) -> Path:
    """Write how every run of a sweep stands: id, status, seconds, reason, run (its id in the
    ledger) and its parameters."""
    rows = []
    for run in runs:
        state = known.get(run.id) or Outcome(run.id, "missing")
        rows.append(vars(state) | run.given | vars(state))
    path = runs_dir / "sweeps" / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, pd.DataFrame(rows).to_csv(index=False))
    return path


def found(runs_dir: Path, name: str, runs: list[PlannedRun]) -> dict[str, Outcome]:
    """The runs that were executed before, by whichever sweep."""
    path = runs_dir / "sweeps" / f"{name}.csv"
    seconds = pd.read_csv(path).set_index("id")["seconds"].to_dict() if path.exists() else {}
    outcomes = (completed(runs_dir, run.id, seconds.get(run.id, 0.0)) for run in runs)
    return {outcome.id: outcome for outcome in outcomes if outcome}
