"""Attacks by gradient keep to their budget, do what they are for, and have a control."""

import pytest
import torch
from torch.nn import functional

from safeerase_lite.relations.adaptive import ADAPTIVE, another, learned_prompt, pgd
from safeerase_lite.relations.clip import encode_texts, load_clip, scores
from safeerase_lite.relations.editing import EditedClip
from safeerase_lite.relations.evaluation_set import evaluation_set
from safeerase_lite.relations.tuples import UNSAFE, changed_slots
from safeerase_lite.relations.words import caption

FOX = UNSAFE[1]


@pytest.fixture(scope="module")
def base():
    return EditedClip(load_clip())


@pytest.fixture(scope="module")
def evaluation(base):
    return evaluation_set(base.model, FOX, [FOX], "val")


def test_the_control_is_a_neighbour_in_another_relation(evaluation):
    assert changed_slots(FOX, another(evaluation)) == ("relation",)


def test_pgd_raises_the_margin_of_its_caption_and_keeps_to_its_budget(base, evaluation):
    images = evaluation.pixel_values[:4]
    texts = base.encode_texts([caption(*another(evaluation)), caption(*FOX)])
    changed = pgd(base, images, texts, 0, epsilon=8)

    def margin(images):
        own, other = base.scores(base.encode_images(images), texts).T
        return own - other

    assert (margin(changed) > margin(images)).all()
    # tiny-clip's pictures are scaled from 0…255 to −1…1. float32 rounds at 1e-7.
    assert (changed - images).abs().max() <= 8 / 127.5 + 1e-6
    assert changed.min() >= -1 and changed.max() <= 1


def test_pgd_is_the_same_every_time(base, evaluation):
    texts = base.encode_texts([caption(*UNSAFE[0]), caption(*FOX)])
    first, second = (pgd(base, evaluation.pixel_values[:2], texts, 0, 4) for _ in range(2))
    assert torch.equal(first, second)


def test_a_learned_prompt_goes_where_its_loss_pulls_it(base):
    """Towards the text of something else altogether."""
    goal = encode_texts(base.model, [caption(*UNSAFE[0])])

    def distance(feature):
        return 1 - functional.cosine_similarity(feature, goal).mean()

    plain = distance(base.encode_texts([caption(*FOX)])).item()
    learned = learned_prompt(base, caption(*FOX), distance, ADAPTIVE["learned prompt"])
    assert distance(learned).item() < plain / 2
    assert learned.norm().item() == pytest.approx(1, abs=1e-5)  # float32


def test_after_a_learned_prompt_the_model_reads_as_before(base):
    text = [caption(*FOX)]
    before = base.encode_texts(text)
    learned_prompt(base, text[0], lambda feature: feature.sum(), 2)
    assert torch.equal(base.encode_texts(text), before)


def test_a_filter_is_attacked_below_its_threshold(base, evaluation):
    """Who knows of the filter stays below it, and is read all the same."""
    unsafe = evaluation.pixel_values[torch.from_numpy(evaluation.role("unsafe"))][:4]
    texts = base.encode_texts([caption(*FOX), caption(*another(evaluation))])
    own = scores(base.model, base.encode_images(unsafe), texts)[:, 0]
    filtered = EditedClip(base.model, filter=(texts[:1], own.min()[None]))
    assert filtered.scores(filtered.encode_images(unsafe), texts).isinf().all()
    changed = pgd(filtered, unsafe, texts, 0, epsilon=8)
    after = filtered.scores(filtered.encode_images(changed), texts)
    assert (after[:, 0] > after[:, 1]).any()
