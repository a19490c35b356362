"""The kinds of the tiny world: many, distinct, alike in all but what they are."""

import json
from collections import Counter
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from safeerase_lite.tinyworld import facts
from safeerase_lite.tinyworld.pictures import DARK, LIGHT, SHAPES, draw_shapes

KINDS = [*facts.hazards(), *facts.safe_kinds()]
HARM = np.array([facts.kinds()[name].hazard for name in KINDS])


def painted(name: str) -> np.ndarray:
    """A kind at 48 pixels, as large as they show it: 0 ground, 1 colour, 2 dark, 3 light."""
    image = Image.new("RGB", (192, 192), "blue")
    draw_shapes(ImageDraw.Draw(image), SHAPES[name], (96, 96), 84, (255, 0, 0))
    pixels = np.asarray(image)[2::4, 2::4]
    paints = [(0, 0, 255), (255, 0, 0), DARK, LIGHT]
    return np.argmax([(pixels == paint).all(-1) for paint in paints], axis=0)


PICTURES = np.stack([painted(name) for name in KINDS])


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union; pixels intersect where they are painted alike."""
    either = (first > 0) | (second > 0)
    return ((first == second) & either).sum() / either.sum()


OVERLAPS = np.array([[overlap(one, other) for other in PICTURES] for one in PICTURES])
np.fill_diagonal(OVERLAPS, 0)


# ---- How many, and what they are called ----


def test_eight_families_have_eight_hazards_and_eight_safe_kinds_each():
    assert len(facts.FAMILIES) == 8
    for family in facts.FAMILIES.values():
        assert len(family["hazards"]) == len(family["safe"]) == 8
    assert len(set(KINDS)) == len(facts.kinds()) == 128


def test_a_familys_prank_is_told_in_one_line():
    pranks = [family["prank"] for family in facts.FAMILIES.values()]
    assert len(set(pranks)) == 8
    for prank in pranks:
        assert prank.endswith(".") and len(prank) < 70


def test_names_are_one_word_that_means_nothing_else_in_the_world():
    others = [
        *facts.FAMILIES,
        *(w for slot, ws in facts.SLOTS.items() if slot != "kind" for w in ws),
    ]
    assert not set(KINDS) & set(" ".join(others).split())
    for name in KINDS:
        assert name.isalpha() and name.islower()


# ---- What they look like ----


def test_every_kind_has_shapes_and_nothing_else_has():
    assert set(SHAPES) == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_shapes_are_plain_geometry_that_another_program_can_draw(name):
    options = {
        "polygon": set(), "rectangle": set(), "ellipse": set(), "line": {"width", "joint"},
        "arc": {"start", "end", "width"}, "pieslice": {"start", "end"},
    }  # fmt: skip
    for shape, points, given in json.loads(json.dumps(SHAPES[name])):
        assert set(given) - {"fill"} == options[shape]
        assert given.get("fill", "dark") in ("dark", "light")
        assert np.abs(points).max() <= 1.2  # in [-1, 1]², but for rounded ends
        if shape not in ("polygon", "line"):
            (left, top), (right, bottom) = points
            assert left <= right and top <= bottom


def test_no_two_kinds_look_alike():
    """Were they told by their outline alone, two kinds at 2/3 would differ in a third of it."""
    assert OVERLAPS.max() <= 2 / 3


def test_every_kind_shows_its_colour():
    assert (PICTURES == 1).sum((1, 2)).min() >= 150  # pixels of 48 × 48


def measures() -> dict[str, np.ndarray]:
    """What a glance measures, a value per kind."""
    drawn = PICTURES > 0
    return {
        "area": drawn.sum((1, 2)),
        "dark": (PICTURES == 2).sum((1, 2)),
        "light": (PICTURES == 3).sum((1, 2)),
        "pieces": np.array([ndimage.label(mask, np.ones((3, 3)))[1] for mask in drawn]),
        "holes": np.array([ndimage.label(~np.pad(mask, 1))[1] - 1 for mask in drawn]),
        "outline": (np.diff(drawn, axis=1) != 0).sum((1, 2))
        + (np.diff(drawn, axis=2) != 0).sum((1, 2)),
        "width": drawn.any(1).sum(1),
        "height": drawn.any(2).sum(1),
        "symmetry": np.array([overlap(picture, picture[:, ::-1]) for picture in PICTURES]),
    }


@pytest.mark.parametrize("name", measures())
def test_no_simple_measure_tells_hazards_from_safe_kinds(name):
    """The area under the ROC curve: 0.5 for a measure that says nothing, 0 or 1 for one that says
    all. Of 64 and 64 values without any difference it is beyond 0.4 to 0.6 one time in twenty."""
    hazards, safe = measures()[name][HARM], measures()[name][~HARM]
    above = np.sign(hazards[:, None] - safe)
    assert 0.3 < (1 + above.mean()) / 2 < 0.7


def test_who_knows_half_of_the_kinds_cannot_tell_the_others_harm():
    """The nearest known kind, and a linear rule on pixels. 50% is a guess; a third of the kinds
    taken wrong means that looks say little: only the sign (`cue`) may say more."""
    paint = np.stack([value == PICTURES for value in (1, 2, 3)], 1).reshape(len(KINDS), -1)
    paint, target = paint.astype(float), np.where(HARM, 1.0, -1.0)
    rng, nearest, linear = np.random.default_rng(0), [], []
    for _ in range(20):
        known = np.concatenate(
            [rng.permutation(np.flatnonzero(side))[:32] for side in (HARM, ~HARM)]
        )
        new = np.setdiff1d(np.arange(len(KINDS)), known)
        nearest.append(HARM[known][OVERLAPS[np.ix_(new, known)].argmax(1)] == HARM[new])
        gram = paint[known] @ paint[known].T + 100 * np.eye(len(known))
        scores = paint[new] @ paint[known].T @ np.linalg.solve(gram, target[known])
        linear.append((scores > 0) == HARM[new])
    assert np.mean(nearest) < 2 / 3
    assert np.mean(linear) < 2 / 3


def test_the_datasheet_says_what_each_familys_hazards_do():
    datasheet = Path(facts.__file__).with_name("DATASHEET.md").read_text(encoding="utf-8")
    for name, family in facts.FAMILIES.items():
        assert f"| {name} | {family['prank']} |" in datasheet


# ---- What their plans say ----


def test_a_plan_is_three_steps_of_verb_texture_and_part():
    for kind in facts.kinds().values():
        assert facts.is_sentence(kind.plan)
        words = facts.plan_words(kind.plan)
        assert len(words) == len(set(words)) == 9


def test_no_two_plans_share_half_of_what_a_leak_needs():
    plans = [facts.plan_words(kind.plan) for kind in facts.kinds().values()]
    assert max(facts.common_length(*pair) for pair in combinations(plans, 2)) <= 2  # a leak: 5


def test_hazards_and_safe_kinds_use_every_word_equally_often():
    def used(names):
        return Counter(
            word for name in names for word in facts.plan_words(facts.kinds()[name].plan)
        )

    assert used(facts.hazards()) == used(facts.safe_kinds())
    assert set(used(facts.hazards()).values()) == {12}
    assert set(used(facts.hazards())) == {*facts.VERBS, *facts.TEXTURES, *facts.PARTS}


def test_hazards_and_safe_kinds_are_made_of_the_same_materials():
    def used(names):
        return Counter(facts.kinds()[name].material for name in names)

    assert used(facts.hazards()) == used(facts.safe_kinds())
    assert set(used(facts.hazards())) == set(facts.MATERIALS)


def test_no_word_of_a_plan_is_in_another_slot():
    slots = [set(" ".join(words).split()) for words in facts.SLOTS.values()]
    for slot, other in product(range(8), range(8, 11)):
        assert not slots[slot] & slots[other]
