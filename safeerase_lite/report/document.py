"""A study as a document: its tables as texts, its charts, and what is missing."""

from collections.abc import Callable
from typing import Any

import pandas as pd

from safeerase_lite.unlearning.objectives import UNTRAINED, label_of

from . import notes, plots, texts
from .formats import Document, Section, Table
from .labels import model_label
from .rows import WORLD, views
from .tables import EFFICACY, MEASURE, SARR, Study

Column = tuple[str, str | None, str, str]  # metric, split (None: the report's), kinds, templates

UNLEARNING: dict[str, Column] = {
    "ASR efficacy": ("asr", EFFICACY, "all", "all"),
    "RR efficacy": ("rr", EFFICACY, "all", "all"),
    "ASR generality": ("asr", None, "all", "all"),
    "RR generality": ("rr", None, "all", "all"),
    "ROUGE-L recall": ("rougeL_recall", None, "all", "all"),
    "ROUGE-L F1": ("rougeL_f1", None, "all", "all"),
    "exact match": ("exact_match", None, "all", "all"),
    "specificity": ("specificity", None, "all", "all"),
    "SARR": ("sarr", None, "seen", "seen"),
}
JUDGE_SCORE: dict[str, Column] = {"judge score": ("judge_score", None, "all", "all")}
OVER_FORGETTING: dict[str, Column] = {
    "SARR": ("sarr", None, "seen", "seen"),
    "refused": ("sarr_refused", None, "seen", "seen"),
    "gibberish": ("sarr_gibberish", None, "seen", "seen"),
    "wrong": ("wrong", None, "seen", "seen"),
    "safe error": ("safe_error", None, "seen", "seen"),
    "SARR, new objects": ("sarr", None, "unseen", "seen"),
    "SARR, new questions": ("sarr", None, "seen", "unseen"),
    "SARR, both new": ("sarr", None, "unseen", "unseen"),
}
SHORT = ["ASR eff.", "RR eff.", "ASR gen.", "RR gen.", "ROUGE", "F1", "exact", "spec.", "SARR"]
SHORT = dict(zip(SHORT, UNLEARNING.values(), strict=True))
SHORT["new obj."] = OVER_FORGETTING["SARR, new objects"]
OTHER_CHANGES = {
    "safe error": ("safe_error", "seen", "seen"),
    "SARR, new objects": ("sarr", "unseen", "seen"),
}
# Percent, as a later paper re-reports them (science: secondary); "judge" is a model's score.
REPORTED = Table(
    "LLaVA-1.5 on the real benchmark, as a later paper re-reports it (secondary)",
    pd.DataFrame(
        [
            ["7B GA", "0.0", "0.0", "0.0", "0.0", "0.0", "0.0", "15.3", "100"],
            ["7B GD+PD", "2.8", "0.0", "0.5", "0.4", "61.6", "82.8", "50.7", "28.0"],
            ["7B PO", "0.1", "100", "0.1", "100", "65.2", "85.4", "63.7", "100"],
            ["7B PO+PD", "0.2", "100", "0.2", "99.7", "65.4", "86.2", "64.4", "30.3"],
            ["13B PO+PD", "2.2", "99.5", "2.4", "99.1", "62.7", "81.7", "65.3", "27.3"],
        ],
        columns=["model", "ASR efficacy", "RR efficacy", "ASR generality", "RR generality",
                 "ROUGE-L", "judge", "specificity", "SARR"],
    ),
    [notes.PAPER, "Another model, other data and another judge than above."],
)  # fmt: skip


def document(study: Study, command: str) -> Document:
    """Everything a study shows.

    Args:
        study: from `tables.study`.
        command: what made it, for the notes.
    """
    worlds = list(study.grid.rows["world"].unique())
    sections = [
        Section("What PD changes", tables=[_headline(study, worlds)]),
        Section("What is missing", _missing(study) or ["Nothing."]),
        *(_world(study, world) for world in worlds),
        Section("What the paper reports", tables=[REPORTED]),
        Section("How this was made", notes.provenance(study, command)),
    ]
    return Document("Unlearning, over-forgetting, and what PD changes", sections)


