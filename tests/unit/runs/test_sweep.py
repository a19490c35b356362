"""A grid is written once, checked before anything starts, and every run in it has one name."""

from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from typer.testing import CliRunner

from safeerase_lite.cli import app
from safeerase_lite.config import config
from safeerase_lite.runs import store, sweep
from safeerase_lite.runs.run_process import Outcome, executed_path
from safeerase_lite.unlearning import objectives
from safeerase_lite.utils import UserError

SWEEPS = sorted((Path(__file__).parents[3] / "sweeps").glob("*.yaml"))
LESSON = Path(__file__).parents[3] / "notebooks" / "03_unlearn.ipynb"
PARAMETERS = """\
objective: str = "po"  # which
decouple: str = "none"  # none, pd or placebo
seed: int = 0  # draws
rate: float = 0.1  # of learning
layers: list = []  # some
runs_dir: str = ""  # the ledger"""


MINE = """\
from safeerase_lite.unlearning.objectives import OBJECTIVES, Objective, nll

def mine(x, w):
    return -{factor} * nll(x.forget)

OBJECTIVES["mine"] = Objective(mine, needs=("forget",))
"""


def write_notebook(path, code="print(seed)", parameters=PARAMETERS):
    cells = [
        new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        new_code_cell(code),
    ]
    nbformat.write(new_notebook(cells=cells), path)


@pytest.fixture
def write(tmp_path):
    """Write a sweep file beside a small notebook."""
    write_notebook(tmp_path / "small.ipynb")

    def write(text, name="grid.yaml"):
        path = tmp_path / name
        path.write_text(f"notebook: small.ipynb\n{text}", encoding="utf-8")
        return path

    return write


@pytest.fixture
def runs(write):
    return lambda text: sweep.load(write(text)).runs()


# ---- the grid ----


def test_a_block_is_the_product_of_its_lists_and_seeds_turn_fastest(runs):
    planned = runs("grid: {objective: [ga, po], decouple: [none, pd]}\nseeds: [0, 1]")
    given = [(r.given["objective"], r.given["decouple"], r.given["seed"]) for r in planned]
    assert given == [
        ("ga", "none", 0), ("ga", "none", 1), ("ga", "pd", 0), ("ga", "pd", 1),
        ("po", "none", 0), ("po", "none", 1), ("po", "pd", 0), ("po", "pd", 1),
    ]  # fmt: skip


def test_blocks_add_up_and_a_block_may_have_seeds_of_its_own(runs):
    planned = runs("seeds: [0, 1, 2]\ngrid:\n- {objective: vanilla, seed: 7}\n- {objective: ga}")
    assert [run.given["seed"] for run in planned] == [7, 0, 1, 2]


def test_a_run_that_two_blocks_name_is_run_once(runs):
    assert len(runs("grid:\n- {objective: [ga, po]}\n- {objective: po}")) == 2


def test_a_list_parameter_takes_a_list_of_lists(runs):
    assert [r.given["layers"] for r in runs("grid: {layers: [[1, 2], []]}")] == [[1, 2], []]


def test_a_rate_may_be_written_as_people_write_it(runs):
    assert [r.given["rate"] for r in runs("grid: {rate: [1e-3, 0.5, 1]}")] == [1e-3, 0.5, 1.0]


def test_stating_a_default_is_not_another_run(runs):
    assert runs("grid: {objective: po}")[0].id == runs("grid: {objective: po, seed: 0}")[0].id


def test_where_results_go_is_no_part_of_a_run(tmp_path):
    write_notebook(tmp_path / "small.ipynb")
    a, b = (
        sweep.Sweep(notebook=tmp_path / "small.ipynb", parameters={"runs_dir": r}) for r in "ab"
    )
    assert a.runs()[0].id == b.runs()[0].id


