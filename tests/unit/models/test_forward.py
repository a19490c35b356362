"""What is left out of the forward pass changes no prediction: each picture passes through the tower
once, and through the language model once for all questions about it."""

import gc
import os
import shutil

import pandas as pd
import pytest
import torch

from safeerase_lite.evaluation.generate import generate
from safeerase_lite.models import forward
from safeerase_lite.models.anatomy import picture_features
from safeerase_lite.models.forward import (
    LAST,
    TensorCache,
    answer_states,
    embed,
    layer_at,
    layer_states,
    llava_of,
    vision_features,
)
from safeerase_lite.models.inputs import IGNORED, encode, encode_text, pack
from safeerase_lite.models.llava import load_model, reference

# Each comparison below is of the same float32 sums in another order; logits are of order 10.
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


# ---- many questions to a picture ----


@pytest.fixture
def rows(world):
    """Two pictures with questions and answers of several lengths, mixed, and two with one each."""
    several = world.retain[world.retain["image"].isin(world.retain["image"].unique()[:2])]
    plans = world.forget[world.forget["image"].isin(several["image"])]
    alone = world.decouple.drop_duplicates("image").head(2)
    return pd.concat([several, plans, alone]).sample(frac=1, random_state=0)


def alone(model, rows):
    """The states that predict each answer, from a complete forward pass for each question."""
    states = []
    for _, row in rows.iterrows():
        inputs = encode(model.processor, [row["image"]], [row["question"]], [row["answer"]])
        answered = inputs.pop("labels")[0, 1:] != IGNORED
        states.append(llava_of(model)(**inputs).last_hidden_state[0, :-1][answered])
    return states


def states_and_gradients(model, rows, compute):
    states = compute(model, rows)
    torch.cat(states).square().sum().backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    return states, gradients


@pytest.mark.parametrize("fields", [{}, {"precision": "nf4"}, {"gradient_checkpointing": True}])
def test_packed_questions_have_the_states_and_gradients_they_have_alone(make_config, rows, fields):
    model = load_model(make_config(**fields)).train()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.01)
    states, gradients = states_and_gradients(model, rows, answer_states)
    expected, expected_gradients = states_and_gradients(model, rows, alone)
    for one, other in zip(states, expected, strict=True):
        torch.testing.assert_close(one, other, **CLOSE)
    for name, gradient in gradients.items():  # sums over all questions besides: one digit less
        torch.testing.assert_close(gradient, expected_gradients[name], atol=1e-3, rtol=1e-4)


def test_a_question_without_a_picture_has_the_states_it_has_alone(base_model, rows):
    """Among questions about pictures, and by the model's own way from text."""
    words = rows.head(3).assign(image="")
    states = answer_states(base_model, pd.concat([rows, words]))[len(rows) :]
    for (_, row), given in zip(words.iterrows(), states, strict=True):
        inputs = encode_text(base_model.processor, [row["question"]], [row["answer"]], [""])
        assert not (inputs["input_ids"] == base_model.processor.image_token_id).any()
        answered = inputs.pop("labels")[0, 1:] != IGNORED
        expected = llava_of(base_model)(**inputs).last_hidden_state[0, :-1][answered]
        torch.testing.assert_close(given, expected, **CLOSE)


def test_the_states_of_a_layer_are_those_that_transformers_gives(base_model, rows):
    layer = layer_at(base_model, 0.5)
    assert layer == 1  # of two
    states = layer_states(base_model, rows, (LAST, layer))
    for (_, row), given in zip(rows.iterrows(), states, strict=True):
        inputs = encode(base_model.processor, [row["image"]], [row["question"]], [row["answer"]])
        answered = inputs.pop("labels")[0, 1:] != IGNORED
        output = llava_of(base_model)(**inputs, output_hidden_states=True)
        for n, number in enumerate((LAST, layer)):
            expected = output.hidden_states[number][0, :-1][answered]
            torch.testing.assert_close(given[:, n], expected, **CLOSE)


def test_a_picture_is_read_once_and_a_quarter_of_a_pass_at_most_is_padding(base_model, rows):
    packed = pack(base_model.processor, rows["image"], rows["question"], rows["answer"])
    assert sorted(row.image for row in packed) == sorted(rows["image"].unique())
    assert sorted(number for row in packed for number in row.predictors) == list(range(len(rows)))
    passes = forward._passes(packed)
    assert sum(map(len, passes)) == len(packed)
    for lengths in ([len(row.ids) for row in rows] for rows in passes):
        assert min(lengths) >= 0.75 * max(lengths)


# ---- pictures ----


@pytest.fixture
def pictures(world):
    """Rows with five different pictures."""
    return world.forget.drop_duplicates("image").head(5)


@pytest.fixture
def tower_passes(monkeypatch):
    """The pictures that pass through a tower, in order."""
    passes, real = [], forward._tower_output
    monkeypatch.setattr(
        forward, "_tower_output", lambda model, path: (passes.append(path), real(model, path))[1]
    )
    return passes


