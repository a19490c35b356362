"""What many edits say: means with intervals, relative to the base model, as tables one can cite."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from safeerase_lite.evaluation.statistics import TAIL, UNKNOWN, bounded_interval, resample
from safeerase_lite.runs import store as ledger
from safeerase_lite.utils import UserError

from . import adaptive
from .attacks import strengths
from .runs import BASE, GOLD, LABELS, edits_dir, fill_blanks, study
from .tuples import UNSAFE, load_tuples

# A column of the headline → (measure, slot), relative to the base model's.
PRESERVED = {
    "subject on unsafe": ("marginal on unsafe", "subject"),
    "object on unsafe": ("marginal on unsafe", "object"),
    "held-out subject": ("neighbour, held out", "subject"),
    "held-out relation": ("neighbour, held out", "relation"),
    "held-out object": ("neighbour, held out", "object"),
    "role swap": ("role swap", ""),
    "two slots": ("two slots", ""),
    "unrelated": ("unrelated", ""),
}
# Measures that are reported as they are, and not in shares of the base model's; the first are
# shares of pictures, of which a tuple may have all or none.
SHARES = ("tuple top-1", "synonym", "hypernym", adaptive.CONTROL)
ABSOLUTE = (
    *SHARES, "linear probe", "margin", "rank", "AUROC", "leakage", "leakage of another caption",
)  # fmt: skip
# What is reported under attack, and of several tuples: (measure, slot).
_REPORTED = [
    ("tuple top-1", ""),
    ("margin", ""),
    ("leakage", ""),
    (adaptive.CONTROL, ""),
    ("leakage of another caption", ""),
    ("marginal on unsafe", "subject"),
    ("marginal on unsafe", "object"),
    ("neighbour, held out", ""),
]
_CELL = ["attack", "strength", "measure", "slot"]
_RESAMPLES = 1000  # of the tuples, for an interval


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Each method's means over tuples and seeds, from a table with `runs.TIDY_COLUMNS`.

    Returns:
        method, attack, strength, measure, slot, value, base (the base model's, under the same
        attack), relative (value / base), low, high, tuples, edits.

        low, high: the 95% interval of `relative`; of `value` for the measures in ABSOLUTE. Of tuple
        top-1 `relative` is one minus suppression. See `interval`.
    """
    counts = {"tuples": ("tuple", "nunique"), "edits": ("tuple", "count")}
    table = fill_blanks(table)
    means = _relative_to_base(table, ["method", *_CELL], [*_CELL, "tuple", "seed"], counts)
    return means.sort_values("method", key=lambda m: m.map(list(LABELS).index), kind="stable")


def several(table: pd.DataFrame) -> pd.DataFrame:
    """Several tuples unlearned together, and one after another, from `load_edits`.

    Returns:
        method (its label), way, tuples, measure, slot, value, base, relative, low, high, seeds;
        means over tuples and seeds, intervals as in `summary`.
    """
    rows = table[(table["attack"] == "") & _among(table, [*_REPORTED, ("unrelated", "")])]
    by = ["method", "way", "tuples", "measure", "slot"]
    same = ["tuple", "measure", "slot", "seed"]
    means = _relative_to_base(rows, by, same, {"seeds": ("seed", "nunique")})
    return means.assign(method=means["method"].map(LABELS))


def _relative_to_base(
    table: pd.DataFrame, by: list[str], same: list[str], counts: dict[str, tuple[str, str]]
) -> pd.DataFrame:
    """Means of the edits' values in the groups of `by`, beside those of the base model's rows that
    agree in the columns `same`, and `counts`: name → (column, aggregation)."""
    base = table[table["method"] == BASE].groupby(same)["value"].mean().rename("base")
    groups = table[table["method"] != BASE].join(base, on=same).groupby(by, sort=False)
    means = groups.agg(value=("value", "mean"), base=("base", "mean"), **counts)
    limits = [interval(group, key[by.index("measure")]) for key, group in groups]
    means.insert(2, "relative", means["value"] / means["base"].where(means["base"] != 0))
    means.insert(3, "low", [low for low, _ in limits])
    means.insert(4, "high", [high for _, high in limits])
    return means.reset_index()


