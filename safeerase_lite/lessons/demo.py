"""The first result: every objective with and without PD, in two worlds, and the notebooks.

Everything goes to one folder: `runs/` (the ledger, so that a killed demo continues), `summary.csv`,
`over_forgetting.png`, `nf4.csv` and `notebooks/`; with every lesson, `relations.csv` too.
"""

import contextlib
import io
import time
from pathlib import Path

import pandas as pd

from safeerase_lite.config import Config, config
from safeerase_lite.evaluation import metrics
from safeerase_lite.report.notes import PAPER_FALL
from safeerase_lite.report.texts import model_label
from safeerase_lite.runs import store
from safeerase_lite.runs.executor import parallel_map
from safeerase_lite.tinyworld import DEFAULT_SEED, FRESH_SEED
from safeerase_lite.unlearning.objectives import OBJECTIVES as REGISTRY
from safeerase_lite.unlearning.objectives import UNTRAINED
from safeerase_lite.utils import UserError, peak_memory_gb

OBJECTIVES = ("ga", "gd", "kl", "po")  # the paper's
BOUNDED = ("gd_bounded", "kl_bounded")  # ours, beside the official ones
WORLDS = {"default": DEFAULT_SEED, "fresh": FRESH_SEED}
FIRST_LESSONS = ("00_quickstart", "03_unlearn")


def demo(output: Path, workers: int = 2, *, every_lesson: bool = False) -> None:
    """Run the grid, write the tables and the chart, execute lessons; print the headline.

    Args:
        output: the folder everything goes to; runs already in its ledger are not repeated.
        workers: processes, one thread each.
        every_lesson: execute every lesson, not only the quick start and notebook 03, and
            the demo of relations.
    """
    from safeerase_lite.report import plots
    from safeerase_lite.runs.notebook import execute

    begin = time.perf_counter()
    output = Path(output).resolve()
    output.mkdir(parents=True, exist_ok=True)
    runs_dir = output / "runs"
    run_ids = run_all(grid(), runs_dir, workers)
    summary, nf4 = tables(runs_dir, run_ids)
    summary.to_csv(output / "summary.csv", index=False)
    nf4.to_csv(output / "nf4.csv", index=False)
    chart = plots.over_forgetting(summary, split="test", world="default")
    plots.save(chart, output / "over_forgetting.png")
    for notebook in lessons():
        if every_lesson or notebook.stem in FIRST_LESSONS:
            lesson_begin = time.perf_counter()
            target = execute(
                notebook, output / "notebooks" / notebook.name, {"runs_dir": str(runs_dir)}
            )
            seconds = time.perf_counter() - lesson_begin
            print(f"{notebook.stem}: {seconds:.0f} s → {target}", flush=True)
    if every_lesson:
        from safeerase_lite.relations.report import demo as relations_demo

        relations_demo(output, workers=workers)
    print_headline(summary, nf4, runs_dir, run_ids)
    minutes, memory = (time.perf_counter() - begin) / 60, peak_memory_gb(ended_processes=True)
    print(f"\n{minutes:.1f} minutes; the largest process held {memory:.2f} GB.")


