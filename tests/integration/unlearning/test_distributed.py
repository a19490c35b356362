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

import pandas as pd
import pytest
import torch
from peft import get_peft_model_state_dict

from safeerase_lite.config import Profile
from safeerase_lite.data.dataset import read_data
from safeerase_lite.models.llava import load_model
from safeerase_lite.runs import store as ledger
from safeerase_lite.runs.experiment import open_run
from safeerase_lite.unlearning import trainer as training
from safeerase_lite.unlearning.trainer import NonFiniteLoss, unlearn
from safeerase_lite.utils import UserError

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]

RUNS = {
    "GA": {"objective": "ga"},
    "GD in 4 pieces of 7 questions": {"objective": "gd", "batch": 7, "accumulation": 2},
    "KL, projector frozen": {"objective": "kl", "projector": "frozen"},
    "PO": {"objective": "po"},
    "PO+PD": {"objective": "po", "decouple": "pd"},
    "NPO+PD": {"objective": "npo", "decouple": "pd"},
    "KL+PD in NF4": {"objective": "kl", "decouple": "pd", "precision": "nf4"},
}
LONG = RUNS["PO+PD"] | {"lora_dropout": 0.2, "steps": 6, "checkpoint_every": 2}


def opened(folder, runs_dir, objective, decouple="none", **fields):
    given = json.loads((folder / "given.json").read_text())
    data = read_data(given["root"])
    profile = Profile(**given["profile"] | fields)
    runs = folder / runs_dir
    return data, open_run(profile, data, objective=objective, decouple=decouple, runs_dir=runs)


def trained(folder, runs_dir, **fields):
    """The history and the adapter of a run, as this process sees them."""
    data, run = opened(folder, runs_dir, **fields)
    model = load_model(run.settings.profile)
    history = unlearn(model, data, run)
    return history, {name: w.clone() for name, w in get_peft_model_state_dict(model).items()}


def refusal(do, *arguments, **fields):
    with pytest.raises((UserError, NonFiniteLoss)) as caught:
        do(*arguments, **fields)
    return str(caught.value)


# ---- what torchrun starts ----


def do_everything(folder, rank):
    told = {name: trained(folder, "two", **fields) for name, fields in RUNS.items()}
    told["undisturbed"] = trained(folder, "undisturbed", **LONG)
    told["resumed"] = trained(folder, "killed", **LONG)
    told["written elsewhere"] = refusal(opened, folder, "elsewhere", "ga")
    told["too few"] = refusal(opened, folder, "few", "ga", batch=1)
    told["not a number"] = break_and_fail(folder, broken=rank == "1")
    told["committed"] = measure_and_commit(folder)
    torch.save(told, folder / f"told-{rank}.pt")


def break_and_fail(folder, broken):
    real, calls = training.loss, iter(range(100))

    def at_step_2(*arguments):
        total, terms = real(*arguments)
        return (total * math.nan if next(calls) == 2 and broken else total), terms

    training.loss = at_step_2
    data, run = opened(folder, "broken", "ga")
    model = load_model(run.settings.profile)
    try:
        unlearn(model, data, run)
    except NonFiniteLoss as error:
        run.fail(error)
        return str(error)
    finally:
        training.loss = real


def measure_and_commit(folder):
    data, run = opened(folder, "committed", "ga")
    model = load_model(run.settings.profile)
    unlearn(model, data, run)
    run.write_metrics(pd.DataFrame({"metric": ["asr"], "value": [0.0]}))
    run.commit()
    data, again = opened(folder, "committed", "ga")
    return run.main, again.done, unlearn(model, data, again)


def die_in_step_3(folder, rank):
    real, calls = training.loss, iter(range(100))

    def dying(*arguments):
        if next(calls) == 3:
            os.kill(os.getppid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments)

    training.loss = dying
    trained(folder, "killed", **LONG)


