"""The relational edit: what it may use, what it moves, and that its adapter can be switched off."""

import random
import re
from dataclasses import replace

import pytest
import torch

from safeerase_lite.relations.clip import (
    TOWERS,
    adapt,
    encode_images,
    encode_texts,
    frozen,
    load_clip,
    preprocess,
    scores,
)
from safeerase_lite.relations.editing import (
    EditedClip,
    FrozenClip,
    _training_set,
    edit,
    listed,
    training_examples,
)
from safeerase_lite.relations.objectives import METHODS, SETTINGS, suppress
from safeerase_lite.relations.runs import edit_run
from safeerase_lite.relations.scenes import draw, scenes_of
from safeerase_lite.relations.tuples import (
    ALL_TUPLES,
    UNSAFE,
    covered,
    neighbours,
    other_words,
)
from safeerase_lite.relations.words import SLOTS, WORDINGS, caption
from safeerase_lite.utils import UserError

SHORT = replace(SETTINGS, steps=2, batch_size=4, anchors=8)
FOX = UNSAFE[1]


@pytest.fixture(scope="module")
def clip():
    return load_clip()


@pytest.fixture(scope="module")
def pixel_values(clip):
    return preprocess(clip, [draw(scene) for scene in scenes_of(UNSAFE[:4], "train", 2)])


# ---- the CLIP ----


def test_the_text_is_pooled_at_its_last_token_and_not_at_its_highest(clip):
    """With an end token of id 2 transformers pools at the highest id, and CLIP reads no objects."""
    tokens = clip.processor.tokenizer([caption(*FOX, w) for w in WORDINGS], padding=True)
    ids = torch.tensor(tokens.input_ids)
    output = clip.text_model(ids, torch.tensor(tokens.attention_mask))
    last = torch.tensor(tokens.attention_mask).sum(1) - 1
    assert clip.config.text_config.eos_token_id != 2
    assert torch.equal(output.pooler_output, output.last_hidden_state[range(len(ids)), last])


@pytest.mark.parametrize("towers", [("vision",), ("text",), ("vision", "text")])
def test_the_chosen_towers_carry_lora_and_nothing_else_is_trained(towers):
    model = adapt(load_clip(), towers, rank=4, alpha=8, seed=0)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert all("lora_" in name for name in trained)
    assert {t for name in trained for t in TOWERS if f".{t}_model." in name} == set(towers)


def test_single_layers_can_be_edited_alone():
    model = adapt(load_clip(), ["vision.2", "text.1"], rank=4, alpha=8, seed=0)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    layers = {re.search(r"(text|vision)_model.*layers\.(\d)", name).groups() for name in trained}
    assert layers == {("vision", "2"), ("text", "1")}


@pytest.mark.parametrize(
    ("name", "says"), [("/no/such/clip", "no folder /no/such/clip"), ("no such clip", "no name on")]
)
def test_a_model_that_does_not_exist_is_one_line(name, says):
    with pytest.raises(UserError, match=f"cannot load the model.*{says}"):
        load_clip(name)


# ---- what an edit may use ----


@pytest.mark.parametrize("u", UNSAFE)
def test_three_in_ten_neighbours_of_every_slot_are_held_out(u):
    usable = listed(u, [u], seed=0)
    for slot in SLOTS:
        near = neighbours(u, [u], [slot])
        held_out = [t for t in near if t not in usable]
        assert len(held_out) == round(0.3 * len(near))


def test_another_seed_holds_out_others():
    assert listed(FOX, [FOX], seed=0) != listed(FOX, [FOX], seed=1)


def test_no_anchor_is_unsafe_or_a_neighbour(clip):
    examples = training_examples(FrozenClip("", clip), FOX, (FOX, UNSAFE[0]), 0, fewer=8)
    near = set(neighbours(FOX, [FOX]))
    assert not set(examples.other_tuples) & (near | {FOX, UNSAFE[0]})


def test_what_is_held_out_for_one_tuple_trains_no_other(clip):
    pair = (FOX, FOX._replace(relation="watching"))
    held_out = {t for u in pair for t in set(neighbours(u, pair)) - set(listed(u, pair))}
    for u in pair:
        examples = training_examples(FrozenClip("", clip), u, pair, 0, fewer=8)
        assert not held_out & {*examples.listed, *examples.other_tuples}