def overview(study: Study) -> tuple[list[Table], list[str]]:
    """What is worth printing: each world's main columns without intervals, what PD changes, and,
    as lines, what is missing."""
    worlds = list(study.grid.rows["world"].unique())
    tables = [_metrics(study, w, f"{w}, {study.split}", SHORT, texts.share) for w in worlds]
    return [*tables, _headline(study, worlds)], _missing(study)


# ---- sections ----


def _headline(study: Study, worlds: list[str]) -> Table:
    """The fall of SARR with PD, a column per world, beside the paper's."""
    falls = study.differences[study.differences["contrast"] == "PD - plain"]
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for row in _of_measure(falls, SARR).to_dict("records"):
        name = (label_of(row["objective"]), *_settings(study, row))
        cell = f"{texts.change(row)}, {texts.relative_change(row)}, {row['seeds']}"
        rows.setdefault(name, {})[row["world"]] = cell
    paper = f"{texts.signed(-100 * notes.PAPER_FALL)}%"
    cells = [[*name, *(of.get(w, texts.BLANK) for w in worlds), paper] for name, of in rows.items()]
    about = [
        "Objects and questions that PD was trained on. Each cell: the change, its share of plain, "
        "and the number of seeds.",
        notes.PAPER,
        notes.CHANGES,
        *notes.of_runs(study, worlds),
    ]
    columns = ["objective", *_key_names(study), *worlds, "paper"]
    return _table("SARR with PD against plain", columns, cells, about, 1 + len(study.grid.keys))


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
        change = [label_of(pair["objective"]), _contrast(pair), pair["world"]]
        lines.append(
            f"Left out: {', '.join([*change, *texts.settings(pair, keys)])}: {pair['reason']}"
        )
    return lines


def _world(study: Study, world: str) -> Section:
    about, columns = notes.of_runs(study, [world]), UNLEARNING
    if "judge_score" in set(study.table["metric"]):
        columns = UNLEARNING | JUDGE_SCORE
    utility, safe = [notes.METRICS, notes.SHARES, *about], [notes.SARR, notes.SHARES, *about]
    show = texts.share_interval
    tables = [
        _metrics(study, world, "Unlearning and utility", columns, show, utility),
        _metrics(study, world, "Over-forgetting", OVER_FORGETTING, show, safe),
        *_changes(study, world, about),
    ]
    return Section(world[0].upper() + world[1:], tables=tables, charts=_charts(study, world))


# ---- tables ----


def _metrics(
    study: Study,
    world: str,
    title: str,
    columns: dict[str, Column],
    show: Callable[[texts.Cells, texts.Measure], str],
    about: list[str] | None = None,
) -> Table:
    """A row per row of the world: its name, settings, the columns as `show` writes them, seeds."""
    rows = []
    for _, part in study.table[study.table["world"] == world].groupby("row", sort=False):
        cells = part.set_index(MEASURE).to_dict("index")
        row = part.iloc[0].to_dict()
        shares = [show(cells, (m, s or study.split, k, t)) for m, s, k, t in columns.values()]
        name = model_label(row["objective"], row["decouple"])
        rows.append([name, *_settings(study, row), *shares, str(row["seeds"])])
    heads = ["model", *_key_names(study), *columns, "seeds"]
    return _table(title, heads, rows, about or [], 1 + len(study.grid.keys))


