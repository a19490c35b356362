"""A study as a document: its tables as texts, its charts, and what is missing."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from safeerase_lite.unlearning.objectives import UNTRAINED, label_of

from . import board, notes, plots, texts
from .formats import Document, Section, Table
from .notes import ABOUT
from .rows import WORLD, views
from .tables import MEASURE, PLACES, Study, at_own_setting, at_plain_setting, compared

# table → column → metric, split ("": the report's), kinds, templates
COLUMNS = json.loads(Path(__file__).with_name("columns.json").read_text(encoding="utf-8"))
# The title of a table → its columns, and what they are in `ABOUT`.
MEASURED = {"Unlearning": "unlearning", "Utility": "utility", "Over-forgetting": "over-forgetting"}
# Percent, as a later paper re-reports them (science: secondary); "judge" is a model's score.
REPORTED = Table(
    "LLaVA-1.5 on the real benchmark, as a later paper re-reports it (secondary)",
    pd.read_csv(Path(__file__).with_name("paper.csv"), dtype=str),
    [notes.PAPER, "Another model, other data and another judge than above."],
)


def document(study: Study, command: str, more: Sequence[Section] = ()) -> Document:
    """Everything a study shows, and more sections; `command` is what made it, for the notes."""
    worlds = list(study.grid.rows["world"].unique())
    sections = [
        Section("What PD changes", tables=[_headline(study, worlds)]),
        Section("What is missing", _missing(study) or ["Nothing."]),
        *(_world(study, world) for world in worlds),
        *more,
        Section("What the paper reports", tables=[REPORTED]),
        Section("How this was made", notes.provenance(study, command)),
    ]
    return Document("Unlearning, over-forgetting, and what PD changes", sections)


def overview(study: Study) -> tuple[list[Table], list[str]]:
    """What is worth printing: each world's main columns without intervals, what PD changes, and,
    as lines, what is missing."""
    worlds = list(study.grid.rows["world"].unique())
    columns, show = COLUMNS["printed"], texts.share
    titles = {w: f"{w}, {study.split}" for w in worlds}
    for world in worlds:
        if study.main[world] != PLACES[0]:
            titles[world] += f"; SARR: {notes.places(study, [world])}"
    tables = [_metrics(study, w, title, columns, show, []) for w, title in titles.items()]
    return [*tables, _headline(study, worlds)], _missing(study)


# ---- sections ----


def _headline(study: Study, worlds: list[str]) -> Table:
    """The fall of SARR with PD, a column per world, beside the paper's."""
    falls = study.differences[study.differences["contrast"] == "PD - plain"]
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for row in falls.to_dict("records"):
        if (row["metric"], row["kinds"], row["templates"]) != ("sarr", *study.main[row["world"]]):
            continue
        name = (label_of(row["objective"]), *_settings(study, row))
        cell = f"{texts.change(row)}, {texts.relative_change(row)}, {row['seeds']}"
        rows.setdefault(name, {})[row["world"]] = cell
    paper = f"{texts.signed(-100 * notes.PAPER_FALL)}%"
    cells = [[*name, *(of.get(w, texts.BLANK) for w in worlds), paper] for name, of in rows.items()]
    where = notes.places(study, worlds)
    about = [
        f"{where[0].upper()}{where[1:]}. Each cell: the change, its share of plain, and the number "
        "of seeds.",
        notes.PAPER,
        ABOUT["changes"],
        *notes.of_runs(study, worlds),
    ]
    title, columns = "SARR with PD against plain", [*worlds, "paper"]
    return _table(study, title, ["objective"], columns, cells, about)


def _missing(study: Study) -> list[str]:
    """In words: runs that are not there, runs that cannot be used, seeds left out of a pair."""
    keys, seeds = study.grid.keys, {}
    for run in study.missing:
        seeds.setdefault(_run_name(run, keys), []).append(run.get("seed"))
    lines = [
        f"Missing: {name}" + ("" if None in of_run else f": seed {', '.join(map(str, of_run))}")
        for name, of_run in seeds.items()
    ]
    for run in study.grid.unusable.reset_index().to_dict("records"):
        name = f"{_run_name(run, keys)}, seed {run['seed']} ({run['id']})"
        lines.append(f"Not usable: {name}: {run['error']}")
    for pair in study.left_out:
        change = [*_change_name(pair), pair["world"], *texts.settings(pair, keys)]
        lines.append(f"Left out: {', '.join(change)}: {pair['reason']}")
    return lines + study.unchosen


