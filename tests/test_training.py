"""The loop moves what it says it moves, asks what it says it asks, and survives being killed."""

import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from peft import get_peft_model_state_dict
from safetensors.torch import load_file

from safeerase_lite.evaluation.evaluate import answer_nll, generate
from safeerase_lite.evaluation.metrics import normalise
from safeerase_lite.models.inputs import encode
from safeerase_lite.models.llava import load_model
from safeerase_lite.runs.experiment import open_run
from safeerase_lite.unlearning import trainer as training
from safeerase_lite.unlearning.objectives import OBJECTIVES
from safeerase_lite.unlearning.trainer import BatchSampler, NonFiniteLoss, unlearn
from safeerase_lite.utils import UserError

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


@pytest.fixture
def learn(world, make_profile, tmp_path):
    """Open a run in a ledger of its own, unlearn; the run, its history and its adapter."""

    def learn(ledger, objective="po", decouple="pd", seed=0, data=world, **fields):
        profile = make_profile(**fields)
        run = open_run(
            profile, data, objective=objective, decouple=decouple, seed=seed,
            runs_dir=tmp_path / ledger,
        )  # fmt: skip
        model = load_model(profile, seed=seed)
        history = unlearn(model, data, run)
        return run, history, load_file(run.adapter_dir / "adapter_model.safetensors")

    return learn


def same(one, other):
    return one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)


class Killed(BaseException):
    """What stands in for a kill: nothing in the package catches it."""


def kill_at(monkeypatch, step):
    """Let the loss of that step (from 0, one piece a step) raise Killed."""
    real, calls = training.loss, iter(range(1_000_000))

    def dying(*arguments):
        if next(calls) == step:
            raise Killed
        return real(*arguments)

    monkeypatch.setattr(training, "loss", dying)


# ---- what moves ----


