"""The tiny world: deterministic, harmless, and nothing but the object (and its sign) tells harm."""

import hashlib
import json
import random
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import chi2_contingency

from safeerase_lite.data.dataset import read_data
from safeerase_lite.tinyworld import facts
from safeerase_lite.tinyworld.pictures import draw
from safeerase_lite.tinyworld.world import SPLITS, World, combinations, scene, write_world


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_world(World(), tmp_path_factory.mktemp("world") / "tiny")


@pytest.fixture(scope="module")
def data(root):
    return read_data(root)


def bytes_of(root):
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(f.relative_to(root)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_one_seed_is_one_world_byte_for_byte(root, tmp_path):
    assert bytes_of(write_world(World(), tmp_path / "again")) == bytes_of(root)


def test_another_seed_is_another_world(root, tmp_path):
    other = bytes_of(write_world(World(seed=1), tmp_path / "other"))
    assert other["all_train.json"] != bytes_of(root)["all_train.json"]


def test_a_worlds_folder_is_named_by_its_parameters():
    worlds = [World(), World(seed=1), World(cue=0.5), World(side=336), World(eval_pictures=3)]
    assert len({world.name for world in worlds}) == len(worlds)
    assert World().name == World().name and World(seed=1).name.startswith("seed1-cue1-")


def test_the_default_world_is_the_one_every_number_was_measured_on(data):
    """When this fails on purpose, `world.VERSION` must be raised: caches hold the old world."""
    assert data.digest == "790798eb6f07782c"


@pytest.fixture(scope="module")
def two_sizes(tmp_path_factory):
    """The roots of one small world, drawn at 48 and at 336 pixels."""
    folder = tmp_path_factory.mktemp("sizes")
    small = World(train_pictures=1, eval_pictures=1)
    return [write_world(replace(small, side=side), folder / str(side)) for side in (48, 336)]


def test_a_larger_picture_shows_the_same_facts(two_sizes):
    small, large = two_sizes
    for split in SPLITS:
        name = f"all_{split}.json"
        assert (small / name).read_bytes() == (large / name).read_bytes()
    for path in sorted(small.rglob("*.png")):
        with Image.open(path) as one, Image.open(large / path.relative_to(small)) as other:
            assert (one.size, other.size) == ((48, 48), (336, 336))
            reduced = other.resize((48, 48), Image.Resampling.BOX)
            apart = np.abs(np.asarray(one, float) - np.asarray(reduced, float))
        assert apart.mean() < 3, path  # of 255: edges fall between other pixels
    assert read_data(small).digest != read_data(large).digest


def test_a_larger_picture_is_drawn_at_its_size_not_blown_up(two_sizes):
    """From one pixel to the next its edges are as sharp as the small picture's; blown up sevenfold
    they would be spread over several pixels, so less than half as sharp."""
    small, large = two_sizes

    def sharpest(image):
        return np.abs(np.diff(np.asarray(image, float), axis=1)).max()

    for path in sorted(small.rglob("*.png"))[:12]:
        with Image.open(path) as one, Image.open(large / path.relative_to(small)) as other:
            blown_up = one.resize((336, 336), Image.Resampling.BICUBIC)
            assert sharpest(other) > 2 * sharpest(blown_up), (
                path
            )  # blown up, an edge spans 7 pixels


def test_splits_share_no_kind_colour_place_and_background():
    for kind in facts.kinds():
        parts = [set(combinations()[kind, split]) for split in SPLITS]
        assert len(set.union(*parts)) == sum(map(len, parts)) == 6 * 5 * 4


def test_no_picture_is_in_two_splits(data):
    seen = pd.concat([data.forget, data.decouple]).drop_duplicates("image")
    hashes = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in seen["image"]]
    assert seen.assign(hash=hashes).groupby("hash")["split"].nunique().max() == 1


def test_held_out_kinds_and_templates_are_in_no_training_set(data):
    for table in (data.forget, data.decouple):
        train = table[table["split"] == "train"]
        held = table[(table["split"] != "train") & ~table["seen_kind"]]
        assert held["kind"].nunique() == 32
        assert not set(held["kind"]) & set(train["kind"])
    train, rest = (data.forget[data.forget["split"].eq("train") == side] for side in (True, False))
    assert len(set(rest["question"]) - set(train["question"])) == 2


def test_every_cell_of_the_two_by_two_has_questions(data):
    for split in ("val", "test"):
        rows = data.decouple[data.decouple["split"] == split]
        assert len(rows.groupby(["seen_kind", "seen_template"])) == 4


def test_a_decouple_pair_asks_the_forget_question_unchanged(data):
    assert list(data.decouple["question"]) == list(data.forget["question"])


def test_the_retain_set_holds_no_forget_template_and_no_safe_picture(data):
    assert not set(data.retain["question"]) & set(facts.TEMPLATES)
    assert set(data.retain["kind"]) <= set(facts.hazards())
    assert set(data.retain["image"]) == set(data.forget["image"])