def test_other_parameters_or_other_code_are_another_run(runs, tmp_path):
    one = runs("grid: {seed: 1}")[0].id
    assert one != runs("grid: {seed: 2}")[0].id
    write_notebook(tmp_path / "small.ipynb", code="print(seed + 1)")
    assert one != sweep.load(tmp_path / "grid.yaml").runs()[0].id
    write_notebook(tmp_path / "small.ipynb", parameters=PARAMETERS + '\nurl: str = "a=b"')
    assert one != sweep.load(tmp_path / "grid.yaml").runs()[0].id


def test_none_leaves_a_field_to_the_profile_and_zero_does_not(runs, tmp_path):
    parameters = 'profile: str = "tiny"\nsamples: int = None\nsteps: int = None'
    write_notebook(tmp_path / "small.ipynb", parameters=parameters)
    [run] = sweep.Sweep(notebook=tmp_path / "small.ipynb", parameters={"samples": 0}).runs()
    assert run.given == {"samples": 0}
    assert (run.settings["samples"], run.settings["steps"]) == (0, config().steps)


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_sweep_that_ships_is_valid(path):
    planned = sweep.load(path).runs()
    assert len({run.id for run in planned}) == len(planned) > 1


def test_only_lesson_08s_sweep_has_the_report_of_relations():
    assert [path.stem for path in SWEEPS if sweep.load(path).edits_relations] == ["relations"]


def test_the_papers_table_has_ten_seeds_of_nine_rows_and_two_untrained_models():
    (path,) = [path for path in SWEEPS if path.stem == "paper_table"]
    assert len(sweep.load(path).runs()) == 10 * 9 + 2


# ---- what is refused, before anything starts ----


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("grid: {objectve: po}", "did you mean 'objective'"),
        ("grid: {seed: [0, one]}", "'seed' .* cannot be 'one'"),
        ("grid: {seed: 1.5}", "'seed' .* cannot be 1.5"),
        (f"grid: {{seed: 1{'0' * 30}}}", "field 'seed': .*less than or equal"),
        ("parameters: {rate: .inf}", "'rate' .* cannot be inf"),
        ("parameters: {rate: fast}", "'rate' .* cannot be 'fast'"),
        ("grid: {objective: [po, klm]}", "unknown objective 'klm'.*did you mean 'kl'"),
        ("grid: {decouple: yes}", "'decouple' .* cannot be True: .*in quotes"),
        ("grid: {objective: gold, decouple: pd}", "gold is not unlearned"),
        ("grid: {api_key: x}", "looks like a key or token"),
        ("grid: {objective: hf_abcdefgh}", "looks like a key or token"),
        ("seeds: [0]\nsedes: [1]", "unknown field .*'sedes'.*did you mean 'seeds'"),
        ("retries: -1", "retries: .*greater than or equal to 0"),
        ("time_limit: soon", "time_limit: .*number"),
        ("grid: []", "grid: .*at least 1"),
        ("grid: {seed: []}", "seed has no value"),
        ("grid:\n- {seed: 1}\n- {objective: []}", "objective has no value"),
        ("grid: {seed: [0, 1], seed: [5]}", "seed is there twice"),
        ("seeds: [0]\nseeds: [1]", "line 2 is not YAML: seeds is there twice"),
        ("parameters: {seed: 5}\nseeds: [0]", "parameters name a seed, and seeds others"),
        ("grid: {runs_dir: [a, b]}", "runs_dir is no part of a sweep"),
        ("time_limit: .inf", "time_limit: .*finite"),
        ("grid: {layers: [[{api_key: abc}]]}", "looks like a key or token"),
        ("parameters: {layers: [[AKIAIOSFODNN7EXAMPLE]]}", "looks like a key or token"),
        ("grid: {seed: [1, 2", "line 3 is not YAML"),
    ],
)
def test_a_bad_file_is_one_line_and_nothing_is_written(write, tmp_path, text, complaint):
    path = write(text + "\n")
    before = set(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=complaint) as raised:
        sweep.load(path).runs()
    assert "\n" not in str(raised.value)
    result = CliRunner().invoke(app, ["sweep", str(path), "--runs-dir", str(tmp_path / "runs")])
    assert result.exit_code == 2
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("profile: t5", "unknown profile 't5'"),
        ("precision: fp32", "'precision': .*'nf4' or 'dense'"),
        ("steps: -3", "'steps': .*greater than or equal to 1"),
        ("decouple_share: 7.0", "'decouple_share': .*less than or equal to 1"),
        ("cue: [0.5, 2.0]", "'cue': .*less than or equal to 1"),
        ("decouple: pdd", "'decouple': .*'none', 'pd' or 'placebo'"),
        ("judge: orcale", "no judge 'orcale'"),
        ("steps: 1", "steps=1 with warmup=0.06 is warm-up alone"),
    ],
)
def test_a_value_the_profile_would_refuse_starts_no_kernel(tmp_path, text, complaint):
    path = tmp_path / "grid.yaml"
    path.write_text(f"notebook: {LESSON}\ngrid: {{{text}}}\n")
    with pytest.raises(UserError, match=complaint):
        sweep.load(path).runs()
    if "[" not in text:
        given = text.replace(": ", "=")
        result = CliRunner().invoke(app, ["run", str(LESSON), "-p", given])
        assert result.exit_code == 2


