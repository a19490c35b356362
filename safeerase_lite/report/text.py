"""A study in words: its tables as texts, with the notes that a reader needs to cite them."""

from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd

from safeerase_lite.evaluation.statistics import least_p
from safeerase_lite.lessons.demo import PAPER_FALL
from safeerase_lite.report import plots as charts
from safeerase_lite.report import wording
from safeerase_lite.report.formats import Document, Section, Sheet
from safeerase_lite.report.plots.theme import name_of
from safeerase_lite.report.reading import ONE_VERSION, TOLD, UNTRAINED, WORLD, views
from safeerase_lite.report.tables import EFFICACY, SARR, Study

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
JUDGE_SCORE: Column = ("judge_score", None, "all", "all")  # of judges that score
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
SHORT = dict(
    zip(
        ["ASR eff.", "RR eff.", "ASR gen.", "RR gen.", "ROUGE", "F1", "exact", "spec.", "SARR"],
        UNLEARNING.values(),
        strict=True,
    )
)
SHORT["new obj."] = OVER_FORGETTING["SARR, new objects"]
ALSO = {
    "safe error": ("safe_error", "seen", "seen"),
    "SARR, new objects": ("sarr", "unseen", "seen"),
}

SARR_NOTE = (
    "SARR is refused or gibberish; wrong lies outside it, and safe error is SARR and wrong. All "
    "but the last three columns are about objects and questions that PD was trained on."
)
OF_SHARES = (
    "Percent [95% interval]: bootstrap over kinds, questions, pictures within kinds, and seeds; "
    "where hits or misses amount to less than one kind, exact over kinds (Clopper–Pearson)."
)
OF_CHANGES = (
    "Percentage points [95% interval]: bootstrap over kinds, questions, pictures within kinds, and "
    "seeds; where answers that did not change as most did amount to less than one kind, an exact "
    "bound over kinds, which is wide."
)
MEANINGS = (
    "ASR: harmful questions about harmful pictures that are answered harmfully; RR: that are "
    "refused; efficacy on pictures of the forget set, generality on others. ROUGE-L and exact "
    "match: ordinary questions (retain), against the expected answer. Specificity: exact answers "
    "to questions of families that no unlearning set holds."
)
PAPER_NOTE = (
    f"The paper's abstract says that PD lowers SARR by {PAPER_FALL:.1%}; what that is an average "
    "of is unknown."
)
# Percent, as a later paper re-reports them (science: secondary); "judge" is a model's score.
REPORTED = Sheet(
    "LLaVA-1.5 on the real benchmark, as a later paper re-reports it (secondary)",
    ["model", "ASR efficacy", "RR efficacy", "ASR generality", "RR generality", "ROUGE-L", "judge",
     "specificity", "SARR"],
    [
        ["7B GA", "0.0", "0.0", "0.0", "0.0", "0.0", "0.0", "15.3", "100"],
        ["7B GD+PD", "2.8", "0.0", "0.5", "0.4", "61.6", "82.8", "50.7", "28.0"],
        ["7B PO", "0.1", "100", "0.1", "100", "65.2", "85.4", "63.7", "100"],
        ["7B PO+PD", "0.2", "100", "0.2", "99.7", "65.4", "86.2", "64.4", "30.3"],
        ["13B PO+PD", "2.2", "99.5", "2.4", "99.1", "62.7", "81.7", "65.3", "27.3"],
    ],
    [PAPER_NOTE, "Another model, other data and another judge than above."],
)  # fmt: skip


def document(found: Study, command: str) -> Document:
    """Everything a study found. command: what made it, for the notes."""
    worlds = list(dict.fromkeys(found.grid.rows["world"]))
    sections = [
        Section("What PD changes", sheets=[_headline(found, worlds)]),
        Section("What is missing", _absent(found) or ["Nothing."]),
        *(_world(found, world) for world in worlds),
        Section("What the paper reports", sheets=[REPORTED]),
        Section("How this was made", _made(found, command)),
    ]
    return Document("Unlearning, over-forgetting, and what PD changes", sections)


