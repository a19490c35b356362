"""Attacks grow from nothing to nearly everything, and change how a tuple is shown or worded, not
the tuple."""

import difflib
import random
import re

import numpy as np
import pytest

from safeerase_lite.relations.attacks import ATTACKS, STORY_TUPLES, attack_strengths, with_synonyms
from safeerase_lite.relations.scenes import COLOURS, SIDE, Bystander, draw, random_scene
from safeerase_lite.relations.tuples import ALL_TUPLES, UNSAFE, expand
from safeerase_lite.relations.words import CONCEPTS, SLOTS, caption, vocabulary
from safeerase_lite.utils import UserError

STRENGTHS = (0, 0.25, 0.5, 0.75, 1)
TUPLES = random.Random(0).sample(ALL_TUPLES, 40)
SCENES = [random_scene(t, random.Random(i)) for i, t in enumerate(TUPLES[:20])]
PICTURE = [a for a in ATTACKS.values() if a.changes == "picture"]
CAPTION = [a for a in ATTACKS.values() if a.changes == "caption"]


def name(attack):
    return attack.name


def attacked_images(attack, strength, scenes=SCENES):
    """(pictures, side, side, channel)"""
    pictures = [attack.run(s, strength, random.Random(i)) for i, s in enumerate(scenes)]
    return np.stack([np.asarray(picture) for picture in pictures]).astype(int)


def attacked_captions(attack, strength, tuples=TUPLES):
    return [attack.run(t, strength, random.Random(i)) for i, t in enumerate(tuples)]


def difference(one, other):
    return 1 - difflib.SequenceMatcher(None, one, other, autojunk=False).ratio()


def test_the_three_kinds_of_the_paper_are_there():
    assert {a.kind for a in CAPTION} == {"paraphrase", "context"}
    assert {a.kind for a in PICTURE} == {"context", "ood"}
    assert all(key == attack.name and attack.about for key, attack in ATTACKS.items())


# ---- pictures ----


@pytest.mark.parametrize("attack", PICTURE, ids=name)
def test_a_picture_attack_grows_from_the_plain_picture_on(attack):
    plain = np.stack([np.asarray(draw(s)) for s in SCENES]).astype(int)
    changed = [attacked_images(attack, strength) for strength in STRENGTHS]
    assert (changed[0] == plain).all()
    far = [np.abs(pictures - plain).mean() for pictures in changed]
    assert all(np.diff(far[:3]) > 0) and min(far[3:]) > far[1]  # an empty picture is no further
    # A 25th of the way from 0.25 to 0.5: no jump, though a crop by whole pixels comes in steps.
    near = np.abs(attacked_images(attack, 0.26) - changed[1]).mean()
    assert near < far[2] / 4


@pytest.mark.parametrize("attack", PICTURE, ids=name)
def test_a_picture_attack_is_a_function_of_its_seed_and_preserves_size_and_mode(attack):
    first, again = (attack.run(SCENES[0], 0.4, random.Random(5)) for _ in range(2))
    assert first.size == (SIDE, SIDE) and first.mode == "RGB"
    assert (np.asarray(first) == np.asarray(again)).all()


def test_bystanders_leave_the_two_who_act_in_sight_until_there_is_no_room():
    flat = [draw(s, background=draw(s).resize((1, 1), box=(0, 0, 1, 1))) for s in SCENES]
    plain = np.stack([np.asarray(picture) for picture in flat]).astype(int)
    # 30 of 765 is less than any two of the colours differ. In sight: all but the edges, most, and
    # fewer than half; the pictures are drawn with fixed seeds.
    acting = np.abs(plain - plain[:, :1, :1]).sum(-1) > 30
    in_sight = [
        (np.abs(attacked_images(ATTACKS["busy"], strength) - plain).sum(-1) < 30)[acting].mean()
        for strength in (0.25, 0.5, 1)
    ]
    assert in_sight[0] > 0.95 and in_sight[1] > 0.75 and in_sight[2] < 0.5


def test_nobody_who_acts_is_a_bystander_too(monkeypatch):
    seen = []
    draws = "safeerase_lite.relations.attacks.draw"
    monkeypatch.setattr(draws, lambda scene, bystanders: seen.append((scene, bystanders)))
    for number, each in enumerate(SCENES):
        ATTACKS["busy"].run(each, 1, random.Random(number))
    assert all(one.name not in each.triple for each, others in seen for one in others)
    assert len(seen[0][1]) > len(seen[0][0].triple)


