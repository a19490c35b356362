"""The ledger: a run's folder is opened, committed complete, and read back as tables.

    <runs_dir>/<id>/            complete runs
    <runs_dir>/partial/<id>/    being written, or left by a process that died
    <runs_dir>/failed/<id>/     with traceback.txt
    <runs_dir>/damaged/         what was found damaged, and is done again

A folder holds run.json, history.csv, answers.parquet, metrics.csv, adapter/ and, where the run was
attacked since, attacks/ (see `runs.attacks`). It reaches runs_dir by one atomic rename, so there a
run is complete or absent; run.json has the digests of the other
files, so one that is missing or changed since is noticed. A lock file keeps a second process from
writing the same run (a mounted cloud folder may have no locks, see `utils.take_lock`).
"""

import contextlib
import hashlib
import json
import os
import platform
import shutil
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import BaseModel

from safeerase_lite.utils import (
    OPENED,
    Damaged,
    UserError,
    atomic_write,
    digests,
    peak_memory_gb,
    reading,
    release_lock,
    setting_aside,
    take_lock,
    verify,
)

SCHEMA = 2
PROJECT = "safeerase-lite"
DATA_HASH = "data_hash"  # the parameter that says which data a run saw
OWN = ("run.json", "history.csv", "answers.parquet", "metrics.csv", "adapter", "checkpoint")
ATTACKS, TABLE, ATTACK_SCORES = "attacks", "table.csv", "scores.parquet"
LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", PROJECT)


# ---- where runs are stored ----


def session(runs_dir: Path | str | None = None) -> None:
    """Set the ledger that functions use which are given no `runs_dir`, here and in the processes
    that this one starts. None or "" changes nothing."""
    if runs_dir:
        # In the environment, so that worker processes write to the same ledger.
        os.environ["SAFEERASE_RUNS"] = str(Path(runs_dir).expanduser().resolve())


def default_runs_dir() -> Path:
    """The session's ledger ($SAFEERASE_RUNS), else runs/ at this project's root, else runs/ here.

    Not relative to the working folder alone: papermill starts a kernel in the caller's folder and
    JupyterLab in the notebook's, and the ledger would split.
    """
    chosen = os.environ.get("SAFEERASE_RUNS")
    if chosen:
        return Path(chosen).expanduser().resolve()
    here = Path.cwd()
    for folder in (here, *here.parents):
        project = folder / "pyproject.toml"
        if project.is_file() and f'name = "{PROJECT}"'.encode() in project.read_bytes():
            return folder / "runs"
    return here / "runs"


# ---- one run ----


