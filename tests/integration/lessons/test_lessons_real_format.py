"""The lessons' cells run on a model and on data of the real ones' format, in the profile `t4`."""

from dataclasses import replace

import nbformat
import pytest
import random_smolvlm
from run_lessons import LESSONS, lesson_03, run_here

import safeerase_lite as sl
from safeerase_lite.models.llava import load_model
from safeerase_lite.runs import store
from safeerase_lite.runs.notebook import execute


def test_lesson_03_runs_on_the_real_format(real_format_model, real_format_data, tmp_path):
    parameters = {
        "profile": "t4", "model_dir": str(real_format_model), "data_dir": str(real_format_data),
        "steps": 2, "objective": "kl", "decouple": "pd", "runs_dir": str(tmp_path / "runs"),
    }  # fmt: skip
    node = nbformat.read(execute(LESSONS["03"], tmp_path / "03.ipynb", parameters), as_version=4)
    outputs = [output for cell in node.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    tables = store.load(tmp_path / "runs")
    assert list(tables.runs["status"]) == ["complete"]
    assert set(tables.metrics["split"]) == {"train", "val"}


def test_lesson_03_runs_on_a_small_smolvlm_in_the_profile_laptop(real_format_data, tmp_path):
    """Of SmolVLM-256M's class and processor; narrow and shallow."""
    small = random_smolvlm.configuration(
        width=64, feed_forward=128, layers=2, heads=2, key_value_heads=1, vision_width=64,
        vision_feed_forward=128, vision_layers=1, vision_heads=2, side=128,
    )  # fmt: skip
    random_smolvlm.write(tmp_path / "smolvlm", small)
    node = lesson_03(tmp_path / "smolvlm", real_format_data, tmp_path)
    [table] = [cell for cell in node.cells if cell.id == "e9d7aec1"]
    assert "vision tower" in table.outputs[0]["data"]["text/plain"]
    [parameters] = store.load(tmp_path / "runs").runs.to_dict("records")
    assert (parameters["profile"], parameters["precision"]) == ("laptop", "dense")


class Stop(Exception):
    """Ends a lesson where its settings are known."""


@pytest.mark.parametrize("number", ["00", "02", "04", "05", "06"])
@pytest.mark.parametrize(
    ("name", "precision", "expected"),
    [
        ("tiny", None, "dense"),
        ("tiny", "nf4", "nf4"),
        ("t4", None, "nf4"),
        ("t4", "dense", "dense"),
        ("full", None, "dense"),
    ],
)
def test_a_lesson_is_in_the_profiles_precision_and_tiny_is_dense(
    monkeypatch, number, name, precision, expected
):
    configs = []

    def load_data(config):
        configs.append(config)
        raise Stop

    monkeypatch.setattr(sl, "load_data", load_data)
    with pytest.raises(Stop):
        run_here(number, profile=name, precision=precision)
    assert configs[0].precision == expected


def test_lesson_05_refuses_data_without_safe_pictures_before_a_model_is_loaded(world, monkeypatch):
    without = replace(world, decouple=world.decouple.iloc[:0])
    monkeypatch.setattr(sl, "load_data", lambda config: without)
    monkeypatch.setattr(sl, "load_model", None)
    with pytest.raises(sl.UserError, match="nothing to decouple"):
        run_here("05")


@pytest.fixture
def few_of_each(world):
    """Four questions of every situation."""

    def some(table):
        ways = [name for name in ("split", "seen_kind", "seen_template") if name in table]
        return table.groupby(ways).head(4).reset_index(drop=True)

    tables = ("forget", "retain", "decouple", "placebo", "specificity")
    return replace(world, **{name: some(getattr(world, name)) for name in tables})


@pytest.mark.parametrize("number", ["04", "05"])
def test_a_lesson_runs_in_4_bit_on_one_model(small_t4, few_of_each, tmp_path, monkeypatch, number):
    configs = []

    def load(config, **options):
        configs.append(config)
        return load_model(config, **options)

    monkeypatch.setattr(sl, "load_model", load)
    monkeypatch.setenv("SAFEERASE_RUNS", str(tmp_path))
    monkeypatch.setattr(sl, "load_data", lambda config: few_of_each)
    parameters = {"05": {"every": 2}}.get(number, {})
    run_here(number, profile="t4", runs_dir=str(tmp_path), **parameters)
    [config] = configs
    assert (config.profile, config.precision) == ("t4", "nf4")