@pytest.mark.parametrize("precision", ["nf4", "dense"])
def test_gradient_checkpointing_changes_nothing(learn, precision):
    plain = learn("plain", precision=precision)[2]
    checkpointed = learn("checkpointed", precision=precision, gradient_checkpointing=True)[2]
    for name in plain:
        torch.testing.assert_close(checkpointed[name], plain[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("precision", ["nf4", "dense"])
@pytest.mark.parametrize("projector", ["trained", "frozen"])
def test_only_the_declared_weights_move(world, make_profile, tmp_path, precision, projector):
    profile = make_profile(precision=precision, projector=projector)
    run = open_run(profile, world, objective="gd", decouple="pd", runs_dir=tmp_path)
    model = load_model(profile)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    unlearn(model, world, run)
    moved = {name for name, p in model.named_parameters() if not p.equal(before[name])}
    declared = {name for name in before if "lora_" in name}
    if projector == "trained":
        declared |= {name for name in before if "projector.modules_to_save" in name}
    assert moved == declared


def test_the_model_comes_back_in_evaluation_mode(world, make_profile, tmp_path):
    run = open_run(make_profile(), world, objective="ga", runs_dir=tmp_path)
    model = load_model(make_profile())
    unlearn(model, world, run)
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("objective", ["vanilla", "gold"])
def test_vanilla_and_gold_are_left_as_they_are(
    world, make_profile, tmp_path, monkeypatch, objective
):
    profile = make_profile()
    run = open_run(profile, world, objective="vanilla", runs_dir=tmp_path)
    run.settings = run.settings.model_copy(update={"objective": objective})
    model = load_model(profile)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    assert unlearn(model, world, run).empty
    assert all(p.equal(before[name]) for name, p in model.named_parameters())
    assert not run.adapter_dir.exists()


# ---- the history ----


@pytest.mark.parametrize("decouple", ["none", "pd", "placebo"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_runs_and_tells_its_terms(learn, objective, decouple):
    _, history, weights = learn("runs", objective, decouple, steps=2)
    terms = {*OBJECTIVES[objective].needs} | ({"decouple"} if decouple != "none" else set())
    assert set(history) == {"step", "loss", "learning_rate", "gradient_norm"} | terms
    assert list(history["step"]) == [0, 1]
    assert history.map(math.isfinite).all(axis=None)
    assert any(weight.any() for name, weight in weights.items() if "lora_B" in name)


def test_the_terms_add_up_to_the_loss_in_the_history(learn):
    _, plain, _ = learn("plain", "ga", "none", steps=1, warmup=0.0)
    _, paired, _ = learn("paired", "ga", "pd", steps=1, warmup=0.0)
    assert plain["loss"].item() == pytest.approx(-plain["forget"].item())
    assert paired["forget"].item() == pytest.approx(plain["forget"].item(), abs=1e-5)
    expected = -paired["forget"].item() + 0.5 * paired["decouple"].item()
    assert paired["loss"].item() == pytest.approx(expected, abs=1e-5)


def test_kl_starts_at_nothing_and_npo_at_its_constant(learn):
    """Before the first step the model is its own reference."""
    _, kl, _ = learn("kl", "kl", "none", steps=1, warmup=0.0)
    assert kl["loss"].item() == pytest.approx(-kl["forget"].item(), abs=1e-5)
    _, npo, _ = learn("npo", "npo", "none", steps=1, warmup=0.0)
    assert npo["loss"].item() == pytest.approx(2 / 0.1 * math.log(2), rel=1e-4)


def test_the_rate_warms_up_and_comes_down(learn):
    _, history, _ = learn("runs", "ga", "none", steps=10, warmup=0.2, learning_rate=1e-3)
    rates = history["learning_rate"]
    assert rates.max() == pytest.approx(1e-3)
    assert rates.idxmax() == 2
    assert rates[2:].is_monotonic_decreasing


# ---- the same again, or another ----


def test_a_seed_twice_is_one_result_to_the_bit(learn):
    _, history, weights = learn("one", lora_dropout=0.1)
    _, again, weights_too = learn("two", lora_dropout=0.1)
    pd.testing.assert_frame_equal(history, again, check_exact=True)
    assert same(weights, weights_too)


@pytest.mark.parametrize("precision", ["nf4", "dense"])
def test_a_watched_run_is_the_same_run(world, make_profile, learn, tmp_path, precision):
    unwatched = learn("unwatched", precision=precision, lora_dropout=0.1)[2]
    profile = make_profile(precision=precision, lora_dropout=0.1)
    run = open_run(profile, world, objective="po", decouple="pd", runs_dir=tmp_path / "watched")
    model, seen = load_model(profile), []

    def watch(steps, model):
        assert not model.training
        row = world.forget.iloc[:1]
        seen.append(
            (steps, generate(model, row["image"], row["question"], profile=profile, seed=1))
        )

    unlearn(model, world, run, watch=watch)
    assert [steps for steps, _ in seen] == list(range(profile.steps + 1))
    assert same(load_file(run.adapter_dir / "adapter_model.safetensors"), unwatched)


def test_a_process_may_train_in_one_precision_after_another(learn):
    kinds = ("float32", "bfloat16", "float32")
    first, half, again = (
        learn(str(n), steps=1, warmup=0.0, compute=kind)[2] for n, kind in enumerate(kinds)
    )
    assert same(first, again) and not same(first, half)


def test_another_seed_is_another_result(learn):
    one, history, weights = learn("runs", seed=0)
    two, again, weights_too = learn("runs", seed=1)
    assert one.id != two.id
    assert not history["loss"].equals(again["loss"])
    assert not same(weights, weights_too)


@pytest.mark.parametrize("precision", ["dense", "nf4"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_accumulation_changes_nothing(learn, objective, precision):
    """A step in two pieces is the step: losses and gradients to 1e-5, whatever the answers' length.
    (The weights themselves may differ more: Adam's first steps blow rounding up.)"""
    fields = {"objective": objective, "precision": precision, "steps": 2, "warmup": 0.0}
    _, whole, _ = learn("whole", accumulation=1, **fields)
    _, pieces, _ = learn("pieces", accumulation=2, **fields)
    first, second = whole.iloc[0], pieces.iloc[0]
    for column in whole:
        assert second[column] == pytest.approx(first[column], rel=1e-5, abs=1e-5), column
    assert pieces["loss"].iloc[1] == pytest.approx(whole["loss"].iloc[1], abs=1e-3)


def test_more_pieces_than_questions_is_as_many_pieces_as_questions(learn):
    _, single, _ = learn("single", batch=2, accumulation=2, steps=1, warmup=0.0)
    _, many, _ = learn("many", batch=2, accumulation=8, steps=1, warmup=0.0)
    pd.testing.assert_frame_equal(single, many, check_exact=True)


# ---- what is asked ----


def draws(world, decouple, needs=("forget", "retain"), seed=0, batch=4):
    return BatchSampler(world, needs, decouple, seed, batch)


@pytest.mark.parametrize("decouple", ["pd", "placebo"])
def test_a_partner_shows_the_safe_picture_of_the_same_record(world, decouple):
    drawn = draws(world, decouple)
    safe = world.decouple[world.decouple["split"] == "train"].groupby("record")["image"].first()
    for step in range(20):
        groups = drawn.at(step)
        assert list(groups["decouple"]["record"]) == list(groups["forget"]["record"])
        assert list(groups["decouple"]["image"]) == list(safe[groups["forget"]["record"]])
        assert set(groups["decouple"]["split"]) == {"train"}


def test_pd_asks_the_forget_question_unchanged_and_the_placebo_never_does(world):
    pd_, placebo = draws(world, "pd"), draws(world, "placebo")
    templates = set(world.forget["question"])
    for step in range(20):
        groups = pd_.at(step)
        assert list(groups["decouple"]["question"]) == list(groups["forget"]["question"])
        assert not set(groups["decouple"]["answer"]) & set(groups["forget"]["answer"])
        control = placebo.at(step)
        assert not set(control["decouple"]["question"]) & templates
        assert control["forget"].equals(groups["forget"])


def test_a_record_without_a_safe_picture_borrows_anothers(world):
    """As on real data, where some have none."""
    gaps = replace(world, decouple=world.decouple[world.decouple["record"] > 2])
    drawn = draws(gaps, "pd")
    for step in range(12):
        groups = drawn.at(step)
        own = groups["forget"]["record"].to_numpy() > 2
        partners = groups["decouple"]
        assert len(partners) == 4 and set(partners["split"]) == {"train"}
        assert list(partners["record"][own]) == list(groups["forget"]["record"][own])


def test_a_smaller_share_of_pd_is_fewer_pictures_of_every_kind_and_as_many_questions(world):
    def shown(share):
        drawn = BatchSampler(world, ("forget",), "pd", 0, 4, share)
        return pd.concat([drawn.at(step)["decouple"] for step in range(24)])

    whole, least = shown(1.0), shown(0.01)
    assert len(whole) == len(least)
    assert set(least["image"]) < set(whole["image"])
    assert set(least["kind"]) == set(whole["kind"])
    assert (least.groupby("kind")["image"].nunique() == 1).all()


@pytest.mark.parametrize("name", ["forget", "retain"])
@pytest.mark.parametrize("batch", [4, 5])
def test_an_epoch_shows_every_question_once(world, name, batch):
    size = int((world.forget["split"] == "train").sum())
    drawn = draws(world, "none", batch=batch)
    steps = [drawn.at(step)[name] for step in range(2 * size // batch)]
    shown = list(pd.concat(steps).index)
    first, second = shown[:size], shown[size : 2 * size]
    assert sorted(first) == list(range(size))
    assert len(set(second)) == len(second)
    assert first[: len(second)] != second


def test_only_train_is_learned_from_and_the_draw_is_a_function_of_seed_and_step(world):
    needs = ("refuse", "retain")
    drawn, again, other = (draws(world, "pd", needs, seed) for seed in (0, 0, 1))
    for step in (7, 3):
        for name, table in drawn.at(step).items():
            assert set(table["split"]) == {"train"}
            assert table.equals(again.at(step)[name])
            assert not table.equals(other.at(step)[name])


def test_a_refusal_answers_the_forget_question(world):
    refuse, forget = draws(world, "none", ("refuse",)), draws(world, "none", ("forget",))
    for step in range(5):
        asked, refused = forget.at(step)["forget"], refuse.at(step)["refuse"]
        assert refused[["image", "question"]].equals(asked[["image", "question"]])
        assert set(refused["answer"]) <= set(world.refusals)


# ---- killed, and taken up again ----


@pytest.mark.parametrize(
    ("objective", "fields"),
    [
        ("po", {}),
        ("po", {"lora_dropout": 0.2}),
        ("kl", {"precision": "nf4", "lora_dropout": 0.2}),
        ("npo", {"projector": "frozen"}),
        ("po", {"optimizer": "paged_adamw_8bit", "lora_rank": 64}),  # of 4096 weights and more
        ("kl", {"batch": 1}),  # its reference is kept
    ],
)
def test_a_run_that_died_is_finished_as_if_it_had_not(learn, monkeypatch, objective, fields):
    fields = {"steps": 8, "checkpoint_every": 2} | fields
    _, history, weights = learn("whole", objective, **fields)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        kill_at(patched, 5)
        learn("killed", objective, **fields)
    calls = []
    real = training.loss
    monkeypatch.setattr(training, "loss", lambda *a: calls.append(a) or real(*a))
    run, resumed, weights_too = learn("killed", objective, **fields)
    assert run.resumed and len(calls) == 4  # steps 4 to 7: the checkpoint holds 0 to 3
    pd.testing.assert_frame_equal(history, resumed, check_exact=True)
    assert same(weights, weights_too)


def test_a_kill_while_a_checkpoint_is_written_costs_no_more_than_that_checkpoint(
    learn, monkeypatch
):
    fields = {"steps": 6, "checkpoint_every": 2}
    _, history, weights = learn("whole", **fields)
    real, calls = training.save_file, iter(range(100))

    def dying(tensors, path):
        if next(calls) == 1:
            path.write_bytes(b"half")
            raise Killed
        real(tensors, path)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(training, "save_file", dying)
        learn("killed", **fields)
    _, resumed, weights_too = learn("killed", **fields)
    pd.testing.assert_frame_equal(history, resumed, check_exact=True)
    assert same(weights, weights_too)


def test_the_scale_of_half_precision_is_taken_up_again(learn, monkeypatch):
    """As on a GPU, in float16, with a scaler that doubles its scale each step."""
    scalers = []

    class Scaling(Accelerator):
        mixed_precision, native_amp = "fp16", True

        def __init__(self, **given):
            super().__init__(**given)
            self.native_amp = True
            self.scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=1)
            scalers.append(self.scaler)

    _, history, _ = learn("float32", steps=6)
    monkeypatch.setattr(training, "Accelerator", Scaling)
    _, scaled, weights = learn("complete", steps=6)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        kill_at(patched, 4)
        learn("killed", steps=6, checkpoint_every=2)
    _, resumed, weights_too = learn("killed", steps=6, checkpoint_every=2)
    pd.testing.assert_frame_equal(resumed, scaled, check_exact=True)
    assert same(weights, weights_too)
    assert scalers[2].state_dict() == scalers[0].state_dict()
    assert scalers[0].get_scale() == 4.0 * 2**6
    for column in ("loss", "gradient_norm"):
        # Not a comparison of precisions: what float16 rounds away depends on the processor. A value
        # that still carried the scale would be 4 to 128 times too large.
        assert scaled[column].tolist() == pytest.approx(history[column].tolist(), rel=0.5)


def test_one_checkpoint_is_kept_and_nothing_in_it_is_pickled(learn, monkeypatch, tmp_path):
    with monkeypatch.context() as patched, pytest.raises(Killed):
        kill_at(patched, 5)
        learn("runs", steps=8, checkpoint_every=2)
    [checkpoint] = tmp_path.glob("runs/partial/*/checkpoint")
    files = {path.relative_to(checkpoint).as_posix() for path in checkpoint.rglob("*.*")}
    assert files == {"step-000004/state.safetensors", "step-000004/state.json"}


KILLED = """
import os, signal, sys
from safeerase_lite import training
from safeerase_lite.data import read_data
from safeerase_lite.experiment import open_run
from safeerase_lite.models import load_model
from safeerase_lite.profiles import Profile
profile, root, runs, step = Profile.model_validate_json(sys.argv[1]), *sys.argv[2:]
real, calls = training.loss, iter(range(1000))
def dying(*arguments):
    if next(calls) == int(step):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments)
training.loss = dying
data = read_data(root)
run = open_run(profile, data, objective="po", decouple="pd", runs_dir=runs)
training.unlearn(load_model(profile), data, run)
"""


def test_a_process_killed_half_way_loses_nothing(world, make_profile, learn, tmp_path):
    """SIGKILL in step 7 of 12, a checkpoint every 2: another process finishes, bit for bit."""
    fields = {"steps": 12, "checkpoint_every": 2, "precision": "nf4", "lora_dropout": 0.1}
    given = [make_profile(**fields).model_dump_json(), str(world.root), str(tmp_path / "killed")]
    killed = subprocess.run([sys.executable, "-c", KILLED, *given, "7"], cwd=ROOT, env=os.environ)
    assert killed.returncode == -signal.SIGKILL
    assert not any(tmp_path.glob("killed/*/adapter"))
    run, resumed, weights = learn("killed", **fields)
    _, history, weights_too = learn("whole", **fields)
    assert run.resumed
    assert list(resumed["step"]) == list(range(12))
    pd.testing.assert_frame_equal(history, resumed, check_exact=True)
    assert same(weights, weights_too)


def test_a_done_run_is_loaded_not_repeated(learn, world, make_profile, tmp_path, monkeypatch):
    run, history, weights = learn("runs")
    run.write_metrics(pd.DataFrame({"metric": ["asr"], "value": [0.0]}))
    run.commit()
    monkeypatch.setattr(training, "BatchSampler", lambda *a: pytest.fail("it trains again"))
    profile = make_profile()
    again = open_run(profile, world, objective="po", decouple="pd", runs_dir=tmp_path / "runs")
    model = load_model(profile, seed=9)
    pd.testing.assert_frame_equal(unlearn(model, world, again), history)
    assert again.done
    assert same(get_peft_model_state_dict(model), weights)


# ---- what cannot go on ----


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_loss_that_is_no_number_stops_the_run_and_says_where(learn, monkeypatch, tmp_path, value):
    real, calls = training.loss, iter(range(100))

    def broken(*arguments):
        total, terms = real(*arguments)
        return (total * value if next(calls) == 2 else total), terms

    monkeypatch.setattr(training, "loss", broken)
    with pytest.raises(NonFiniteLoss, match="at step 2 of PO\\+PD seed 0"):
        learn("runs")
    (traceback,) = (tmp_path / "runs" / "failed").glob("*/traceback.txt")
    assert "NonFiniteLoss: the loss is" in traceback.read_text()


@pytest.mark.parametrize("decouple", ["pd", "placebo"])
def test_what_the_data_cannot_serve_is_refused_before_anything_is_written(
    world, learn, tmp_path, decouple
):
    poor = replace(world, decouple=world.decouple.iloc[:0], placebo=world.placebo.iloc[:0])
    with pytest.raises(UserError, match="decouple='none'"):
        learn("runs", "po", decouple, data=poor)
    assert not (tmp_path / "runs").exists()


# ---- what it is for ----


def test_what_was_memorised_is_forgotten(world, make_profile, tmp_path):
    """A model overfitted on a few pairs says them word for word, and after ascent it does not."""
    profile = make_profile(lora_rank=16, lora_alpha=32, new_tokens=20, steps=20, learning_rate=5e-3)
    train = world.forget[world.forget["split"] == "train"]
    pairs = train.groupby("kind").nth(0).head(4)
    model = load_model(profile)
    batch = encode(model.processor, pairs["image"], pairs["question"], pairs["answer"])
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    model.train()
    for _ in range(100):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    model.eval()

    def said():
        answers = generate(model, pairs["image"], pairs["question"], profile=profile)
        return [normalise(answer) for answer in answers]

    wanted = [normalise(answer) for answer in pairs["answer"]]
    expected = pairs.rename(columns={"answer": "expected"})
    assert said() == wanted
    before = answer_nll(model, expected, profile)
    assert max(before) < 0.5  # as low as the random, frozen head lets it go

    only = replace(world, forget=pairs)
    unlearn(model, only, open_run(profile, only, objective="ga", runs_dir=tmp_path))
    after = answer_nll(model, expected, profile)
    assert all(b < a for b, a in zip(before, after, strict=True))
    assert min(after) > 1
    assert all(answer != harm for answer, harm in zip(said(), wanted, strict=True))
