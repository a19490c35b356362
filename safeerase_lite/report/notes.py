"""What a reader needs beside a table to cite it: what is measured, how, on which runs."""

import json
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from safeerase_lite.evaluation.statistics import least_p
from safeerase_lite.unlearning.objectives import UNTRAINED

from . import texts
from .rows import CITED, LIBRARIES, MODEL, WORLD
from .tables import EFFICACY, PLACES, Study

PAPER_FALL = 0.795  # SafeEraser's abstract: PD lowers SARR by 79.5%, averaged over what is unknown
PAPER = (
    f"The paper's abstract says that PD lowers SARR by {PAPER_FALL:.1%}; what that is an average "
    "of is unknown."
)
# What the numbers of a table are.
ABOUT = json.loads(Path(__file__).with_name("about.json").read_text(encoding="utf-8"))
# What the main SARR is measured on, beside `PLACES`.
PLACE = dict(zip(PLACES, (
    "objects and questions that PD was trained on",
    "objects that PD was not trained on (pictures, where the data name no objects), and questions "
    "that it was",
    "objects that PD was trained on, and questions that it was not",
    "objects (pictures, where the data name no objects) and questions that PD was not trained on",
), strict=True))  # fmt: skip
# Columns that identify a run or its place; the others are settings.
NO_SETTING = {"seed", "row", "world", "folder", "versions", "error", "data_hash", "model_hash",
              *WORLD, *MODEL}  # fmt: skip


def of_runs(study: Study, worlds: list[str]) -> list[str]:
    """Seeds, base model, data, settings and versions of the runs of these worlds."""
    runs = study.grid.runs[study.grid.runs["world"].isin(worlds)]
    trained = runs[~runs["objective"].isin(UNTRAINED)]
    trained = runs if trained.empty else trained
    per_row = trained.groupby("row")["seed"].nunique()
    fewest, most = int(per_row.min()), int(per_row.max())
    count = f"{most} seed{'s' * (most > 1)}" if fewest == most else f"{fewest} to {most} seeds"
    seeds = f"{count} ({', '.join(map(str, sorted(set(trained['seed']))))})."
    if most > 1 and fewest < 10:
        seeds += " So few leave an interval too narrow where it is mostly they that differ."
    one_seed = "" if most > 1 else " and on one seed"
    models = runs[[name for name in ("model", "model_hash") if name in runs]].dropna(how="all")
    models = models.drop_duplicates().fillna("").agg(" ".join, axis=1)
    base = f"Conditional on the base models {', '.join(models)}{one_seed}."
    if len(models) == 1:
        base = f"Conditional on one base model{one_seed}: {models.iloc[0]}."
    data = runs[["world", "data_hash"]].drop_duplicates() if "data_hash" in runs else pd.DataFrame()
    hashes = ", ".join(f"{row.world} {row.data_hash}" for row in data.itertuples()) or "unknown"
    notes = [
        seeds,
        base,
        f"Split {study.split}; efficacy on {EFFICACY}. Data: {hashes}.",
        common_settings(runs, CITED),
        versions(study),
    ]
    return [*notes, "MIXED runs, see the end."] if study.grid.mixed else notes


def places(study: Study, worlds: list[str]) -> str:
    """What the main SARR of these worlds is measured on."""
    where = {world: PLACE[study.main[world]] for world in worlds}
    alike = len(set(where.values())) == 1
    text = where[worlds[0]] if alike else "; ".join(map(": ".join, where.items()))
    if "decouple_kinds" in study.grid.keys:
        text += " (in rows with a number of decouple kinds: on only so many of these objects)"
    return text


def of_tests(rows: list[dict]) -> list[str]:
    """What the p values of these differences are."""
    counts = sorted({row["seeds"] for row in rows})
    least = ", ".join(f"{least_p(n):.3g} with {n} seed{'s' * (n > 1)}" for n in counts)
    return [
        "Questions are paired within a seed. p tests the seeds' mean differences: by all flips of "
        f"their signs, which cannot give less than {least}; and by a paired t test, which takes "
        "them for normal and needs seeds that differ. In parentheses adjusted by Holm over the "
        "rows of a change that share their settings, learning rates apart.",
        PAPER,
    ]


def provenance(study: Study, command: str) -> list[str]:
    """How the report was made: the command, the runs, every setting they share."""
    runs = study.grid.runs
    lines = [
        f"Command: {command}",
        f"{len(runs)} run{'s' * (len(runs) > 1)}. {versions(study)}",
        common_settings(runs, sorted(set(runs) - NO_SETTING)),
    ]
    if "learning_rate" in runs and "learning_rate" not in study.grid.keys:  # then no column of it
        rates = {
            texts.model_label(run["objective"], run["decouple"]): texts.setting(
                run["learning_rate"]
            )
            for run in runs.dropna(subset="learning_rate").to_dict("records")
        }
        lines += [f"Learning rates: {', '.join(map(' '.join, rates.items()))}."] if rates else []
    if study.grid.mixed:
        lines.append(f"Mixed, as --allow-mixed allows: {'; '.join(study.grid.mixed)}.")
    return lines


def common_settings(runs: pd.DataFrame, names: Iterable[str]) -> str:
    """Those settings that are one and the same in all runs that have them."""
    values = {name: runs[name].dropna().unique() for name in names if name in runs}
    common = {name: unique[0] for name, unique in values.items() if len(unique) == 1}
    return f"In every run: {', '.join(texts.settings(common, list(common)))}."


def versions(study: Study) -> str:
    table = pd.DataFrame(study.grid.runs["versions"].tolist()).fillna("none").astype(str)
    order = [*LIBRARIES, *sorted(set(table) - set(LIBRARIES))]
    each = (f"{name} {', '.join(sorted(table[name].unique()))}" for name in order if name in table)
    return f"Versions: {'; '.join(each)}."
