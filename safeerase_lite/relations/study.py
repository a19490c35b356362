"""Many edits side by side, as one tidy table, and what it says of each method."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from safeerase_lite.evaluation.statistics import exact_interval
from safeerase_lite.relations import strengths
from safeerase_lite.relations.experiment import BASE, edit_run, where
from safeerase_lite.relations.methods import METHODS
from safeerase_lite.relations.tuples import ORO
from safeerase_lite.runs.pool import in_processes

TIDY = [
    "method", "tuple", "measure", "slot", "attack", "strength", "seed", "value", "low", "high", "n",
]  # fmt: skip
MAIN = (
    "relation", "no_preservation", "pair", "erase_subject", "erase_object", "filter", "projection",
)  # fmt: skip
LABELS = {BASE: "base"} | {name: method.label for name, method in METHODS.items()}


def study(
    sets: Sequence[Sequence[ORO]],
    methods: Iterable[str] = MAIN,
    seeds: Iterable[int] = (0,),
    *,
    others: Sequence[ORO] = (),
    left: Iterable[float] = strengths.LEFT,
    runs_dir: Path | str | None = None,
    workers: int = 2,
) -> pd.DataFrame:
    """Edit CLIP by every method, for every set of unsafe tuples and every seed, and examine it; the
    base model too. Edits that the ledger holds are read.

    Args:
        sets: each is unlearned by an edit of its own.  others: unsafe too: no neighbours.
        left: under attacks that leave the base model so much of its accuracy; none: no attack.

    Returns:
        A row per measure, with the columns `TIDY`.
    """
    attacks = strengths.attacks(left)
    edits = [(set_, method, seed) for set_ in sets for seed in seeds for method in (BASE, *methods)]
    labels = [f"{LABELS[m]}: {', '.join(map(str, s))}, seed {seed}" for s, m, seed in edits]
    pieces = [
        (label, (*e, others, attacks, runs_dir)) for label, e in zip(labels, edits, strict=True)
    ]
    print(f"{len(edits)} edits, {workers} at a time; finished ones are kept in {where(runs_dir)}")
    found = in_processes(_one, pieces, workers)
    return pd.concat(found, ignore_index=True)


def _one(unsafe, method: str, seed: int, others, attacks, runs_dir) -> pd.DataFrame:
    others = [u for u in others if u not in unsafe]
    return tidy(
        edit_run(unsafe, method, others=others, seed=seed, strengths=attacks, runs_dir=runs_dir)
    )


def tidy(run) -> pd.DataFrame:
    """A run's metrics with its method and seed."""
    said = run.parameters
    table = run.metrics.fillna({"slot": "", "attack": ""})
    return table.assign(method=said["method"], seed=said["seed"])[TIDY]


# ---- what it says ----

# column of the summary → (measure, slot); each relative to the base model's
KEPT = {
    "subject on unsafe": ("marginal on unsafe", "subject"),
    "object on unsafe": ("marginal on unsafe", "object"),
    "held-out subject": ("neighbour, held out", "subject"),
    "held-out relation": ("neighbour, held out", "relation"),
    "held-out object": ("neighbour, held out", "object"),
    "role swap": ("role swap", ""),
    "two slots": ("two slots", ""),
    "unrelated": ("unrelated", ""),
}


def summary(table: pd.DataFrame, *, resamples: int = 1000) -> pd.DataFrame:
    """Each method's means over tuples and seeds: method, attack, strength, measure, slot, value,
    base (the same of the base model, under the same attack), relative (value / base), low, high.

    low, high: the 95% interval of `relative` (of `value` for tuple top-1, whose ratio is one minus
    suppression): tuples are resampled, their seeds averaged; where all tuples are alike, an exact
    interval over tuples. Blank with fewer than three tuples.
    """
    keys = ["attack", "strength", "measure", "slot"]
    table = table.fillna({"slot": "", "attack": ""})
    base = table[table["method"] == BASE].set_index([*keys, "tuple", "seed"])["value"]
    edited = table[table["method"] != BASE]
    at = pd.MultiIndex.from_frame(edited[[*keys, "tuple", "seed"]])
    edited = edited.assign(base=base.reindex(at).to_numpy())
    rows = []
    for named, group in edited.groupby(["method", *keys], sort=False):
        value, was = group["value"].mean(), group["base"].mean()
        ratio = value / was if was else np.nan
        low, high = interval(group, of_value=named[3] == "tuple top-1", resamples=resamples)
        rows.append((*named, value, was, ratio, low, high, group["tuple"].nunique(), len(group)))
    columns = ["method", *keys, "value", "base", "relative", "low", "high", "tuples", "edits"]
    found = pd.DataFrame(rows, columns=columns)
    return found.sort_values("method", key=lambda m: m.map(list(METHODS).index), kind="stable")


def interval(group: pd.DataFrame, *, of_value: bool, resamples: int = 1000) -> tuple[float, float]:
    """The 95% interval of the mean of `value`, or of its ratio to that of `base`.

    Tuples are resampled; the seeds of a tuple are averaged, as they share its pictures.
    """
    means = group.groupby("tuple")[["value", "base"]].mean().to_numpy()
    if len(means) < 3:
        return np.nan, np.nan
    rng = np.random.default_rng(0)
    drawn = means[rng.integers(len(means), size=(resamples, len(means)))].mean(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = drawn[:, 0] if of_value else drawn[:, 0] / drawn[:, 1]
    values = values[np.isfinite(values)]
    if not len(values):
        return np.nan, np.nan
    low, high = np.quantile(values, [0.025, 0.975])
    if low == high:  # all tuples alike, where a bootstrap collapses
        return exact_interval(float(np.clip(low, 0, 1)), len(means))
    return float(low), float(high)


def headline(found: pd.DataFrame, attack: str = "", strength: float = 0.0) -> pd.DataFrame:
    """The summary without attack, a row per method: tuple top-1, suppression, and what is kept, in
    shares of the base model's."""
    here = found[(found["attack"] == attack) & (found["strength"] == strength)]
    rows = []
    for method, group in here.groupby("method", sort=False):
        cells = group.set_index(["measure", "slot"])
        top = cells.loc[("tuple top-1", "")]
        row = {"method": LABELS[method], "tuple top-1": top["value"]}
        row["suppression"] = 1 - top["relative"]
        for name, cell in KEPT.items():
            row[name] = cells["relative"].get(cell, np.nan)
        rows.append(row)
    return pd.DataFrame(rows)