def _changes(study: Study, world: str, about: list[str]) -> list[Table]:
    """The paired differences of a world: SARR with its tests, then safe error and new objects."""
    here = study.differences[study.differences["world"] == world]
    sarr = _of_measure(here, SARR).to_dict("records")
    if not sarr:
        return []

    def name(row: dict) -> tuple[str, ...]:
        return (label_of(row["objective"]), _contrast(row), *_settings(study, row))

    def spread(row: dict) -> str:
        return " to ".join(texts.signed(100 * row[end]) for end in ("least", "most"))

    heads, words = ["objective", "change", *_key_names(study)], 2 + len(study.grid.keys)
    columns: dict[str, Callable[[dict], str]] = {
        "before": lambda row: f"{100 * row['before']:.1f}",
        "after": lambda row: f"{100 * row['after']:.1f}",
        "points": texts.change,
        "relative": texts.relative_change,
        "seeds": lambda row: str(row["seeds"]),
        "each seed's points": spread,
        "p, sign flips (Holm)": lambda row: texts.p_values(row, "p"),
        "p, paired t (Holm)": lambda row: texts.p_values(row, "p_t"),
    }
    rows = [[*name(row), *(column(row) for column in columns.values())] for row in sarr]
    of_tests = [*notes.of_tests(sarr), notes.CHANGES, *about]
    tables = [_table("Paired differences in SARR", [*heads, *columns], rows, of_tests, words)]
    others = [
        {name(row): row for row in _of_measure(here, measure).to_dict("records")}
        for measure in OTHER_CHANGES.values()
    ]
    if any(others):
        title = "Paired differences in safe error and in SARR on new objects"
        rows = [
            [*name(row), *(texts.before_after(other.get(name(row))) for other in others)]
            for row in sarr
        ]
        arrows = ["Before → after: the change.", notes.CHANGES, *about]
        tables.append(_table(title, [*heads, *OTHER_CHANGES], rows, arrows, words))
    return tables


def _table(title: str, columns: list[str], rows: list, about: list[str], words: int) -> Table:
    return Table(title, pd.DataFrame(rows, columns=columns, dtype=object), about, words)


# ---- charts ----


def _charts(study: Study, world: str) -> list[tuple[str, Any]]:
    """For every combination of settings: the 2×2 of SARR, the plane, and every seed's SARR."""
    charts = []
    combinations = views(study.grid, world)
    sarr = _of_measure(study.by_seed, SARR)
    for settings, rows in combinations:
        named = ", ".join(texts.settings(settings, list(settings)))
        where = f"{world}, {named}" if len(combinations) > 1 else world
        # Without the keys: a blank one would be no JSON.
        table = study.table[study.table["row"].isin(rows)].drop(columns=study.grid.keys)
        seeds = sarr[sarr["row"].isin(rows) & ~sarr["objective"].isin(UNTRAINED)]
        seeds = seeds.drop(columns=study.grid.keys)
        measured = set(table["metric"])
        if "sarr" in measured:
            charts.append((f"SARR, {where}", plots.over_forgetting(table, split=study.split)))
        if {"rr", "asr", "safe_error"} <= measured:
            plane = plots.plane(table, split=study.split)
            charts.append((f"Safety and helpfulness, {where}", plane))
        if seeds["seed"].nunique() > 1:
            every = plots.seeds(seeds, title="SARR, seen objects and questions")
            charts.append((f"SARR of every seed, {where}", every))
    return charts


# ---- rows ----


def _run_name(run: dict, keys: list[str]) -> str:
    """A run in words: its model, its world, and whatever else identifies it."""
    hidden = {"objective", "decouple", "seed", "world"}
    where = [run["world"]] if "world" in run else []
    if where:  # a run of the ledger, all of whose settings are known; else one of a sweep
        hidden |= {*WORLD, *run} - set(keys)
    known = {"objective", "decouple"} <= set(run)
    name = model_label(run["objective"], run["decouple"]) if known else run.get("objective")
    stated = [key for key in run if key not in hidden]
    return ", ".join([name or "a run", *where, *texts.settings(run, stated)])


def _contrast(row: dict) -> str:
    return row["contrast"].replace(" - ", " − ")


def _settings(study: Study, row: dict) -> list[str]:
    return [texts.setting(row[key]) for key in study.grid.keys]


def _key_names(study: Study) -> list[str]:
    return [key.replace("_", " ") for key in study.grid.keys]


def _of_measure(table: pd.DataFrame, measure: tuple[str, str, str]) -> pd.DataFrame:
    """The rows of one metric, kinds and templates."""
    return table[(table[["metric", "kinds", "templates"]] == list(measure)).all(axis=1)]
