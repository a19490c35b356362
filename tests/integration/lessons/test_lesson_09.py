"""Lesson 09 counts what it says it counts, on whatever table of seeds ships with it."""

from itertools import product
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import pytest
from synthetic_ledger import complete

import safeerase_lite as sl
from safeerase_lite.lessons import seed_counts
from safeerase_lite.runs import sweep
from safeerase_lite.runs.notebook import execute

NOTEBOOK = Path(__file__).parents[3] / "notebooks" / "09_sweeps_and_seeds.ipynb"
CELLS = [c for c in nbformat.read(NOTEBOOK, as_version=4).cells if c.cell_type == "code"]


def seed_table(objectives=("ga", "gd", "kl", "po"), seeds=10, worlds=(0, 7919, 104729)):
    """A table of seeds as it ships: random shares, its last row with a seed less."""
    generator = np.random.default_rng(0)
    rows = [
        {"world_seed": world, "objective": objective, "decouple": decouple, "seed": seed,
         "split": "test", "kinds": kinds, "templates": templates, "metric": "sarr", "n": 36,
         "value": generator.integers(0, 19) / 36 + (decouple == "none") / 2}
        for world, objective, decouple, seed, kinds, templates in product(
            worlds, objectives, ("none", "pd"), range(seeds), ("seen", "unseen"), ("seen", "unseen")
        )
    ]  # fmt: skip
    table = pd.DataFrame(rows[:-4] if seeds > 2 else rows)
    table = table.assign(low=(table["value"] - 0.3).clip(0), high=(table["value"] + 0.3).clip(0, 1))
    table.attrs["about"] = "random"
    return table