@dataclass
class Run:
    """One run and the folder where it is now. Made by `open_run`.

    Attributes:
        parameters: what determines the result.
        done: complete, so it can be read but not written.
        resumed: a process died over it; its folder, and its checkpoint if any, are still there.
        main: this is the main process of its launch; the others write nothing.
        config: the experiment's settings; None for a run that is no experiment.
    """

    id: str
    parameters: dict[str, Any]
    folder: Path
    runs_dir: Path
    done: bool = False
    resumed: bool = False
    main: bool = True
    config: Any = None
    _started: datetime = field(default_factory=lambda: datetime.now(UTC), repr=False)

    def __repr__(self) -> str:
        state = "complete" if self.done else "resumed" if self.resumed else "open"
        return (
            f"Run({', '.join(filter(None, [self.id, self.config and self.config.label, state]))})"
        )

    @property
    def adapter_dir(self) -> Path:
        return self.folder / "adapter"

    @property
    def checkpoint_dir(self) -> Path:
        """For the training's own use; removed on commit."""
        return self.folder / "checkpoint"

    @property
    def answers(self) -> pd.DataFrame:
        return read_table(self._require("answers.parquet"))

    @property
    def metrics(self) -> pd.DataFrame:
        return read_table(self._require("metrics.csv"))

    @property
    def history(self) -> pd.DataFrame:
        """A row per step; empty for a run without training."""
        path = self.folder / "history.csv"
        return read_table(path) if path.exists() else pd.DataFrame(columns=["step"])

    @property
    def attacks(self) -> pd.DataFrame:
        """The tables of all attacks on this run, see `runs.attacks`; without any, no row."""
        tables = [read_table(path) for path in attack_files(self.folder, TABLE)]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["attack"])

    def write_history(self, rows: Iterable[dict] | pd.DataFrame) -> None:
        """Add rows, each with a `step`. They replace the recorded rows from their first step on.

        So a run resumed from a checkpoint overwrites the steps that it repeats.
        """
        rows = pd.DataFrame(rows)
        if not self.main or rows.empty:
            return
        recorded = self.history
        earlier = recorded[recorded["step"] < rows["step"].min()]
        rows = rows if earlier.empty else pd.concat([earlier, rows])
        atomic_write(self._require_open() / "history.csv", rows.to_csv(index=False))

    def write_answers(self, answers: pd.DataFrame) -> None:
        if self.main:
            answers.to_parquet(self._require_open() / "answers.parquet", index=False)

    def write_metrics(self, metrics: pd.DataFrame) -> None:
        if self.main:
            metrics.to_csv(self._require_open() / "metrics.csv", index=False)

    def commit(self) -> None:
        """Move the run, complete, into runs_dir. Does nothing when done.

        If another process has completed the run meanwhile, its folder stays and this one is
        removed. Raises a UserError if no metrics were written.
        """
        if self.done or not self.main:
            return
        self._require("metrics.csv")
        shutil.rmtree(self.checkpoint_dir, ignore_errors=True)
        self._write_record("complete")
        complete = self.runs_dir / self.id
        try:
            os.rename(self.folder, complete)
        except OSError:  # something is there already
            self._set_damage_aside()
            if complete.exists():
                shutil.rmtree(self.folder)
            else:
                os.rename(self.folder, complete)
        _sync(self.runs_dir)
        shutil.rmtree(self.runs_dir / "failed" / self.id, ignore_errors=True)
        self.folder, self.done = complete, True
        release_lock(self._lock)

    def fail(self, error: BaseException) -> None:
        """Move the run into failed/, with the traceback of `error`, over an earlier failure.

        Does nothing for a run that is done (an error after the commit is not the run's) or that
        has failed already.
        """
        if not self.main or self.folder != self._partial:
            return
        traceback_text = "".join(traceback.format_exception(error))
        (self.folder / "traceback.txt").write_text(traceback_text, encoding="utf-8")
        self._write_record("failed", error=f"{type(error).__name__}: {error}")
        failed = self.runs_dir / "failed" / self.id
        shutil.rmtree(failed, ignore_errors=True)
        failed.parent.mkdir(exist_ok=True)
        self.folder = self.folder.rename(failed)
        release_lock(self._lock)

    @property
    def _partial(self) -> Path:
        """The folder while the run is written."""
        return self.runs_dir / "partial" / self.id

    @property
    def _lock(self) -> Path:
        return self._partial.with_suffix(".lock")

    def _read_complete(self) -> None:
        """Raise Damaged unless the ledger holds the run, complete and as it was written."""
        read_record(self.runs_dir / self.id, "*", "complete")

    def _set_damage_aside(self) -> None:
        """Of a complete run all, so that it is done again; of one that a dead process left, what
        the next process would read or could not overwrite. For who has the lock."""
        aside = self.runs_dir / "damaged"
        with setting_aside(self.runs_dir / self.id, aside):
            self._read_complete()
        with setting_aside(self._partial, aside), reading(self._partial):
            if self._partial.is_file():
                raise ValueError
        for path in self._partial.glob("*"):
            with setting_aside(path, aside / self.id), reading(path):
                if path.name in OWN and path.is_dir() == bool(path.suffix):
                    raise ValueError
                if path.name == "run.json":
                    read_record(path.parent)
                if path.name == "history.csv":
                    self.history["step"].astype(int)

    def _write_record(self, status: str, **extra: str) -> None:
        record = {
            "schema": SCHEMA,
            "id": self.id,
            "parameters": self.parameters,
            "status": status,
            "started": self._started.isoformat(timespec="seconds"),
            "seconds": round((datetime.now(UTC) - self._started).total_seconds(), 3),
            "resumed": self.resumed,  # then started and seconds are those of the last process
            "peak_memory_mb": round(peak_memory_gb() * 1024, 1),
            "versions": library_versions(),
            "extra": extra,
            "files": digests(self.folder) if status == "complete" else {},
        }
        record["files"].pop("run.json", None)
        text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
        atomic_write(self.folder / "run.json", text)

    def _require_open(self) -> Path:
        if self.folder != self._partial:
            raise UserError(
                f"run {self.id} is closed in {self.folder}: open it again, or, to repeat a "
                "complete run, remove that folder first"
            )
        return self.folder

    def _require(self, name: str) -> Path:
        path = self.folder / name
        if not path.exists():
            raise UserError(f"run {self.id} has no {name} in {self.folder}: write it first")
        return path


