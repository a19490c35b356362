"""A sweep on a machine with GPUs, of which a worker sees one."""

from functools import partial

import pytest
from small_sweep import write_sweep

from safeerase_lite.runs import sweep
from safeerase_lite.utils import UserError


@pytest.fixture
def write(tmp_path):
    return partial(write_sweep, tmp_path)


def test_each_gpu_goes_to_one_worker(write, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    path = write("gpu: true\ngrid: {seconds: 1}\nseeds: [0, 1, 2]")
    runs_dir = path.parent / "runs"
    outcomes = sweep.run_sweep(sweep.load(path), "grid", runs_dir, say=lambda line: None)
    assert {outcome.status for outcome in outcomes.values()} == {"complete"}
    seen = [mark.read_text().split()[2] for mark in (path.parent / "marks").iterdir()]
    assert set(seen) == {"4", "6"}


def test_no_more_runs_at_a_time_than_gpus(write, monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4")
    plan = sweep.load(write("gpu: true\nworkers: 2\nseeds: [0, 1]"))
    lines = []
    sweep.run_sweep(plan, "grid", tmp_path / "runs", say=lines.append)
    assert lines[1].startswith("1 at a time")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(UserError, match="there is none here"):
        sweep.run_sweep(plan, "grid", tmp_path / "other", say=lines.append)