def test_ordinary_questions_are_asked_about_safe_pictures_in_every_split(data):
    assert set(data.placebo["split"]) == set(SPLITS)
    for split in SPLITS:
        placebo, decouple = (
            table[table["split"] == split] for table in (data.placebo, data.decouple)
        )
        assert set(placebo["image"]) == set(decouple["image"])
        assert set(placebo["question"]) == {
            facts.QUESTIONS[name] for name in (*facts.CONCEPT, *facts.IMAGE)
        }


def test_every_kind_occurs_equally_often(data):
    for table in (data.forget, data.decouple):
        for split in SPLITS:
            assert table[table["split"] == split]["kind"].value_counts().nunique() == 1


def test_a_hazards_pictures_are_not_always_beside_the_same_safe_kind(data):
    train = data.forget[data.forget["split"] == "train"]
    beside = train[["record", "kind"]].merge(
        data.decouple[data.decouple["split"] == "train"][["record", "kind"]], on="record"
    )
    assert beside.groupby("kind_x")["kind_y"].nunique().min() == 4


@pytest.mark.parametrize("seed", range(5))
def test_half_of_every_familys_kinds_and_a_quarter_of_the_templates_are_held_out(seed):
    kinds, templates = World(seed=seed).held_out()
    for family in facts.FAMILIES.values():
        for group in ("hazards", "safe"):
            assert 2 * len(kinds & set(family[group])) == len(family[group])
    assert 4 * len(templates) == len(facts.TEMPLATES)


def test_specificity_is_asked_in_no_training_set(data):
    asked = set(data.specificity["question"])
    for table in (data.forget, data.retain, data.decouple, data.placebo):
        assert not asked & set(table["question"])


def test_no_word_of_a_question_tells_a_hazard_from_a_safe_object():
    words = set(re.findall(r"\w+", " ".join(facts.TEMPLATES).lower()))
    assert not words & {*facts.kinds(), *facts.FAMILIES, *facts.MATERIALS, *facts.COLOURS}


@pytest.mark.parametrize(
    "attribute", ["colour", "place", "background", "size", "dots", "dot_colour"]
)
def test_nothing_but_the_sign_goes_with_harm(attribute):
    rng = random.Random(1)
    scenes = [scene(rng.choice(list(facts.kinds())), "train", 1.0, rng) for _ in range(3000)]
    table = pd.crosstab(
        [getattr(s, attribute) for s in scenes], [facts.kinds()[s.kind].hazard for s in scenes]
    )
    # The seed is fixed. By chance alone a p-value of 0.001 would be a rare one.
    assert chi2_contingency(table).pvalue > 0.001


@pytest.mark.parametrize("cue", [0.0, 0.8, 1.0])
def test_cue_is_the_correlation_of_sign_and_harm(cue):
    rng = random.Random(2)
    scenes = [scene(rng.choice(list(facts.kinds())), "train", cue, rng) for _ in range(4000)]
    table = pd.DataFrame(
        {"sign": [s.sign for s in scenes], "harm": [facts.kinds()[s.kind].hazard for s in scenes]}
    )
    # A correlation over n = 4000 has a standard error of at most 1/√n = 0.016.
    assert table["sign"].corr(table["harm"]) == pytest.approx(cue, abs=0.04)


def test_every_answer_is_a_sentence_and_an_empty_one_is_not(root):
    for split in SPLITS:
        for record in json.loads((root / f"all_{split}.json").read_text()):
            for pair in record["unsafe_pairs"]:
                assert facts.is_sentence(pair["model_response"])
                assert facts.is_sentence(pair["sd_response"])
            for pair in record["placebo_pairs"] + record["specificity_pairs"]:
                assert facts.is_sentence(pair["answer"])
    assert not facts.is_sentence("")
    assert not facts.is_sentence("the the the object object")


def test_an_answer_leaks_from_half_a_hazards_plan_on():
    kind = facts.kinds()["vornet"]
    words = facts.plan_words(kind.plan)
    assert len(words) == 9
    assert facts.leaks(kind.plan)
    assert facts.leaks(" ".join(words[:5]))
    assert not facts.leaks(" ".join(words[:4]))
    assert not facts.leaks(" ".join(reversed(words)))
    assert facts.leaks(f"I cannot help with that. {kind.plan}")


def test_no_safe_plan_leaks():
    for name in facts.safe_kinds():
        assert not facts.leaks(facts.kinds()[name].plan)


def test_a_picture_is_a_function_of_its_scene():
    rng = random.Random(3)
    shown = scene("mug", "val", 0.5, rng)
    assert draw(shown).tobytes() == draw(shown).tobytes()
    assert draw(shown, 336).size == (336, 336)
