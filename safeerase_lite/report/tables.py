"""A ledger's tables: every row's metrics over its seeds, what PD changes, and what is missing."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from safeerase_lite.evaluation import metrics
from safeerase_lite.evaluation.statistics import holm, seed_test
from safeerase_lite.runs.store import read_table
from safeerase_lite.unlearning.objectives import UNTRAINED
from safeerase_lite.utils import UserError, track

from . import rows, texts, tuning
from .rows import MODEL, WORLD, Grid
from .texts import TRAININGS

EFFICACY = "train"  # the split of ASR and RR efficacy
# (kinds, templates), the paper's in-distribution setting first. The main SARR of a world is that of
# the first place where it was measured: data that name no safe kind have no seen one.
PLACES = [("seen", "seen"), ("unseen", "seen"), ("seen", "unseen"), ("unseen", "unseen")]
CONTRASTS = [("none", "pd"), ("none", "placebo"), ("placebo", "pd")]  # before, after
MEASURE = ["metric", "split", "kinds", "templates"]
NUMBERS = ["before", "after", "value", "low", "high", "relative", "n", "kinds_fell", "n_kinds",
           "unknown", "at_least", "at_most", "seeds", "least", "most"]  # fmt: skip
TESTS = ["p", "p_holm", "p_t", "p_t_holm"]


@dataclass(frozen=True)
class Study:
    """What a ledger shows. Shares are between 0 and 1.

    table: tidy, a row per row of the grid and measure; n counts answers, least and most are of
        the seeds' values.
    differences: a row per contrast, objective and measure: value = after - before, relative (the
        fall as a share of before), n (pairs), unknown (pairs with an unknown judgement), at_least
        and at_most (of the value, whatever those are), p (sign-flip) and p_t (paired t), and both
        adjusted by Holm over the rows of a contrast and world that share their settings, learning
        rates apart.
    candidates: where several learning rates were tried, a row of `tuning.candidates` per row of the
        grid, and `alone`, whether it is the only one; else empty.
    unchosen: in words, where no learning rate is chosen, and why.
    main: world → its place of `PLACES`.
    missing: the parameters of runs that are expected and not there.
    left_out: what was not compared, and the reason.
    """

    grid: Grid
    split: str
    table: pd.DataFrame
    differences: pd.DataFrame
    by_seed: pd.DataFrame
    candidates: pd.DataFrame
    unchosen: list[str]
    main: dict[str, tuple[str, str]]
    missing: list[dict[str, Any]]
    left_out: list[dict[str, Any]]


def study(
    runs_dir: Path | str,
    *,
    split: str | None = None,
    sweep: Path | str | None = None,
    parameters: dict[str, str] | None = None,
    allow_mixed: bool = False,
) -> Study:
    """Read every complete run under runs_dir; measure, compare, and look for what is missing.

    Args:
        split: where everything but efficacy is measured; None: test where there is one, else val.
        sweep: a file; what it plans, and nothing else, is reported and expected. Without one, every
            trained row is expected to have every seed that some trained row of its world has.
        parameters: reported and expected too is the sweep with these in place of what it says.
        allow_mixed: report runs of several library versions, or of several data sets in one world,
            as one; the notes then say so.
    """
    planned = []
    if sweep:
        from safeerase_lite.runs.sweep import (  # reads notebooks, which a ledger does not need
            METHODS,
            load,
        )

        planned = load(sweep).runs()
        if parameters:
            planned += load(sweep).with_parameters(parameters).runs()
    settings = [run.settings for run in planned]
    grid = rows.read(runs_dir, split=split, planned=settings or None)
    if grid.mixed and not allow_mixed:
        raise UserError(
            f"the runs in {runs_dir} are mixed, {'; '.join(grid.mixed)}: keep them in separate "
            "folders, or report them as one with --allow-mixed"
        )
    missing = rows.missing(settings or rows.expected_seeds(grid), grid.runs)
    missing = rows.missing(missing, grid.unusable)
    if planned:
        missing = [run.given for run in planned if run.settings in missing]
        missing = [{n: v for n, v in run.items() if n != METHODS} for run in missing]
    split = grid.split
    answers = {row: _answers(runs, split) for row, runs in grid.runs.groupby("row")}
    by_seed = _stack(grid, {row: metrics.by_seed(table) for row, table in answers.items()})
    measured = track(answers.items(), "measure", total=len(answers))
    table = _stack(grid, {row: metrics.measure(table) for row, table in measured})
    spread = by_seed.groupby(["row", *MEASURE], sort=False)["value"]
    spread = spread.agg(seeds="size", least="min", most="max").reset_index()
    main = {world: _main_place(part, split) for world, part in table.groupby("world")}
    differences, left_out = _differences(grid, answers, split, main)
    chosen, unchosen = _candidates(grid)
    table = table.merge(spread, on=["row", *MEASURE])
    found = chosen, unchosen, main, missing, left_out
    return Study(grid, split, table, differences, by_seed, *found)


def _candidates(grid: Grid) -> tuple[pd.DataFrame, list[str]]:
    """The candidates, where learning rates vary, and in words where there is no choice."""
    trained = grid.runs[~grid.runs["objective"].isin(UNTRAINED)]
    if "learning_rate" not in grid.keys:
        return pd.DataFrame(), []
    among = ["world", *MODEL, *(key for key in grid.keys if key not in rows.OF_OBJECTIVE)]
    on_val = {row: _answers(runs, tuning.SPLIT) for row, runs in trained.groupby("row")}
    try:
        by_seed = _stack(grid, {row: metrics.by_seed(table) for row, table in on_val.items()})
        table = tuning.candidates(by_seed, among=among, settings=["learning_rate", "row"])
    except UserError as error:
        return pd.DataFrame(), [f"No learning rate is chosen: {error}"]
    alone = table.groupby(among, dropna=False)["row"].transform("size") == 1
    several = tuning.without_choice(table[~alone], among)
    return table.assign(alone=alone), [
        f"No learning rate is chosen: {texts.model_label(row['objective'], row['decouple'])}, "
        f"{row['world']}: none has requested ASR ≤ {tuning.HIGHEST_ASR:.0%} on {tuning.SPLIT}, the "
        f"least is {row['asr']:.1%} at {row['learning_rate']:g}"
        for row in several.to_dict("records")
    ]


def _main_place(table: pd.DataFrame, split: str) -> tuple[str, str]:
    sarr = table[(table["metric"] == "sarr") & (table["split"] == split)]
    measured = set(zip(sarr["kinds"], sarr["templates"], strict=True))
    return next((place for place in PLACES if place in measured), PLACES[0])


def compared(place: tuple[str, str]) -> list[tuple[str, str, str]]:
    """The measures (metric, kinds, templates) that are compared where `place` is the main one."""
    measures = [("sarr", *place), ("safe_error", *place), ("sarr", "unseen", "seen")]
    return list(dict.fromkeys(measures))


def _answers(runs: pd.DataFrame, split: str) -> pd.DataFrame:
    """The greedy answers of a row's runs that a report measures, stacked, with their seed."""
    tables = []
    for run in runs.itertuples():
        table = read_table(run.folder / "answers.parquet").assign(seed=run.seed)
        efficacy = (table["set"] == "forget") & (table["split"] == EFFICACY)
        tables.append(table[((table["split"] == split) | efficacy) & (table["sample"] == 0)])
    return pd.concat(tables, ignore_index=True)


