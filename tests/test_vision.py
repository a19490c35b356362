"""A picture is looked at once, and nothing that is said of it changes by that."""

import gc
import os
import shutil

import pytest
import torch

from safeerase_lite.evaluation.evaluate import generate
from safeerase_lite.models import forward as vision
from safeerase_lite.models.forward import TensorCache, embed, features, llava_of
from safeerase_lite.models.inputs import encode
from safeerase_lite.models.llava import load_model, reference


@pytest.fixture
def rows(world):
    return world.forget.drop_duplicates("image").head(5)


@pytest.fixture
def looks(monkeypatch):
    """The pictures that pass through a tower, in order."""
    seen, real = [], vision._look
    monkeypatch.setattr(
        vision, "_look", lambda m, llava, path: (seen.append(path), real(m, llava, path))[1]
    )
    return seen


def logits(model, rows):
    """(with the cache, without)."""
    batch = encode(model.processor, rows["image"], rows["question"], rows["answer"])
    batch.pop("labels")
    read = embed(model, batch["input_ids"], rows["image"])
    kept = model(inputs_embeds=read, attention_mask=batch["attention_mask"]).logits
    return kept, model(**batch).logits


@pytest.mark.parametrize("precision", ["nf4", "dense"])
@pytest.mark.parametrize("projector", ["trained", "frozen"])
def test_the_model_says_what_it_says_of_the_pixels(make_profile, rows, precision, projector):
    model = load_model(make_profile(precision=precision, projector=projector))
    for _ in range(2):
        kept, plain = logits(model, rows)
        torch.testing.assert_close(kept, plain, atol=1e-5, rtol=1e-5)


def test_the_projector_is_not_in_what_is_kept(make_profile, rows):
    """It learns, and the reference has another one."""
    model = load_model(make_profile())
    before = logits(model, rows)[0]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "modules_to_save" in name:
                parameter.mul_(2)
    kept, plain = logits(model, rows)
    assert not kept.equal(before)
    torch.testing.assert_close(kept, plain, atol=1e-5, rtol=1e-5)
    with reference(model):
        assert logits(model, rows)[0].equal(before)


def test_the_projector_learns_through_what_is_kept(make_profile, rows):
    model = load_model(make_profile())
    features(model, rows["image"])
    logits(model, rows)[0].sum().backward()
    learning = [p for name, p in model.named_parameters() if "modules_to_save" in name]
    assert learning and all(p.grad.any() for p in learning)
    assert all(p.grad is None for p in llava_of(model).vision_tower.parameters())


def test_a_picture_passes_through_the_tower_once(make_profile, rows, looks):
    model = load_model(make_profile())
    twice = [*rows["image"], *rows["image"]]
    assert features(model, twice).shape[0] == 2 * len(rows)
    generate(model, rows["image"], rows["question"], profile=make_profile())
    assert looks == list(rows["image"])


def test_another_picture_under_the_same_name_is_looked_at_anew(make_profile, rows, tmp_path):
    model, mine = load_model(make_profile()), tmp_path / "mine.png"
    for path in rows["image"]:
        shutil.copyfile(path, mine)
        os.utime(mine, ns=(0, os.stat(path).st_ino))
        assert features(model, [str(mine)]).equal(features(model, [path]))


def test_what_a_picture_looks_like_does_not_depend_on_its_neighbours(make_profile, rows):
    together = features(load_model(make_profile()), rows["image"])
    model = load_model(make_profile())
    alone = [features(model, [path])[0] for path in rows["image"]]
    assert together.equal(torch.stack(alone))


def test_features_kept_by_an_evaluation_can_be_trained_on(make_profile, rows):
    model = load_model(make_profile())
    with torch.inference_mode():
        features(model, rows["image"])
    logits(model, rows)[0].sum().backward()


def test_models_do_not_share_what_they_saw_and_take_it_with_them(make_profile, rows, looks):
    one, other = load_model(make_profile()), load_model(make_profile())
    for model in (one, other):
        features(model, rows["image"])
    assert looks == [*rows["image"]] * 2
    kept = len(vision._SEEN)
    del one, model
    gc.collect()
    assert len(vision._SEEN) < kept


def test_an_old_projector_reads_several_layers(make_profile, rows):
    model = load_model(make_profile(), adapt=False)
    width = features(model, rows["image"]).shape[-1]
    model.model.config.vision_feature_layer = [-2, -1]
    vision._SEEN.clear()
    assert features(model, rows["image"]).shape[-1] == 2 * width


# ---- what is kept ----


def test_no_more_is_kept_than_there_is_room_for():
    asked = []

    def compute(key):
        asked.append(key)
        return torch.full((4,), float(key))

    kept = TensorCache(room=2 * 16)
    for _ in range(2):
        assert [kept.get(key, lambda key=key: compute(key))[0].item() for key in range(3)] == [
            0,
            1,
            2,
        ]
    assert asked == [0, 1, 2, 2]
    assert len(kept.tensors) == 2


def test_what_is_kept_has_no_gradient():
    weight = torch.ones(2, requires_grad=True)
    assert not TensorCache(room=100).get("key", lambda: 2 * weight).requires_grad