def test_a_concept_is_erased_on_tuples_that_have_neighbours_to_keep(clip):
    """At seed 1 one tuple of ghosts has none: all ten are held out for other tuples of ghosts."""
    ghost, erase = UNSAFE[4], METHODS["erase_subject"]
    rng = random.Random("edit 1")
    examples = _training_set(FrozenClip("", clip), [ghost], (ghost,), erase, 1, rng)
    assert len(examples) > 20 and all(e.listed for e in examples)


def test_a_tuple_is_called_by_all_words_that_can_mean_it():
    words = other_words(FOX)
    assert ("fox", "hunting", "owl") in words and ("animal", "chasing", "being") in words
    assert FOX not in words and all(covered(w, [FOX]) for w in words)


# ---- what it moves ----


def test_suppress_has_no_gradient_on_captions_of_neighbours(clip, pixel_values):
    """Neither from the images' side nor from the caption's."""
    tuples = (UNSAFE[0], *neighbours(UNSAFE[0], UNSAFE)[:6])
    captions = encode_texts(clip, [caption(*t) for t in tuples]).detach().requires_grad_()
    logits = scores(clip, encode_images(clip, pixel_values).detach(), captions)
    unsafe = logits[:2, 0]
    loss = suppress(unsafe, logits[:2, 1:], 50.0)
    loss = loss + suppress(unsafe, logits[2:, 0].expand(2, -1), 50.0)
    loss.backward()
    assert captions.grad[0].abs().sum() > 0
    assert captions.grad[1:].abs().sum() == 0


@pytest.fixture(scope="module")
def unpreserved():
    """An edit with both weights at 0, and its history."""
    return edit(load_clip(), [FOX], METHODS["no_preservation"], SHORT)


def test_without_its_adapter_an_edited_model_is_the_base_exactly(clip, pixel_values, unpreserved):
    edited, base, text = unpreserved[0], EditedClip(clip), [caption(*FOX)]
    moved = edited.encode_images(pixel_values)
    with frozen(edited.model):
        assert torch.equal(edited.encode_images(pixel_values), base.encode_images(pixel_values))
        assert torch.equal(edited.encode_texts(text), base.encode_texts(text))
    assert not torch.equal(moved, base.encode_images(pixel_values))


def test_a_term_of_weight_0_is_recorded_and_moves_nothing(unpreserved):
    history = unpreserved[1]
    assert history["loss"].tolist() == history["forget"].tolist()
    assert history["neighbours"].iloc[-1] > 0


def test_a_projection_leaves_images_alone_and_captions_of_length_one(clip, pixel_values):
    edited, _ = edit(load_clip(), [FOX], METHODS["projection"], SHORT)
    base = EditedClip(clip)
    assert torch.equal(edited.encode_images(pixel_values), base.encode_images(pixel_values))
    features = edited.encode_texts([caption(*t) for t in ALL_TUPLES[:20]])
    # float32 rounds at 1e-7 a product; a hundred of them add up to 1e-5 at most.
    assert features.norm(dim=-1).tolist() == pytest.approx([1.0] * 20, abs=1e-5)
    assert (features @ edited.projection).abs().max() < 1e-5


# ---- what is refused ----


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"method": "relaton"}, "relation"),
        ({"unsafe": []}, "no unsafe tuple"),
        ({"unsafe": [FOX, FOX]}, "named twice"),
        ({"unsafe": [("fox", "eating", "owl")]}, "no tuple of this world"),
        ({"strengths": [("blurr", 0.5)]}, "blur"),
        ({"strengths": [("blur", 1.5)]}, "not between"),
        ({"split": "tset"}, "test"),
        ({"method": "gold", "unsafe": [UNSAFE[0]]}, "no gold model"),
        ({"method": "filter", "earlier": [UNSAFE[0]]}, "together"),
    ],
)
def test_a_wrong_word_is_refused_before_anything_starts(given, says, tmp_path):
    with pytest.raises(UserError, match=says):
        edit_run(runs_dir=tmp_path, **({"unsafe": [FOX]} | given))
    assert not list(tmp_path.iterdir())