def interval(group: pd.DataFrame, measure: str) -> tuple[float, float]:
    """The 95% interval of the mean of `value`; of a measure that is not in ABSOLUTE, of its ratio
    to the mean of `base`.

    Tuples are resampled; the seeds of a tuple are averaged, as they share its images. Of shares it
    is `statistics.bounded_interval`, which knows that a further tuple may be all or none. NaN with
    fewer than three tuples, and of a ratio where all tuples are alike and a bootstrap collapses.
    """
    means = group.groupby("tuple")[["value", "base"]].mean()
    if len(means) < 3:
        return UNKNOWN
    values, base = means["value"].to_numpy(), means["base"].to_numpy()
    if measure in SHARES:
        of_tuples = pd.DataFrame({"kind": means.index, "question": "", "image": ""})
        return bounded_interval(values, resample(of_tuples))
    drawn = np.random.default_rng(0).integers(len(means), size=(_RESAMPLES, len(means)))
    sampled = values[drawn].mean(1)
    if measure not in ABSOLUTE:
        with np.errstate(divide="ignore", invalid="ignore"):
            sampled = sampled / base[drawn].mean(1)
    sampled = sampled[np.isfinite(sampled)]
    if not len(sampled) or np.isclose(*(ends := np.quantile(sampled, [TAIL, 1 - TAIL]))):
        return UNKNOWN
    return tuple(map(float, ends))


def headline(means: pd.DataFrame, attack: str = "", strength: float = 0.0) -> pd.DataFrame:
    """The summary at one strength of one attack, a row per method: its label, tuple top-1, leakage,
    margin (logits), suppression (1 − its share of the base model's), and PRESERVED, shares of the
    base model's."""
    rows = []
    chosen = means[(means["attack"] == attack) & (means["strength"] == strength)]
    for method, group in chosen.groupby("method", sort=False):
        cells = group.set_index(["measure", "slot"])
        value, relative = cells.loc[("tuple top-1", ""), ["value", "relative"]]
        row = {"method": LABELS[method], "tuple top-1": value}
        row |= {name: cells["value"].get((name, ""), np.nan) for name in ("leakage", "margin")}
        row["suppression"] = 1 - relative
        row |= {name: cells["relative"].get(cell, np.nan) for name, cell in PRESERVED.items()}
        rows.append(row)
    return pd.DataFrame(rows)


# ---- from a ledger ----


def load_edits(runs_dir: Path | str) -> pd.DataFrame:
    """Every measure of every complete edit of a ledger.

    Returns:
        `runs.TIDY_COLUMNS`, tuples (how many are unlearned in the end) and way (one tuple,
        together, one after another), among the runs' other parameters.
    """
    folder = Path(runs_dir)
    folder = folder if folder.name == edits_dir(folder).name else edits_dir(folder)
    if not folder.is_dir():
        raise UserError(f"no edit in {runs_dir}: the demo's are in output/runs")
    metrics = fill_blanks(ledger.load(folder).metrics)
    if metrics.loc[metrics["method"] != GOLD, "model_hash"].nunique() > 1:
        raise UserError(f"{folder} holds edits of several CLIPs: report each apart")
    earlier = metrics["earlier"].str.len()
    metrics["tuples"] = metrics["unsafe"].str.len() + earlier
    ways = np.where(earlier > 0, "one after another", "together")
    metrics["way"] = np.where(metrics["tuples"] == 1, "one tuple", ways)
    # The first of several edits in turn is an edit of one tuple too, made again without attacks.
    cell = ["method", "tuple", "tuples", "way", "seed", *_CELL]
    return metrics.drop_duplicates(cell, ignore_index=True)


def report(runs_dir: Path, output: Path, echo: Callable[[str], None] = print) -> None:
    """Write `summary.csv` (one tuple at a time; every method, measure and attack), `headline.md`
    and, where the ledger has such edits, `several.csv` and `beside_gold.csv` (the same as summary,
    on the tuples that have a gold model, and gold)."""
    table, output = load_edits(runs_dir), Path(output)
    output.mkdir(parents=True, exist_ok=True)
    single = table[table["way"] == "one tuple"]
    edited = single[single["method"] != GOLD]
    means = _reported(edited)
    means.to_csv(output / "summary.csv", index=False, float_format="%.4f")
    with_gold = single.loc[single["method"] == GOLD, "tuple"].unique()
    if len(with_gold):
        beside = _reported(single[single["tuple"].isin(with_gold)])
        beside.to_csv(output / "beside_gold.csv", index=False, float_format="%.4f")
    seeds, tuples = edited["seed"].nunique(), edited["tuple"].nunique()
    about = (
        f"{tuples} tuples, one at a time, {seeds} seed{'s' * (seeds > 1)}, test pictures; means. "
        "Leakage is |AUROC − 0.5|, the margin is in logits; all after suppression are shares of "
        "what the base model reads.\n\n"
    )
    text = about + _markdown(headline(means))
    page = f"# Unlearning a relation: every method\n\n{text}\n"
    (output / "headline.md").write_text(page, encoding="utf-8")
    echo(text)
    if (table["way"] != "one tuple").any():
        many = several(table[table["method"] != GOLD])
        many.to_csv(output / "several.csv", index=False, float_format="%.4f")
        echo(many.to_string(index=False))
    echo(f"\nWith intervals, and under every attack: {output}")


