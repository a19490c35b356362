"""Training changes what it says it changes, reproduces to the bit, and survives being killed."""

import math
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from safeerase_lite.evaluation.generate import answer_nll, generate
from safeerase_lite.evaluation.metrics import normalise
from safeerase_lite.models.inputs import encode
from safeerase_lite.models.llava import adapter_weights, load_model, trainable
from safeerase_lite.runs.experiment import evaluate, open_run, unlearn
from safeerase_lite.unlearning import checkpoint, trainer
from safeerase_lite.unlearning.objectives import OBJECTIVES
from safeerase_lite.unlearning.trainer import NonFiniteLoss
from safeerase_lite.utils import UserError


@pytest.fixture
def learn(world, make_config, tmp_path):
    """Unlearn in a ledger of its own; the run, its history and its adapter on disk."""

    def learn(ledger, objective="po", decouple="pd", data=world, model=None, watch=None, **fields):
        config = make_config(objective=objective, decouple=decouple, **fields)
        model = model or load_model(config)
        run = unlearn(model, data, config, runs_dir=tmp_path / ledger, watch=watch)
        return run, run.history, load_file(run.adapter_dir / "adapter_model.safetensors")

    return learn


def same(one, other):
    return one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)


class Killed(BaseException):
    """Stands in for a kill: nothing in the package catches it."""


def kill_at(monkeypatch, step):
    """Let the loss of that step (from 0, one part a step) raise Killed."""
    real, calls = trainer.loss, iter(range(1_000_000))

    def dying(*arguments):
        if next(calls) == step:
            raise Killed
        return real(*arguments)

    monkeypatch.setattr(trainer, "loss", dying)


# ---- what moves ----


