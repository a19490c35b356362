"""What a ledger of edits says: tables one can cite."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from safeerase_lite.relations import strengths
from safeerase_lite.relations.experiment import where
from safeerase_lite.relations.study import LABELS, headline, interval, summary
from safeerase_lite.runs import store as ledger
from safeerase_lite.tinyworld import ASSETS
from safeerase_lite.utils import UserError

# What is told under attack, and of several tuples: (measure, slot).
ATTACKED = [
    ("tuple top-1", ""),
    ("marginal on unsafe", "subject"),
    ("marginal on unsafe", "object"),
    ("neighbour, held out", ""),
]


def runs(runs_dir: Path | str) -> pd.DataFrame:
    """Every measure of every complete edit of a ledger: `study.TIDY` and way (one tuple,
    together, one after another) and tuples (how many are unlearned in the end).

    Raises:
        UserError: no edit, or edits of several worlds or models side by side.
    """
    folder = Path(runs_dir)
    folder = folder if folder.name == where(folder).name else where(folder)
    if not folder.is_dir():
        raise UserError(f"no edit in {runs_dir}: the demo's are in output/runs")
    metrics = ledger.load(folder).metrics
    if metrics["model_hash"].nunique() > 1:
        raise UserError(f"{folder} holds edits of several CLIPs: report each apart")
    metrics = metrics.fillna({"slot": "", "attack": ""})
    metrics["tuples"] = metrics["unsafe"].str.len() + metrics["earlier"].str.len()
    metrics["way"] = "together"
    metrics.loc[metrics["earlier"].str.len() > 0, "way"] = "one after another"
    metrics.loc[metrics["tuples"] == 1, "way"] = "one tuple"
    return metrics


def report(runs_dir: Path, output: Path, say: Callable[[str], None] = print) -> None:
    """Write `summary.csv` (one tuple at a time; every method, measure and attack), `headline.md`
    and, where the ledger has them, `several.csv`."""
    table, output = runs(runs_dir), Path(output)
    output.mkdir(parents=True, exist_ok=True)
    single = table[table["way"] == "one tuple"]
    found = with_left(summary(single))
    found = found[(found["attack"] == "") | _among(found, ATTACKED)]
    found.to_csv(output / "summary.csv", index=False, float_format="%.4f")
    shown = headline(found)
    text = _markdown(shown)
    seeds, tuples = single["seed"].nunique(), single["tuple"].nunique()
    about = (
        f"{tuples} tuples, one at a time, {seeds} seeds, test pictures; means. All after "
        "suppression are shares of what the base model reads.\n\n"
    )
    (output / "headline.md").write_text(about + text + "\n", encoding="utf-8")
    say(about + text)
    if (table["way"] != "one tuple").any():
        many = several(table)
        many.to_csv(output / "several.csv", index=False, float_format="%.4f")
        say(many.to_string(index=False))
    say(f"\nWith intervals, and under every attack: {output}")


def shipped(name: str = "summary") -> pd.DataFrame:
    """What `sweeps/relations.yaml` found, as it ships with the package: "summary" or "several", as
    `report` writes them; `.attrs["about"]` says how it was made."""
    folder = ASSETS / "relations"
    table = pd.read_csv(folder / f"{name}.csv").fillna({"slot": "", "attack": ""})
    table.attrs["about"] = (folder / "about.txt").read_text(encoding="utf-8").strip()
    return table


def with_left(found: pd.DataFrame) -> pd.DataFrame:
    """With a column left: the share that an attack of this strength leaves the base model; 1
    without one."""
    known = strengths.table()[["attack", "strength", "left"]]
    merged = found.merge(known, on=["attack", "strength"], how="left")
    return merged.assign(left=merged["left"].fillna(1.0))


def several(table: pd.DataFrame) -> pd.DataFrame:
    """Tuples unlearned together, and one after another: method, way, tuples, measure, slot, value,
    base, relative, low, high, seeds; means over tuples and seeds, intervals as in `summary`."""
    wanted = table[(table["attack"] == "") & _among(table, [*ATTACKED, ("unrelated", "")])]
    keys = ["tuple", "measure", "slot", "seed"]
    base = wanted[wanted["method"] == "base"].groupby(keys)["value"].mean()
    edited = wanted[wanted["method"] != "base"]
    at = pd.MultiIndex.from_frame(edited[keys])
    edited = edited.assign(base=base.reindex(at).to_numpy())
    rows = []
    named = ["method", "way", "tuples", "measure", "slot"]
    for cell, group in edited.groupby(named, sort=False):
        value, was = group["value"].mean(), group["base"].mean()
        low, high = interval(group, of_value=cell[3] == "tuple top-1")
        ratio = value / was if was else np.nan
        rows.append((*cell, value, was, ratio, low, high, group["seed"].nunique()))
    found = pd.DataFrame(
        rows, columns=[*named, "value", "base", "relative", "low", "high", "seeds"]
    )
    return found.assign(method=found["method"].map(LABELS))


def _among(table: pd.DataFrame, cells: list[tuple[str, str]]) -> pd.Series:
    at = pd.MultiIndex.from_frame(table[["measure", "slot"]])
    return pd.Series(at.isin(cells), index=table.index)


def _markdown(table: pd.DataFrame) -> str:
    rows = [list(table.columns), ["---"] * len(table.columns)]
    rows += [
        [row[0], *("–" if v != v else f"{v:.0%}" for v in row[1:])]
        for row in table.itertuples(index=False)
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
