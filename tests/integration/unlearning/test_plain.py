"""The package's way gives what the plain way gives, with one model instead of two."""

import gc
import weakref

import pandas as pd
import plain
import pytest
import torch
from transformers import LlavaForConditionalGeneration

from safeerase_lite.evaluation.evaluate import generate
from safeerase_lite.models.forward import Reference
from safeerase_lite.models.llava import load_model
from safeerase_lite.runs.experiment import open_run
from safeerase_lite.unlearning.objectives import OBJECTIVES, loss, weights
from safeerase_lite.unlearning.trainer import BatchSampler, answered, step_counts, unlearn

pytestmark = pytest.mark.slow


def llavas():
    gc.collect()
    return sum(isinstance(thing, LlavaForConditionalGeneration) for thing in gc.get_objects())


@pytest.mark.parametrize("pieces", [1, 4])
@pytest.mark.parametrize("precision", ["nf4", "dense"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_loss_and_its_gradients_are_those_of_the_plain_way(
    world, make_profile, objective, precision, pieces
):
    profile = make_profile(precision=precision)
    model, second = load_model(profile).train(), load_model(profile, adapt=False)
    needs, referred = OBJECTIVES[objective].needs, OBJECTIVES[objective].reference
    asked = BatchSampler(world, needs, "pd", 0, profile.batch).at(0)
    weighing = weights(objective, "official", "pd")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.01)

    def gradients(total):
        total.backward()
        found = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
        model.zero_grad()
        return found

    expected, _ = loss(objective, plain.batch(model, second, objective, asked), weighing)
    wanted = gradients(expected)
    before = Reference(model, asked.get(referred), profile.batch // pieces)
    counts, total = step_counts(model.processor, asked), 0
    for piece in range(pieces):
        part = {name: table.iloc[piece::pieces] for name, table in asked.items()}
        total = (
            total + loss(objective, answered(model, part, counts, referred, before), weighing)[0]
        )
    torch.testing.assert_close(total, expected, atol=1e-5, rtol=1e-5)
    for name, found in gradients(total).items():
        torch.testing.assert_close(found, wanted[name], atol=1e-4, rtol=1e-3)


def test_a_batch_answers_what_is_answered_one_by_one(world, make_profile):
    profile = make_profile()
    model = load_model(profile)
    rows = pd.concat([world.forget.head(4), world.retain.head(4)])
    singly = plain.ask(model, rows["image"], rows["question"], profile)
    assert generate(model, rows["image"], rows["question"], profile=profile) == singly


@pytest.mark.parametrize("objective", ["kl", "npo"])
def test_the_reference_is_no_second_model(world, make_profile, tmp_path, objective):
    already = llavas()
    profile, seen = make_profile(steps=2), []
    run = open_run(profile, world, objective=objective, runs_dir=tmp_path)
    unlearn(load_model(profile), world, run, watch=lambda steps, model: seen.append(llavas()))
    assert seen == [already + 1] * 3


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_an_unlearned_model_goes_when_nobody_holds_it(world, make_profile, tmp_path, compute):
    """At once, not when the garbage collector comes: two do not fit a T4."""
    profile = make_profile(steps=1, warmup=0.0, compute=compute)
    run = open_run(profile, world, objective="kl", decouple="pd", runs_dir=tmp_path)
    model = load_model(profile)
    llava, forward = weakref.ref(model), model.get_base_model().forward
    gc.disable()
    try:
        unlearn(model, world, run)
        assert model.get_base_model().forward == forward
        del model, forward
        assert llava() is None
    finally:
        gc.enable()
