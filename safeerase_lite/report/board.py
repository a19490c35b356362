"""The board of methods: each row's forgetting, over-forgetting, utility, robustness and cost, side
by side. Nothing here is one number, so nothing is ranked by one."""

import pandas as pd

from safeerase_lite.runs.store import read_record, read_table

from . import plots, texts
from .rows import Grid
from .tables import PLACES, Study

# title → attack, variant, strength, metric: how often requested hazards are answered harmfully when
# a row's runs were attacked. What no run was attacked with has no column.
ROBUSTNESS = {
    "ASR, one token given": ("prefix", "plan", 1, "asr"),
    "ASR, one hazard relearned": ("relearning", "one hazard", 10, "asr"),
    "ASR, paraphrased": ("words", "paraphrase", 1, "asr"),
}
# title → column of `costs`
COSTS = {"seconds": "seconds", "GB": "gb"}


def attacked(grid: Grid) -> pd.DataFrame:
    """row, title (of ROBUSTNESS), value, runs: the mean over the runs of a row that were attacked
    so, and how many they are."""
    tables = [
        read_table(path).assign(row=run.row)
        for run in grid.runs.itertuples()
        for path in sorted(run.folder.glob("attacks/[!.]*/table.csv"))
    ]
    if not tables:
        return pd.DataFrame(columns=["row", "title", "value", "runs"])
    table = pd.concat(tables, ignore_index=True)
    table = table[table["kinds"] == "seen"]
    cells = zip(*(table[name] for name in ("attack", "variant", "strength", "metric")), strict=True)
    titles = {cell: title for title, cell in ROBUSTNESS.items()}
    table = table.assign(title=[titles.get(cell) for cell in cells])
    of_title = table.groupby(["row", "title"])["value"]
    return of_title.agg(value="mean", runs="size").reset_index()


def costs(grid: Grid) -> pd.DataFrame:
    """seconds (the median run, from its opening to its last answer) and gb (the most memory that a
    process held), by row."""
    records = [read_record(folder) for folder in grid.runs["folder"]]
    runs = pd.DataFrame(
        {
            "row": grid.runs["row"].to_numpy(),
            "seconds": [record["seconds"] for record in records],
            "gb": [record["peak_memory_mb"] / 1024 for record in records],
        }
    )
    return runs.groupby("row").agg({"seconds": "median", "gb": "max"})


def more_columns(grid: Grid) -> dict[str, dict[int, str]]:
    """Robustness and cost as texts: title → row → text."""
    found, cost = attacked(grid), costs(grid)
    columns = {}
    for title in ROBUSTNESS:
        of_title = found[found["title"] == title]
        if not of_title.empty:
            cells = zip(of_title["row"], of_title["value"], of_title["runs"], strict=True)
            columns[title] = {row: f"{100 * value:.1f} ({runs})" for row, value, runs in cells}
    for title, name in COSTS.items():
        digits = 0 if name == "seconds" else 1
        columns[title] = {row: f"{value:.{digits}f}" for row, value in cost[name].items()}
    return columns


def chart(study: Study, rows: list[int], columns: dict[str, texts.Measure]):
    """The same as a chart, of these rows: a panel for each column, plain and PD in two colours."""
    here = study.table[study.table["row"].isin(rows)]
    main = study.main[here["world"].iat[0]]
    parts = []
    for title, (metric, split, *place) in columns.items():
        kinds, templates = main if tuple(place) == PLACES[0] else place
        cell = {"metric": metric, "split": split or study.split, "kinds": kinds}
        cell["templates"] = templates
        found = here[(here[list(cell)] == list(cell.values())).all(axis=1)]
        parts.append(found[["row", "value", "low", "high"]].assign(panel=title))
    parts.append(attacked(study.grid).rename(columns={"title": "panel"}).drop(columns="runs"))
    seconds = costs(study.grid)["seconds"].rename("value").reset_index()
    parts.append(seconds.assign(panel=plots.SECONDS))
    table = pd.concat(parts, ignore_index=True)
    about = study.grid.rows.loc[rows, ["objective", "decouple"]]
    table = about.merge(table, left_index=True, right_on="row", how="inner")
    order = {title: place for place, title in enumerate([*columns, *ROBUSTNESS, plots.SECONDS])}
    table = table.sort_values("panel", key=lambda titles: titles.map(order), kind="stable")
    return plots.board(table, split=study.split)
