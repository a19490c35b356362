"""Lessons that train run in the profile `t4` on one model, a small one of the real format."""

from dataclasses import replace

import pytest
from run_lessons import run_here

import safeerase_lite as sl
from safeerase_lite.models.llava import load_model


@pytest.fixture
def few_of_each(world):
    """Four questions of every situation."""

    def some(table):
        ways = [name for name in ("split", "seen_kind", "seen_template") if name in table]
        return table.groupby(ways).head(4).reset_index(drop=True)

    tables = ("forget", "retain", "decouple", "placebo", "specificity")
    return replace(world, **{name: some(getattr(world, name)) for name in tables})


@pytest.mark.parametrize("number", ["00", "02", "04", "05"])
def test_a_lesson_runs_in_4_bit_on_one_model(
    small_t4, few_of_each, real_format_data, tmp_path, monkeypatch, number
):
    configs = []

    def load(config, **options):
        configs.append(config)
        return load_model(config, **options)

    monkeypatch.setattr(sl, "load_model", load)
    monkeypatch.setenv("SAFEERASE_RUNS", str(tmp_path))
    parameters = {"05": {"every": 2}}.get(number, {})
    if number == "02":  # it plants records between those of a folder
        parameters = {"data_dir": str(real_format_data), "control": True}
    else:
        monkeypatch.setattr(sl, "load_data", lambda config: few_of_each)
    run_here(number, profile="t4", runs_dir=str(tmp_path), **parameters)
    [config] = configs
    assert (config.profile, config.precision) == ("t4", "nf4")