def overview(found: Study) -> tuple[list[Sheet], list[str]]:
    """What is worth printing: each world's main columns without intervals, what PD changes, and,
    as lines, what is missing."""
    worlds = list(dict.fromkeys(found.grid.rows["world"]))
    sheets = [
        _cells(found, world, f"{world}, {found.split}", SHORT, wording.value_alone)
        for world in worlds
    ]
    return [*sheets, _headline(found, worlds)], _absent(found)


# ---- a world ----


def _world(found: Study, world: str) -> Section:
    notes = _notes(found, [world])
    asked = "SARR: harmful questions about harmless pictures, objects and questions that PD was "
    utility = [MEANINGS, asked + "trained on.", OF_SHARES, *notes]
    safe = [SARR_NOTE, OF_SHARES, *notes]
    sheets = [
        _cells(found, world, "Unlearning and utility", UNLEARNING, wording.percent, utility),
        _cells(found, world, "Over-forgetting", OVER_FORGETTING, wording.percent, safe),
        *_changes(found, world, notes),
    ]
    return Section(world[0].upper() + world[1:], sheets=sheets, charts=_charts(found, world))


def _cells(
    found: Study,
    world: str,
    title: str,
    columns: dict[str, Column],
    show: Callable[[dict, Column], str],
    notes: list[str] | None = None,
) -> Sheet:
    """A row per row of the world: its name, settings, the columns as `show` writes them, seeds."""
    if "judge_score" in set(found.table["metric"]):
        columns = {**columns, **({"judge score": JUDGE_SCORE} if columns is UNLEARNING else {})}
    rows = []
    for _, cells in found.table[found.table["world"] == world].groupby("row", sort=False):
        at = cells.set_index(["metric", "split", "kinds", "templates"]).to_dict("index")
        first = cells.iloc[0].to_dict()
        texts = [show(at, (m, s or found.split, k, t)) for m, s, k, t in columns.values()]
        rows.append([wording.model(first), *_settings(first, found), *texts, str(first["seeds"])])
    head = ["model", *_key_names(found), *columns, "seeds"]
    return Sheet(title, head, rows, notes or [], words=1 + len(found.grid.keys))


def _changes(found: Study, world: str, notes: list[str]) -> list[Sheet]:
    """The paired differences of a world: SARR with its tests, then safe error and new objects."""
    here = found.differences[found.differences["world"] == world]
    sarr = _of(here, SARR)
    if not sarr:
        return []
    keys, words = _key_names(found), 2 + len(found.grid.keys)
    names = [_name(row, found) for row in sarr]
    of_sarr = Sheet(
        "Paired differences in SARR",
        ["objective", "change", *keys, "before", "after", "points", "relative", "seeds",
         "each seed's points", "p, sign flips (Holm)", "p, paired t (Holm)"],
        [
            [
                *name,
                *(f"{100 * row[side]:.1f}" for side in ("before", "after")),
                wording.points(row),
                wording.relative(row),
                str(row["seeds"]),
                f"{wording.signed(100 * row['least'])} to {wording.signed(100 * row['most'])}",
                f"{wording.p_value(row['p'])} ({wording.p_value(row['p_holm'])})",
                f"{wording.p_value(row['p_t'])} ({wording.p_value(row['p_t_holm'])})",
            ]
            for name, row in zip(names, sarr, strict=True)
        ],
        [*_test_notes(sarr), OF_CHANGES, *notes],
        words,
    )  # fmt: skip
    named = {
        title: {tuple(_name(row, found)): row for row in _of(here, what)}
        for title, what in ALSO.items()
    }
    others = Sheet(
        "Paired differences in safe error and in SARR on new objects",
        ["objective", "change", *keys, *named],
        [
            [*name, *(wording.moved(rows.get(tuple(name))) for rows in named.values())]
            for name in names
        ],
        ["Before → after: the change.", OF_CHANGES, *notes],
        words,
    )
    return [of_sarr, others] if any(named.values()) else [of_sarr]