def launch(folder, what):
    """Two processes do `what`; the exit status of `torchrun`, and what all said."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command = [*torchrun, "--master-port", str(port), __file__, str(folder), what.__name__]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            said, _ = process.communicate(timeout=300)
        except BaseException:
            process.terminate()
            raise
    return process.returncode, said


@pytest.fixture(scope="module")
def folder(world, make_profile, tmp_path_factory):
    """Where two launches have been: one that was killed, and one that did everything."""
    folder = tmp_path_factory.mktemp("launched")
    given = {"root": str(world.root), "profile": make_profile(steps=3, batch=5).model_dump()}
    (folder / "given.json").write_text(json.dumps(given))
    status, said = launch(folder, die_in_step_3)
    assert status == -signal.SIGKILL, said
    assert any(folder.glob("killed/partial/*/checkpoint/step-000002"))
    opened(folder, "elsewhere", "ga")
    status, said = launch(folder, do_everything)
    assert status == 0, said
    return folder


@pytest.fixture(scope="module")
def told(folder):
    """What the main and the other process tell."""
    return [torch.load(folder / f"told-{rank}.pt", weights_only=False) for rank in (0, 1)]


# ---- the science ----


@pytest.fixture(scope="module", params=RUNS)
def alone_and_together(request, folder, told):
    """A run of one process, and what each of two tells of it."""
    alone = trained(folder, "one", **RUNS[request.param])
    return alone, [process[request.param] for process in told]


def test_two_processes_see_the_losses_of_one(alone_and_together):
    """At every step, and the gradient's norm, to 1e-5, whatever the answers' length: of five
    questions a step one process asks three, the other two."""
    (alone, _), both = alone_and_together
    for together, _ in both:
        pd.testing.assert_frame_equal(together, alone, rtol=1e-5, atol=1e-5)


def test_two_processes_end_in_one_adapter_and_that_is_the_adapter_of_one(alone_and_together):
    """To a hundredth of what moved: Adam blows rounding up where there is hardly a gradient."""
    (_, alone), [(_, main), (_, other)] = alone_and_together
    assert all(other[name].equal(main[name]) for name in main)
    moved = [alone[name] for name in alone if "lora_B" in name]  # from zero
    off = [main[name] - alone[name] for name in alone]
    assert length(off) < 1e-2 * length(moved)


def length(tensors):
    return sum(tensor.square().sum() for tensor in tensors) ** 0.5


def test_a_killed_launch_is_finished_as_if_it_had_not_been(told):
    """SIGKILL of all in step 3, after a checkpoint every 2: bit for bit, dropout included."""
    for process in told:
        (history, weights), (resumed, weights_too) = process["undisturbed"], process["resumed"]
        pd.testing.assert_frame_equal(history, resumed, check_exact=True)
        assert all(weights[key].equal(weights_too[key]) for key in weights)


# ---- one ledger ----


def test_the_main_process_writes_and_both_find_the_run_done(folder, told):
    main, other = (process["committed"] for process in told)
    assert (main[0], other[0]) == (True, False)
    assert main[1] and other[1]
    assert main[2].equals(other[2]) and len(main[2]) == 3
    tables = ledger.load(folder / "committed")
    assert list(tables.runs["status"]) == ["complete"]
    assert list(tables.metrics["metric"]) == ["asr"]
    assert not any((folder / "committed" / "partial").iterdir())


def test_a_loss_that_is_no_number_in_one_process_stops_both(folder, told):
    assert [process["not a number"] for process in told] == [
        "the loss is nan at step 2 of GA seed 0"
    ] * 2
    assert list(ledger.load(folder / "broken").runs["status"]) == ["failed"]


def test_a_run_that_is_written_elsewhere_is_refused_in_both(told):
    main, other = (process["written elsewhere"] for process in told)
    assert main == other
    assert f"is being written by process {os.getpid()}" in main


def test_fewer_questions_than_processes_are_refused_before_anything_is_written(folder, told):
    main, other = (process["too few"] for process in told)
    assert main == other
    assert "batch is 1, with 2 processes" in main
    assert not (folder / "few").exists()


def test_both_processes_leave_the_group_as_they_end(folder, told):
    assert [(folder / f"end-{rank}").read_text() for rank in (0, 1)] == ["group: False"] * 2


if __name__ == "__main__":
    folder, rank = Path(sys.argv[1]), os.environ["RANK"]

    @atexit.register
    def end():
        (folder / f"end-{rank}").write_text(f"group: {torch.distributed.is_initialized()}")

    globals()[sys.argv[2]](folder, rank)