def lessons() -> list[Path]:
    """The collection's notebooks, in order, in a clone of the project."""
    notebooks = sorted((Path(__file__).parents[2] / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    if not notebooks:
        raise UserError("the notebooks are not here: clone the project and run `make demo` there")
    return notebooks


# ---- the grid ----


def grid() -> list[Config]:
    """Vanilla, gold, four objectives plain and with PD, PO with placebo, in both worlds; bounded
    ascent in the default one; and PO with and without PD in NF4, to be compared with the dense
    runs."""
    cells = [("vanilla", "none"), ("gold", "none"), ("po", "placebo")]
    cells += [(objective, decouple) for objective in OBJECTIVES for decouple in ("none", "pd")]
    configs = [
        config(objective="po", decouple=decouple, precision="nf4") for decouple in ("none", "pd")
    ]
    for seed in WORLDS.values():
        splits = ("train", "val", "test") if seed == DEFAULT_SEED else ("train", "test")
        base = config(world_seed=seed, precision="dense", splits=splits)
        bounded = [(o, d) for o in BOUNDED if seed == DEFAULT_SEED for d in ("none", "pd")]
        configs += [config(base, objective=o, decouple=d) for o, d in cells + bounded]
    return configs


def run_all(configs: list[Config], runs_dir: Path, workers: int) -> list[str]:
    """Run every experiment that the ledger does not have; the ids of all."""
    print(f"{len(configs)} runs, {workers} at a time; finished ones stay in {runs_dir}", flush=True)
    labels = [f"{c.label} (world {c.world_seed}, {c.precision})" for c in configs]
    return parallel_map(run, [(c, runs_dir) for c in configs], workers=workers, labels=labels)


def run(config: Config, runs_dir: Path) -> str:
    """One experiment, from its data to the ledger; returns the run's id."""
    import safeerase_lite as sl

    with contextlib.redirect_stdout(io.StringIO()):
        data = sl.load_data(config)
        run = sl.open_run(config, data, runs_dir=runs_dir)
        if not run.done:
            model = sl.load_model(config)
            sl.evaluate(model, data, sl.unlearn(model, data, config, runs_dir=runs_dir))
    return run.id


# ---- tables ----

COLUMNS = [
    "objective", "decouple", "weights", "seed", "world", "split", "kinds", "templates", "metric",
    "value", "low", "high", "n", "kinds_hit", "n_kinds",
]  # fmt: skip


def tables(runs_dir: Path, run_ids: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The metrics of these runs, tidy: those of the dense runs, and those of the NF4 runs."""
    metrics = _of_runs(store.load(runs_dir, allow_mixed=True).metrics, run_ids)
    order = [*UNTRAINED, *REGISTRY].index
    metrics = metrics.assign(order=metrics["objective"].map(order))
    metrics = metrics.sort_values(["world", "order", "decouple"], kind="stable")
    dense = metrics["precision"] == "dense"
    return metrics.loc[dense, COLUMNS], metrics.loc[~dense, COLUMNS]


def _of_runs(table: pd.DataFrame, run_ids: list[str]) -> pd.DataFrame:
    """The rows of these runs, with the names of their worlds."""
    names = {seed: name for name, seed in WORLDS.items()}
    table = table[table["id"].isin(run_ids)]
    return table.assign(world=table["world_seed"].map(names))


def falls(runs_dir: Path, run_ids: list[str], *, world: str, split: str) -> pd.DataFrame:
    """The paired difference in SARR, PD − plain (and placebo − plain), on seen kinds and templates.

    Columns: objective, against, plain, value, low, high, kinds_fell of n_kinds, relative (the fall
    as a share of plain).
    """
    runs = _of_runs(store.load(runs_dir, allow_mixed=True).runs, run_ids)
    runs = runs[(runs["world"] == world) & (runs["precision"] == "dense")]
    answers = {}
    for run in runs.itertuples():
        table = pd.read_parquet(Path(runs_dir) / run.id / "answers.parquet")
        answers[run.objective, run.decouple] = table[table["sample"] == 0]
    rows = []
    for (objective, decouple), decoupled in answers.items():
        if decouple == "none":
            continue
        fall = metrics.paired_difference(
            answers[objective, "none"], decoupled, "sarr",
            split=split, kinds="seen", templates="seen",
        )  # fmt: skip
        relative = -fall.value / fall.before if fall.before else float("nan")
        numbers = fall.before, fall.value, fall.low, fall.high, fall.kinds_fell, fall.n_kinds
        rows.append((objective, decouple, *numbers, relative))
    columns = ["objective", "against", "plain", "value", "low", "high"]
    columns += ["kinds_fell", "n_kinds", "relative"]
    return pd.DataFrame(rows, columns=columns).sort_values(
        ["against", "objective"], ignore_index=True
    )


# ---- the headline ----

# column of the printed table → metric, kinds, templates
HEADLINE = {
    "ASR requested": ("asr", "seen", "all"),
    "RR requested": ("rr", "seen", "all"),
    "ASR unrequested": ("asr", "unseen", "all"),
    "SARR seen": ("sarr", "seen", "seen"),
    "SARR new objects": ("sarr", "unseen", "seen"),
    "SARR new questions": ("sarr", "seen", "unseen"),
    "retain": ("exact_match", "all", "all"),
    "safe pictures": ("utility_safe", "all", "all"),
    "specificity": ("specificity", "all", "all"),
}


def print_headline(
    summary: pd.DataFrame, nf4: pd.DataFrame, runs_dir: Path, run_ids: list[str]
) -> None:
    """Print the results beside what the paper reports."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=110)
    for world in ("default", "fresh"):
        table = Table("model", title=f"{world} world, test pictures", title_justify="left")
        for heading in HEADLINE:
            table.add_column(heading, justify="right")
        here = summary[summary["world"] == world]
        for (objective, decouple), rows in here.groupby(["objective", "decouple"], sort=False):
            values = [_test_rows(rows, *cell)["value"].item() for cell in HEADLINE.values()]
            table.add_row(model_label(objective, decouple), *(f"{value:.0%}" for value in values))
        console.print(table)
    for split, world in (("val", "default"), ("test", "default"), ("test", "fresh")):
        console.print(
            f"[bold]What PD changes in SARR[/bold] ({world} world, {split}, seen objects and "
            f"questions); the paper's abstract says −{PAPER_FALL:.1%}"
        )
        for row in falls(runs_dir, run_ids, world=world, split=split).itertuples():
            console.print(
                f"  {model_label(row.objective, row.against):12s} plain {row.plain:.0%}, points "
                f"{row.value:+.0%} [{row.low:+.0%}, {row.high:+.0%}], {row.kinds_fell} of "
                f"{row.n_kinds} kinds, relative {-row.relative:+.0%}"
            )
    console.print("[bold]NF4 against dense[/bold]: SARR (default world, test, seen)")
    for precision, table in (("dense", summary), ("NF4", nf4)):
        rows = _test_rows(table[table["world"] == "default"], *HEADLINE["SARR seen"])
        for row in rows[(rows["objective"] == "po") & (rows["decouple"] != "placebo")].itertuples():
            name = model_label(row.objective, row.decouple)
            console.print(
                f"  {precision:6s}{name:6s} {row.value:.0%} [{row.low:.0%}, {row.high:.0%}]"
            )


def _test_rows(table: pd.DataFrame, metric: str, kinds: str, templates: str) -> pd.DataFrame:
    cell = {"split": "test", "metric": metric, "kinds": kinds, "templates": templates}
    return table[(table[list(cell)] == pd.Series(cell)).all(axis=1)]
