"""Which runs a report stands on: their worlds and rows; what varies, is mixed, is missing.

A *world* is a data set (world seed and cue), a *row* an objective with or without PD in a world,
under its settings. The runs of a row are its seeds. A setting that means nothing for a run, such as
the steps of a model that was not trained, is blank, and agrees with every value.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from safeerase_lite.config import PROFILES, Profile
from safeerase_lite.lessons.demo import DEFAULT_SEED, FRESH_SEED
from safeerase_lite.runs import store as ledger
from safeerase_lite.utils import UserError

UNTRAINED = ("vanilla", "gold")  # those of `experiment`, which would import torch
OBJECTIVES = (*UNTRAINED, "ga", "gd", "kl", "po", "npo")
DECOUPLE = ("none", "pd", "placebo")
WORLD = ["world_seed", "cue"]
CELL = ["objective", "decouple"]
NEVER_SHOWN = {"seed", "splits", "samples", "data_hash", *WORLD, *CELL}
NOT_RECORDED = {"name", "rates", "data_dir", "categories", "checkpoint_every", "judge_consent"}
OF_ASKING = ["profile", "model", "model_hash", "precision", "compute", "judge", "new_tokens"]
OF_ASKING += ["judge_hash", "evaluation_batch"]  # these also mean something for an untrained model
OF_DECOUPLE = ["weights", "decouple_share"]
OF_OBJECTIVE = ["learning_rate", "objective_hash"]  # differ between objectives by nature
ZERO_IS_UNSAID = ("steps", "learning_rate", "decouple_share")  # in a notebook: the profile's
TOLD = ("profile", "precision", "steps", "batch", "learning_rate", "projector", "weights", "judge")
ONE_VERSION = ("safeerase-lite", "torch", "transformers", "peft", "bitsandbytes")


@dataclass(frozen=True)
class Grid:
    """The runs of a ledger.

    runs: a row per complete run, in order of appearance in a report, its id as the index: world
        (its name), world_seed, cue, objective, decouple, seed, the settings, folder, versions, and
        row (the number of its row).
    unusable: the same of failed runs and those that lack answers, with `error`, one line.
    keys: the settings that vary, and so tell rows apart.
    mixed: what should be the same in all runs and is not, in words.
    """

    runs: pd.DataFrame
    unusable: pd.DataFrame
    keys: list[str]
    mixed: list[str]

    @property
    def rows(self) -> pd.DataFrame:
        """Each row once: world, world_seed, cue, objective, decouple and the keys."""
        return self._of_rows(["world", *WORLD, *CELL, *self.keys])

    @property
    def told(self) -> pd.DataFrame:
        """Of each row, the settings that a table is cited with, whether they vary or not."""
        known = [*WORLD, *CELL, *self.keys]
        return self._of_rows([name for name in TOLD if name in self.runs and name not in known])

    def _of_rows(self, columns: list[str]) -> pd.DataFrame:
        return self.runs.drop_duplicates("row").set_index("row")[columns]


def read(
    runs_dir: Path | str, *, split: str = "test", planned: list[dict[str, Any]] | None = None
) -> Grid:
    """The runs under runs_dir whose answers to `split` are there; of those planned, if any are.

    Raises UserError: no folder; no complete run; nothing asked on that split; two runs of one row
    and seed.
    """
    runs = _runs(Path(runs_dir).expanduser())
    if planned is not None:
        wanted = [_is(runs, given) for given in planned]
        runs = runs[pd.concat(wanted, axis=1).any(axis=1)]
        if runs.empty:
            raise UserError(f"{runs_dir} holds no run of this sweep: start the sweep first")
    usable = runs[runs["error"] == ""]
    if usable.empty:
        raise UserError(f"no complete run in {runs_dir}; {runs['error'].iloc[0]}: run it again")
    asked = usable["folder"].map(_splits)
    if not asked.map(lambda found: split in found).any():
        known = sorted(set().union(*asked))
        raise UserError(
            f"no run in {runs_dir} asked split {split!r}: take --split {' or '.join(known)}"
        )
    silent = asked.index[~asked.map(lambda found: split in found)]
    runs.loc[silent, "error"] = f"asked nothing on {split}"

    usable = runs[runs["error"] == ""]
    keys = _keys(usable)
    usable = _ordered(usable, keys)
    usable = usable.drop_duplicates([c for c in usable if c not in ("folder", "versions")])
    row = usable.groupby(["world", *WORLD, *CELL, *keys], sort=False, dropna=False).ngroup()
    usable = usable.assign(row=row)
    _refuse_twins(usable)
    return Grid(usable, runs[runs["error"] != ""], keys, _mixed(usable))


def agrees(values: pd.Series, value: Any) -> pd.Series:
    """Where a setting equals `value`, or is blank on either side."""
    if isinstance(value, list | tuple):
        return values.isna() | values.map(lambda found: found == tuple(value))
    return values.isna() | (values == value) | pd.isna(value)


def missing(expected: list[dict[str, Any]], runs: pd.DataFrame) -> list[dict[str, Any]]:
    """Those of the expected runs that no run of the table is.

    expected: for each run the parameters that are stated; one that is empty, or no column of the
        table, says nothing.
    runs: a row per run, its settings as columns.
    """
    return [given for given in expected if not _is(runs, given).any()]


def _is(runs: pd.DataFrame, given: dict[str, Any]) -> pd.Series:
    """Which runs have these parameters."""
    fits = pd.Series(True, runs.index)
    for name, value in given.items():
        unsaid = value in (None, "") or (name in ZERO_IS_UNSAID and value == 0)
        if name in runs and not unsaid:
            fits &= agrees(runs[name], value)
    return fits


def expected_seeds(grid: Grid) -> list[dict[str, Any]]:
    """Every trained row with every seed that any trained row of its world has."""
    trained = grid.runs[~grid.runs["objective"].isin(UNTRAINED)]
    seeds = trained.groupby("world")["seed"].unique()
    rows = grid.rows[~grid.rows["objective"].isin(UNTRAINED)].to_dict("records")
    return [row | {"seed": int(seed)} for row in rows for seed in sorted(seeds[row["world"]])]


def partner(grid: Grid, row: int, decouple: str) -> int | None:
    """The row that differs from this one in `decouple` alone; None where there is not just one.

    Learning rates are tuned for each, so they need not agree unless that leaves several.
    """
    this, rows = grid.rows.loc[row], grid.rows
    fixed = ["world", "objective", *(key for key in grid.keys if key not in OF_OBJECTIVE)]
    found = rows[rows["decouple"] == decouple]
    for name in fixed:
        found = found[agrees(found[name], this[name])]
    if len(found) > 1:
        for name in set(grid.keys) & set(OF_OBJECTIVE):
            found = found[agrees(found[name], this[name])]
    return int(found.index[0]) if len(found) == 1 else None


def views(grid: Grid, world: str) -> list[tuple[dict[str, Any], list[int]]]:
    """The settings met in a world, each with the rows that agree with them; most rows first."""
    rows = grid.rows[grid.rows["world"] == world]
    trained = rows[~rows["objective"].isin(UNTRAINED)]
    fullest = trained.loc[trained[grid.keys].isna().sum(axis=1).sort_values(kind="stable").index]
    found: list[tuple[dict[str, Any], list[int]]] = []
    for row, settings in zip(fullest.index, fullest[grid.keys].to_dict("records"), strict=True):
        if any(row in rows_of_view for _, rows_of_view in found):
            continue
        fits = pd.Series(True, rows.index)
        for name, value in settings.items():
            fits &= agrees(rows[name], value)
        found.append((settings, list(rows.index[fits])))
    found.sort(key=lambda view: -len(view[1]))
    return found or [({}, list(rows.index))]


# ---- reading ----


def _runs(folder: Path) -> pd.DataFrame:
    """Every run, complete or failed, with its settings, folder, versions and error ("": none)."""
    if not folder.is_dir():
        raise UserError(
            f"{folder} is not a folder: name the ledger, the folder that holds the runs"
        )
    status = ledger.load(folder, allow_mixed=True).runs.set_index("id")["status"]
    folders = [folder / run if how == "complete" else folder / "failed" / run
               for run, how in status.items()]  # fmt: skip
    records = [json.loads((path / "run.json").read_text(encoding="utf-8")) for path in folders]
    parameters = [record["parameters"] for record in records]
    if not any({*CELL, "seed"} <= set(given) for given in parameters):
        raise UserError(f"the runs in {folder} have no objective, decouple and seed: name another")
    runs = _settings(parameters, status.index)
    unlearning = runs[[*CELL, "seed"]].notna().all(axis=1).to_numpy()
    runs = runs.assign(
        folder=folders,
        versions=[record["versions"] for record in records],
        error=[_error(path, record) for path, record in zip(folders, records, strict=True)],
    )[unlearning]
    return runs.assign(world=_world_names(runs))


def _settings(parameters: list[dict[str, Any]], index: pd.Index) -> pd.DataFrame:
    """A column per setting, blank where it means nothing.

    A setting that is younger than a run is taken at its profile's default.
    """
    names = set(Profile.model_fields) - NOT_RECORDED
    said = []
    for given in parameters:
        profile = PROFILES.get(given.get("profile"), PROFILES["tiny"])
        said.append({name: getattr(profile, name) for name in names} | given)
    runs = pd.json_normalize(said, sep="_").set_index(index)
    runs = runs.map(lambda value: tuple(value) if isinstance(value, list) else value).astype(object)
    settings = [name for name in runs if name not in NEVER_SHOWN]
    training = [name for name in settings if name not in OF_ASKING]
    runs.loc[runs["objective"].isin(UNTRAINED), training] = None
    runs.loc[runs["objective"] == "gold", [c for c in ("model", "model_hash") if c in runs]] = None
    runs.loc[runs["decouple"] == "none", [c for c in OF_DECOUPLE if c in runs]] = None
    return runs


def _error(folder: Path, record: dict[str, Any]) -> str:
    if record["status"] == "failed":
        said = str(record["extra"].get("error", "")).splitlines() or [""]
        return said[0] or "failed"
    return "" if (folder / "answers.parquet").exists() else "has no answers.parquet"


def _splits(folder: Path) -> set[str]:
    return set(pd.read_parquet(folder / "answers.parquet", columns=["split"])["split"])


def _world_names(runs: pd.DataFrame) -> list[str]:
    names = {DEFAULT_SEED: "default world", FRESH_SEED: "fresh world"}

    def name(run: Any) -> str:
        if getattr(run, "profile", "tiny") != "tiny" or pd.isna(run.world_seed):
            return f"data {getattr(run, 'data_hash', 'unknown')}"
        shown = names.get(run.world_seed, f"world {run.world_seed}")
        return shown if run.cue == 1 else f"{shown}, cue {run.cue:g}"

    return [name(run) for run in runs.itertuples()]


# ---- rows ----


def _keys(runs: pd.DataFrame) -> list[str]:
    """The settings that vary and are not told by those before them.

    Learning rate and recipe count only where they vary within one objective and one decouple.
    """
    about = {"folder", "versions", "error", "world"}
    settings = [c for c in runs if c not in NEVER_SHOWN | about | set(OF_OBJECTIVE)]
    settings.sort(key=lambda name: (name not in ("profile", "model"), name))
    keys: list[str] = []
    for name in settings:
        if _varies(runs[name], runs[keys]):
            keys.append(name)
    return keys + [
        name
        for name in OF_OBJECTIVE
        if name in runs and _varies(runs[name], runs[["world", *WORLD, *CELL, *keys]])
    ]


def _varies(values: pd.Series, within: pd.DataFrame) -> bool:
    if within.shape[1] == 0:
        return values.nunique() > 1
    by = [within[name] for name in within]
    return bool((values.groupby(by, dropna=False).nunique() > 1).any())


def _ordered(runs: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Worlds as they are named, the visible sign first; objectives as the paper names them."""
    place = {name: index for index, name in enumerate(OBJECTIVES)}
    order = pd.DataFrame(
        {
            "fresh": runs["world_seed"].map({DEFAULT_SEED: 0, FRESH_SEED: 1}).fillna(2),
            "world_seed": runs["world_seed"],
            "cue": -runs["cue"].astype(float),
            "world": runs["world"],
            "objective": runs["objective"].map(place).fillna(len(place)),
            "name": runs["objective"],
            "decouple": runs["decouple"].map(DECOUPLE.index),
            **{f"key {key}": runs[key].fillna("").astype(str) for key in keys},
            "seed": runs["seed"],
        }
    )
    return runs.loc[order.sort_index().sort_values(list(order), kind="stable").index]


