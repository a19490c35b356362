"""Attacks in the ledger: computed once, whole or absent, and the run stays the same."""

import shutil

import pandas as pd
import pytest

import safeerase_lite as sl
from safeerase_lite import robustness
from safeerase_lite.models.llava import load_model
from safeerase_lite.runs import store
from safeerase_lite.runs.sweep import Sweep
from safeerase_lite.utils import UserError

LESSON = "notebooks/03_unlearn.ipynb"


@pytest.fixture
def finished(few, make_config, tmp_path):
    """A model, its data, and its complete run in a ledger of its own."""
    config = make_config(objective="po", decouple="pd", steps=2)
    model = load_model(config)
    run = sl.unlearn(model, few, config, runs_dir=tmp_path / "runs")
    sl.evaluate(model, few, run)
    return model, few, run


@pytest.fixture
def calls(monkeypatch):
    """The attack `plain`, which says how often it ran."""
    calls = []

    def plain(model, data, config):
        calls.append(config.label)
        return robustness.ask(
            model, robustness.questions(data), config, attack="plain", variant="", strength=0
        )

    monkeypatch.setitem(robustness.ATTACKS, "plain", robustness.Attack(plain, "Plain"))
    return calls


def test_an_attack_is_computed_once_and_its_table_is_in_the_ledger(finished, calls):
    model, data, run = finished
    first, again = (sl.attack(model, data, run, ["plain"]) for _ in range(2))
    assert len(calls) == 1
    pd.testing.assert_frame_equal(first, again)
    in_ledger = sl.ledger.load(run.runs_dir).attacks
    assert set(in_ledger["id"]) == {run.id} and len(in_ledger) == len(first)
    assert set(in_ledger["objective"]) == {"po"}


def test_the_run_is_the_same_after_an_attack(finished, calls):
    model, data, run = finished
    record = (run.folder / "run.json").read_bytes()
    sl.attack(model, data, run, ["plain"])
    opened = sl.open_run(run.config, data, runs_dir=run.runs_dir)
    assert opened.done and opened.id == run.id
    assert (run.folder / "run.json").read_bytes() == record


def test_an_attack_that_fails_leaves_nothing(finished, calls, monkeypatch):
    model, data, run = finished

    def fails(model, data, config):
        raise RuntimeError

    monkeypatch.setitem(robustness.ATTACKS, "fails", robustness.Attack(fails, "Fails"))
    with pytest.raises(RuntimeError):
        sl.attack(model, data, run, ["plain", "fails"])
    assert [path.name for path in (run.folder / "attacks").iterdir()] == ["plain"]


def test_a_damaged_attack_is_set_aside_and_done_again(finished, calls):
    model, data, run = finished
    first = sl.attack(model, data, run, ["plain"])
    (run.folder / "attacks" / "plain" / "scores.parquet").write_bytes(b"torn")
    pd.testing.assert_frame_equal(sl.attack(model, data, run, ["plain"]), first)
    assert len(calls) == 2


def test_the_attacked_model_is_the_runs_whatever_it_learned_since(finished, calls):
    model, data, run = finished
    first = sl.attack(model, data, run, ["plain"])
    shutil.rmtree(run.folder / "attacks")
    sl.reset_adapter(model)
    pd.testing.assert_frame_equal(sl.attack(model, data, run, ["plain"]), first)


def test_pictures_are_named_within_the_data(finished, calls):
    model, data, run = finished
    sl.attack(model, data, run, ["plain"])
    [path] = store.attack_files(run.folder, store.ATTACK_SCORES)
    images = store.read_table(path)["image"]
    assert all((data.root / image).is_file() for image in images)
    assert not images.str.startswith("/").any()


def test_a_run_is_evaluated_before_it_is_attacked(few, make_config, tmp_path):
    config = make_config(objective="vanilla")
    run = sl.open_run(config, few, runs_dir=tmp_path / "runs")
    with pytest.raises(UserError, match="not complete"):
        sl.attack(load_model(config), few, run, ["prefix"])


def test_a_wrong_attack_is_refused_before_a_sweep_starts():
    sweep = Sweep(notebook=LESSON, parameters={"attacks": ["prefx"]})
    with pytest.raises(UserError, match="unknown attack 'prefx'.*did you mean 'prefix'"):
        sweep.runs()


def test_attacks_are_no_setting_of_a_run():
    [planned] = Sweep(notebook=LESSON, parameters={"attacks": ["prefix"]}).runs()
    assert "attacks" not in planned.settings and planned.given["attacks"] == ["prefix"]