def _world(study: Study, world: str) -> Section:
    about, show = notes.of_runs(study, [world]), texts.share_interval
    if study.main[world] != PLACES[0]:
        about = [f"SARR: {notes.places(study, [world])}.", *about]
    place = notes.places(study, [world])
    noted = {name: [text.format(place=place), ABOUT["shares"]] for name, text in ABOUT.items()}
    of_board = [noted["board"][0], ABOUT["shares"], *about]
    tables = [
        _metrics(
            study, world, "The board", COLUMNS["board"], show, of_board,
            more=board.more_columns(study.grid),
        )
    ]  # fmt: skip
    if not study.candidates.empty:
        columns = COLUMNS["settings"]
        for title, rows in (
            ("Plain settings", at_plain_setting(study)),
            ("Own settings", at_own_setting(study)),
        ):
            of_rows = [ABOUT[title], ABOUT["rule"], *noted["settings"], *about]
            tables.append(_metrics(study, world, title, columns, show, of_rows, rows))
    tables += [
        _metrics(study, world, title, COLUMNS[name], show, [*noted[name], *about])
        for title, name in MEASURED.items()
    ]
    tables += _changes(study, world, about)
    return Section(world[0].upper() + world[1:], tables=tables, charts=_charts(study, world))


# ---- tables ----


def _metrics(
    study: Study,
    world: str,
    title: str,
    columns: dict[str, texts.Measure],
    show: Callable[[texts.Cells, texts.Measure], str],
    about: list[str],
    only: list[int] | None = None,
    more: dict[str, dict[int, str]] | None = None,
) -> Table:
    """A row per row of the world: its name, settings, the columns as `show` writes them, seeds.

    Columns of what was not measured are left out. only: these rows; None: all. more: further
    columns, title → row → text.
    """
    rows, main = [], {PLACES[0]: study.main[world]}
    measured = set(study.table["metric"])
    columns = {title: of for title, of in columns.items() if of[0] in measured}
    here = study.table[study.table["world"] == world]
    here = here if only is None else here[here["row"].isin(only)]
    more = more or {}
    for number, part in here.groupby("row", sort=False):
        cells = part.set_index(MEASURE).to_dict("index")
        row = part.iloc[0].to_dict()
        shares = [
            show(cells, (metric, split or study.split, *main.get(tuple(place), place)))
            for metric, split, *place in columns.values()
        ]
        label = texts.model_label(row["objective"], row["decouple"])
        shares += [column.get(number, texts.BLANK) for column in more.values()]
        rows.append([label, *_settings(study, row), *shares, str(row["seeds"])])
    return _table(study, title, ["model"], [*columns, *more, "seeds"], rows, about)


def _changes(study: Study, world: str, about: list[str]) -> list[Table]:
    """The paired differences of a world: SARR with its tests, then safe error and new objects."""
    here = study.differences[study.differences["world"] == world]
    sarr, *others = (
        {(*_change_name(row), *_settings(study, row)): row for row in _of_measure(here, measure)}
        for measure in compared(study.main[world])
    )
    if not sarr:
        return []
    columns: dict[str, Callable[[dict], str]] = {
        "before": lambda row: f"{100 * row['before']:.1f}",
        "after": lambda row: f"{100 * row['after']:.1f}",
        "points": texts.change,
        "relative": texts.relative_change,
        "seeds": lambda row: str(row["seeds"]),
        "each seed's points": texts.spread,
        "p, sign flips (Holm)": lambda row: texts.p_values(row, "p"),
        "p, paired t (Holm)": lambda row: texts.p_values(row, "p_t"),
    }
    title, names = "Paired differences in SARR", ["objective", "change"]
    rows = [[*name, *(column(row) for column in columns.values())] for name, row in sarr.items()]
    tests = [*notes.of_tests(sarr.values()), ABOUT["changes"], *about]
    tables = [_table(study, title, names, [*columns], rows, tests)]
    if any(others):
        title = "Paired differences in safe error" + " and in SARR on new objects" * len(others[1:])
        rows = [[*name, *(texts.before_after(o.get(name)) for o in others)] for name in sarr]
        columns = ["safe error", "SARR, new objects"][: len(others)]
        arrows = ["Before → after: the change.", ABOUT["changes"], *about]
        tables.append(_table(study, title, names, columns, rows, arrows))
    return tables


