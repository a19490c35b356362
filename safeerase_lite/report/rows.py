"""Which runs a report is about: their worlds and rows; what varies, is mixed, is missing.

A *world* is a data set (world seed and cue), a *row* an objective with or without PD in a world,
under its settings. The runs of a row are its seeds. A setting that means nothing for a run, such as
the steps of a model that was not trained, is blank, and agrees with every value.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from safeerase_lite.config import NOT_RECORDED, PROFILES
from safeerase_lite.evaluation.metrics import chosen_split
from safeerase_lite.runs import store
from safeerase_lite.tinyworld import DEFAULT_SEED, FRESH_SEED
from safeerase_lite.unlearning.objectives import UNTRAINED, label_of
from safeerase_lite.utils import Damaged, UserError

from .texts import TRAININGS, in_display_order

WORLD = ["world_seed", "cue"]
MODEL = ["objective", "decouple"]
NO_KEYS = {"seed", "splits", "samples", "data_hash", *WORLD, *MODEL}  # never a column of a table
OF_EVALUATION = [
    "profile",
    "model",
    "model_hash",
    "precision",
    "compute",
    "judge",
    "max_new_tokens",
]
OF_EVALUATION += ["judge_hash", "eval_batch_size"]  # also mean something for an untrained model
OF_DECOUPLE = ["weights", "decouple_share", "decouple_kinds"]
OF_OBJECTIVE = ["learning_rate", "objective_hash"]  # differ between objectives by nature
ZERO_IS_DEFAULT = ("steps", "learning_rate", "decouple_share")  # in a notebook: the profile's
CITED = [
    "profile",
    "precision",
    "steps",
    "pictures",
    "learning_rate",
    "projector",
    "weights",
    "judge",
]
ALL_AT_ONCE = "all at once"
# What None means for these, in words, so that it is a value and not a blank, which agrees with all.
NONE_MEANS = {"requests": ALL_AT_ONCE, "decouple_kinds": "all"}
LIBRARIES = ("safeerase-lite", "torch", "transformers", "peft", "bitsandbytes")


@dataclass(frozen=True)
class Grid:
    """The runs of a ledger.

    runs: a row per complete run, in order of appearance in a report, its id as the index: world
        (its name), seed, the settings, folder, versions, and row (the number of its row).
    unusable: the same of failed runs and those whose answers are missing or damaged, with `error`,
        one line.
    keys: the settings that vary, and so distinguish rows.
    mixed: what should be the same in all runs and is not, in words.
    split: that the runs have answers on.
    """

    runs: pd.DataFrame
    unusable: pd.DataFrame
    keys: list[str]
    mixed: list[str]
    split: str

    @property
    def rows(self) -> pd.DataFrame:
        """Each row once: world, world_seed, cue, objective, decouple and the keys."""
        columns = ["world", *WORLD, *MODEL, *self.keys]
        return self.runs.drop_duplicates("row").set_index("row")[columns]


def read(
    runs_dir: Path | str,
    *,
    split: str | None = None,
    planned: list[dict[str, Any]] | None = None,
) -> Grid:
    """The runs under runs_dir that have answers on a split; of `planned` ones only those.

    split: None: test where there is one, else val.

    Raises:
        UserError: no complete run with answers on that split, two runs of one row and seed, or one
            whose record or tables are damaged.
    """
    runs = _read_runs(Path(runs_dir).expanduser())
    if planned is not None:
        runs = runs[pd.concat([_matches(runs, given) for given in planned], axis=1).any(axis=1)]
        if runs.empty:
            raise UserError(f"{runs_dir} holds no run of this sweep: start the sweep first")
    usable = runs[runs["error"] == ""]
    if usable.empty:
        raise UserError(f"no complete run in {runs_dir}, run one again; {runs['error'].iloc[0]}")
    splits = usable["folder"].map(
        lambda run: set(store.read_table(run / "answers.parquet", columns=["split"])["split"])
    )
    asked = set().union(*splits)
    split = split or chosen_split(asked)
    without = splits.index[[split not in present for present in splits]]
    if len(without) == len(usable):
        known = " or ".join(sorted(asked))
        raise UserError(f"no run in {runs_dir} asked split {split!r}: take --split {known}")
    runs.loc[without, "error"] = f"asked nothing on {split}"

    usable = runs[runs["error"] == ""]
    keys = _keys(usable)
    usable = _in_order(usable, keys)
    # An untrained model evaluated twice, under other training settings, is one run.
    usable = usable.drop_duplicates([c for c in usable if c not in ("folder", "versions")])
    row = usable.groupby(["world", *WORLD, *MODEL, *keys], sort=False, dropna=False).ngroup()
    usable = usable.assign(row=row)
    _refuse_duplicates(usable)
    return Grid(usable, runs[runs["error"] != ""], keys, _mixed(usable), split)


# ---- what is missing, what belongs together ----


def missing(expected: list[dict[str, Any]], runs: pd.DataFrame) -> list[dict[str, Any]]:
    """Those of the expected runs that no run of the table is.

    A parameter that is not stated, or no column of the table, matches every run.
    """
    return [given for given in expected if not _matches(runs, given).any()]


def expected_seeds(grid: Grid) -> list[dict[str, Any]]:
    """Every trained row with every seed that any trained row of its world has."""
    trained = grid.runs[~grid.runs["objective"].isin(UNTRAINED)]
    seeds = trained.groupby("world")["seed"].unique()
    rows = grid.rows.loc[trained["row"].unique()].to_dict("records")
    return [row | {"seed": int(seed)} for row in rows for seed in sorted(seeds[row["world"]])]


def counterpart(grid: Grid, row: int, decouple: str) -> int | None:
    """The row that differs from this one in `decouple` alone; None where there is not just one.

    Learning rates are tuned for each, so they need not agree unless that leaves several.
    """
    this, rows = grid.rows.loc[row].to_dict(), grid.rows[grid.rows["decouple"] == decouple]
    rates = [key for key in grid.keys if key in OF_OBJECTIVE]
    fixed = ["world", "objective", *(key for key in grid.keys if key not in rates)]
    rows = rows[_agrees(rows, {name: this[name] for name in fixed})]
    if len(rows) > 1:
        rows = rows[_agrees(rows, {name: this[name] for name in rates})]
    return int(rows.index[0]) if len(rows) == 1 else None


def agreeing(rows: pd.DataFrame, settings: dict[str, Any]) -> list[int]:
    """The rows that have these settings, or are blank there."""
    return list(rows.index[_agrees(rows, settings)])


def views(grid: Grid, world: str) -> list[tuple[dict[str, Any], list[int]]]:
    """The combinations of settings in a world, each with the rows that agree; most rows first."""
    rows = grid.rows[grid.rows["world"] == world]
    trained = rows[~rows["objective"].isin(UNTRAINED)]
    blanks = trained[grid.keys].isna().sum(axis=1).sort_values(kind="stable")
    views: list[tuple[dict[str, Any], list[int]]] = []
    for row in blanks.index:  # first those that state most
        if not any(row in members for _, members in views):
            settings = trained.loc[row, grid.keys].to_dict()
            views.append((settings, list(rows.index[_agrees(rows, settings)])))
    views.sort(key=lambda view: -len(view[1]))
    return views or [({}, list(rows.index))]


def _matches(runs: pd.DataFrame, given: dict[str, Any]) -> pd.Series:
    """Which runs have these parameters, as far as they are stated."""
    stated = {
        name: value
        for name, value in given.items()
        if name in runs and value not in (None, "") and (value != 0 or name not in ZERO_IS_DEFAULT)
    }
    stated |= {name: given[name] or word for name, word in NONE_MEANS.items() if name in given}
    return _agrees(runs, stated)


def _agrees(table: pd.DataFrame, settings: dict[str, Any]) -> pd.Series:
    """Where every setting has this value, or is blank on either side."""
    agrees = pd.Series(True, table.index)
    for name, value in settings.items():
        column = table[name]
        if isinstance(value, list | tuple):
            agrees &= column.isna() | column.map(lambda cell, value=value: cell == tuple(value))
        else:
            agrees &= column.isna() | (column == value) | pd.isna(value)
    return agrees


# ---- reading ----


def _read_runs(folder: Path) -> pd.DataFrame:
    """Every run, complete or failed, with its settings, folder, versions and error ("": none)."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: name the folder that holds the runs")
    status = store.load(folder, allow_mixed=True).runs.set_index("id")["status"]
    places = {"complete": folder, "failed": folder / "failed"}
    folders = [places[text] / id for id, text in status.items()]
    records = [store.read_record(path) for path in folders]
    parameters = [record["parameters"] for record in records]
    if not any({*MODEL, "seed"} <= set(given) for given in parameters):
        raise UserError(f"the runs in {folder} have no objective, decouple and seed: name another")
    runs = _settings(parameters, status.index)
    runs = runs.assign(
        folder=folders,
        versions=[record["versions"] for record in records],
        error=[_error(path, record) for path, record in zip(folders, records, strict=True)],
    )[runs[[*MODEL, "seed"]].notna().all(axis=1)]
    return runs.assign(world=[_world_name(run) for run in runs.to_dict("records")])


