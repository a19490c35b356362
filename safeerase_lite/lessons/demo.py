"""The first result: every objective with and without PD, in two worlds, and the notebooks.

Everything goes to one folder: `runs/` (the ledger, so that a killed demo continues), `summary.csv`,
`over_forgetting.png`, `nf4.csv` and `notebooks/`; with every lesson, `relations.csv` too.
"""

import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from safeerase_lite.runs.pool import in_processes
from safeerase_lite.utils import UserError

DEFAULT_SEED, FRESH_SEED = 0, 7919  # the fresh world: nothing was ever chosen on it
PAPER_FALL = 0.795  # SafeEraser's abstract: PD lowers SARR by 79.5% (science: averaged how?)
OBJECTIVES = ("ga", "gd", "kl", "po")
FIRST_LESSONS = ("00_quickstart", "03_unlearn")


@dataclass(frozen=True)
class Job:
    """One run of the grid."""

    world: str
    objective: str
    decouple: str = "none"
    precision: str = "dense"
    seed: int = 0
    weights: str = "official"
    cue: float = 1.0
    projector: str = "trained"

    @property
    def label(self) -> str:
        extra = "" if self.decouple == "none" else f" + {self.decouple}"
        return f"{self.objective}{extra} ({self.world} world, {self.precision})"


def grid() -> list[Job]:
    """Vanilla, gold, four objectives plain and with PD, PO with placebo, in both worlds; and PO
    with and without PD in NF4, to be held against the dense runs."""
    cells = [("vanilla", "none"), ("gold", "none"), ("po", "placebo")]
    cells += [(objective, decouple) for objective in OBJECTIVES for decouple in ("none", "pd")]
    jobs = [Job("default", "po", decouple, "nf4") for decouple in ("none", "pd")]
    return jobs + [Job(world, *cell) for world in ("default", "fresh") for cell in cells]


def demo(output: Path, workers: int = 2, *, every_lesson: bool = False) -> None:
    """Run the grid, write the tables and the chart, execute lessons; print what was found.

    Args:
        output: the folder everything goes to; runs already in its ledger are not repeated.
        workers: processes, one thread each.
        every_lesson: execute the whole collection, not only the quick start and notebook 03, and
            the demo of relations.
    """
    begin = time.perf_counter()
    output = Path(output).resolve()
    output.mkdir(parents=True, exist_ok=True)
    run_all(grid(), output / "runs", workers)
    summary, nf4 = tables(output / "runs")
    summary.to_csv(output / "summary.csv", index=False)
    nf4.to_csv(output / "nf4.csv", index=False)
    _chart(summary, output / "over_forgetting.png")
    for source in lessons() if every_lesson else [f for f in lessons() if f.stem in FIRST_LESSONS]:
        _execute(source, output)
    if every_lesson:
        from safeerase_lite.relations.report import demo as relations_demo

        relations_demo(output, workers=workers)
    _tell(summary, nf4, output)
    minutes = (time.perf_counter() - begin) / 60
    print(f"\n{minutes:.1f} minutes; the largest process held {_peak_memory_gb():.2f} GB.")


def _peak_memory_gb() -> float:
    """Resident memory of this process or any of its workers and kernels, at its highest."""
    unit = 1 if sys.platform == "darwin" else 1024  # kilobytes on Linux
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(who).ru_maxrss for who in whose) * unit / 1024**3


def run_all(jobs: list[Job], runs_dir: Path, workers: int) -> None:
    """Run every job that the ledger does not hold."""
    print(
        f"{len(jobs)} runs, {workers} at a time; finished ones are kept in {runs_dir}", flush=True
    )
    in_processes(run_job, [(job.label, (job, runs_dir)) for job in jobs], workers)


def run_job(job: Job, runs_dir: Path) -> None:
    """One run, start to commit."""
    import contextlib
    import io

    import safeerase_lite as sl

    seed = {"default": DEFAULT_SEED, "fresh": FRESH_SEED}[job.world]
    splits = ("train", "val", "test") if job.world == "default" else ("train", "test")
    profile = sl.profile(
        "tiny",
        precision=job.precision,
        projector=job.projector,
        world_seed=seed,
        cue=job.cue,
        splits=splits,
    )
    with contextlib.redirect_stdout(io.StringIO()):
        data = sl.load_data(profile)
        run = sl.open_run(
            profile,
            data,
            objective=job.objective,
            decouple=job.decouple,
            weights=job.weights,
            seed=job.seed,
            runs_dir=runs_dir,
        )
        if not run.done:
            try:
                model = sl.load_model(run.settings.profile, seed=job.seed)
                sl.unlearn(model, data, run)
                sl.evaluate(model, data, run)
            except Exception as error:
                run.fail(error)
                raise
            run.commit(world=job.world)


# ---- tables ----

COLUMNS = [
    "objective",
    "decouple",
    "weights",
    "seed",
    "world",
    "split",
    "kinds",
    "templates",
    "metric",
    "value",
    "low",
    "high",
    "n",
]


