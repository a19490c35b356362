"""A mounted cloud folder has no file locks: a run goes on there, says so once, and resumes."""

import errno
import fcntl
import os
import stat

import pandas as pd
import pytest
from safetensors.torch import load_file

from safeerase_lite.models.llava import load_model
from safeerase_lite.runs import experiment
from safeerase_lite.runs.store import load, open_run
from safeerase_lite.unlearning import trainer

PARAMETERS = {"objective": "po", "seed": 0}
METRICS = pd.DataFrame({"metric": ["sarr"], "split": ["test"], "value": [0.1], "n": [96]})


@pytest.fixture(params=[errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK], ids=errno.errorcode.get)
def mounted(request, tmp_path, monkeypatch):
    """A folder on a file system without locks, where no folder can be synced either."""
    real = os.fsync

    def no_lock(handle, operation):
        raise OSError(request.param, os.strerror(request.param))

    def no_folder_sync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        real(descriptor)

    monkeypatch.setattr(fcntl, "flock", no_lock)
    monkeypatch.setattr(os, "fsync", no_folder_sync)
    return tmp_path / "drive"


def test_a_run_is_written_without_a_lock_and_says_so_once(mounted, capsys):
    for seed in (0, 1):
        run = open_run(mounted, PARAMETERS | {"seed": seed})
        run.write_history([{"step": 0, "loss": 1.0}])
        run.write_metrics(METRICS)
        run.commit()
    printed = capsys.readouterr()
    assert printed.out.count("file system without locks") == 1 and printed.err == ""
    assert load(mounted).runs["status"].tolist() == ["complete", "complete"]
    assert list(mounted.rglob("*.lock")) == []


def test_where_there_are_locks_nothing_is_said(tmp_path, capsys):
    run = open_run(tmp_path, PARAMETERS)
    assert capsys.readouterr().out == ""
    assert (tmp_path / "partial" / f"{run.id}.lock").exists()


class RuntimeLost(Exception):
    """Stands in for a Colab runtime that is taken away."""


def test_a_run_on_a_mounted_folder_goes_on_from_its_checkpoint(
    mounted, world, make_config, monkeypatch
):
    config = make_config(objective="ga", steps=6, checkpoint_every=2)

    def unlearn(folder):
        run = experiment.unlearn(load_model(config), world, config, runs_dir=folder)
        return run, load_file(run.adapter_dir / "adapter_model.safetensors")

    uninterrupted, weights = unlearn(mounted / "uninterrupted")
    real, calls = trainer.loss, iter(range(6))

    def lost_at_five(*arguments):
        if next(calls) == 5:
            raise RuntimeLost
        return real(*arguments)

    with monkeypatch.context() as patched, pytest.raises(RuntimeLost):
        patched.setattr(trainer, "loss", lost_at_five)
        unlearn(mounted / "lost")
    steps = []
    monkeypatch.setattr(trainer, "loss", lambda *a: steps.append(a) or real(*a))
    resumed, resumed_weights = unlearn(mounted / "lost")
    assert resumed.resumed and len(steps) == 2  # the checkpoint holds steps 0 to 3
    pd.testing.assert_frame_equal(uninterrupted.history, resumed.history, check_exact=True)
    assert all(weights[name].equal(resumed_weights[name]) for name in weights)