def _charts(found: Study, world: str) -> list[tuple[str, Any]]:
    """For every combination of settings: the 2×2 of SARR, the plane, and every seed's SARR."""
    drawn = []
    met = views(found.grid, world)
    sarr = found.by_seed[_at(found.by_seed, SARR)]
    for settings, rows in met:
        said = ", ".join(wording.told(settings, list(settings)))
        where = f"{world}, {said}" if len(met) > 1 else world
        table = found.table[found.table["row"].isin(rows)].drop(columns=found.grid.keys)
        every = sarr[sarr["row"].isin(rows) & ~sarr["objective"].isin(UNTRAINED)]
        every = every.drop(columns=found.grid.keys)  # a blank one would be no JSON
        if (table["metric"] == "sarr").any():
            drawn.append((f"SARR, {where}", charts.over_forgetting(table, split=found.split)))
        if {"rr", "asr", "safe_error"} <= set(table["metric"]):
            plane = charts.plane(table, split=found.split)
            drawn.append((f"Safety and helpfulness, {where}", plane))
        if every["seed"].nunique() > 1:
            seeds = charts.seeds(every, title="SARR, seen objects and questions")
            drawn.append((f"SARR of every seed, {where}", seeds))
    return drawn


# ---- every world ----


def _headline(found: Study, worlds: list[str]) -> Sheet:
    """The fall of SARR with PD, a column per world, beside the paper's."""
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for row in _of(found.differences, SARR):
        if row["contrast"] == "PD - plain":
            objective, _, *settings = _name(row, found)
            cell = f"{wording.points(row)}, {wording.relative(row)}, {row['seeds']}"
            rows.setdefault((objective, *settings), {})[row["world"]] = cell
    paper = wording.signed(-100 * PAPER_FALL) + "%"
    texts = [
        [*name, *(cells.get(w, wording.BLANK) for w in worlds), paper]
        for name, cells in rows.items()
    ]
    notes = [
        "Objects and questions that PD was trained on. Each cell: the change, its share of plain, "
        "and the number of seeds.",
        PAPER_NOTE,
        OF_CHANGES,
        *_notes(found, worlds),
    ]
    head = ["objective", *_key_names(found), *worlds, "paper"]
    return Sheet("SARR with PD against plain", head, texts, notes, words=1 + len(found.grid.keys))


def _absent(found: Study) -> list[str]:
    """In words: runs that are not there, runs that cannot be used, seeds left out of a pair."""
    seeds: dict[str, list] = {}
    for given in found.missing:
        seeds.setdefault(_run(given, found.grid.keys), []).append(given.get("seed"))
    lines = [
        f"Missing: {name}" + (f": seed {', '.join(map(str, of))}" if None not in of else "")
        for name, of in seeds.items()
    ]
    for run in found.grid.unusable.reset_index().to_dict("records"):
        name = _run(run, found.grid.keys)
        lines.append(f"Not usable: {name}, seed {run['seed']} ({run['id']}): {run['error']}")
    for about in found.left_out:
        name = ", ".join(
            [*_name(about, found)[:2], about["world"], *wording.told(about, found.grid.keys)]
        )
        lines.append(f"Left out: {name}: {about['reason']}")
    return lines


def _made(found: Study, command: str) -> list[str]:
    runs, of_runs = found.grid.runs, "runs" if len(found.grid.runs) > 1 else "run"
    lines = [f"Command: {command}", f"{len(runs)} {of_runs}. {_versions(found)}"]
    lines += [_alike(runs, sorted(set(runs) - NO_SETTING)), *_rates(found)]
    if found.grid.mixed:
        lines.append(f"Mixed, as --allow-mixed allows: {'; '.join(found.grid.mixed)}.")
    return lines


# What tells a run from another or where it lies; the rest is how it was made.
NO_SETTING = {"seed", "row", "world", "folder", "versions", "error", "data_hash", "model_hash",
              *WORLD, "objective", "decouple"}  # fmt: skip


def _alike(runs: pd.DataFrame, names: Iterable[str]) -> str:
    """In words, those settings that are one and the same in all runs that have them."""
    found = {name: runs[name].dropna().unique() for name in names if name in runs}
    alike = {name: values[0] for name, values in found.items() if len(values) == 1}
    return f"In every run: {', '.join(wording.told(alike, list(alike)))}."


def _rates(found: Study) -> list[str]:
    """The learning rate of every row, unless the tables have a column of it."""
    runs = (
        found.grid.runs.dropna(subset="learning_rate") if "learning_rate" in found.grid.runs else []
    )
    if not len(runs) or "learning_rate" in found.grid.keys:
        return []
    rates = {
        wording.model(run): wording.value(run["learning_rate"]) for run in runs.to_dict("records")
    }
    return [f"Learning rates: {', '.join(f'{name} {rate}' for name, rate in rates.items())}."]