def _refuse_twins(runs: pd.DataFrame) -> None:
    twins = runs[runs.duplicated(["row", "seed"], keep=False)]
    if twins.empty:
        return
    first = twins.iloc[0]
    one, other = twins[(twins["row"] == first["row"]) & (twins["seed"] == first["seed"])].index[:2]
    columns = [name for name in runs if name not in ("folder", "versions")]
    differ = [c for c in columns if str(runs.at[one, c]) != str(runs.at[other, c])]
    raise UserError(
        f"runs {one} and {other} are both {first['objective']}, decouple {first['decouple']}, seed "
        f"{first['seed']} in the {first['world']}, and differ in {', '.join(differ)} alone: move "
        "one of them away"
    )


def _mixed(runs: pd.DataFrame) -> list[str]:
    """Versions of the libraries that decide results, and data within a world, if more than one."""
    versions = pd.DataFrame(runs["versions"].tolist(), index=runs.index)
    found = []
    for library in ONE_VERSION:
        found += _several(versions[library], f"versions of {library}")
    if "data_hash" in runs:
        for world, data in runs.groupby("world", sort=False)["data_hash"]:
            found += _several(data, f"data sets in the {world}")
    return found


def _several(values: pd.Series, what: str) -> list[str]:
    counts = values.fillna("unknown").value_counts().sort_index()
    said = ", ".join(f"{value}: {count} runs" for value, count in counts.items())
    return [f"{len(counts)} {what} ({said})"] if len(counts) > 1 else []
