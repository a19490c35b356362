"""Two processes train as one: the same losses, one ledger, one end.

Run as a script, this file is what `torchrun` starts twice.
"""

import atexit
import json
import math
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import pytest
import torch

from safeerase_lite.config import Config
from safeerase_lite.data.dataset import read_data
from safeerase_lite.models.llava import adapter_weights, load_model
from safeerase_lite.runs import store
from safeerase_lite.runs.experiment import open_run, unlearn
from safeerase_lite.unlearning import trainer
from safeerase_lite.unlearning.trainer import NonFiniteLoss
from safeerase_lite.utils import UserError

RUNS = {
    "GA": {"objective": "ga"},
    "GD in 4 parts of 7 pictures": {"objective": "gd", "pictures": 7, "accumulation": 2},
    "PO in 6 parts of 3 pictures": {"objective": "po", "pictures": 3, "accumulation": 3},
    "KL, projector frozen": {"objective": "kl", "projector": "frozen"},
    "PO": {"objective": "po"},
    "PO+PD": {"objective": "po", "decouple": "pd"},
    "NPO+PD": {"objective": "npo", "decouple": "pd"},
    "KL+PD in NF4": {"objective": "kl", "decouple": "pd", "precision": "nf4"},
}
LONG = RUNS["PO+PD"] | {"lora_dropout": 0.2, "steps": 6, "checkpoint_every": 2}


def given(folder, runs_dir, objective, **fields):
    """What `unlearn` needs besides a model."""
    settings = json.loads((folder / "settings.json").read_text())
    config = Config(**settings["config"] | {"objective": objective} | fields)
    return {"data": read_data(settings["root"]), "config": config, "runs_dir": folder / runs_dir}


def train(folder, runs_dir, **fields):
    """The history and the adapter of a run, as this process sees them."""
    arguments = given(folder, runs_dir, **fields)
    model = load_model(arguments["config"])
    run = unlearn(model, **arguments)
    return run.history, {name: w.clone() for name, w in adapter_weights(model).items()}


def refusal(do, **arguments):
    with pytest.raises((UserError, NonFiniteLoss)) as caught:
        do(**arguments)
    return str(caught.value)


# ---- what torchrun starts ----


def do_everything(folder, rank):
    results = {name: train(folder, "two", **fields) for name, fields in RUNS.items()}
    results["undisturbed"] = train(folder, "undisturbed", **LONG)
    results["resumed"] = train(folder, "killed", **LONG)
    results["written elsewhere"] = refusal(open_run, **given(folder, "elsewhere", "ga"))
    results["too few"] = refusal(open_run, **given(folder, "few", "ga", pictures=1))
    results["not a number"] = break_in_step_2(folder, broken=rank == "1")
    results["committed"] = measure_and_commit(folder)
    torch.save(results, folder / f"results-{rank}.pt")


def break_in_step_2(folder, broken):
    real, calls = trainer.loss, iter(range(100))

    def loss(*arguments):
        total, terms = real(*arguments)
        return (total * math.nan if next(calls) == 2 and broken else total), terms

    arguments = given(folder, "broken", "ga")
    with patch.object(trainer, "loss", loss):
        return refusal(unlearn, model=load_model(arguments["config"]), **arguments)


def measure_and_commit(folder):
    arguments = given(folder, "committed", "ga")
    model = load_model(arguments["config"])
    run = unlearn(model, **arguments)
    run.write_metrics(pd.DataFrame({"metric": ["asr"], "value": [0.0]}))
    run.commit()
    again = unlearn(model, **arguments)
    return run.main, again.done, again.history


def die_in_step_3(folder, rank):
    real, calls = trainer.loss, iter(range(100))

    def dying(*arguments):
        if next(calls) == 3:
            os.kill(os.getppid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments)

    trainer.loss = dying
    train(folder, "killed", **LONG)