# ---- notes ----


def _notes(found: Study, worlds: list[str]) -> list[str]:
    """What a table of these worlds needs beside it to be cited."""
    runs = found.grid.runs[found.grid.runs["world"].isin(worlds)]
    trained = runs[~runs["objective"].isin(UNTRAINED)]
    trained = runs if trained.empty else trained
    seeds = sorted(set(trained["seed"]))
    per_row = trained.groupby("row")["seed"].nunique()
    fewest, most = int(per_row.min()), int(per_row.max())
    how_many = f"{most} seed{'s' * (most > 1)}" if fewest == most else f"{fewest} to {most} seeds"
    models = runs[[c for c in ("model", "model_hash") if c in runs]].dropna(how="all")
    models = models.drop_duplicates().fillna("").agg(" ".join, axis=1)
    data = runs[["world", "data_hash"]].drop_duplicates() if "data_hash" in runs else pd.DataFrame()
    hashes = [f"{row.world} {row.data_hash}" for row in data.itertuples()]
    few = (
        " So few leave an interval too narrow where it is mostly they that differ."
        if most > 1 and fewest < 10
        else ""
    )
    one = "" if most > 1 else " and on one seed"
    notes = [
        f"{how_many} ({', '.join(map(str, seeds))}).{few}",
        f"Conditional on one base model{one}: {', '.join(models)}."
        if len(models) == 1
        else f"Conditional on the base models {', '.join(models)}{one}.",
        f"Split {found.split}; efficacy on {EFFICACY}. Data: {', '.join(hashes) or 'unknown'}.",
        _alike(runs, TOLD),
        _versions(found),
    ]
    return [*notes, "MIXED runs, see the end."] if found.grid.mixed else notes


def _test_notes(rows: list[dict]) -> list[str]:
    counts = sorted({row["seeds"] for row in rows})
    least = ", ".join(f"{least_p(n):.3g} with {n} seed{'s' * (n > 1)}" for n in counts)
    return [
        "Questions are paired within a seed. p tests the seeds' mean differences: by all flips of "
        f"their signs, which cannot give less than {least}; and by a paired t test, which takes "
        "them for normal and needs seeds that differ. In parentheses adjusted by Holm over the "
        "rows of a change that share their settings, learning rates apart.",
        PAPER_NOTE,
    ]


def _versions(found: Study) -> str:
    table = pd.DataFrame(found.grid.runs["versions"].tolist()).fillna("none").astype(str)
    order = [*ONE_VERSION, *sorted(set(table) - set(ONE_VERSION))]
    said = (f"{name} {', '.join(sorted(table[name].unique()))}" for name in order if name in table)
    return f"Versions: {'; '.join(said)}."


# ---- rows in words ----


def _name(row: dict, found: Study) -> list[str]:
    change = row["contrast"].replace(" - ", " − ")
    return [name_of(row["objective"]), change, *_settings(row, found)]


def _run(given: dict, keys: list[str]) -> str:
    """A run in words: its model, its world, and whatever else tells it."""
    told = {"objective", "decouple", "seed", "world"}
    where = [given["world"]] if "world" in given else []
    told |= set(WORLD) if where else set()
    told |= set(given) - set(keys) if where else set()
    known = {"objective", "decouple"} <= set(given)
    name = wording.model(given) if known else given.get("objective", "a run")
    keys = [key for key in given if key not in told]
    return ", ".join([name, *where, *wording.told(given, keys)])


def _settings(row: dict, found: Study) -> list[str]:
    return [wording.value(row[key]) for key in found.grid.keys]


def _key_names(found: Study) -> list[str]:
    return [key.replace("_", " ") for key in found.grid.keys]


def _of(differences: pd.DataFrame, what: tuple[str, str, str]) -> list[dict]:
    return differences[_at(differences, what)].to_dict("records")


def _at(table: pd.DataFrame, what: tuple[str, str, str]) -> pd.Series:
    return (table[["metric", "kinds", "templates"]] == list(what)).all(axis=1)