@pytest.mark.parametrize("precision", ["nf4", "dense"])
def test_gradient_checkpointing_changes_nothing(learn, precision):
    plain = learn("plain", precision=precision)[2]
    checkpointed = learn("checkpointed", precision=precision, gradient_checkpointing=True)[2]
    for name in plain:  # the same kernels, recomputed: float32 rounding, raised by Adam's division
        torch.testing.assert_close(checkpointed[name], plain[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("precision", ["nf4", "dense"])
@pytest.mark.parametrize("projector", ["trained", "frozen"])
def test_only_the_declared_weights_move_and_the_model_comes_back_in_evaluation_mode(
    make_config, learn, precision, projector
):
    fields = {"precision": precision, "projector": projector}
    model = load_model(make_config(**fields))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    learn("runs", "gd", model=model, **fields)
    moved = {name for name, p in model.named_parameters() if not p.equal(before[name])}
    declared = {name for name in before if "lora_" in name}
    if projector == "trained":
        declared |= {name for name in before if "projector.modules_to_save" in name}
    assert moved == declared
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("objective", ["vanilla", "gold"])
@pytest.mark.parametrize("adapt", [True, False])
def test_vanilla_and_gold_models_are_not_trained(
    world, make_config, tmp_path, tiny_model_dir, monkeypatch, objective, adapt
):
    settings = sys.modules["safeerase_lite.config"]
    monkeypatch.setattr(settings, "shipped_model", lambda name: tiny_model_dir)
    monkeypatch.setattr(settings, "GOLD", str(tiny_model_dir))
    config = make_config(objective=objective)
    model = load_model(config, adapt=adapt)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    run = unlearn(model, world, config, runs_dir=tmp_path)
    assert run.history.empty
    assert all(p.equal(before[name]) for name, p in model.named_parameters())
    assert not run.adapter_dir.exists()


# ---- the history ----


@pytest.mark.parametrize("decouple", ["none", "pd", "placebo"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_runs_and_records_its_terms(learn, objective, decouple):
    if OBJECTIVES[objective].negated and decouple != "none":
        pytest.skip("plain only")
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
    # The same batch in other passes, and a sum of losses of order 10: float32 rounds at 1e-6.
    assert paired["forget"].item() == pytest.approx(plain["forget"].item(), abs=1e-5)
    expected = -paired["forget"].item() + 0.5 * paired["decouple"].item()
    assert paired["loss"].item() == pytest.approx(expected, abs=1e-5)


def test_kl_starts_at_nothing_and_npo_at_its_constant(learn):
    """Before the first step the model is its own reference, up to float32 rounding: a divergence is
    of second order in it, and NPO sums an answer's log-probabilities, each rounded at 1e-6."""
    _, kl, _ = learn("kl", "kl", "none", steps=1, warmup=0.0)
    assert kl["loss"].item() == pytest.approx(-kl["forget"].item(), abs=1e-5)
    _, npo, _ = learn("npo", "npo", "none", steps=1, warmup=0.0)
    assert npo["loss"].item() == pytest.approx(2 / 0.1 * math.log(2), abs=1e-4)


def test_the_rate_warms_up_and_comes_down(learn):
    _, history, _ = learn("runs", "ga", "none", steps=10, warmup=0.2, learning_rate=1e-3)
    rates = history["learning_rate"]
    assert rates.max() == pytest.approx(1e-3)
    assert rates.idxmax() == 2
    assert rates[2:].is_monotonic_decreasing


# ---- the same again, or another ----


def test_a_seed_twice_is_one_result_to_the_bit(learn):
    _, history, weights = learn("one", lora_dropout=0.1)
    _, other_history, other_weights = learn("two", lora_dropout=0.1)
    pd.testing.assert_frame_equal(history, other_history, check_exact=True)
    assert same(weights, other_weights)


@pytest.mark.parametrize("precision", ["nf4", "dense"])
@pytest.mark.parametrize("projector", ["trained", "frozen"])
def test_runs_one_after_another_on_one_model_are_those_on_fresh_models(
    make_config, learn, precision, projector
):
    """To the bit: `unlearn` starts from the adapter's first weights."""
    fields = {"precision": precision, "projector": projector, "lora_dropout": 0.1}
    model = load_model(make_config(**fields))
    for objective, decouple in (("ga", "none"), ("kl", "pd"), ("po", "placebo")):
        run, history, weights = learn("shared", objective, decouple, model=model, **fields)
        _, fresh_history, fresh = learn("fresh", objective, decouple, **fields)
        pd.testing.assert_frame_equal(history, fresh_history, check_exact=True)
        assert same(weights, fresh) and same(adapter_weights(model), weights)


def test_a_vanilla_evaluation_after_a_run_is_of_the_model_as_it_was(
    world, few, make_config, learn, tmp_path
):
    vanilla = make_config(objective="vanilla")
    model = load_model(vanilla)
    expected = evaluate(model, few, unlearn(model, few, vanilla, runs_dir=tmp_path / "before"))
    learn("between", model=model, learning_rate=1e-2)
    report = evaluate(model, few, unlearn(model, few, vanilla, runs_dir=tmp_path / "after"))
    pd.testing.assert_frame_equal(report.metrics, expected.metrics, check_exact=True)


@pytest.mark.parametrize(
    ("objective", "decouple"), [("ga", "none"), ("po", "pd"), ("vanilla", "none")]
)
def test_a_run_is_evaluated_as_it_was_whatever_the_model_learned_since(
    few, make_config, tmp_path, objective, decouple
):
    def run(ledger, model, **fields):
        config = make_config(**{"learning_rate": 1e-2} | fields)
        return unlearn(model, few, config, runs_dir=tmp_path / ledger)

    fields = {"objective": objective, "decouple": decouple}
    fresh, used = load_model(make_config()), load_model(make_config())
    expected = evaluate(fresh, few, run("fresh", fresh, **fields))
    first = run("used", used, **fields)
    run("used", used, objective="gd", decouple="none")
    report = evaluate(used, few, first)
    pd.testing.assert_frame_equal(report.metrics, expected.metrics, check_exact=True)
    assert same(adapter_weights(used), adapter_weights(fresh))


def test_what_was_not_unlearned_is_not_evaluated_as_if_it_were(
    few, base_model, make_config, tmp_path
):
    run = open_run(make_config(objective="po"), few, runs_dir=tmp_path)
    for model, refusal in (
        (load_model(make_config()), "unlearn that run first"),
        (load_model(make_config(lora_rank=8)), "was loaded with lora_rank=8"),
        (base_model, "has no adapter"),
    ):
        with pytest.raises(UserError, match=refusal):
            evaluate(model, few, run)
    assert not run.done


@pytest.mark.parametrize("precision", ["nf4", "dense"])
def test_a_watched_run_is_the_same_run(world, make_config, learn, precision):
    fields = {"precision": precision, "lora_dropout": 0.1}
    unwatched, config = learn("unwatched", **fields)[2], make_config(**fields)
    watched_steps, row = [], world.forget.iloc[:1]

    def watch(steps, model):
        assert not model.training
        generate(model, row["image"], row["question"], config, seed=1)
        watched_steps.append(steps)

    watched = learn("watched", watch=watch, **fields)[2]
    assert watched_steps == list(range(config.steps + 1))
    assert same(watched, unwatched)


def test_a_process_may_train_in_one_precision_after_another(learn, monkeypatch):
    monkeypatch.setattr("safeerase_lite.models.llava.cpu_has_bfloat16", lambda: True)
    kinds = ("float32", "bfloat16", "float32")
    first, half, again = (
        learn(str(n), steps=1, warmup=0.0, compute=kind)[2] for n, kind in enumerate(kinds)
    )
    assert same(first, again) and not same(first, half)


def test_another_seed_is_another_result(learn):
    one, history, weights = learn("runs", seed=0)
    two, other_history, other_weights = learn("runs", seed=1)
    assert one.id != two.id
    assert not history["loss"].equals(other_history["loss"])
    assert not same(weights, other_weights)


@pytest.mark.parametrize("parts", [2, 8])  # of two pictures with four questions each
@pytest.mark.parametrize(
    ("objective", "precision"), [*((name, "dense") for name in OBJECTIVES), ("kl", "nf4")]
)
def test_accumulation_changes_nothing(learn, objective, precision, parts):
    """A step in parts is the step: losses and gradients to 1e-5 (float32 sums in another
    order), whatever the answers' length. After a step the losses differ more: Adam's first steps
    divide by gradients near zero, so where one is mere rounding its weight may move by the whole
    rate, 1e-3, either way."""
    fields = {"objective": objective, "precision": precision, "steps": 2, "warmup": 0.0}
    fields["decouple"] = "none" if OBJECTIVES[objective].negated else "pd"
    _, together, _ = learn("together", accumulation=1, **fields)
    _, cut, _ = learn("parts", accumulation=parts, **fields)
    first, second = together.iloc[0], cut.iloc[0]
    for column in together:
        assert second[column] == pytest.approx(first[column], rel=1e-5, abs=1e-5), column
    assert cut["loss"].iloc[1] == pytest.approx(together["loss"].iloc[1], abs=1e-3)


def test_more_parts_than_questions_is_as_many_parts_as_questions(learn):
    _, single, _ = learn("single", pictures=1, accumulation=4, steps=1, warmup=0.0)
    _, many, _ = learn("many", pictures=1, accumulation=8, steps=1, warmup=0.0)
    pd.testing.assert_frame_equal(single, many, check_exact=True)


# ---- killed, and taken up again ----


@pytest.mark.parametrize(
    ("objective", "fields"),
    [
        ("po", {"lora_dropout": 0.2}),
        ("kl", {"precision": "nf4", "lora_dropout": 0.2}),
        ("npo", {"projector": "frozen"}),
        ("po", {"optimizer": "paged_adamw_8bit", "lora_rank": 64}),  # of 4096 weights and more
        ("kl", {"pictures": 1}),  # its reference is cached
        ("dpo", {}),  # the reference is asked about refusals drawn step by step
        ("rmu", {"pictures": 1}),
        ("negation", {"decouple": "none"}),
    ],
)
def test_a_run_that_died_is_finished_as_if_it_had_not(learn, monkeypatch, objective, fields):
    fields = {"steps": 8, "checkpoint_every": 2} | fields
    _, history, weights = learn("complete", objective, **fields)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        kill_at(patched, 5)
        learn("killed", objective, **fields)
    calls = []
    real = trainer.loss
    monkeypatch.setattr(trainer, "loss", lambda *a: calls.append(a) or real(*a))
    run, resumed, other_weights = learn("killed", objective, **fields)
    assert run.resumed and len(calls) == 4  # steps 4 to 7: the checkpoint holds 0 to 3
    pd.testing.assert_frame_equal(history, resumed, check_exact=True)
    assert same(weights, other_weights)


@pytest.mark.parametrize("killed_at", [2, 7])  # in the second of three requests, in the third
def test_of_requests_in_turn_none_is_repeated_and_none_is_lost(learn, monkeypatch, killed_at):
    fields = {"steps": 3, "requests": 3, "checkpoint_every": 2, "lora_dropout": 0.2}
    _, history, weights = learn("complete", **fields)
    assert list(history["step"]) == list(range(9))
    assert history.groupby("request", sort=False).size().tolist() == [3, 3, 3]
    with monkeypatch.context() as patched, pytest.raises(Killed):
        kill_at(patched, killed_at)
        learn("killed", **fields)
    calls = []
    real = trainer.loss
    monkeypatch.setattr(trainer, "loss", lambda *a: calls.append(a) or real(*a))
    _, resumed, other_weights = learn("killed", **fields)
    assert len(calls) == {2: 7, 7: 3}[killed_at]  # from the checkpoint before
    pd.testing.assert_frame_equal(history, resumed, check_exact=True)
    assert same(weights, other_weights)


def test_a_later_request_starts_from_what_the_earlier_ones_left(learn):
    fields = {"steps": 3, "decouple": "none"}
    _, one, _ = learn("runs", requests=1, **fields)
    _, two, _ = learn("runs", requests=2, **fields)
    pd.testing.assert_frame_equal(two.head(3), one, check_exact=True)
    assert two["loss"].iloc[3] < one["loss"].iloc[0]  # it has already learned to refuse


def test_one_who_watches_requests_in_turn_sees_every_step(learn):
    seen = []
    learn("runs", steps=2, requests=2, watch=lambda step, model: seen.append(step))
    assert seen == [0, 1, 2, 2, 3, 4]


def test_a_kill_while_a_checkpoint_is_written_costs_no_more_than_that_checkpoint(
    learn, monkeypatch
):
    fields = {"steps": 6, "checkpoint_every": 2}
    _, history, weights = learn("complete", **fields)
    real, calls = checkpoint.save_file, iter(range(100))

    def dying(tensors, path):
        if next(calls) == 1:
            path.write_bytes(b"half")
            raise Killed
        real(tensors, path)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(checkpoint, "save_file", dying)
        learn("killed", **fields)
    _, resumed, other_weights = learn("killed", **fields)
    pd.testing.assert_frame_equal(history, resumed, check_exact=True)
    assert same(weights, other_weights)


def test_the_loss_scale_of_half_precision_is_resumed(learn, monkeypatch):
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
    monkeypatch.setattr(trainer, "Accelerator", Scaling)
    _, scaled, weights = learn("complete", steps=6)
    for column in ("loss", "gradient_norm"):  # half precision has three digits, Adam raises it
        assert scaled[column][0] == pytest.approx(history[column][0], rel=0.01)
        assert scaled[column].tolist() == pytest.approx(history[column].tolist(), rel=0.05)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        kill_at(patched, 4)
        learn("killed", steps=6, checkpoint_every=2)
    _, _, other_weights = learn("killed", steps=6, checkpoint_every=2)
    assert same(weights, other_weights)
    assert scalers[0].get_scale() == scalers[2].get_scale() == 4.0 * 2**6


def test_there_is_one_checkpoint_and_nothing_in_it_is_pickled(learn, monkeypatch, tmp_path):
    with monkeypatch.context() as patched, pytest.raises(Killed):
        kill_at(patched, 5)
        learn("runs", steps=8, checkpoint_every=2)
    [folder] = tmp_path.glob("runs/partial/*/checkpoint")
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")}
    names = ("state.safetensors", "state.json", "files.json")
    assert files == {f"step-000004/{name}" for name in names}


KILLED = """
import os, signal, sys
import safeerase_lite as sl
from safeerase_lite.config import Config
from safeerase_lite.unlearning import trainer
config, root, runs, step = Config.model_validate_json(sys.argv[1]), *sys.argv[2:]
real, calls = trainer.loss, iter(range(1000))
def dying(*arguments):
    if next(calls) == int(step):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments)
trainer.loss = dying
sl.unlearn(sl.load_model(config), sl.read_data(root), config, runs_dir=runs)
"""


def test_a_process_killed_half_way_loses_nothing(world, make_config, learn, tmp_path):
    """SIGKILL in step 7 of 12, a checkpoint every 2: another process finishes, bit for bit."""
    fields = {"steps": 12, "checkpoint_every": 2, "precision": "nf4", "lora_dropout": 0.1}
    config = make_config(objective="po", decouple="pd", **fields).model_dump_json()
    arguments = [config, str(world.root), str(tmp_path / "killed"), "7"]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], env=os.environ)
    assert killed.returncode == -signal.SIGKILL
    assert not any(tmp_path.glob("killed/*/adapter"))
    run, resumed, weights = learn("killed", **fields)
    _, history, other_weights = learn("complete", **fields)
    assert run.resumed
    assert list(resumed["step"]) == list(range(12))
    pd.testing.assert_frame_equal(history, resumed, check_exact=True)
    assert same(weights, other_weights)


def test_a_complete_run_is_loaded_not_repeated(few, make_config, learn, monkeypatch):
    model = load_model(make_config())
    run, history, weights = learn("runs", data=few, model=model)
    evaluate(model, few, run)
    monkeypatch.setattr(trainer, "BatchSampler", lambda *a: pytest.fail("it trains again"))
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter.add_(1)  # whatever the model learned since
    again, same_history, _ = learn("runs", data=few, model=model)
    assert again.done and again.id == run.id
    pd.testing.assert_frame_equal(same_history, history, check_exact=True)
    assert same(adapter_weights(model), weights)


# ---- what cannot go on ----


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_loss_that_is_no_number_stops_the_run_and_says_where(learn, monkeypatch, tmp_path, value):
    real, calls = trainer.loss, iter(range(100))

    def broken(*arguments):
        total, terms = real(*arguments)
        return (total * value if next(calls) == 2 else total), terms

    monkeypatch.setattr(trainer, "loss", broken)
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


def test_what_was_memorised_is_forgotten(world, make_config, learn):
    """A model overfitted on a few pairs gives them word for word, and after ascent it does not."""
    fields = {"lora_rank": 16, "lora_alpha": 32, "max_new_tokens": 20, "steps": 20,
              "learning_rate": 5e-3}  # fmt: skip
    config = make_config(**fields)
    train = world.forget[world.forget["split"] == "train"]
    pairs = train.groupby("kind").nth(0).head(4)
    model = load_model(config)
    batch = encode(model.processor, pairs["image"], pairs["question"], pairs["answer"])
    optimizer = torch.optim.Adam(trainable(model).values(), lr=1e-2)
    model.train()
    for _ in range(100):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    model.eval()
    model.initial_adapter = {name: p.detach().clone() for name, p in trainable(model).items()}

    def answers():
        texts = generate(model, pairs["image"], pairs["question"], config)
        return [normalise(text) for text in texts]

    memorised = [normalise(answer) for answer in pairs["answer"]]
    assert answers() == memorised
    before = answer_nll(model, pairs, config)
    assert max(before) < 0.5  # as low as the random, frozen head lets it go

    learn("runs", "ga", "none", data=replace(world, forget=pairs), model=model, **fields)
    after = answer_nll(model, pairs, config)
    assert all(b < a for b, a in zip(before, after, strict=True))
    assert min(after) > 1  # twice the bound before: a token has 1/e or less, on (geometric) average
    assert all(answer != harm for answer, harm in zip(answers(), memorised, strict=True))
