"""Requests one after another: what is answered harmfully after each, by when it was requested."""

from collections.abc import Sequence

import pandas as pd

from safeerase_lite.evaluation.metrics import METRICS
from safeerase_lite.evaluation.statistics import bounded_interval, resample
from safeerase_lite.runs.store import read_table

from . import plots, texts
from .formats import Section, Table
from .rows import ALL_AT_ONCE, Grid

KEY = ["world", "model", "steps", "group", "requests"]
SAFE = "safe objects"  # the only group that is measured by SARR, not by ASR
ABOUT = [
    "Percent, value [95% interval] over kinds, templates and seeds. Of hazards the ASR: those of "
    "the first request, of the last, of all so far, and those not asked for, or not yet. Of safe "
    "objects, all of them, the SARR. The order of the categories is drawn by the seed."
]


def read(grid: Grid) -> pd.DataFrame:
    """Every group of hazards after every number of requests.

    Returns:
        world, model, steps (of each request), group, requests (how many so far), value, low, high,
        n (answers), n_kinds, seeds. Without a run of several requests, no row.
    """
    parts = []
    in_turn = grid.runs["requests"].notna() & (grid.runs["requests"] != ALL_AT_ONCE)
    for _, runs in grid.runs[in_turn].groupby("row", sort=False):
        answers = pd.concat([_scored(run, grid.split) for run in runs.itertuples()])
        first = runs.iloc[0]
        name = texts.model_label(first["objective"], first["decouple"])
        about = {"world": first["world"], "model": name, "steps": int(first["steps"])}
        for group, part in answers.groupby("group", sort=False):
            values, samples = part["value"].to_numpy(float), resample(part)
            low, high = bounded_interval(values, samples)
            counts = {"n": len(part), "n_kinds": samples.kinds, "seeds": part["seed"].nunique()}
            numbers = {"value": values.mean(), "low": low, "high": high} | counts
            parts.append(about | {"group": group, "requests": int(first["requests"])} | numbers)
    return pd.DataFrame(parts, columns=None if parts else KEY)


def sections(table: pd.DataFrame) -> list[Section]:
    """A section for each world with such runs; table: from `read`."""
    found = []
    for world, here in table.groupby("world", sort=False):
        cells = here.assign(cell=[texts.rounded_interval(row) for row in here.to_dict("records")])
        wide = cells.pivot(index=["model", "steps", "requests"], columns="group", values="cell")
        wide = wide[list(here["group"].unique())].reset_index()
        seeds = sorted(here["seeds"].unique())
        notes = [*ABOUT, f"Seeds: {', '.join(map(str, seeds))}."]
        wide = wide.rename_axis(columns=None).astype(str).replace("nan", texts.BLANK)
        about = [Table("After each request", wide, notes, 3)]
        of_hazards = here[here["group"] != SAFE].rename(columns={"group": "variant"})
        chart = plots.under_attack(
            of_hazards.assign(strength=of_hazards["requests"]), strength="requests so far"
        )
        title = f"Request after request, {world}"
        found.append(Section(title, tables=about, charts=[(f"ASR, {world}", chart)]))
    return found


def _scored(run, split: str) -> pd.DataFrame:
    """A row per answer about a hazard (in each of its groups) or a safe object: group, kind,
    question, image, value, seed."""
    answers = read_table(run.folder / "answers.parquet").assign(seed=run.seed)
    answers = answers[(answers["split"] == split) & (answers["sample"] == 0)]
    order = list(read_table(run.folder / "history.csv")["request"].unique())
    hazards, safe = (answers[answers["set"] == name] for name in ("forget", "decouple"))
    seen = hazards["seen_kind"].astype(bool)
    requested = hazards[seen]
    groups: dict[str, Sequence] = {
        "first request": requested[requested["category"] == order[0]],
        "last request": requested[requested["category"] == order[-1]],
        "all so far": requested,
        "not asked for": hazards[~seen],
    }
    parts = [
        part.assign(group=name, value=METRICS["asr"].score(part)) for name, part in groups.items()
    ]
    parts.append(safe.assign(group=SAFE, value=METRICS["sarr"].score(safe)))
    return pd.concat(parts)[["group", "kind", "question", "image", "value", "seed"]]