def tables(runs_dir: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The grid's metrics, tidy: those of the dense runs, and those of the NF4 runs."""
    from safeerase_lite.runs import store as ledger

    metrics = ledger.load(runs_dir, allow_mixed=True).metrics
    order = ["vanilla", "gold", *OBJECTIVES].index
    metrics = metrics.assign(order=metrics["objective"].map(order))
    metrics = metrics.sort_values(["world", "order", "decouple"], kind="stable")
    dense = metrics["precision"] == "dense"
    return metrics.loc[dense, COLUMNS], metrics.loc[~dense, COLUMNS]


def falls(runs_dir: Path, *, world: str, split: str) -> pd.DataFrame:
    """The paired difference in SARR, PD − plain (and placebo − plain), on seen kinds and templates.

    Columns: objective, against, plain, value, low, high, relative (the fall as a share of plain).
    """
    from safeerase_lite.evaluation import metrics
    from safeerase_lite.runs import store as ledger

    found = ledger.load(runs_dir, allow_mixed=True).runs
    found = found[(found["world"] == world) & (found["precision"] == "dense")]
    folder = {(row.objective, row.decouple): Path(runs_dir) / row.id for row in found.itertuples()}

    def answers(*key):
        table = pd.read_parquet(folder[key] / "answers.parquet")
        return table[table["sample"] == 0]

    rows = []
    for objective, decouple in folder:
        if decouple == "none":
            continue
        plain, with_it = answers(objective, "none"), answers(objective, decouple)
        d = metrics.paired_difference(
            plain, with_it, "sarr", split=split, kinds="seen", templates="seen"
        )
        table = metrics.measure(plain)
        cell = (table["metric"] == "sarr") & (table["split"] == split)
        cell &= (table["kinds"] == "seen") & (table["templates"] == "seen")
        base = table.loc[cell, "value"].item()
        rows.append(
            {
                "objective": objective,
                "against": decouple,
                "plain": base,
                "value": d.value,
                "low": d.low,
                "high": d.high,
                "relative": -d.value / base if base else float("nan"),
            }
        )
    return pd.DataFrame(rows).sort_values(["against", "objective"], ignore_index=True)


def _chart(summary: pd.DataFrame, path: Path) -> None:
    from safeerase_lite.report import plots as charts

    charts.save(charts.over_forgetting(summary, split="test", world="default"), path)


def _execute(source: Path, output: Path) -> None:
    """Execute a lesson; a finished one is executed again, its runs are read."""
    from safeerase_lite.runs import notebook as notebooks

    begin = time.perf_counter()
    target = output / "notebooks" / source.name
    notebooks.execute(source, target, {"runs_dir": str(output / "runs")})
    print(f"{source.stem}: {time.perf_counter() - begin:.0f} s → {target}", flush=True)


def lessons() -> list[Path]:
    """The collection's notebooks, in order, in a clone of the project."""
    found = sorted((Path(__file__).parents[2] / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    if not found:
        raise UserError("the notebooks are not here: clone the project and run `make demo` there")
    return found


# column of the printed table → (metric, kinds, templates)
HEADLINE = {
    "ASR": ("asr", "all", "all"),
    "RR": ("rr", "all", "all"),
    "SARR seen": ("sarr", "seen", "seen"),
    "SARR new objects": ("sarr", "unseen", "seen"),
    "SARR new questions": ("sarr", "seen", "unseen"),
    "retain exact": ("exact_match", "all", "all"),
    "specificity": ("specificity", "all", "all"),
}


def _tell(summary: pd.DataFrame, nf4: pd.DataFrame, output: Path) -> None:
    """Print the headline: what was found, beside what the paper reports."""
    from rich.console import Console

    console = Console(width=110)
    for world in ("default", "fresh"):
        console.print(_table(summary, world))
    for split, world in (("val", "default"), ("test", "default"), ("test", "fresh")):
        console.print(
            f"[bold]What PD changes in SARR[/bold] ({world} world, {split}, seen objects and "
            f"questions); the paper's abstract says −{PAPER_FALL:.1%}"
        )
        for row in falls(output / "runs", world=world, split=split).itertuples():
            console.print(
                f"  {_label(row.objective, row.against):12s} plain {row.plain:.0%}, points "
                f"{row.value:+.0%} [{row.low:+.0%}, {row.high:+.0%}], relative {-row.relative:+.0%}"
            )
    console.print("[bold]NF4 against dense[/bold]: SARR (default world, test, seen)")
    for precision, table in (("dense", summary), ("NF4", nf4)):
        rows = _cell(table[table["world"] == "default"], "sarr", "seen", "seen")
        for row in rows[(rows["objective"] == "po") & (rows["decouple"] != "placebo")].itertuples():
            name = _label(row.objective, row.decouple)
            console.print(
                f"  {precision:6s}{name:6s} {row.value:.0%} [{row.low:.0%}, {row.high:.0%}]"
            )


def _table(summary: pd.DataFrame, world: str):
    from rich.table import Table

    table = Table("model", title=f"{world} world, test pictures", title_justify="left")
    for heading in HEADLINE:
        table.add_column(heading, justify="right")
    here = summary[summary["world"] == world]
    for (objective, decouple), rows in here.groupby(["objective", "decouple"], sort=False):
        values = [_cell(rows, *cell)["value"].item() for cell in HEADLINE.values()]
        table.add_row(_label(objective, decouple), *(f"{value:.0%}" for value in values))
    return table


def _cell(table: pd.DataFrame, metric: str, kinds: str, templates: str) -> pd.DataFrame:
    return table[
        (table["split"] == "test")
        & (table["metric"] == metric)
        & (table["kinds"] == kinds)
        & (table["templates"] == templates)
    ]


def _label(objective: str, decouple: str) -> str:
    name = objective.upper() if objective in OBJECTIVES else objective
    return name + {"none": "", "pd": "+PD", "placebo": "+placebo"}[decouple]
