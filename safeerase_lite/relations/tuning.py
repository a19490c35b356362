"""Choose the settings of every method, on tuples and images that no table reports."""

import json
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from safeerase_lite.runs.executor import parallel_map

from .objectives import METHODS, SETTINGS, EditSettings
from .runs import BASE, LABELS, edit_run, tidy
from .tuples import TUNING

# What an edit should keep: (measure, slot), each in shares of what the base model reads.
KEPT = (
    ("marginal on unsafe", "subject"),
    ("marginal on unsafe", "object"),
    ("neighbour, held out", "subject"),
    ("neighbour, held out", "relation"),
    ("neighbour, held out", "object"),
    ("role swap", ""),
    ("two slots", ""),
    ("unrelated", ""),
)
MOST_ON_TOP, MOST_LEAKAGE = 0.05, 0.15  # of an edit that forgets


def candidates(method: str) -> list[EditSettings]:
    """The four settings that are tried for a method: as many for every one."""
    if method == "filter":
        return [replace(SETTINGS, refused=share) for share in (0.8, 0.9, 0.95, 0.99)]
    if method == "projection":
        return [replace(SETTINGS, removed=share) for share in (0.25, 0.5, 0.75, 1.0)]
    if not (METHODS[method].preserves_marginals or METHODS[method].preserves_neighbours):
        return [replace(SETTINGS, learning_rate=rate) for rate in (5e-4, 1e-3, 2e-3, 4e-3)]
    return [
        replace(SETTINGS, learning_rate=rate, marginal_weight=weight, neighbour_weight=weight)
        for rate, weight in product((4e-3, 6e-3), (1.0, 3.0))
    ]


def tune(runs_dir: Path | str, workers: int = 2) -> pd.DataFrame:
    """Edit TUNING by every candidate of every method, one seed, val images.

    Returns:
        method, candidate, settings that differ from SETTINGS, top-1 and leakage (means over
        tuples), kept (the least of KEPT), forgets, chosen.
    """
    cells = [(BASE, 0, SETTINGS)]
    cells += [(m, i, settings) for m in METHODS for i, settings in enumerate(candidates(m))]
    tasks = [(u, method, settings, runs_dir) for u in TUNING for method, _, settings in cells]
    labels = [f"{LABELS[method]}: {u}" for u, method, *_ in tasks]
    tables = parallel_map(_edit, tasks, workers=workers, labels=labels)
    table = pd.concat(
        [t.assign(candidate=i) for t, (_, i, _) in zip(tables, cells * len(TUNING), strict=True)]
    )
    return choose(table)


def _edit(u, method: str, settings: EditSettings, runs_dir) -> pd.DataFrame:
    return tidy(edit_run([u], method, settings=settings, split="val", runs_dir=runs_dir))


def choose(table: pd.DataFrame) -> pd.DataFrame:
    """The rule. Of the candidates that forget, the one that keeps most, by its worst cell of KEPT;
    where none forgets, the one that leaks least.

    table: `runs.TIDY_COLUMNS` and candidate, with the base model's rows.
    """
    means = table.groupby(["method", "candidate", "measure", "slot"], sort=False)["value"].mean()
    base = means[BASE, 0]
    rows = []
    for (method, i), of_candidate in means.drop(BASE).groupby(["method", "candidate"], sort=False):
        value = of_candidate.droplevel(["method", "candidate"])
        kept = min(value[cell] / base[cell] for cell in KEPT if cell in value)
        top, leakage = value["tuple top-1", ""], value["leakage", ""]
        forgets = top <= MOST_ON_TOP and leakage <= MOST_LEAKAGE
        rows.append((method, i, top, leakage, kept, forgets))
    names = ["method", "candidate", "tuple top-1", "leakage", "kept", "forgets"]
    found = pd.DataFrame(rows, columns=names)
    merit = pd.Series(np.where(found["forgets"], found["kept"], -1 - found["leakage"]))
    found["chosen"] = found.index.isin(merit.groupby(found["method"]).idxmax())
    settings = [_changed(candidates(m)[i]) for m, i in found[["method", "candidate"]].to_numpy()]
    found.insert(2, "settings", [json.dumps(s) for s in settings])
    return found


def write(found: pd.DataFrame, folder: Path) -> None:
    """Write `candidates.csv` and `chosen.json`, which `objectives.chosen` reads in the package."""
    found.to_csv(folder / "candidates.csv", index=False, float_format="%.4f")
    best = found[found["chosen"]]
    choices = {m: json.loads(s) for m, s in zip(best["method"], best["settings"], strict=True)}
    (folder / "chosen.json").write_text(json.dumps(choices, indent=1) + "\n", encoding="utf-8")


def _changed(settings: EditSettings) -> dict[str, float]:
    usual = asdict(SETTINGS)
    return {name: v for name, v in asdict(settings).items() if v != usual[name]}
