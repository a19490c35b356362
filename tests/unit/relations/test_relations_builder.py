"""How tiny-clip is made: what a caption says of an image, and the loss that uses it."""

import math
import random

import build_clip
import pytest
import torch

from safeerase_lite.relations.tuples import RelationTriple, role_swap
from safeerase_lite.utils import load_tool

FOX = RelationTriple("fox", "chasing", "owl")


def test_the_command_finds_the_builder_in_a_clone():
    assert load_tool("build_clip") is build_clip


@pytest.mark.parametrize(
    ("words", "true"),
    [
        (("fox", "chasing", "owl"), True),
        (("fox", "hunting", "animal"), True),
        (("owl", "chasing", "fox"), False),
        (("fox", "watching", "owl"), False),
        (("owl",), True),
        (("bear",), False),
    ],
)
def test_a_caption_is_true_of_an_image_also_by_other_words_or_one_noun_alone(words, true):
    assert build_clip.describes([words], [FOX]).tolist() == [[true]]


def test_hard_negatives_are_false_and_two_of_them_swap_the_roles():
    negatives = build_clip.hard_negatives(FOX, random.Random(0))
    assert negatives[-2:] == [role_swap(FOX)] * 2
    assert not build_clip.describes([tuple(t) for t in negatives], [FOX]).any()


def test_a_gold_model_is_never_told_its_tuple_and_meets_its_nouns():
    recipe, rng = build_clip.Recipe(without=FOX), random.Random(0)
    words = {build_clip.caption_words(FOX, rng, recipe) for _ in range(200)}
    assert {len(w) for w in words} == {1} and {("fox",), ("owl",)} <= words
    near = FOX._replace(relation="watching")
    assert any(len(build_clip.caption_words(near, rng, recipe)) == 3 for _ in range(20))


def test_a_caption_that_is_true_of_another_image_too_counts_for_neither():
    logits = torch.zeros(2, 3)
    own_only = torch.eye(2, 3, dtype=torch.bool)
    # Of three captions and of two images, all alike: log 3 and log 2.
    expected = (math.log(3) + math.log(2)) / 2
    assert build_clip.contrastive(logits, own_only).item() == pytest.approx(expected)
    both = own_only.clone()
    both[0, 1] = both[1, 0] = True
    expected = (math.log(2) + math.log(1)) / 2
    assert build_clip.contrastive(logits, both).item() == pytest.approx(expected)
