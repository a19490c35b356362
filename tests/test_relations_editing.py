"""The relational edit: what it is told, what it moves, and that nothing is gone for good."""

import random
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPConfig, CLIPModel, CLIPProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from safeerase_lite.relations import losses
from safeerase_lite.relations.clip import TOWERS, adapt, load_clip, look, pixels, read, scores
from safeerase_lite.relations.data import UNSAFE, scenes_of
from safeerase_lite.relations.editing import Edited, edit, ground, holding, listed
from safeerase_lite.relations.exam import TUPLES, exam
from safeerase_lite.relations.experiment import edit_run, load_edited
from safeerase_lite.relations.measures import measure
from safeerase_lite.relations.methods import METHODS, SETTING
from safeerase_lite.relations.scenes import draw
from safeerase_lite.relations.tuples import neighbours
from safeerase_lite.relations.words import SLOTS, WORDINGS, caption
from safeerase_lite.utils import UserError

SHORT = replace(SETTING, steps=4, pictures=4, anchors=8)
FOX = UNSAFE[1]


@pytest.fixture(scope="module")
def clip():
    return load_clip()


@pytest.fixture(scope="module")
def some_pixels(clip):
    return pixels(clip, [draw(scene) for scene in scenes_of(UNSAFE[:4], "train", 2)])


# ---- the CLIP ----


def test_the_text_is_pooled_at_its_last_token_and_not_at_its_highest(clip):
    """With an end token of id 2 transformers pools at the highest id, and CLIP reads no objects."""
    tokens = clip.processor.tokenizer([caption(*FOX, w) for w in WORDINGS], padding=True)
    ids = torch.tensor(tokens.input_ids)
    out = clip.text_model(ids, torch.tensor(tokens.attention_mask))
    last = torch.tensor(tokens.attention_mask).sum(1) - 1
    assert clip.config.text_config.eos_token_id != 2
    assert torch.equal(out.pooler_output, out.last_hidden_state[range(len(ids)), last])


def test_the_towers_named_carry_lora_and_nothing_else_learns():
    for towers in (("vision",), ("text",), ("vision", "text")):
        model = adapt(load_clip(), towers, rank=4, alpha=8, seed=0)
        learning = {name for name, p in model.named_parameters() if p.requires_grad}
        assert all("lora_" in name for name in learning)
        found = {tower for name in learning for tower in TOWERS if f".{tower}_model." in name}
        assert found == set(towers)


@pytest.mark.parametrize(
    ("name", "says"), [("/no/such/clip", "no folder /no/such/clip"), ("no such clip", "Repo id")]
)
def test_no_such_model_is_one_line(name, says):
    with pytest.raises(UserError, match=f"cannot load the model.*{says}"):
        load_clip(name)


def test_a_clip_of_the_real_shape_is_loaded_and_edited(tmp_path, clip):
    """224 pixels in patches of 32, as CLIP has them."""
    config = CLIPConfig.from_dict(clip.config.to_dict())
    config.vision_config.update({"image_size": 224, "patch_size": 32, "num_hidden_layers": 2})
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(tmp_path)
    clip.processor.tokenizer.save_pretrained(tmp_path)
    CLIPProcessor(CLIPImageProcessorPil(), clip.processor.tokenizer).save_pretrained(tmp_path)
    model = load_clip(str(tmp_path))
    assert pixels(model, [draw(scenes_of([FOX], "train", 1)[0])]).shape == (1, 3, 224, 224)
    edited, rows = edit(model, [FOX], METHODS["relation"], SHORT)
    assert rows["loss"].notna().all() and len(rows) == SHORT.steps


# ---- what an edit is told ----


@pytest.mark.parametrize("u", UNSAFE)
def test_three_in_ten_neighbours_of_every_slot_are_held_out(u):
    told = listed(u, [u], seed=0)
    for slot in SLOTS:
        near = neighbours(u, [u], [slot])
        kept = [t for t in near if t in told]
        assert len(near) - len(kept) == round(0.3 * len(near))


def test_another_seed_holds_out_others():
    assert listed(FOX, [FOX], seed=0) != listed(FOX, [FOX], seed=1)


def test_no_anchor_is_unsafe_or_a_held_out_neighbour(clip):
    here = ground(clip, FOX, UNSAFE, 0)
    told = set(here.told)
    held_out = set(neighbours(FOX, UNSAFE)) - told
    anchors = here.anchors(400, random.Random(0))
    assert held_out and not set(anchors) & (held_out | told | set(UNSAFE))


def test_to_erase_a_being_is_to_unlearn_all_it_does_and_all_done_to_it():
    owl = holding("owl", "object")
    assert all("owl" in t for t in owl) and len(owl) == 7 * 7 + 7 * 15
    assert {t.relation for t in holding("chasing", "relation")} == {"chasing"}


