"""The package's way gives what the plain way gives, with one model instead of two."""

import gc
import weakref
from dataclasses import replace
from unittest.mock import Mock

import pandas as pd
import plain
import pytest
import torch
from transformers import LlavaForConditionalGeneration

from safeerase_lite.evaluation.generate import generate
from safeerase_lite.models.forward import Reference
from safeerase_lite.models.llava import load_model, trainable
from safeerase_lite.runs.experiment import unlearn
from safeerase_lite.unlearning import trainer
from safeerase_lite.unlearning.objectives import OBJECTIVES, loss, loss_weights
from safeerase_lite.unlearning.sampler import BatchSampler
from safeerase_lite.unlearning.trainer import (
    layers_read,
    predict,
    random_direction,
    step_counts,
)


@pytest.mark.parametrize("parts", [1, 2, 8])  # two pictures with four questions each
@pytest.mark.parametrize("precision", ["nf4", "dense"])
@pytest.mark.parametrize("objective", [o for o in OBJECTIVES if not OBJECTIVES[o].negated])
def test_the_loss_and_its_gradients_are_those_of_the_plain_way(
    world, make_config, objective, precision, parts
):
    config = make_config(objective=objective, decouple="pd", precision=precision)
    model, second = load_model(config).train(), load_model(config, adapt=False)
    tables = BatchSampler(world, config).batch_at(0)
    factors = loss_weights(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.01)

    def gradients(total):
        total.backward()
        computed = {name: p.grad.clone() for name, p in trainable(model).items()}
        model.zero_grad()
        return computed

    direction = random_direction(model, config.seed)
    one_pass = replace(plain.predict(model, second, objective, tables), direction=direction)
    expected, _ = loss(objective, one_pass, factors)
    expected_gradients = gradients(expected)
    referred, reference = OBJECTIVES[objective].reference, None
    layers = layers_read(model, OBJECTIVES[objective])
    if referred:
        asked = pd.concat([tables[group] for group in referred])
        reference = Reference(model, asked, config.pictures, layers)
    counts, total = step_counts(model.processor, tables), 0
    for rows in trainer._parts(tables, parts, Mock(num_processes=1, process_index=0)):
        batch = predict(model, rows, counts, referred, reference, layers)
        batch = replace(batch, direction=direction)
        total = total + loss(objective, batch, factors)[0]
    # Float32 sums in another order; gradients are sums over the batch and its positions besides.
    torch.testing.assert_close(total, expected, atol=1e-5, rtol=1e-5)
    for name, gradient in gradients(total).items():
        torch.testing.assert_close(gradient, expected_gradients[name], atol=1e-4, rtol=1e-3)


def test_a_batch_is_answered_as_one_by_one(world, make_config):
    config = make_config()
    model = load_model(config)
    rows = pd.concat([world.forget.head(4), world.retain.head(4)])
    singly = plain.generate(model, rows["image"], rows["question"], config)
    assert generate(model, rows["image"], rows["question"], config) == singly


def llavas():
    gc.collect()
    return sum(isinstance(thing, LlavaForConditionalGeneration) for thing in gc.get_objects())


@pytest.mark.parametrize("objective", ["kl", "npo"])
def test_the_reference_is_no_second_model(world, make_config, tmp_path, objective):
    already, counts = llavas(), []
    config = make_config(objective=objective, steps=2)
    unlearn(load_model(config), world, config, runs_dir=tmp_path,
            watch=lambda steps, model: counts.append(llavas()))  # fmt: skip
    assert counts == [already + 1] * 3


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_an_unlearned_model_goes_when_nobody_holds_it(
    world, make_config, tmp_path, compute, monkeypatch
):
    """At once, not when the garbage collector comes: two do not fit a T4."""
    monkeypatch.setattr("safeerase_lite.models.llava.cpu_has_bfloat16", lambda: True)
    config = make_config(objective="kl", decouple="pd", steps=1, warmup=0.0, compute=compute)
    model = load_model(config)
    alive, forward = weakref.ref(model), model.get_base_model().forward
    gc.disable()
    try:
        unlearn(model, world, config, runs_dir=tmp_path)
        assert model.get_base_model().forward == forward
        del model, forward
        assert alive() is None
    finally:
        gc.enable()