def _table(
    study: Study, title: str, names: list[str], columns: list[str], rows: list, about: list[str]
) -> Table:
    """A table of rows: their names, the settings that vary, and the columns."""
    words = [*names, *(key.replace("_", " ") for key in study.grid.keys)]
    frame = pd.DataFrame(rows, columns=[*words, *columns], dtype=object)
    return Table(title, frame, about, len(words))


# ---- charts ----


def _charts(study: Study, world: str) -> list[tuple[str, Any]]:
    """For every combination of settings: the 2×2 of SARR, the plane, and every seed's SARR."""
    charts = []
    main = study.main[world]
    combinations = views(study.grid, world)
    if not study.candidates.empty and main == PLACES[0]:
        every = study.by_seed[study.by_seed["world"] == world]
        pareto = plots.pareto(every, split=study.split, candidate=["row", "learning_rate"])
        charts.append((f"Every candidate, {world}", pareto))
    # Without the keys: a blank one would be no JSON.
    table, by_seed = (t.drop(columns=study.grid.keys) for t in (study.table, study.by_seed))
    by_seed = pd.DataFrame(_of_measure(by_seed, ("sarr", *main)), columns=by_seed.columns)
    by_seed = by_seed[~by_seed["objective"].isin(UNTRAINED)]
    for settings, rows in combinations:
        named = ", ".join(texts.settings(settings, list(settings)))
        where = f"{world}, {named}" if len(combinations) > 1 else world
        here, seeds = (t[t["row"].isin(rows)] for t in (table, by_seed))
        of_split = here[here["split"] == study.split]
        measured = set(zip(of_split["metric"], of_split["kinds"], strict=True))
        if {("asr", "seen"), ("sarr", "all")} <= measured:
            of_board = board.chart(study, rows, COLUMNS["board"])
            charts.append((f"The board, {where}", of_board))
        if ("sarr", "all") in measured:
            charts.append((f"SARR, {where}", plots.over_forgetting(here, split=study.split)))
        if {("rr", "seen"), ("safe_error", "all")} <= measured:
            plane = plots.plane(here, split=study.split)
            charts.append((f"Safety and helpfulness, {where}", plane))
        if seeds["seed"].nunique() > 1:
            title = "SARR, {} objects, {} questions".format(*main)
            title = "SARR, seen objects and questions" if main == PLACES[0] else title
            every = plots.seeds(seeds, title=title)
            charts.append((f"SARR of every seed, {where}", every))
    return charts


# ---- rows ----


def _run_name(run: dict, keys: list[str]) -> str:
    """A run in words: its model, its world, and whatever else identifies it."""
    hidden = {"objective", "decouple", "seed", "world", "attacks"}
    where = [run["world"]] if "world" in run else []
    if where:  # a run of the ledger, all of whose settings are known; else one of a sweep
        hidden |= {*WORLD, *run} - set(keys)
    known = {"objective", "decouple"} <= set(run)
    name = texts.model_label(run["objective"], run["decouple"]) if known else run.get("objective")
    stated = [key for key in run if key not in hidden]
    return ", ".join([name or "a run", *where, *texts.settings(run, stated)])


def _change_name(row: dict) -> tuple[str, str]:
    return label_of(row["objective"]), row["contrast"].replace(" - ", " − ")


def _settings(study: Study, row: dict) -> list[str]:
    return [texts.setting(row[key]) for key in study.grid.keys]


def _of_measure(table: pd.DataFrame, measure: tuple[str, str, str]) -> list[dict[str, Any]]:
    """The rows of one metric, kinds and templates."""
    of_measure = (table[["metric", "kinds", "templates"]] == list(measure)).all(axis=1)
    return table[of_measure].to_dict("records")