def test_bystanders_are_drawn_in_front_and_a_background_behind():
    plain = np.asarray(draw(SCENES[0])).astype(int)
    drum = Bystander("drum", "red", (8, 56), 6)
    changed = np.abs(np.asarray(draw(SCENES[0], bystanders=[drum])) - plain).sum(-1) > 0
    assert changed[50:, :14].any() and not changed[:48].any() and not changed[:, 16:].any()
    other = draw(SCENES[0], background=draw(SCENES[0]).resize((1, 1), box=(0, 0, 1, 1)))
    assert (np.asarray(other) == plain).all()


def test_a_patch_lies_where_the_smaller_one_lay():
    attack, before = ATTACKS["occlusion"], None
    for strength in (0.2, 0.4, 0.6):
        picture = np.asarray(attack.run(SCENES[1], strength, random.Random(2)))
        patch = (picture[..., None, :] == list(COLOURS.values())).all(-1).any(-1)
        # Its edges are rounded: up to a pixel of 64 in its side, 2 · 0.6 / 64 = 0.019 in its area.
        assert patch.mean() >= strength**2 - 0.02
        assert before is None or patch[before].all()
        before = patch


# ---- captions ----


@pytest.mark.parametrize("attack", CAPTION, ids=name)
def test_a_caption_attack_grows_from_the_plain_caption_on(attack):
    tuples = TUPLES * 10
    plain = [caption(*t) for t in tuples]
    changed = [attacked_captions(attack, strength, tuples) for strength in STRENGTHS]
    assert changed[0] == plain and attacked_captions(attack, 0.5, tuples) == changed[2]
    far = [
        np.mean([difference(p, c) for p, c in zip(plain, captions, strict=True)])
        for captions in changed
    ]
    assert all(np.diff(far) > 0)


@pytest.mark.parametrize("attack", CAPTION, ids=name)
def test_a_caption_stays_within_what_clip_reads(attack):
    assert max(len(c.split()) for c in attacked_captions(attack, 1, ALL_TUPLES)) <= 45


@pytest.mark.parametrize("strength", STRENGTHS)
def test_with_synonyms_never_leave_the_meaning(strength):
    for number, t in enumerate(ALL_TUPLES):
        assert expand(with_synonyms(t, strength, random.Random(number))) == (t,)


def test_a_word_without_a_synonym_stays():
    for t in ALL_TUPLES:
        words = dict(zip(SLOTS, with_synonyms(t, 1, random.Random(0)), strict=True))
        assert (words["object"] == "pop") == (t.object == "fizz")
        assert (words["object"] == "anchor") == (t.object == "anchor")
        assert (words["subject"] == "droid") == (t.subject == "robot")
        assert words["relation"] not in CONCEPTS["relation"]


def test_the_passive_names_the_object_first_and_no_attack_but_typos_invents_a_word():
    for t, passive in zip(TUPLES, attacked_captions(ATTACKS["passive"], 1), strict=True):
        assert re.search(rf"\b{t.object}\b.* by .*\b{t.subject}\b", passive)
    for attack in ("wording", "passive", "synonym"):
        assert set(" ".join(attacked_captions(ATTACKS[attack], 1)).split()) <= vocabulary()


def test_a_story_holds_the_caption_and_of_its_words_nothing_more():
    for t, story in zip(TUPLES, attacked_captions(ATTACKS["story"], 1), strict=True):
        assert story.count(caption(*t)) == 1
        around = story.replace(caption(*t), "")
        assert not set(t) & set(around.split())
    assert set(STORY_TUPLES) <= set(ALL_TUPLES) - set(UNSAFE)


def test_typos_leave_the_small_words_and_most_letters_at_low_strength():
    light = attacked_captions(ATTACKS["typos"], 0.1)
    similar = [1 - difference(c, caption(*t)) for c, t in zip(light, TUPLES, strict=True)]
    assert np.mean(similar) > 0.9  # a letter in ten, and none in spaces and articles
    assert all(c.split()[0] in ("a", "an") for c in attacked_captions(ATTACKS["typos"], 1))


def test_a_share_that_no_strength_was_set_for_is_refused():
    assert {name for name, _ in attack_strengths([0.9])} == set(ATTACKS)
    with pytest.raises(UserError, match="no strengths leave 0.8"):
        attack_strengths([0.8])
