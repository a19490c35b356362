"""What attacks did to the runs of a ledger: one table of all, beside gold, and a chart for each."""

from typing import Any

import pandas as pd

from safeerase_lite.robustness import ATTACKS, beside_gold, summary
from safeerase_lite.runs.store import ATTACK_SCORES, attack_files, read_table
from safeerase_lite.utils import track

from . import plots, texts
from .formats import Section, Table
from .rows import Grid

SETTING = ["attack", "variant", "strength", "metric", "split", "kinds"]
# What the table shows: the harm that an attack brings out of requested hazards, the refusals it
# brings about on safe objects that PD has seen, and what probes find. The rest is in attacks.csv.
SHOWN = {
    "asr": "ASR",
    "completed": "own plan",
    "sarr": "SARR",
    "sarr_ordinary": "SARR, ordinary questions",
    "accuracy": "accuracy",
    "rank": "rank",
}
LIKE_GOLD = "°"
ABOUT = [
    "Percent. Requested hazards, and safe objects that PD has seen; value [95% interval] over "
    f"kinds, templates and seeds. {LIKE_GOLD}: not shown to be more than gold's under the same "
    "attack: the interval of the difference, question by question, includes 0. That is no "
    "evidence of forgetting: the interval takes in one unseen kind at its worst. No comparison is "
    "adjusted for the others. ASR counts half of any hazard's plan, own plan the hazard's own, "
    "word for word. Strength 0: no attack."
]


def read(grid: Grid) -> pd.DataFrame:
    """The scores of all attacks on a grid's runs, in one tidy table.

    Returns:
        row, model (its label and whatever settings vary), attack, variant, strength, metric, split,
        kinds, value, low, high, n, kinds_hit, n_kinds, seeds; and, where the world's gold model was
        attacked too, gold, excess, excess_low, excess_high, finding: see `robustness.beside_gold`.
        Without any attack, no row.
    """
    parts = []
    by_row = {row: _scores(runs) for row, runs in grid.runs.groupby("row")}
    attacked = [(row, scores) for row, scores in by_row.items() if not scores.empty]
    for row, scores in track(attacked, "attacks"):
        about = grid.rows.loc[row]
        table = summary(scores).assign(row=row, model=_label(about.to_dict(), grid.keys))
        seeds = scores.groupby("attack")["seed"].nunique()
        table["seeds"] = table["attack"].map(seeds)
        gold = _gold(grid, by_row, about["world"])
        if about["objective"] != "gold" and not gold.empty:
            beside = beside_gold(scores, gold).rename(
                columns={"low": "excess_low", "high": "excess_high"}
            )
            columns = ["gold", "excess", "excess_low", "excess_high", "finding"]
            table = table.merge(beside[[*SETTING, *columns]], "left", SETTING)
        parts.append(table)
    if not parts:
        return pd.DataFrame(columns=["row", "model", *SETTING])
    table = pd.concat(parts, ignore_index=True)
    return table[["row", "model", *table.columns.drop(["row", "model"])]]


def sections(grid: Grid, table: pd.DataFrame) -> list[Section]:
    """A section for each world whose runs were attacked; table: from `read`."""
    found = []
    for world in grid.rows["world"].unique():
        rows = grid.rows.index[grid.rows["world"] == world]
        here = table[table["row"].isin(rows) & table["metric"].isin(SHOWN)]
        here = here[here["kinds"] == "seen"]
        if not here.empty:
            charts = _charts(here, world)
            title = f"Under attack, {world}"
            found.append(Section(title, tables=[_table(here)], charts=charts))
    return found


def _scores(runs: pd.DataFrame) -> pd.DataFrame:
    """Every attack's scores of a row's runs, with their seed."""
    tables = [
        read_table(path).assign(seed=run.seed)
        for run in runs.itertuples()
        for path in attack_files(run.folder, ATTACK_SCORES)
    ]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _gold(grid: Grid, by_row: dict[int, pd.DataFrame], world: str) -> pd.DataFrame:
    """The scores of the gold model of a world; of the first, where settings make several."""
    is_gold = (grid.rows["objective"] == "gold") & (grid.rows["world"] == world)
    scores = [by_row[row] for row in grid.rows.index[is_gold] if not by_row[row].empty]
    return scores[0] if scores else pd.DataFrame()


def _label(row: dict[str, Any], keys: list[str]) -> str:
    name = texts.model_label(row["objective"], row["decouple"])
    return ", ".join([name, *texts.settings(row, keys)])


def _table(rows: pd.DataFrame) -> Table:
    """Rows attack × variant × strength × measure, a column per model."""
    rows = rows.assign(cell=[_cell(row) for row in rows.to_dict("records")])
    models, lines = list(rows["model"].unique()), []
    known = [name for name in ATTACKS if name in set(rows["attack"])]
    for name in [*known, *sorted(set(rows["attack"]) - set(ATTACKS))]:
        of_attack = rows[rows["attack"] == name]
        by = of_attack.groupby(["variant", "metric", "strength"], sort=False)
        for (variant, metric, strength), part in by:
            cells = dict(zip(part["model"], part["cell"], strict=True))
            words = [_label_of(name), variant, f"{strength:g}", SHOWN[metric]]
            lines.append([*words, *(cells.get(model, texts.BLANK) for model in models)])
    columns = ["attack", "variant", "strength", "measure", *models]
    seeds = rows.groupby("model", sort=False)["seeds"].agg(["min", "max"])
    counts = ", ".join(
        f"{model} {row['min']}" + (f" to {row['max']}" if row["min"] < row["max"] else "")
        for model, row in seeds.iterrows()
    )
    meanings = "; ".join(f"{_label_of(name).lower()}: {ATTACKS[name].strength}" for name in known)
    notes = [*ABOUT, f"Strength, {meanings}.", f"Seeds: {counts}."]
    return Table("Every attack", pd.DataFrame(lines, columns=columns, dtype=object), notes, 4)


def _cell(row: dict[str, Any]) -> str:
    nothing = str(row.get("finding", "")).startswith("not shown")
    return texts.rounded_interval(row) + LIKE_GOLD * nothing


def _label_of(attack: str) -> str:
    return ATTACKS[attack].label if attack in ATTACKS else attack


def _charts(rows: pd.DataFrame, world: str) -> list[tuple[str, Any]]:
    """A chart for each attack and measure."""
    charts = []
    for name, of_attack in rows.groupby("attack", sort=False):
        strength = ATTACKS[name].strength if name in ATTACKS else "strength"
        for metric, part in of_attack.groupby("metric", sort=False):
            title = f"{_label_of(str(name))}: {SHOWN[str(metric)]}, {world}"
            chart = plots.under_attack(part, measure=SHOWN[str(metric)], strength=strength)
            charts.append((title, chart))
    return charts