def _settings(parameters: list[dict[str, Any]], index: pd.Index) -> pd.DataFrame:
    """A column per setting, blank where it means nothing.

    A setting that is younger than a run, or recorded only where it is not the default, is taken at
    its profile's default.
    """
    profiles = [PROFILES.get(given.get("profile"), PROFILES["tiny"]) for given in parameters]
    stated = {"name", "profile", *NOT_RECORDED, *MODEL, "weights", "seed"} - {"dedupe"}
    defaults = [profile.model_dump(exclude=stated) for profile in profiles]
    filled = [default | given for default, given in zip(defaults, parameters, strict=True)]
    runs = pd.json_normalize(filled, sep="_").set_index(index)
    runs = runs.map(lambda value: tuple(value) if isinstance(value, list) else value).astype(object)
    for name, word in NONE_MEANS.items():
        values = [word if pd.isna(value) else int(value) for value in runs[name]]
        runs[name] = pd.Series(values, index, dtype=object)
    of_training = [name for name in runs if name not in {*NO_KEYS, *OF_EVALUATION}]
    for where, blank in (
        (runs["objective"].isin(UNTRAINED), of_training),
        (runs["objective"] == "gold", ["model", "model_hash"]),
        (runs["decouple"] == "none", OF_DECOUPLE),
    ):
        runs.loc[where, runs.columns.intersection(blank)] = None
    return runs