@pytest.fixture
def run(world, tmp_path, monkeypatch):
    """Run the lesson's cells, those before the one that holds `until`, on a table of seeds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAFEERASE_RUNS", "")  # the lesson sets it for this process
    shown = []
    monkeypatch.setattr(sl.plots, "show", lambda chart: shown.append(chart.description))
    monkeypatch.setattr(sl, "load_data", lambda config: world, raising=False)
    monkeypatch.setattr(sl, "stamp", lambda data: None, raising=False)

    def lesson(table, until="no cell", **parameters):
        monkeypatch.setattr(sl.ledger, "shipped_table", lambda name: table)
        names = {"display": shown.append}
        for cell in CELLS:
            if until in cell.source:
                break
            exec(compile(cell.source, cell.id, "exec"), names)
            if "parameters" in cell.metadata.get("tags", []):
                names |= {"with_sweep": False, "runs_dir": str(tmp_path / "runs")} | parameters
        return SimpleNamespace(**names, shown=shown)

    return lesson


# ---- counting ----


def test_more_pictures_narrow_the_interval_and_lose_the_other_seeds(run):
    lesson = run(seed_table(), until="by_row = ")
    widths, inside = zip(
        *(
            seed_counts.other_seeds_inside(
                lesson.runs, lambda run, m=m: lesson.exact_interval(run.value, m * run.n)
            ).values()
            for m in (1, 10, 100)
        ),
        strict=True,
    )
    widths, inside = ([float(text.rstrip("%")) for text in texts] for texts in (widths, inside))
    assert widths[0] > widths[1] > widths[2]
    assert inside[0] > inside[1] > inside[2]


# ---- whatever ships ----


@pytest.mark.parametrize(
    "table, kinds",
    [
        (seed_table(), "unseen"),
        (seed_table(("ga", "gd"), seeds=2, worlds=(0,)), "unseen"),
        (seed_table(seeds=5, worlds=(0, 7919)), "seen"),
    ],
    ids=["all", "least", "two worlds"],
)
def test_the_lesson_holds_for_other_seeds_and_worlds(run, capsys, table, kinds):
    lesson = run(table, kinds=kinds)
    assert lesson.objectives == list(table["objective"].unique())
    assert sum("of every seed" in text for text in lesson.shown if isinstance(text, str)) == 2
    with_pd = table[(table["decouple"] == "pd") & (table["kinds"] == kinds)]
    for at, means in lesson.means.items():
        rows = with_pd[(with_pd["world_seed"] == at) & (with_pd["templates"] == "seen")]
        assert [*means] == pytest.approx([*rows.groupby("objective")["value"].mean()])
    out, err = capsys.readouterr()
    assert out.count("What happened") == 3 and not err


def test_a_row_of_one_seed_is_left_out(run):
    table = seed_table(("ga", "po", "kl"))
    lone = (table["objective"] == "kl") & (table["decouple"] == "pd") & (table["seed"] > 0)
    assert run(table[~lone], until="def write_sweep").objectives == ["ga", "po"]


# ---- the sweep ----


def test_a_mistake_in_a_file_is_refused_with_a_hint_and_no_folder(run, capsys):
    lesson = run(seed_table(seeds=2), until="def run_sweep")
    refusals = capsys.readouterr().out.splitlines()[-3:]
    for refusal, hint in zip(refusals, ("'objective'", "'po'", "a whole number"), strict=True):
        assert hint in refusal
    assert str(lesson.scratch) not in "".join(refusals)


def test_the_sweep_of_five_seeds_holds_what_is_carried_out(run):
    lesson = run(seed_table(seeds=2), until="def print_error", objective="kl")
    small, five_seeds = (
        {r.id for r in lesson.sweep.load(f).runs()} for f in (lesson.small, lesson.five_seeds)
    )
    assert (len(small), len(five_seeds)) == (2, 10)
    assert small < five_seeds


def test_two_seeds_are_four_runs(run):
    lesson = run(seed_table(seeds=2), until="def print_error", seeds=[0, 1])
    assert len(lesson.sweep.load(lesson.small).runs()) == 4


def test_the_progress_of_a_sweep_names_no_folder(run, capsys, monkeypatch):
    def run_sweep(plan, name, runs, *, workers, say):
        say(f"2 runs; {runs}/sweeps/{name}.csv")

    monkeypatch.setattr(sweep, "run_sweep", run_sweep)
    run(seed_table(seeds=2), with_sweep=True, until="config = ")
    assert capsys.readouterr().out.endswith("2 runs; runs/sweeps/small.csv\n" * 2)


def test_completed_runs_are_reported_and_mixed_versions_refused(run, capsys, tmp_path, monkeypatch):
    runs = {d: complete(tmp_path / "runs", decouple=d, precision="dense") for d in ("none", "pd")}
    for decouple, one in runs.items():
        one.config = sl.config(decouple=decouple, objective="po")
    monkeypatch.setattr(sweep, "run_sweep", lambda *_, **__: None)
    monkeypatch.setattr(sweep, "completed", lambda runs, id: Path(__file__))
    monkeypatch.setattr(sl, "open_run", lambda config, data: runs[config.decouple], raising=False)
    lesson = run(seed_table(seeds=2), with_sweep=True)
    assert lesson.opened == [*runs.values()]
    assert [row[0] for row in lesson.tables[0].frame.to_numpy()] == ["PO", "PO+PD"]
    out = capsys.readouterr().out
    assert "seed 1, 2, 3, 4" in out and "report.tex" in out
    assert "2 versions of torch" in out and str(tmp_path) not in out


def test_without_dask_the_lesson_goes_on(run, capsys, monkeypatch):
    def run_sweep(*_, **__):
        raise sl.UserError("a sweep needs Dask")

    monkeypatch.setattr(sweep, "run_sweep", run_sweep)
    assert run(seed_table(seeds=2), with_sweep=True).opened == []
    assert "a sweep needs Dask" in capsys.readouterr().out


def test_alone_without_lesson_03_it_goes_on_with_the_shipped_table(run, tmp_path, monkeypatch):
    monkeypatch.setattr(sl, "__file__", str(tmp_path / "site" / "safeerase_lite" / "__init__.py"))
    lesson = run(seed_table(seeds=2), with_sweep=True)
    assert lesson.lesson is None and lesson.opened == []


def test_the_lesson_runs_on_the_shipped_table_alone(tmp_path):
    runs_dir = str(tmp_path / "runs")
    given = {"with_sweep": False, "kinds": "seen", "objective": "ga", "runs_dir": runs_dir}
    node = nbformat.read(execute(NOTEBOOK, tmp_path / NOTEBOOK.name, given), as_version=4)
    outputs = [output for cell in node.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.get("name") == "stderr"]