def open_run(runs_dir: Path | str, parameters: dict[str, Any], *, wait: float = 3.0) -> Run:
    """The run of these parameters: loaded when complete, else opened for writing.

    What is not as it was written is moved to damaged/, and done again. What a dead process left in
    partial/ is resumed. The same process may open a run twice, as when a notebook's cell is run
    again.

    Args:
        parameters: everything that determines the result, as JSON values. The id is the first 12
            hex digits of the sha256 of their canonical JSON.
        wait: seconds to wait for another process that has the run open. A killed notebook's kernel
            goes on for a second or two.

    Raises:
        UserError: another process still has the run open, the parameters are not JSON values, or
            the ledger cannot be read or written.
    """
    runs_dir = Path(runs_dir).expanduser().resolve()
    try:
        run_id = _run_id(parameters)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"run parameters must be JSON values (text, numbers, lists, dicts): {error}"
        ) from error
    partial, complete = runs_dir / "partial" / run_id, runs_dir / run_id
    run = Run(run_id, json.loads(json.dumps(parameters, sort_keys=True)), partial, runs_dir)
    if opened_file := os.environ.get(OPENED):
        with open(opened_file, "a", encoding="utf-8") as file:
            file.write(f"{complete}\n")

    try:
        run._read_complete()
    except Damaged:  # or absent
        try:
            partial.parent.mkdir(parents=True, exist_ok=True)
            take_lock(run._lock, run_id, wait)
            run._set_damage_aside()
        except OSError as error:
            reason = ": ".join(str(part) for part in (error.filename, error.strerror) if part)
            raise UserError(f"runs cannot be stored in {runs_dir}: {reason}") from None
    if complete.exists():  # also when completed while we waited for the lock
        release_lock(run._lock)
        run.folder, run.done = complete, True
        return run
    run.resumed = partial.exists()
    partial.mkdir(exist_ok=True)
    run._write_record("partial")
    return run