def logits(model, rows):
    """(with the cached features, from the pixels)."""
    batch = encode(model.processor, rows["image"], rows["question"], rows["answer"])
    batch.pop("labels")
    states = embed(model, batch["input_ids"], rows["image"])
    cached = model(inputs_embeds=states, attention_mask=batch["attention_mask"]).logits
    return cached, model(**batch).logits


@pytest.mark.parametrize("precision", ["nf4", "dense"])
@pytest.mark.parametrize("projector", ["trained", "frozen"])
def test_logits_from_cached_features_are_those_from_the_pixels(
    make_config, pictures, precision, projector
):
    model = load_model(make_config(precision=precision, projector=projector))
    for _ in range(2):
        torch.testing.assert_close(*logits(model, pictures), **CLOSE)


def test_a_trained_projector_is_applied_anew_and_the_reference_has_the_old_one(
    make_config, pictures
):
    model = load_model(make_config())
    before = logits(model, pictures)[0]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "modules_to_save" in name:
                parameter.mul_(2)
    cached, plain = logits(model, pictures)
    assert not cached.equal(before)
    torch.testing.assert_close(cached, plain, **CLOSE)
    with reference(model):
        assert logits(model, pictures)[0].equal(before)


@pytest.mark.parametrize("cached_by", ["training", "evaluation"])
def test_the_projector_learns_through_cached_features(make_config, pictures, cached_by):
    model = load_model(make_config())
    with torch.inference_mode(cached_by == "evaluation"):
        vision_features(model, pictures["image"])
    logits(model, pictures)[0].sum().backward()
    projector = [p for name, p in model.named_parameters() if "modules_to_save" in name]
    assert projector and all(p.grad.any() for p in projector)
    assert all(p.grad is None for p in llava_of(model).vision_tower.parameters())


def test_a_picture_passes_through_the_tower_once(make_config, pictures, tower_passes):
    model = load_model(make_config())
    twice = [*pictures["image"], *pictures["image"]]
    assert len(vision_features(model, twice)) == 2 * len(pictures)
    generate(model, pictures["image"], pictures["question"], make_config())
    assert tower_passes == list(pictures["image"])


def test_another_picture_under_the_same_name_is_encoded_anew(make_config, pictures, tmp_path):
    model, mine = load_model(make_config()), tmp_path / "mine.png"
    for path in pictures["image"]:
        shutil.copyfile(path, mine)
        os.utime(mine, ns=(0, os.stat(path).st_ino))
        assert vision_features(model, [str(mine)])[0].equal(vision_features(model, [path])[0])


def test_the_features_of_a_picture_do_not_depend_on_its_neighbours(make_config, pictures):
    together = vision_features(load_model(make_config()), pictures["image"])
    model = load_model(make_config())
    alone = [vision_features(model, [path])[0] for path in pictures["image"]]
    assert all(one.equal(other) for one, other in zip(together, alone, strict=True))


def test_each_model_has_a_cache_of_its_own_which_ends_with_it(make_config, pictures, tower_passes):
    one, other = load_model(make_config()), load_model(make_config())
    for model in (one, other):
        vision_features(model, pictures["image"])
    assert tower_passes == [*pictures["image"]] * 2
    cached = len(forward._features)
    del one, model
    gc.collect()
    assert len(forward._features) < cached


def test_an_older_projector_reads_several_layers(make_config, pictures):
    model = load_model(make_config(), adapt=False)
    width = vision_features(model, pictures["image"])[0].shape[-1]
    model.model.config.vision_feature_layer = [-2, -1]
    forward._features.clear()
    assert vision_features(model, pictures["image"])[0].shape[-1] == 2 * width


@pytest.mark.parametrize("strategy", ["default", "full"])
@pytest.mark.parametrize("layer", [-1, -2, [-2, -1]])
def test_patch_features_are_what_transformers_gives_the_projector(
    make_config, pictures, layer, strategy
):
    model = load_model(make_config(), adapt=False)
    model.config.vision_feature_layer = layer
    model.config.vision_feature_select_strategy = strategy
    pixels = encode(model.processor, pictures["image"][:1], ["?"])["pixel_values"]
    with torch.no_grad():
        ours = picture_features(model.model, {"pixel_values": pixels})
        states = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states
    layers = [layer] if isinstance(layer, int) else layer
    expected = torch.cat([states[n] for n in layers], dim=-1)
    assert ours.equal(expected[:, 1:] if strategy == "default" else expected)


# ---- the cache ----


def test_the_cache_is_bounded_in_bytes_and_what_came_first_stays():
    computed = []

    def compute(key):
        computed.append(key)
        return torch.full((4,), float(key))

    cache = TensorCache(max_bytes=2 * 16)
    for _ in range(2):
        values = [cache.get(key, lambda key=key: compute(key))[0].item() for key in range(3)]
        assert values == [0, 1, 2]
    assert computed == [0, 1, 2, 2]
    assert len(cache.tensors) == 2


def test_a_cached_tensor_has_no_gradient():
    weight = torch.ones(2, requires_grad=True)
    assert not TensorCache(max_bytes=100).get("key", lambda: 2 * weight).requires_grad