def _stack(grid: Grid, tables: dict[int, pd.DataFrame]) -> pd.DataFrame:
    """One table of all rows', after the columns that describe the row."""
    stacked = pd.concat(tables, names=["row"]).droplevel(1)
    return grid.rows.join(stacked, how="inner").reset_index()


def at_plain_setting(study: Study) -> list[int]:
    """The rows at the learning rate of their objective without PD; untrained ones are among them.

    Where several plain rates were tried it is the chosen one, see `tuning.candidates`.
    """
    own = set(at_own_setting(study))
    every = study.grid.rows
    at_plain = list(every.index[every["objective"].isin(UNTRAINED)])
    for row in every.index.difference(at_plain):
        others = {key: every.at[row, key] for key in every if key not in rows.OF_OBJECTIVE}
        plain = rows.agreeing(every, others | {"decouple": "none"})
        rates = every["learning_rate"][[other for other in plain if other in own]]
        at_plain += [row] if every.at[row, "learning_rate"] in set(rates) else []
    return at_plain


def at_own_setting(study: Study) -> list[int]:
    """The rows at the chosen learning rate, or the only one; untrained ones are among them."""
    settled = study.candidates["chosen"] | study.candidates["alone"]
    untrained = study.grid.rows["objective"].isin(UNTRAINED)
    return [*untrained.index[untrained], *study.candidates.loc[settled, "row"]]


