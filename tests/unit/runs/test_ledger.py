"""A run is complete or absent, written by one process, and read back as it was."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from safeerase_lite.runs.store import default_runs_dir, load, open_run, session
from safeerase_lite.utils import Damaged, UserError

ROOT = Path(__file__).parents[3]
PARAMETERS = {"objective": "po", "decouple": "pd", "seed": 0, "data_hash": "d1"}
METRICS = pd.DataFrame({"metric": ["sarr"], "split": ["test"], "value": [0.1], "n": [96]})

OPENS_AND_WAITS = f"""
import sys, time
from safeerase_lite.runs.store import open_run
run = open_run(sys.argv[1], {PARAMETERS!r})
run.write_history([{{"step": 1, "loss": 2.0}}])
run.checkpoint_dir.mkdir()
print("open", flush=True)
time.sleep(60)
"""


def complete_run(runs_dir, **changes):
    run = open_run(runs_dir, PARAMETERS | changes)
    run.write_history([{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}])
    run.write_metrics(METRICS)
    run.commit()
    return run


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def other_process(tmp_path):
    """A process that has the run open and works on it."""
    command = [sys.executable, "-c", OPENS_AND_WAITS, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout.readline() == "open\n"
    yield process
    process.kill()
    process.wait()


# ---- complete or absent ----


def test_a_committed_run_is_whole_and_nothing_else_is_left(tmp_path):
    run = complete_run(tmp_path)
    assert names(tmp_path) == sorted([run.id, "partial"])
    assert names(tmp_path / "partial") == []
    assert names(tmp_path / run.id) == ["history.csv", "metrics.csv", "run.json"]


def test_a_process_killed_mid_run_leaves_only_partial(tmp_path, other_process):
    os.kill(other_process.pid, signal.SIGKILL)
    other_process.wait()
    assert names(tmp_path) == ["partial"]
    with pytest.raises(UserError, match="no run in"):
        load(tmp_path)


def test_what_a_dead_process_left_is_taken_up_again(tmp_path, other_process):
    os.kill(other_process.pid, signal.SIGKILL)
    other_process.wait()
    run = open_run(tmp_path, PARAMETERS)
    assert run.resumed and not run.done
    assert run.checkpoint_dir.is_dir()
    assert run.history["loss"].tolist() == [2.0]
    run.write_metrics(METRICS)
    run.commit()
    assert not run.checkpoint_dir.exists()


def test_a_failed_run_keeps_its_traceback_and_can_be_tried_again(tmp_path):
    run = open_run(tmp_path, PARAMETERS)
    try:
        raise FloatingPointError("the loss is NaN at step 7")
    except FloatingPointError as error:
        run.fail(error)
    assert names(tmp_path) == ["failed", "partial"]
    text = (tmp_path / "failed" / run.id / "traceback.txt").read_text()
    assert "the loss is NaN at step 7" in text and "test_ledger.py" in text
    assert load(tmp_path).runs["status"].tolist() == ["failed"]

    again = complete_run(tmp_path)
    assert again.id == run.id and not again.resumed
    assert names(tmp_path / "failed") == []
    assert load(tmp_path).runs["status"].tolist() == ["complete"]


def test_a_run_without_metrics_is_not_whole(tmp_path):
    run = open_run(tmp_path, PARAMETERS)
    with pytest.raises(UserError, match=r"no metrics\.csv"):
        run.commit()
    assert names(tmp_path) == ["partial"]


def test_a_complete_run_is_loaded_and_no_longer_written(tmp_path):
    first = complete_run(tmp_path)
    run = open_run(tmp_path, PARAMETERS)
    assert run.done and run.id == first.id and run.folder == tmp_path / first.id
    pd.testing.assert_frame_equal(run.metrics, METRICS)
    run.commit()
    run.fail(ValueError("a chart after the commit"))
    assert load(tmp_path).runs["status"].tolist() == ["complete"]
    with pytest.raises(UserError, match="closed"):
        run.write_metrics(METRICS)


def test_the_first_to_complete_a_run_is_kept(tmp_path):
    late = open_run(tmp_path, PARAMETERS)
    late.write_metrics(METRICS.assign(value=0.9))
    (tmp_path / "elsewhere").mkdir()
    first = complete_run(tmp_path / "elsewhere")
    first.folder.rename(tmp_path / first.id)
    late.commit()
    assert late.done and late.metrics["value"].tolist() == [0.1]
    assert names(tmp_path / "partial") == []


# ---- damaged ----

FILES = ("run.json", "metrics.csv", "history.csv")
DAMAGES = (
    None,
    "",
    "null",
    "[]",
    '{"schema": 2}',
    "\udcff\udcfe",
    "metric,split,value,n\nsarr,test,0.7,96\n",
)


def damage(path, content):
    path.unlink()
    if content is not None:
        path.write_bytes(content.encode(errors="surrogateescape"))


@pytest.mark.parametrize("content", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_run_is_set_aside_and_done_again(tmp_path, capsys, name, content):
    first = complete_run(tmp_path)
    (first.folder / "notes.txt").write_text("mine")
    damage(first.folder / name, content)
    with pytest.raises(UserError, match=rf"{first.folder / name} is .*: move {first.folder} away"):
        load(tmp_path)
    run = open_run(tmp_path, PARAMETERS)
    assert not run.done and f"note: {first.folder / name} is" in capsys.readouterr().out
    assert (tmp_path / "damaged" / f"{run.id}-1" / "notes.txt").read_text() == "mine"
    complete_run(tmp_path)
    assert open_run(tmp_path, PARAMETERS).done and len(load(tmp_path).metrics) == 1


@pytest.mark.parametrize("content", DAMAGES)
@pytest.mark.parametrize("name", ["run.json", "history.csv"])
def test_of_a_dead_process_what_is_damaged_is_set_aside_and_the_checkpoint_stays(
    tmp_path, name, content
):
    run = open_run(tmp_path, PARAMETERS)
    run.write_history([{"step": 1, "loss": 2.0}])
    run.checkpoint_dir.mkdir()
    damage(run.folder / name, content)
    (run.folder / "answers.parquet").mkdir()
    assert complete_run(tmp_path).history["step"].tolist() == [1, 2]
    aside = {path.name for path in (tmp_path / "damaged" / run.id).iterdir()}
    assert aside == {"answers.parquet-1"} | ({f"{name}-1"} if content is not None else set())


def test_what_is_damaged_while_a_run_is_written_does_not_cost_the_run(tmp_path):
    late = open_run(tmp_path, PARAMETERS)
    late.write_metrics(METRICS)
    (tmp_path / late.id).mkdir()
    (tmp_path / late.id / "metrics.csv").write_text("torn")
    late.commit()
    assert open_run(tmp_path, PARAMETERS).metrics.equals(METRICS)
    assert (tmp_path / "damaged" / f"{late.id}-1" / "metrics.csv").read_text() == "torn"


def test_a_damaged_run_is_not_touched_while_another_process_writes_it(tmp_path, other_process):
    [folder] = (path for path in (tmp_path / "partial").iterdir() if path.is_dir())
    torn = tmp_path / folder.name / "metrics.csv"
    torn.parent.mkdir()
    torn.write_text("torn")
    with pytest.raises(UserError, match="being written by process"):
        open_run(tmp_path, PARAMETERS, wait=0.1)
    assert torn.read_text() == "torn"


def test_a_file_that_only_this_user_cannot_read_is_not_damaged(tmp_path, monkeypatch):
    run = complete_run(tmp_path)

    def denied(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(UserError, match=r"run\.json cannot be read: Permission denied"):
        open_run(tmp_path, PARAMETERS)
    assert run.folder.is_dir() and not (tmp_path / "damaged").exists()


def test_a_run_of_an_older_version_has_no_digests_and_is_read(tmp_path):
    run = complete_run(tmp_path)
    record = json.loads((run.folder / "run.json").read_text())
    assert set(record.pop("files")) == {"history.csv", "metrics.csv"}
    (run.folder / "run.json").write_text(json.dumps(record))
    assert open_run(tmp_path, PARAMETERS).done and len(load(tmp_path).metrics) == 1
    (run.folder / "metrics.csv").write_text("")
    with pytest.raises(UserError, match=r"metrics\.csv is empty: move"):
        open_run(tmp_path, PARAMETERS).metrics  # noqa: B018


def test_a_record_of_another_status_is_damaged_and_the_run_done_again(tmp_path):
    run = complete_run(tmp_path)
    path = run.folder / "run.json"
    for status in ("partial", "failed"):
        path.write_text(path.read_text().replace('"complete"', f'"{status}"'))
        with pytest.raises(Damaged, match=rf"^{path} is damaged: move {run.folder} away"):
            load(tmp_path)
        complete_run(tmp_path)
    assert load(tmp_path).runs["status"].tolist() == ["complete"]


def test_a_run_copied_under_another_name_is_not_counted_twice(tmp_path):
    run = complete_run(tmp_path)
    copy = tmp_path / ("0" * 12)
    shutil.copytree(run.folder, copy)
    with pytest.raises(Damaged, match=rf"{copy / 'run.json'} is damaged: move {copy} away"):
        load(tmp_path)


@pytest.mark.parametrize("files", [{"files": {}}, {}])
def test_a_complete_run_has_metrics_whatever_its_record_lists(tmp_path, files):
    run = complete_run(tmp_path)
    record = json.loads((run.folder / "run.json").read_text())
    del record["files"]
    (run.folder / "run.json").write_text(json.dumps(record | files))
    (run.folder / "metrics.csv").unlink()
    with pytest.raises(Damaged, match=r"metrics\.csv is missing"):
        load(tmp_path)
    assert not open_run(tmp_path, PARAMETERS).done


def test_a_file_in_place_of_an_open_run_is_set_aside(tmp_path):
    run = complete_run(tmp_path / "elsewhere")
    (tmp_path / "partial").mkdir()
    (tmp_path / "partial" / run.id).write_text("mine")
    assert complete_run(tmp_path).done
    assert (tmp_path / "damaged" / f"{run.id}-1").read_text() == "mine"


def test_what_stands_in_the_way_of_a_run_is_named(tmp_path):
    run = complete_run(tmp_path)
    (run.folder / "metrics.csv").write_text("torn")
    (tmp_path / "damaged").touch()
    with pytest.raises(UserError, match=f"{tmp_path / 'damaged'} is not a folder"):
        open_run(tmp_path, PARAMETERS)
    other = open_run(tmp_path / "other", PARAMETERS)
    (other.folder / "answers.parquet").mkdir()
    (tmp_path / "other" / "damaged").touch()
    with pytest.raises(UserError, match=f"{tmp_path / 'other' / 'damaged'} is not a folder"):
        open_run(tmp_path / "other", PARAMETERS)
    lock = tmp_path / "third" / "partial" / f"{run.id}.lock"
    lock.mkdir(parents=True)
    with pytest.raises(UserError, match=f"cannot be stored in .*: {lock}: Is a directory"):
        open_run(tmp_path / "third", PARAMETERS)


# ---- one writer ----


def test_the_second_process_to_open_a_run_is_told(tmp_path, other_process):
    with pytest.raises(UserError, match=f"written by process {other_process.pid} in"):
        open_run(tmp_path, PARAMETERS, wait=0.1)
    assert not open_run(tmp_path, PARAMETERS | {"seed": 1}).done


def test_a_forked_process_does_not_inherit_the_right_to_write(tmp_path):
    open_run(tmp_path, PARAMETERS)
    forked = os.fork()
    if forked == 0:
        try:
            open_run(tmp_path, PARAMETERS, wait=0.1)
        except UserError:
            os._exit(7)
        os._exit(0)
    _, status = os.waitpid(forked, 0)
    assert os.waitstatus_to_exitcode(status) == 7


def test_a_notebook_cell_may_be_run_twice(tmp_path):
    run = open_run(tmp_path, PARAMETERS)
    run = open_run(tmp_path, PARAMETERS)
    run.write_metrics(METRICS)
    run.commit()
    assert run.done


# ---- what a run is ----


def test_the_id_depends_on_what_the_parameters_say_not_on_their_order(tmp_path):
    """sha256 of {"objective":"po","seed":0}, first 12 digits: the same on every machine."""
    one = open_run(tmp_path, {"objective": "po", "seed": 0})
    other = open_run(tmp_path, {"seed": 0, "objective": "po"})
    assert one.id == other.id == "db8a6213c0b2"
    assert open_run(tmp_path, {"objective": "po", "seed": 1}).id != one.id


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, Path("data")])
def test_parameters_that_json_cannot_hold_are_refused(tmp_path, value):
    with pytest.raises(UserError, match="JSON values"):
        open_run(tmp_path, {"value": value})


def test_run_json_says_how_the_result_came_about(tmp_path):
    before = time.time()
    run = open_run(tmp_path, PARAMETERS)
    run.write_metrics(METRICS)
    run.commit()
    record = json.loads((run.folder / "run.json").read_text())
    assert record["schema"] == 2 and record["id"] == run.id and record["status"] == "complete"
    assert record["parameters"] == PARAMETERS
    # A test of seconds, by one clock; a wrong time zone or unit would be hours off.
    assert abs(pd.Timestamp(record["started"]).timestamp() - before) < 60
    assert 0 <= record["seconds"] < 60 and record["peak_memory_mb"] > 10
    assert {"python", "torch", "transformers", "peft", "bitsandbytes"} <= set(record["versions"])


def test_answers_come_back_as_written_unknowns_and_empty_answers_included(tmp_path):
    answers = pd.DataFrame(
        {
            "answer": ["", "Ring · кольцо", "First the ring."],
            "harmful": [True, None, False],
            "harm_nll": [0.1, np.nan, 3.0],
        }
    )
    run = open_run(tmp_path, PARAMETERS)
    run.write_answers(answers)
    assert run.answers["answer"].tolist() == answers["answer"].tolist()
    assert run.answers["harmful"].isna().tolist() == [False, True, False]
    pd.testing.assert_series_equal(run.answers["harm_nll"], answers["harm_nll"])


def test_a_resumed_training_overwrites_the_steps_it_does_again(tmp_path):
    run = open_run(tmp_path, PARAMETERS)
    run.write_history([{"step": step, "loss": 1.0} for step in (1, 2, 3)])
    run.write_history([{"step": 3, "loss": 0.5}, {"step": 4, "loss": 0.25}])
    run.write_history([])
    assert run.history["step"].tolist() == [1, 2, 3, 4]
    assert run.history["loss"].tolist() == [1.0, 1.0, 0.5, 0.25]


def test_numbers_survive_the_csv_exactly(tmp_path):
    run = open_run(tmp_path, PARAMETERS)
    run.write_metrics(METRICS.assign(value=1 / 3))
    assert run.metrics["value"].tolist() == [1 / 3]


# ---- many runs ----


def test_the_ledger_gives_tidy_tables_with_the_parameters_joined(tmp_path):
    for seed in (0, 1):
        complete_run(tmp_path, seed=seed, profile={"name": "tiny", "steps": 2})
    ledger = load(tmp_path)
    assert sorted(ledger.runs["seed"]) == [0, 1]
    assert set(ledger.runs["profile_name"]) == {"tiny"}
    assert len(ledger.metrics) == 2 and sorted(ledger.metrics["seed"]) == [0, 1]
    assert len(ledger.history) == 4 and set(ledger.history["objective"]) == {"po"}


def test_a_parameter_named_like_a_column_does_not_hide_it(tmp_path):
    complete_run(tmp_path, loss=7, status="mine")
    ledger = load(tmp_path)
    assert ledger.history["loss"].tolist() == [2.0, 1.0]
    assert ledger.history["loss_parameter"].tolist() == [7, 7]
    assert ledger.runs["status"].tolist() == ["complete"]


def test_data_hashes_are_never_mixed_silently(tmp_path):
    complete_run(tmp_path)
    complete_run(tmp_path, data_hash="d2")
    with pytest.raises(UserError, match=r"different data .*d1: 1 runs.*allow_mixed"):
        load(tmp_path)
    assert set(load(tmp_path, allow_mixed=True).runs["data_hash"]) == {"d1", "d2"}


def test_a_run_that_does_not_say_its_data_is_not_mixed_in_either(tmp_path):
    complete_run(tmp_path)
    complete_run(tmp_path, data_hash=None)
    with pytest.raises(UserError, match="different data"):
        load(tmp_path)


def test_another_schema_is_refused_by_name(tmp_path):
    run = complete_run(tmp_path)
    path = run.folder / "run.json"
    path.write_text(path.read_text().replace('"schema": 2', '"schema": 99'))
    for read in (load, lambda folder: open_run(folder, PARAMETERS)):
        with pytest.raises(UserError, match="has schema 99, this version reads 2"):
            read(tmp_path)


def test_a_run_without_training_has_no_history(tmp_path):
    run = open_run(tmp_path, PARAMETERS)
    run.write_metrics(METRICS)
    run.commit()
    assert run.history.empty and load(tmp_path).history.empty


def test_the_ledger_is_anchored_to_the_project_not_to_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("SAFEERASE_RUNS", raising=False)
    monkeypatch.chdir(ROOT / "docs")
    assert default_runs_dir() == ROOT / "runs"
    monkeypatch.chdir(tmp_path)
    assert default_runs_dir() == tmp_path / "runs"
    monkeypatch.setenv("SAFEERASE_RUNS", str(tmp_path / "chosen"))
    assert default_runs_dir() == tmp_path / "chosen"


def test_a_session_sets_the_ledger_of_this_process_and_of_those_it_starts(tmp_path, monkeypatch):
    monkeypatch.setenv("SAFEERASE_RUNS", str(tmp_path / "chosen"))
    for nothing in (None, ""):
        session(nothing)
        assert default_runs_dir() == tmp_path / "chosen"
    monkeypatch.chdir(tmp_path)
    session(runs_dir="other")
    assert default_runs_dir() == tmp_path / "other"
    command = [sys.executable, "-c", "from safeerase_lite.runs.store import default_runs_dir as d;"
               "print(d())"]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    printed = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert printed.stdout.strip() == str(tmp_path / "other")