def _error(folder: Path, record: dict[str, Any]) -> str:
    if record["status"] == "failed":
        return str(record["extra"].get("error", "")).partition("\n")[0] or "failed"
    try:
        store.read_record(folder, "*.parquet")
    except Damaged as error:
        return str(error)
    return "" if (folder / "answers.parquet").exists() else "has no answers.parquet"


def _world_name(run: dict[str, Any]) -> str:
    if run.get("profile", "tiny") != "tiny" or pd.isna(run["world_seed"]):
        return f"data {run.get('data_hash', 'unknown')}"
    names = {DEFAULT_SEED: "default world", FRESH_SEED: "fresh world"}
    name = names.get(run["world_seed"], f"world {run['world_seed']}")
    return name if run["cue"] == 1 else f"{name}, cue {run['cue']:g}"


# ---- rows ----


def _keys(runs: pd.DataFrame) -> list[str]:
    """The settings that vary and do not follow from those before them.

    Learning rate and recipe count only where they vary within one objective and one decouple.
    """
    others = {"folder", "versions", "error", "world", *NO_KEYS, *OF_OBJECTIVE}
    settings = sorted((name for name in runs if name not in others),
                      key=lambda name: (name not in ("profile", "model"), name))  # fmt: skip
    keys: list[str] = []
    for name in settings:
        keys += [name] if _varies(runs[name], runs[keys]) else []
    within = runs[["world", *WORLD, *MODEL, *keys]]
    return keys + [name for name in OF_OBJECTIVE if name in runs and _varies(runs[name], within)]


def _varies(values: pd.Series, within: pd.DataFrame) -> bool:
    groups = [within[name] for name in within] or (lambda _: 0)
    return bool((values.groupby(groups, dropna=False).nunique() > 1).any())


def _in_order(runs: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Worlds as they are named, the visible sign first; objectives as the paper names them."""
    labels = runs["objective"].map(label_of)
    order = runs[["world_seed", "cue", "world", "objective", "decouple"]].assign(
        cue=-runs["cue"].astype(float),
        objective=labels.map(in_display_order(labels).index),
        decouple=runs["decouple"].map(list(TRAININGS).index),
        **{f"key {key}": runs[key].fillna("").astype(str) for key in keys},
        seed=runs["seed"],
    )
    order.insert(0, "fresh", runs["world_seed"].map({DEFAULT_SEED: 0, FRESH_SEED: 1}).fillna(2))
    return runs.loc[order.sort_index().sort_values(list(order), kind="stable").index]


def _refuse_duplicates(runs: pd.DataFrame) -> None:
    twice = runs[runs.duplicated(["row", "seed"], keep=False)]
    if twice.empty:
        return
    first = twice.iloc[0]
    both = twice[(twice["row"] == first["row"]) & (twice["seed"] == first["seed"])].iloc[:2]
    one, other = both.index
    texts = both.drop(columns=["folder", "versions"]).astype(str)
    differ = [name for name in texts if texts[name].nunique() > 1]
    raise UserError(
        f"runs {one} and {other} are both {first['objective']}, decouple {first['decouple']}, seed "
        f"{first['seed']} in the {first['world']}, and differ in {', '.join(differ)} alone: move "
        "one of them away"
    )


def _mixed(runs: pd.DataFrame) -> list[str]:
    """Versions of the libraries that decide results, and data within a world, if more than one."""
    versions = pd.DataFrame(runs["versions"].tolist(), index=runs.index)
    columns = [(f"versions of {library}", versions[library]) for library in LIBRARIES]
    if "data_hash" in runs:
        by_world = runs.groupby("world", sort=False)["data_hash"]
        columns += [(f"data sets in the {world}", data) for world, data in by_world]
    mixed = []
    for what, values in columns:
        counts = values.fillna("unknown").value_counts().sort_index()
        if len(counts) > 1:
            each = ", ".join(f"{value}: {count} runs" for value, count in counts.items())
            mixed.append(f"{len(counts)} {what} ({each})")
    return mixed