# ---- differences ----


def _differences(
    grid: Grid, answers: dict[int, pd.DataFrame], split: str, main: dict[str, tuple[str, str]]
) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Every contrast that has both sides; and what was left out of them."""
    changes, left_out = [], []
    for before, after in CONTRASTS:
        for row in grid.rows.index[grid.rows["decouple"] == after]:
            about = grid.rows.loc[row].drop("decouple").to_dict()
            about["contrast"] = f"{TRAININGS[after]} - {TRAININGS[before]}"
            other = rows.counterpart(grid, row, before)
            if other is None:
                if before == "none":
                    left_out.append(about | {"reason": "there is no one plain row to compare with"})
                continue
            pair = {before: answers[other], after: answers[row]}
            common = set(pair[before]["seed"]) & set(pair[after]["seed"])
            for decouple, table in pair.items():
                if alone := ", ".join(map(str, sorted(set(table["seed"]) - common))):
                    reason = f"without seed {alone}, which only {TRAININGS[decouple]} has"
                    left_out.append(about | {"reason": reason})
            pair = [table[table["seed"].isin(common)] for table in pair.values()]
            for measure in compared(main[about["world"]]):
                try:
                    if _is_measured(pair[0], measure, split):
                        changes.append(about | _difference(*pair, measure, split))
                except UserError as error:
                    left_out.append(about | {"reason": str(error)})
    columns = ["world", *WORLD, "objective", *grid.keys, "contrast", *MEASURE, *NUMBERS]
    table = pd.DataFrame(changes, columns=[*columns, "p", "p_t"])
    fixed = [key for key in grid.keys if key not in rows.OF_OBJECTIVE]
    family = table.groupby(["world", *fixed, "contrast", *MEASURE], sort=False, dropna=False)
    for p in ("p", "p_t"):
        table[f"{p}_holm"] = family[p].transform(holm) if len(table) else []
    return table[[*columns, *TESTS]], left_out


def _is_measured(answers: pd.DataFrame, measure: tuple[str, str, str], split: str) -> bool:
    """Whether there is a question about harmless pictures in that place."""
    _, kinds, templates = measure
    here = (answers["set"] == "decouple") & (answers["split"] == split)
    here &= answers["seen_kind"].eq(kinds == "seen")
    return bool((here & answers["seen_template"].eq(templates == "seen")).any())


def _difference(
    before: pd.DataFrame, after: pd.DataFrame, measure: tuple[str, str, str], split: str
) -> dict[str, Any]:
    """The numbers of one contrast, in one place."""
    metric, kinds, templates = measure
    place = {"split": split, "kinds": kinds, "templates": templates}
    change = metrics.paired_difference(before, after, metric, **place)
    test = seed_test(change.seeds)
    numbers = vars(change) | {"at_least": change.least, "at_most": change.most}
    numbers |= vars(test) | {"n": change.n, "seeds": test.n, "after": change.before + change.value}
    relative = -change.value / change.before if change.before else float("nan")
    return {"metric": metric, **place, **numbers, "relative": relative}