# ---- what it moves ----


def test_suppress_has_no_gradient_on_captions_of_neighbours(clip, some_pixels):
    """Neither from the picture's side nor from the caption's."""
    captions = read(clip, [caption(*t) for t in (UNSAFE[0], *neighbours(UNSAFE[0], UNSAFE)[:6])])
    captions = captions.detach().requires_grad_()
    now = scores(clip, look(clip, some_pixels).detach(), captions)
    unsafe = now[:2, 0]
    loss = losses.suppress(unsafe, now[:2, 1:], 50.0)
    loss = loss + losses.suppress(unsafe, now[2:, 0].expand(2, -1), 50.0)
    loss.backward()
    assert captions.grad[0].abs().sum() > 0
    assert captions.grad[1:].abs().sum() == 0


def test_without_its_adapter_an_edited_model_is_the_base_exactly(clip, some_pixels):
    edited, _ = edit(load_clip(), [FOX], METHODS["relation"], SHORT)
    with torch.no_grad():
        moved = look(edited.model, some_pixels)
        with edited.model.disable_adapter():
            assert torch.equal(look(edited.model, some_pixels), look(clip, some_pixels))
            said = [caption(*FOX)]
            assert torch.equal(read(edited.model, said), read(clip, said))
    assert not torch.equal(moved, look(clip, some_pixels))


@pytest.mark.slow
def test_the_same_seed_makes_the_same_edit():
    first, second, other = (
        edit(load_clip(), [FOX], METHODS["relation"], SHORT, seed=seed)[1] for seed in (0, 0, 1)
    )
    assert first.equals(second) and not first["loss"].equals(other["loss"])


def test_a_term_that_is_switched_off_is_watched_and_moves_nothing():
    """λ = 0: the history still shows the term, and the loss is without it."""
    _, rows = edit(load_clip(), [FOX], METHODS["no_preservation"], SHORT)
    assert rows["loss"].tolist() == pytest.approx(rows["suppress"].tolist())
    assert rows["neighbours"].iloc[-1] > 0


def test_a_projection_leaves_pictures_alone_and_captions_of_length_one(clip, some_pixels):
    edited, _ = edit(load_clip(), [FOX], METHODS["projection"], SHORT)
    assert torch.equal(edited.look(some_pixels), Edited(clip).look(some_pixels))
    said = edited.read([caption(*t) for t in TUPLES[:20]])
    assert said.norm(dim=-1).tolist() == pytest.approx([1.0] * 20, abs=1e-5)
    assert (said @ edited.project).abs().max() < 1e-5


@pytest.mark.slow
def test_a_filter_refuses_unsafe_pictures_whole_and_so_their_marginals_are_gone():
    edited, _ = edit(load_clip(), [FOX], METHODS["filter"], SHORT)
    table = measure(edited, exam(load_clip(), FOX, [FOX])).set_index(["measure", "slot"])["value"]
    assert table["tuple top-1", ""] <= 0.2
    assert table["marginal on unsafe", "subject"] <= 0.2
    assert table["neighbour, held out", ""] >= 0.8


# ---- as a run ----


@pytest.mark.slow
def test_a_run_is_done_once_and_its_model_comes_back(tmp_path, some_pixels):
    run = edit_run([FOX], setting=SHORT, runs_dir=tmp_path)
    again = edit_run([FOX], setting=SHORT, runs_dir=tmp_path)
    assert again.id == run.id and again.done and len(run.history) == SHORT.steps
    edited, _ = edit(load_clip(), [FOX], METHODS["relation"], SHORT)
    assert torch.equal(load_edited(again).look(some_pixels), edited.look(some_pixels))
    assert any(w.any() for w in load_file(run.adapter_dir / "adapter_model.safetensors").values())


@pytest.mark.slow
def test_one_after_another_each_edit_starts_where_the_last_one_ended(tmp_path, some_pixels):
    first = edit_run([UNSAFE[0]], setting=SHORT, runs_dir=tmp_path)
    second = edit_run([FOX], earlier=[UNSAFE[0]], setting=SHORT, runs_dir=tmp_path)
    assert set(second.metrics["tuple"]) == {str(FOX), str(UNSAFE[0])}
    model = load_edited(second).model
    with torch.no_grad(), model.disable_adapter():
        before = look(model, some_pixels)
    expected = load_edited(first).look(some_pixels)
    assert torch.allclose(before, expected, atol=1e-5)


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
        ({"method": "filter", "earlier": [UNSAFE[0]]}, "together"),
    ],
)
def test_a_wrong_word_is_refused_before_anything_starts(given, says, tmp_path):
    given = {"unsafe": [FOX]} | given
    with pytest.raises(UserError, match=says):
        edit_run(runs_dir=tmp_path, **given)
    assert not list(tmp_path.iterdir())
