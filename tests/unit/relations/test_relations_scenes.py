"""A picture shows who does what to whom, and nothing else tells the tuple."""

import random

import numpy as np
import pytest

from safeerase_lite.relations.scenes import (
    COLOURS,
    PLACES,
    SHAPES,
    SIDE,
    Scene,
    draw,
    random_scene,
)
from safeerase_lite.relations.tuples import ALL_TUPLES, RelationTriple, role_swap
from safeerase_lite.relations.words import BEINGS, RELATIONS, THINGS

OWL = RelationTriple("imp", "chasing", "owl")


def pixels(shown, **changes):
    usual = {"subject_colour": "red", "object_colour": "red", "background": "white"}
    picture = draw(Scene(shown, **(usual | {"mirrored": False, "jitter": 1} | changes)))
    return np.asarray(picture).astype(int)


def test_every_tuple_can_be_drawn():
    assert set(SHAPES) == {*BEINGS, *THINGS} and set(PLACES) == set(RELATIONS)
    rng = random.Random(0)
    for shown in rng.sample(ALL_TUPLES, 60):
        assert draw(random_scene(shown, rng)).size == (SIDE, SIDE)


def test_a_picture_is_a_function_of_its_scene_and_jitter_makes_another():
    assert (pixels(OWL) == pixels(OWL)).all()
    assert (pixels(OWL) != pixels(OWL, jitter=2)).any()


@pytest.mark.parametrize("relation", RELATIONS)
def test_the_picture_changes_with_the_relation_and_with_the_roles(relation):
    """Though both are of one colour, and whoever stands where. 1% is 40 pixels, enough to be seen;
    no two pictures here differ in less than 12%. By 60 of 765: faint edges do not count."""
    shown = OWL._replace(relation=relation)
    for other in RELATIONS:
        different = np.abs(pixels(shown) - pixels(shown._replace(relation=other))).sum(-1) > 60
        assert other == relation or different.mean() > 0.01
    for mirrored in (False, True):
        swapped = pixels(role_swap(shown), mirrored=mirrored)
        assert (np.abs(pixels(shown) - swapped).sum(-1) > 60).mean() > 0.01


def test_colours_ground_and_side_say_nothing_of_the_tuple():
    rng = random.Random(3)
    for shown in (OWL, role_swap(OWL)):
        scenes = [random_scene(shown, rng) for _ in range(400)]
        # Four standard errors of a share of 400 are 0.1.
        assert 0.4 < np.mean([s.mirrored for s in scenes]) < 0.6
        assert {s.subject_colour for s in scenes} == set(COLOURS)


def test_a_larger_picture_shows_the_same():
    small = np.asarray(draw(Scene(OWL, "red", "blue", "grey", False, 5)))
    large = draw(Scene(OWL, "red", "blue", "grey", False, 5), 4 * SIDE)
    again = np.asarray(large.resize((SIDE, SIDE))).astype(int)
    assert np.abs(again - small).mean() < 6  # of 255, at smoothed edges; mirrored it is 19
