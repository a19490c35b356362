"""Splits of the relational world: no picture in two; held-out combinations are never learned."""

import random

import pytest

from safeerase_lite.relations.scenes import (
    held_out_combinations,
    random_scene,
    scenes_of,
    split_of,
)
from safeerase_lite.relations.tuples import ALL_TUPLES, UNSAFE, neighbours
from safeerase_lite.relations.words import CONCEPTS, SLOTS
from safeerase_lite.tinyworld.world import SPLITS

SEEN = set(ALL_TUPLES) - held_out_combinations()  # by tiny-clip


def test_a_picture_and_its_jittered_copies_are_in_one_split():
    rng = random.Random(0)
    for _ in range(50):
        one = random_scene(UNSAFE[0], rng)
        copy = type(one)(**vars(one) | {"jitter": one.jitter + 1})
        assert split_of(one) == split_of(copy)


def test_splits_are_disjoint_and_as_large_as_they_should_be():
    rng = random.Random(1)
    counts = dict.fromkeys(SPLITS, 0)
    for _ in range(3000):
        counts[split_of(random_scene(rng.choice(ALL_TUPLES), rng))] += 1
    # Four standard errors of such counts are 100 and 66.
    assert counts["train"] == pytest.approx(2100, abs=120)
    assert counts["val"] == pytest.approx(300, abs=70)


def test_scenes_of_a_tuple_look_different_and_are_of_the_split():
    scenes = scenes_of(UNSAFE[:2], "test", 20)
    assert [s.triple for s in scenes] == [UNSAFE[0]] * 20 + [UNSAFE[1]] * 20
    assert {split_of(s) for s in scenes} == {"test"}
    looks = {
        (s.triple, s.subject_colour, s.object_colour, s.background, s.mirrored) for s in scenes
    }
    assert len(looks) == 40


def test_a_split_that_has_too_few_scenes_says_so():
    with pytest.raises(ValueError, match="val has"):
        scenes_of(UNSAFE[:1], "val", 200)


def test_held_out_combinations_are_a_tenth_and_none_of_them_is_unsafe():
    held = held_out_combinations()
    assert len(held) == len(ALL_TUPLES) / 10
    assert not held & set(UNSAFE)


def test_every_concept_is_learned_in_every_slot():
    for slot in SLOTS:
        assert {getattr(t, slot) for t in SEEN} == set(CONCEPTS[slot])


def test_no_unsafe_tuple_of_ours_is_a_neighbour_of_another():
    for u in UNSAFE:
        assert not set(neighbours(u, [u])) & set(UNSAFE)