def launch(folder, what):
    """Two processes do `what`; the exit status of `torchrun`, and their output."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command = [*torchrun, "--master-port", str(port), __file__, str(folder), what.__name__]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            output, _ = process.communicate(timeout=300)
        except BaseException:
            process.terminate()
            raise
    return process.returncode, output


@pytest.fixture(scope="module")
def folder(world, make_config, tmp_path_factory):
    """Where two launches have been: one that was killed, and one that did everything."""
    folder = tmp_path_factory.mktemp("launched")
    settings = {"root": str(world.root), "config": make_config(steps=3, pictures=5).model_dump()}
    (folder / "settings.json").write_text(json.dumps(settings))
    status, output = launch(folder, die_in_step_3)
    assert status == -signal.SIGKILL, output
    assert any(folder.glob("killed/partial/*/checkpoint/step-000002"))
    open_run(**given(folder, "elsewhere", "ga"))
    status, output = launch(folder, do_everything)
    assert status == 0, output
    return folder


@pytest.fixture(scope="module")
def results(folder):
    """What the main process and the other one report."""
    return [torch.load(folder / f"results-{rank}.pt", weights_only=False) for rank in (0, 1)]


# ---- the science ----


@pytest.fixture(scope="module", params=RUNS)
def alone_and_together(request, folder, results):
    """A run of one process, and what each of two reports of it."""
    alone = train(folder, "one", **RUNS[request.param])
    return alone, [process[request.param] for process in results]


def test_two_processes_see_the_losses_of_one(alone_and_together):
    """At every step, and the gradient's norm, to 1e-5 (float32 sums in another order), whatever
    the answers' length: of five pictures a step one process has three, the other two."""
    (alone, _), both = alone_and_together
    for together, _ in both:
        pd.testing.assert_frame_equal(together, alone, rtol=1e-5, atol=1e-5)


def test_two_processes_end_in_one_adapter_and_that_is_the_adapter_of_one(alone_and_together):
    """To a hundredth of what moved: Adam raises rounding where there is hardly a gradient."""
    (_, alone), [(_, main), (_, other)] = alone_and_together
    assert all(other[name].equal(main[name]) for name in main)
    moved = [alone[name] for name in alone if "lora_B" in name]  # from zero
    off = [main[name] - alone[name] for name in alone]
    assert length(off) < 1e-2 * length(moved)


def length(tensors):
    return sum(tensor.square().sum() for tensor in tensors) ** 0.5


def test_a_killed_launch_is_finished_as_if_it_had_not_been(results):
    """SIGKILL of all in step 3, after a checkpoint every 2: bit for bit, dropout included."""
    for process in results:
        (history, weights), (resumed, resumed_weights) = process["undisturbed"], process["resumed"]
        pd.testing.assert_frame_equal(history, resumed, check_exact=True)
        assert all(weights[key].equal(resumed_weights[key]) for key in weights)


# ---- one ledger ----


def test_the_main_process_writes_and_both_find_the_run_done(folder, results):
    main, other = (process["committed"] for process in results)
    assert (main[0], other[0]) == (True, False)
    assert main[1] and other[1]
    assert main[2].equals(other[2]) and len(main[2]) == 3
    tables = store.load(folder / "committed")
    assert list(tables.runs["status"]) == ["complete"]
    assert list(tables.metrics["metric"]) == ["asr"]
    assert not any((folder / "committed" / "partial").iterdir())


def test_a_loss_that_is_no_number_in_one_process_stops_both(folder, results):
    assert [process["not a number"] for process in results] == [
        "the loss is nan at step 2 of GA seed 0"
    ] * 2
    assert list(store.load(folder / "broken").runs["status"]) == ["failed"]


def test_a_run_that_is_written_elsewhere_is_refused_in_both(results):
    main, other = (process["written elsewhere"] for process in results)
    assert main == other
    assert f"is being written by process {os.getpid()}" in main


def test_fewer_pictures_than_processes_are_refused_before_anything_is_written(folder, results):
    main, other = (process["too few"] for process in results)
    assert main == other
    assert "pictures is 1, with 2 processes" in main
    assert not (folder / "few").exists()


def test_both_processes_leave_the_group_as_they_end(folder, results):
    assert [(folder / f"end-{rank}").read_text() for rank in (0, 1)] == ["group: False"] * 2


if __name__ == "__main__":
    folder, rank = Path(sys.argv[1]), os.environ["RANK"]

    @atexit.register
    def end():
        (folder / f"end-{rank}").write_text(f"group: {torch.distributed.is_initialized()}")

    globals()[sys.argv[2]](folder, rank)