def _run_id(parameters: dict[str, Any]) -> str:
    canonical = json.dumps(
        parameters, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


class _Record(BaseModel):
    """What others read of run.json. Older ones have no `files`, which are the digests."""

    id: str
    parameters: dict[str, Any]
    status: Literal["partial", "complete", "failed"]
    started: str
    seconds: float
    peak_memory_mb: float
    versions: dict[str, str | None]
    extra: dict[str, str]
    files: dict[str, str] = {}


def read_record(folder: Path, files: str = "", status: str = "") -> dict[str, Any]:
    """A run's run.json. Of a complete run the files that match the pattern `files` are verified.

    status: that of the runs in this place, which are named by their ids; a complete one has
        metrics. "": any.

    Raises:
        Damaged: something of this is missing, or is not what was written.
        UserError: the run has another schema.
    """
    path, remedy = folder / "run.json", f"move {folder} away and run it again"
    with reading(path, remedy):
        record = json.loads(path.read_bytes())
        if record["schema"] != SCHEMA:
            raise UserError(
                f"{path} has schema {record['schema']}, this version reads {SCHEMA}: use the "
                f"version that wrote it, or move {folder} away"
            )
        checked = _Record.model_validate(record)
        if _run_id(checked.parameters) != checked.id:
            raise ValueError
        if status and (checked.id, checked.status) != (folder.name, status):
            raise ValueError
    verify(folder, {n: d for n, d in checked.files.items() if fnmatch(n, files)}, remedy)
    if status == "complete":  # older records and torn ones do not list it
        with reading(folder / "metrics.csv", remedy):
            (folder / "metrics.csv").open("rb").close()
    return record


def read_table(path: Path, **options: Any) -> pd.DataFrame:
    """A table of a ledger; options of pandas' reader. Raises Damaged where it cannot be read."""
    with reading(path, f"move {path.parent} away and run it again"):
        read = pd.read_parquet if path.suffix == ".parquet" else pd.read_csv
        return read(path, **options)


def _sync(folder: Path) -> None:
    """Make a rename durable. A mounted cloud folder and Windows cannot, and need not."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def library_versions() -> dict[str, str | None]:
    return {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}


def version(library: str) -> str | None:
    """The installed version, or None."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(library)


# ---- many runs ----


@dataclass(frozen=True)
class Ledger:
    """Tidy tables. A parameter named like a column of the table is called <name>_parameter.

    Attributes:
        runs: a row per complete or failed run: id, status, started, seconds, peak_memory_mb and
            its parameters, nested ones flattened with "_"; of a failed one the error.
        metrics, history: the rows of every complete run, with its id and parameters.
        attacks: the same of the runs that were attacked; see `runs.attacks`.
    """

    runs: pd.DataFrame
    metrics: pd.DataFrame
    history: pd.DataFrame
    attacks: pd.DataFrame


def load(runs_dir: Path | str, *, allow_mixed: bool = False) -> Ledger:
    """Every run under runs_dir; partial ones are left out.

    Raises:
        UserError: there is no run, a run is damaged or not in its place, a run has another schema,
            or, unless allow_mixed, complete runs saw different data (parameter `data_hash`).
    """
    runs_dir = Path(runs_dir).expanduser()
    complete = run_folders(runs_dir)
    completed = {folder.name for folder in complete}
    failed = [path for path in run_folders(runs_dir / "failed") if path.name not in completed]
    records = [read_record(folder, "*.csv", "complete") for folder in complete]
    records += [read_record(folder, status="failed") for folder in failed]
    if not records:
        raise UserError(f"no run in {runs_dir}: run a notebook first, or name another folder")

    runs = pd.DataFrame(records)[["id", "status", "started", "seconds", "peak_memory_mb"]]
    settings = [record["extra"] | record["parameters"] for record in records]
    settings = pd.json_normalize(settings, sep="_").set_index(runs["id"])
    if not allow_mixed and DATA_HASH in settings:
        hashes = settings[DATA_HASH].iloc[: len(complete)].fillna("none").astype(str)
        if hashes.nunique() > 1:
            counts = ", ".join(f"{h}: {count} runs" for h, count in hashes.value_counts().items())
            raise UserError(
                f"these runs saw different data ({counts}): store them in separate folders, or "
                "load with allow_mixed=True"
            )

    names = ("metrics.csv", "history.csv", f"{ATTACKS}/[!.]*/{TABLE}")
    tables = [runs, *(_stack(complete, name) for name in names)]
    for place, table in enumerate(tables):
        clashes = {name: f"{name}_parameter" for name in settings if name in table}
        tables[place] = table.join(settings.rename(columns=clashes), on="id")
    return Ledger(*tables)


def run_folders(folder: Path) -> list[Path]:
    """The runs in a folder, by their names: one that lost its run.json is among them."""
    return sorted(path for path in folder.glob("[0-9a-f]" * 12) if path.is_dir())


def attack_files(folder: Path, name: str) -> list[Path]:
    """That file of every attack on the run in a folder."""
    return sorted(folder.glob(f"{ATTACKS}/[!.]*/{name}"))


def _stack(folders: list[Path], pattern: str) -> pd.DataFrame:
    """One table from every folder's files of that pattern, after a column with the run's id."""
    tables = [
        read_table(path).assign(id=folder.name)
        for folder in folders
        for path in sorted(folder.glob(pattern))
    ]
    if not tables:
        return pd.DataFrame(columns=["id"])
    table = pd.concat(tables, ignore_index=True)
    return table[["id", *table.columns.drop("id")]]


def shipped_table(name: str = "lessons", file: str = "metrics.csv") -> pd.DataFrame:
    """Runs of the tiny world that ship with the package: a row per metric, with its settings.

    `.attrs["about"]` says how they were made.

    Args:
        name: "lessons", one seed of many settings (objective, decouple, weights, projector, cue);
            "sweeps", many seeds of the paper's table in several worlds (world_seed); or those of
            one lesson, "cue", "inside", "robustness" and "sequential", with columns of their own.
    """
    folder = Path(__file__).parents[1] / "tinyworld" / "assets" / name
    table = pd.read_csv(folder / file)
    table.attrs["about"] = (folder / "about.txt").read_text(encoding="utf-8").strip()
    return table
