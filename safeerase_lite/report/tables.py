"""A ledger's tables: every row's metrics over its seeds, what PD changes, and what is missing.

`study` reads and computes; `report` writes report.md, report.tex, report.html, table.csv and
differences.csv. The same ledger gives the same bytes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from safeerase_lite.evaluation import metrics
from safeerase_lite.evaluation.statistics import holm, seed_test
from safeerase_lite.report import reading
from safeerase_lite.report.reading import WORLD, Grid
from safeerase_lite.utils import UserError, track

EFFICACY = "train"  # the split of ASR and RR efficacy
SARR = ("sarr", "seen", "seen")  # metric, kinds, templates: the paper's in-distribution setting
CHANGES = [SARR, ("safe_error", "seen", "seen"), ("sarr", "unseen", "seen")]
SIDES = {"none": "plain", "pd": "PD", "placebo": "placebo"}
CONTRASTS = [("none", "pd"), ("none", "placebo"), ("placebo", "pd")]
PLACE = ["metric", "split", "kinds", "templates"]
NUMBERS = ["before", "after", "value", "low", "high", "relative", "n", "unknown", "at_least",
           "at_most", "seeds", "least", "most"]  # fmt: skip
TESTS = ["p", "p_holm", "p_t", "p_t_holm"]


@dataclass(frozen=True)
class Study:
    """What a ledger says. Shares are between 0 and 1.

    grid: the runs and rows.  split: where everything but efficacy was measured.
    table: tidy, a row per metric and place: row, world, world_seed, cue, objective, decouple, the
        settings that vary, metric, split, kinds, templates, value, low, high, n (answers), seeds
        (how many), least and most (of the seeds' values).
    differences: a row per contrast, objective and metric: before, after, value = after - before,
        low, high, relative (the fall as a share of before), n (pairs), unknown (pairs with an
        unknown judgement), at_least and at_most (of the value, whatever those are), seeds, least
        and most, p (sign-flip) and p_t (paired t), and both adjusted by Holm over the rows of a
        contrast and world that share their settings, learning rates apart.
    by_seed: the values of every seed: as `table`, with seed and value alone.
    missing: the parameters of runs that are expected and not there.
    left_out: what was not compared: objective, contrast, world, the settings, and the reason.
    """

    grid: Grid
    split: str
    table: pd.DataFrame
    differences: pd.DataFrame
    by_seed: pd.DataFrame
    missing: list[dict[str, Any]]
    left_out: list[dict[str, Any]]


def study(
    runs_dir: Path | str,
    *,
    split: str = "test",
    sweep: Path | str | None = None,
    allow_mixed: bool = False,
) -> Study:
    """Read every complete run under runs_dir; measure, compare, and look for what is missing.

    Args:
        runs_dir: the ledger.
        split: where everything but efficacy is measured.
        sweep: a sweep file; what it plans, and nothing else, is reported and expected. Without
            one, every trained row is expected to have every seed that some trained row of its world
            has.
        allow_mixed: report runs of several library versions, or of several data sets in one world,
            as one; the notes then say so.

    Raises:
        UserError: no complete run, mixed runs, or two runs of one row and seed.
    """
    planned = _planned(sweep) if sweep else []
    settings = [run.settings for run in planned]
    grid = reading.read(runs_dir, split=split, planned=settings or None)
    if grid.mixed and not allow_mixed:
        raise UserError(
            f"the runs in {runs_dir} are mixed, {'; '.join(grid.mixed)}: keep them in separate "
            "folders, or report them as one with --allow-mixed"
        )
    expected = settings or reading.expected_seeds(grid)
    absent = reading.missing(reading.missing(expected, grid.runs), grid.unusable)
    if planned:
        absent = [run.given for run in planned if run.settings in absent]
    answers = {row: _answers(runs, split) for row, runs in grid.runs.groupby("row")}
    by_seed = {row: metrics.by_seed(table) for row, table in answers.items()}
    measured = {
        row: metrics.measure(table).merge(_spread(by_seed[row]), on=PLACE)
        for row, table in track(answers.items(), "measure", total=len(answers))
    }
    differences, left_out = _differences(grid, answers, split)
    return Study(
        grid=grid,
        split=split,
        table=_per_row(grid, measured),
        differences=differences,
        by_seed=_per_row(grid, by_seed),
        missing=absent,
        left_out=left_out,
    )


def report(
    runs_dir: Path | str,
    output: Path | str,
    *,
    split: str = "test",
    sweep: Path | str | None = None,
    allow_mixed: bool = False,
) -> Study:
    """Write a ledger's report into the folder `output`, and print its main tables; see `study`."""
    from rich.console import Console

    from safeerase_lite.report.formats import html, latex, markdown, printed
    from safeerase_lite.report.text import document, overview
    from safeerase_lite.utils import atomic_write

    found = study(runs_dir, split=split, sweep=sweep, allow_mixed=allow_mixed)
    command = f"safeerase report {runs_dir} --split {split}"
    command += f" --sweep {sweep}" if sweep else ""
    command += " --allow-mixed" if allow_mixed else ""
    told = document(found, command)
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    atomic_write(output / "report.md", markdown(told))
    atomic_write(output / "report.tex", latex(told))
    atomic_write(output / "report.html", html(told))
    told = found.table.join(found.grid.told, on="row").drop(columns="row")
    atomic_write(output / "table.csv", told.to_csv(index=False, float_format="%.6g"))
    differences = found.differences.to_csv(index=False, float_format="%.6g")
    atomic_write(output / "differences.csv", differences)
    console = Console(width=120)
    sheets, lines = overview(found)
    for sheet in sheets:
        console.print(printed(sheet))
    for line in [*lines, f"The whole report is in {output}."]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return found


def _planned(sweep: Path | str) -> list:
    from safeerase_lite.runs.sweep import load

    return load(sweep).runs()


# ---- rows ----


def _answers(runs: pd.DataFrame, split: str) -> pd.DataFrame:
    """The greedy answers of a row's runs that a report measures, stacked, with their seed."""
    tables = []
    for run in runs.itertuples():
        table = pd.read_parquet(run.folder / "answers.parquet").assign(seed=run.seed)
        measured = (table["split"] == split) | (
            (table["set"] == "forget") & (table["split"] == EFFICACY)
        )
        tables.append(table[measured & (table["sample"] == 0)])
    return pd.concat(tables, ignore_index=True)


def _spread(by_seed: pd.DataFrame) -> pd.DataFrame:
    values = by_seed.groupby(PLACE, sort=False)["value"]
    return values.agg(seeds="size", least="min", most="max").reset_index()


def _per_row(grid: Grid, tables: dict[int, pd.DataFrame]) -> pd.DataFrame:
    """One table of all rows', after the columns that tell the row."""
    stacked = pd.concat(tables, names=["row"]).droplevel(1)
    return grid.rows.join(stacked, how="inner").reset_index()


# ---- differences ----


def _differences(
    grid: Grid, answers: dict[int, pd.DataFrame], split: str
) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Every contrast that has both sides; and what was left out of them."""
    found, left_out = [], []
    for before, after in CONTRASTS:
        for row in grid.rows.index[grid.rows["decouple"] == after]:
            about = grid.rows.loc[row].drop("decouple").to_dict()
            about["contrast"] = f"{SIDES[after]} - {SIDES[before]}"
            other = reading.partner(grid, row, before)
            if other is None:
                if before == "none":
                    left_out.append(about | {"reason": "there is no one plain row to compare with"})
                continue
            tables = {before: answers[other], after: answers[row]}
            common, alone = _common_seeds(tables)
            left_out += [about | {"reason": said} for said in alone]
            pair = [table[table["seed"].isin(common)] for table in tables.values()]
            for change in CHANGES if common else []:
                try:
                    found += [about | numbers for numbers in _difference(*pair, change, split)]
                except UserError as error:
                    left_out.append(about | {"reason": str(error)})
    columns = ["world", *WORLD, "objective", *grid.keys, "contrast", *PLACE, *NUMBERS, *TESTS]
    table = pd.DataFrame(found, columns=[c for c in columns if not c.endswith("holm")])
    of_objective = reading.OF_OBJECTIVE
    family = ["world", *(key for key in grid.keys if key not in of_objective), "contrast", *PLACE]
    by = table.groupby(family, sort=False, dropna=False)
    for p in ("p", "p_t"):
        table[f"{p}_holm"] = by[p].transform(holm) if len(table) else []
    return table[columns], left_out


def _common_seeds(tables: dict[str, pd.DataFrame]) -> tuple[set, list[str]]:
    """The seeds that both sides have; and, in words, those that only one has."""
    (one, first), (other, second) = ((SIDES[d], set(t["seed"])) for d, t in tables.items())
    alone = [(first - second, one), (second - first, other)]
    said = [
        f"without seed {', '.join(str(seed) for seed in sorted(seeds))}, which only {side} has"
        for seeds, side in alone
        if seeds
    ]
    return first & second, said


def _difference(
    before: pd.DataFrame, after: pd.DataFrame, change: tuple[str, str, str], split: str
):
    """The numbers of one contrast: a list of one, or of none where nothing was asked there."""
    metric, kinds, templates = change
    asked = before[(before["set"] == "decouple") & (before["split"] == split)]
    here = asked["seen_kind"].eq(kinds == "seen") & asked["seen_template"].eq(templates == "seen")
    if not here.any():
        return []
    found = metrics.paired_difference(
        before, after, metric, split=split, kinds=kinds, templates=templates
    )
    test = seed_test(found.seeds)
    return [
        {
            **dict(zip(PLACE, (metric, split, kinds, templates), strict=True)),
            "before": found.before,
            "after": found.before + found.value,
            "value": found.value,
            "low": found.low,
            "high": found.high,
            "relative": -found.value / found.before if found.before else float("nan"),
            "n": found.n,
            "unknown": found.unknown,
            "at_least": found.least,
            "at_most": found.most,
            "seeds": test.n,
            "least": test.least,
            "most": test.most,
            "p": test.p,
            "p_t": test.p_t,
        }
    ]