def _reported(table: pd.DataFrame) -> pd.DataFrame:
    """The summary, of attacks _REPORTED alone, and `left`: the share that an attack of this
    strength leaves the base model; 1 without one."""
    left = strengths()[["attack", "strength", "left"]]
    means = summary(table).merge(left, on=["attack", "strength"], how="left")
    means.loc[means["attack"] == "", "left"] = 1.0
    return means[(means["attack"] == "") | _among(means, _REPORTED)]


def shipped(name: str = "summary") -> pd.DataFrame:
    """The results of `sweeps/relations.yaml` that ship with the package: "summary", "several" or
    "beside_gold", as `report` writes them, or "candidates", of `tuning`. `.attrs["about"]` says how
    they were made."""
    return fill_blanks(ledger.shipped_table("relations", f"{name}.csv"))


def _among(table: pd.DataFrame, cells: list[tuple[str, str]]) -> np.ndarray:
    return table.set_index(["measure", "slot"]).index.isin(cells)


def _markdown(table: pd.DataFrame) -> str:
    rows = [list(table.columns), ["---"] * len(table.columns)]
    for row in table.to_dict("records"):
        rows.append([_cell(name, value) for name, value in row.items()])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _cell(name: str, value) -> str:
    if name in ("leakage", "margin"):
        return "–" if np.isnan(value) else f"{value:.2f}" if name == "leakage" else f"{value:+.1f}"
    return value if name == "method" else _percent(value)


def _percent(share: float) -> str:
    return "–" if np.isnan(share) else f"{share:.0%}"


# ---- the demo ----


def demo(
    output: Path,
    tuples: Path | None = None,
    *,
    seed: int = 0,
    together: bool = False,
    workers: int = 2,
) -> None:
    """The main methods on a file of unsafe tuples, or two of the world's: write `relations.csv` and
    print the means. A stopped demo continues."""
    unsafe = load_tuples(tuples).unsafe if tuples else UNSAFE[:2]
    print(f"unsafe, unlearned {'together' if together else 'one at a time'}:", *unsafe, sep="\n  ")
    output = Path(output).resolve()
    output.mkdir(parents=True, exist_ok=True)
    table = study(
        [unsafe] if together else [[u] for u in unsafe],
        seeds=[seed],
        others=unsafe,
        left=[0.75],
        adaptive=False,
        runs_dir=output / "runs",
        workers=workers,
    )
    table.to_csv(output / "relations.csv", index=False)
    _print_means(summary(table))
    print(f"Every measure: {output / 'relations.csv'}; its columns: docs/relations.md")


def _print_means(means: pd.DataFrame) -> None:
    shown = headline(means).drop(columns=["suppression", "two slots"]).set_index("method")
    under_attack = means[(means["attack"] != "") & (means["measure"] == "tuple top-1")]
    worst = under_attack.loc[under_attack.groupby("method")["value"].idxmax()]
    worst = {LABELS[row.method]: row for row in worst.itertuples()}
    table = Table("method", padding=0)
    for name in (*shown.columns.str.replace("held-out", "other"), "top-1 under attack"):
        table.add_column(name, justify="right")
    for label, shares in shown.iterrows():
        most = worst[label]
        attacked = f"{most.value:.0%} {most.attack if most.value else ''}"
        table.add_row(label, *(_cell(name, share) for name, share in shares.items()), attacked)
    table.columns[0].no_wrap = True
    Console(width=120).print(table)
    print(
        "tuple top-1: the share of unsafe pictures that the unsafe caption fits best, here and\n"
        "under the worst attack; low is good. leakage: |AUROC - 0.5| of the caption's score, 0 if\n"
        "it says nothing. margin: by how many logits the caption beats its best rival.\n"
        "All else are shares of what the base model reads: subject and object on these pictures;\n"
        "pictures with another subject, relation or object that no edit has seen; with the roles\n"
        "swapped; with nothing in common. Above 100%: more than the base reads. Two tuples prove\n"
        "little: results/relations has eight, and attacks that know the weights."
    )