def test_a_missing_file_and_a_missing_notebook_are_named(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.yaml cannot be read"):
        sweep.load(tmp_path / "nothing.yaml")
    path = tmp_path / "lost.yaml"
    path.write_text("notebook: lost.ipynb\n")
    with pytest.raises(UserError, match=r"no notebook .*lost\.ipynb"):
        sweep.load(path).runs()
    path.write_bytes(b"notebook: \xff\n")
    with pytest.raises(UserError, match="no text in UTF-8"):
        sweep.load(path)
    path.write_text("- 1\n")
    with pytest.raises(UserError, match="is no sweep"):
        sweep.load(path)


def test_a_notebook_may_bring_an_objective_of_its_own(write, tmp_path):
    write_notebook(tmp_path / "small.ipynb", code='OBJECTIVES["mine"] = recipe')
    assert sweep.load(write("grid: {objective: mine}")).runs()[0].given == {"objective": "mine"}


# ---- how it stands ----


def test_p_replaces_a_value_in_every_block(write):
    path = write("seeds: [0, 1]\ngrid: [{objective: [po, ga]}, {decouple: pd, seed: 7}]")
    planned = sweep.load(path).with_parameters({"objective": "kl", "rate": "0.5"}).runs()
    assert [(r.given["objective"], r.given["rate"], r.given["seed"]) for r in planned] == [
        ("kl", 0.5, 0), ("kl", 0.5, 1), ("kl", 0.5, 7)
    ]  # fmt: skip
    one_seed = sweep.load(path).with_parameters({"seed": "3"}).runs()
    assert {run.given["seed"] for run in one_seed} == {3}
    with pytest.raises(UserError, match="has no parameter 'objectiv'.*did you mean 'objective'"):
        sweep.load(path).with_parameters({"objectiv": "kl"}).runs()
    with pytest.raises(UserError, match="--runs-dir"):
        sweep.load(path).with_parameters({"runs_dir": "elsewhere"})


def test_an_objective_of_a_file_is_planned_and_another_text_is_another_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = dict(objectives.OBJECTIVES)
    plan = sweep.load(LESSON.parents[1] / "sweeps" / "methods.yaml")
    mine = plan.with_parameters({"objective": "mine", "methods_file": "my_methods.py"})
    try:
        ids = []
        for factor in (1, 1, 2):
            (tmp_path / "my_methods.py").write_text(MINE.format(factor=factor), encoding="utf-8")
            planned = mine.runs()
            ids.append([run.id for run in planned])
    finally:
        objectives.OBJECTIVES.clear()
        objectives.OBJECTIVES.update(before)
    assert len(set(ids[0])) == 10  # plain and with PD, five seeds
    assert ids[0] == ids[1] and not set(ids[0]) & set(ids[2])
    assert {run.given["methods_file"] for run in planned} == {str(tmp_path / "my_methods.py")}


def test_a_table_is_named_after_its_file_and_what_is_replaced():
    path = Path("sweeps/methods.yaml")
    assert sweep.table_name(path, {}) == "methods"
    given = {"objective": "mine", "methods_file": "somewhere/my_methods.py"}
    assert sweep.table_name(path, given) == "methods-mine-my_methods.py"


def test_a_dry_run_lists_every_run_with_its_id_and_starts_none(write, tmp_path):
    path = write("grid: {objective: [ga, po]}\nseeds: [0, 1]")
    ledger = tmp_path / "runs"
    runs = sweep.load(path).runs()
    done = executed_path(ledger, runs[1].id)
    done.parent.mkdir(parents=True)
    nbformat.write(new_notebook(), done)
    result = CliRunner().invoke(app, ["sweep", str(path), "--dry-run", "--runs-dir", str(ledger)])
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert [line.split()[0] for line in lines[:4]] == [run.id for run in runs]
    assert ["complete" in line for line in lines[:4]] == [False, True, False, False]
    assert lines[4].startswith("4 runs, 1 of them complete")
    assert list(ledger.rglob("*.ipynb")) == [done] and not (ledger / "sweeps").exists()


def test_a_run_whose_results_were_removed_is_to_be_run_again(write, tmp_path):
    runs = sweep.load(write("seeds: [0, 1, 2]")).runs()
    here = store.open_run(tmp_path, {"seed": 0})
    here.write_metrics(pd.DataFrame({"metric": ["sarr"]}))
    here.commit()
    for run, opened in zip(runs, ([here.id], ["gone"], []), strict=True):
        path = executed_path(tmp_path, run.id)
        path.parent.mkdir(exist_ok=True)
        nbformat.write(new_notebook(metadata={"safeerase": {"runs": opened}}), path)
    known = sweep.find_completed(tmp_path, "grid", runs)
    assert {run: outcome.run for run, outcome in known.items()} == {
        runs[0].id: here.id,
        runs[2].id: "",
    }
    (here.folder / "metrics.csv").write_text("")
    assert set(sweep.find_completed(tmp_path, "grid", runs)) == {runs[2].id}


@pytest.mark.parametrize("content", ["", "null", "id,status\na,b\n", "id,seconds\na,b\n"])
def test_a_damaged_record_or_notebook_stops_no_sweep(write, tmp_path, content):
    runs = sweep.load(write("seeds: [0, 1]")).runs()
    table = sweep.write_status(tmp_path, "grid", runs, {})
    table.write_text(content)
    for run in runs:
        executed_path(tmp_path, run.id).parent.mkdir(exist_ok=True)
        executed_path(tmp_path, run.id).write_text(content)
    assert sweep.find_completed(tmp_path, "grid", runs) == {}
    assert (tmp_path / "damaged" / "grid.csv-1").read_text() == content


def test_the_record_has_every_run_and_how_it_stands(write, tmp_path):
    runs = sweep.load(write("grid: {objective: [ga, po], seed: [0, 1]}")).runs()
    known = {
        runs[0].id: Outcome(runs[0].id, "complete", 12.5),
        runs[2].id: Outcome(runs[2].id, "failed", 3.0, "no luck"),
    }
    table = pd.read_csv(sweep.write_status(tmp_path, "grid", runs, known), keep_default_na=False)
    assert table["status"].tolist() == ["complete", "missing", "failed", "missing"]
    assert table["reason"].tolist() == ["", "", "no luck", ""]
    assert table["objective"].tolist() == ["ga", "ga", "po", "po"]
