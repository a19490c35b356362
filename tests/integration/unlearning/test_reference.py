"""The frozen model is asked once, and says of an answer what a second pass would say."""

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from safeerase_lite.models import forward as references
from safeerase_lite.models.forward import Answers, Reference
from safeerase_lite.models.inputs import IGNORED, encode
from safeerase_lite.models.llava import load_model, reference
from safeerase_lite.runs.experiment import open_run
from safeerase_lite.unlearning.objectives import divergence
from safeerase_lite.unlearning.trainer import unlearn

pytestmark = pytest.mark.slow


@pytest.fixture
def rows(world):
    """Questions of several lengths, answers of several lengths."""
    return world.retain.drop_duplicates("question").head(4)


@pytest.fixture
def asks(monkeypatch):
    """The questions that pass through the frozen model, in order."""
    asked, real = [], Reference._ask
    monkeypatch.setattr(
        Reference, "_ask", lambda self, rows: (asked.extend(rows), real(self, rows))[1]
    )
    return asked


def second_pass(model, rows):
    batch = encode(model.processor, rows["image"], rows["question"], rows["answer"])
    labels = batch.pop("labels")
    with torch.no_grad(), reference(model):
        return Answers(model(**batch).logits[:, :-1], labels[:, 1:])


@pytest.mark.parametrize("precision", ["nf4", "dense"])
@pytest.mark.parametrize("projector", ["trained", "frozen"])
@pytest.mark.parametrize("together", [1, 3])
def test_it_says_what_a_second_pass_says(make_profile, rows, precision, projector, together):
    model = load_model(make_profile(precision=precision, projector=projector))
    before = Reference(model, rows, together)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01)
    for _ in range(2):
        kept, plain = before.answers(rows), second_pass(model, rows)
        torch.testing.assert_close(kept.nll, plain.nll, atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(
            kept.logits[kept.mask], plain.logits[plain.mask], atol=1e-4, rtol=1e-5
        )
        assert divergence(kept, plain) == pytest.approx(0, abs=1e-6)


def test_a_question_is_asked_once_whoever_comes_with_it(make_profile, rows, asks):
    before = Reference(load_model(make_profile()))
    together = before.answers(rows)
    alone = [before.answers(rows.iloc[[n]]) for n in range(len(rows))]
    assert len(asks) == len(rows)
    for whole, one, labels in zip(together.logits, alone, together.labels, strict=True):
        said = one.logits[0]
        assert said.equal(whole[-len(said) :])
        assert (labels != IGNORED).sum() == len(said)


def test_questions_come_with_the_same_others_whoever_is_asked_first(make_profile, rows, asks):
    model = load_model(make_profile())
    forward, backward = Reference(model, rows, 2), Reference(model, rows.iloc[::-1], 2)
    said = [forward.answers(rows.iloc[[n]]).logits for n in range(len(rows))]
    again = [backward.answers(rows.iloc[[n]]).logits for n in reversed(range(len(rows)))]
    assert len(asks) == 2 * len(rows)
    assert all(one.equal(other) for one, other in zip(said, reversed(again), strict=True))


def test_each_is_asked_alone_where_not_all_can_be_kept(make_profile, rows, asks, monkeypatch):
    monkeypatch.setattr(references, "ROOM", 1)
    before = Reference(load_model(make_profile()), rows, 2)
    before.answers(rows.iloc[[0]])
    assert len(asks) == 1


def test_what_is_kept_is_a_width_a_token(make_profile, rows):
    model = load_model(make_profile())
    before = Reference(model)
    before.answers(rows)
    width = model.config.text_config.hidden_size
    assert {states.shape[-1] for states in before.states.tensors.values()} == {width}


@pytest.mark.parametrize("objective", ["kl", "npo"])
def test_a_run_of_single_questions_asks_each_once_and_is_the_run_it_was(
    world, make_profile, tmp_path, asks, monkeypatch, objective
):
    """Four passes over eight questions, and the same with nothing kept: to the bit."""
    fields = {"batch": 2, "accumulation": 2, "steps": 16}
    data = few_trained(world)

    def train(ledger):
        run = open_run(
            make_profile(**fields), data, objective=objective, runs_dir=tmp_path / ledger
        )
        history = unlearn(load_model(make_profile(**fields)), data, run)
        return history, load_file(run.adapter_dir / "adapter_model.safetensors")

    history, weights = train("kept")
    assert len(asks) == 8 and len(set(asks)) == 8
    monkeypatch.setattr(references, "ROOM", 0)
    again, weights_too = train("forgotten")
    assert len(asks) == 8 + 2 * 16
    pd.testing.assert_frame_equal(history, again, check_exact=True)
    assert all(weights[name].equal(weights_too[name]) for name in weights)


def few_trained(world):
    """Eight questions to train on."""
    from dataclasses import replace

    return replace(world, forget=world.forget.head(8), retain=world.retain.head(8))
