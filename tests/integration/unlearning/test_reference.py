"""The frozen reference is computed once, and gives what a second pass would give."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from safeerase_lite.models import forward
from safeerase_lite.models.forward import Reference
from safeerase_lite.models.inputs import IGNORED, encode
from safeerase_lite.models.llava import load_model, reference
from safeerase_lite.runs.experiment import unlearn
from safeerase_lite.unlearning.objectives import Answers, divergence


@pytest.fixture
def rows(world):
    """Four pictures with their questions and answers, of several lengths."""
    return world.retain[world.retain["image"].isin(world.retain["image"].unique()[:4])]


@pytest.fixture
def computed(monkeypatch):
    """The answers that pass through the frozen model, in order."""
    answers, real = [], Reference._compute
    monkeypatch.setattr(
        Reference,
        "_compute",
        lambda self, table: (answers.extend(map(tuple, table.to_numpy())), real(self, table))[1],
    )
    return answers


def second_pass(model, rows):
    batch = encode(model.processor, rows["image"], rows["question"], rows["answer"])
    labels = batch.pop("labels")
    with torch.no_grad(), reference(model):
        return Answers(model(**batch).logits[:, :-1], labels[:, 1:])


@pytest.mark.parametrize("precision", ["nf4", "dense"])
@pytest.mark.parametrize("projector", ["trained", "frozen"])
@pytest.mark.parametrize("pictures", [1, 3])
def test_it_gives_what_a_second_pass_gives(make_config, rows, precision, projector, pictures):
    model = load_model(make_config(precision=precision, projector=projector))
    frozen = Reference(model, rows, pictures)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01)
    for _ in range(2):  # rows of another length: float32 rounding
        cached, plain = frozen.answers(rows), second_pass(model, rows)
        torch.testing.assert_close(cached.nll, plain.nll, atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(
            cached.logits[cached.mask], plain.logits[plain.mask], atol=1e-4, rtol=1e-5
        )
        # Of second order in such differences: what is left is the rounding of its own sum.
        assert divergence(cached, plain) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("pictures", [1, 2])
def test_an_answer_is_computed_once_and_is_the_same_whatever_comes_first(
    make_config, rows, computed, pictures
):
    model = load_model(make_config())
    forwards, backwards = Reference(model, rows, pictures), Reference(model, rows[::-1], pictures)
    order = range(len(rows))
    together = forwards.answers(rows)
    alone = {n: forwards.answers(rows.iloc[[n]]).logits[0] for n in order}
    other = {n: backwards.answers(rows.iloc[[n]]).logits[0] for n in reversed(order)}
    assert len(computed) == 2 * len(rows) == 2 * len(set(computed))
    for n, (logits, labels) in enumerate(zip(together.logits, together.labels, strict=True)):
        assert alone[n].equal(other[n])
        # The head's product over more rows: float32 rounding.
        torch.testing.assert_close(alone[n], logits[labels != IGNORED], atol=1e-5, rtol=1e-5)


def test_each_picture_is_computed_alone_where_not_all_can_be_cached(
    make_config, rows, computed, monkeypatch
):
    monkeypatch.setattr(forward, "REFERENCE_BYTES", 1)
    Reference(load_model(make_config()), rows, 2).answers(rows.iloc[[0]])
    assert {image for image, *_ in computed} == {rows["image"].iloc[0]}


def test_what_is_cached_is_a_width_per_token(make_config, rows):
    model = load_model(make_config())
    frozen = Reference(model, rows)
    frozen.answers(rows)
    width = model.config.text_config.hidden_size
    assert {states.shape[-1] for states in frozen.states.tensors.values()} == {width}


@pytest.mark.parametrize("objective", ["kl", "npo"])
def test_a_run_computes_each_answer_once_and_is_the_run_it_was_without_the_cache(
    world, make_config, tmp_path, computed, monkeypatch, objective
):
    """Four passes over two pictures, and the same with nothing cached: to the bit."""
    config = make_config(objective=objective, pictures=1, accumulation=2, steps=8)
    data = replace(world, forget=world.forget.head(8), retain=world.retain.head(8))

    def train(ledger):
        run = unlearn(load_model(config), data, config, runs_dir=tmp_path / ledger)
        return run.history, load_file(run.adapter_dir / "adapter_model.safetensors")

    history, weights = train("cached")
    assert len(computed) == 8 and len(set(computed)) == 8
    monkeypatch.setattr(forward, "REFERENCE_BYTES", 0)
    other_history, other_weights = train("not cached")
    assert len(computed) == 8 + 8 * 2 * 4
    pd.testing.assert_frame_equal(history, other_history, check_exact=True)
    assert all(weights[name].equal(other_weights[name]) for name in weights)
