"""Edits as runs: made once, read from then on, one on top of another; and what tiny-clip reads."""

import shutil
from dataclasses import replace

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel, CLIPProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from safeerase_lite.relations import runs
from safeerase_lite.relations.clip import frozen, load_clip, preprocess
from safeerase_lite.relations.editing import edit
from safeerase_lite.relations.evaluation import measure, reading
from safeerase_lite.relations.evaluation_set import evaluation_set
from safeerase_lite.relations.objectives import METHODS, SETTINGS
from safeerase_lite.relations.runs import edit_run, load_edited
from safeerase_lite.relations.scenes import draw, scenes_of
from safeerase_lite.relations.tuples import UNSAFE
from safeerase_lite.tinyworld import ASSETS
from safeerase_lite.utils import UserError

SHORT = replace(SETTINGS, steps=4, batch_size=4, anchors=8)
FOX = UNSAFE[1]


@pytest.fixture(scope="module")
def pixel_values():
    return preprocess(load_clip(), [draw(scene) for scene in scenes_of(UNSAFE[:4], "train", 2)])


def test_a_clip_of_the_real_shape_is_loaded_and_edited(tmp_path):
    """224 pixels in patches of 32, as CLIP has them."""
    clip = load_clip()
    config = CLIPConfig.from_dict(clip.config.to_dict())
    config.vision_config.update({"image_size": 224, "patch_size": 32, "num_hidden_layers": 1})
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(tmp_path)
    clip.processor.tokenizer.save_pretrained(tmp_path)
    CLIPProcessor(CLIPImageProcessorPil(), clip.processor.tokenizer).save_pretrained(tmp_path)
    model = load_clip(str(tmp_path))
    assert preprocess(model, [draw(scenes_of([FOX], "train", 1)[0])]).shape == (1, 3, 224, 224)
    _, history = edit(model, [FOX], METHODS["relation"], SHORT)
    assert history["loss"].notna().all() and len(history) == SHORT.steps


def test_the_same_seed_makes_the_same_edit():
    first, second, other = (
        edit(load_clip(), [FOX], METHODS["relation"], SHORT, seed=seed)[1] for seed in (0, 0, 1)
    )
    assert first.equals(second) and not first["loss"].equals(other["loss"])


def test_a_filter_refuses_unsafe_images_so_their_marginals_are_gone_too():
    edited, _ = edit(load_clip(), [FOX], METHODS["filter"], SHORT)
    table = measure(edited, evaluation_set(load_clip(), FOX, [FOX]))
    values = table.set_index(["measure", "slot"])["value"]
    # The threshold is at 5% of the train images; 40 test images differ by about three times that.
    # Neighbours score below it: all but a few pass, and the same 20% is left for those.
    assert values["tuple top-1", ""] <= 0.2
    assert values["marginal on unsafe", "subject"] <= 0.2
    assert values["neighbour, held out", ""] >= 0.8


def test_a_run_is_made_once_and_its_model_comes_back(tmp_path, pixel_values):
    run = edit_run([FOX], settings=SHORT, runs_dir=tmp_path)
    again = edit_run([FOX], settings=SHORT, runs_dir=tmp_path)
    assert again.id == run.id and again.done and len(run.history) == SHORT.steps
    edited, _ = edit(load_clip(), [FOX], METHODS["relation"], SHORT)
    reloaded = load_edited(again).encode_images(pixel_values)
    assert torch.equal(reloaded, edited.encode_images(pixel_values))
    assert any(w.any() for w in load_file(run.adapter_dir / "adapter_model.safetensors").values())


@pytest.mark.parametrize("damage", ["a layer less", "NaN"])
def test_an_edit_whose_adapter_is_damaged_is_not_loaded(tmp_path, damage):
    run = edit_run([FOX], settings=SHORT, runs_dir=tmp_path)
    file = run.adapter_dir / "adapter_model.safetensors"
    weights = load_file(file)
    last = max(weights)
    weights[last].fill_(float("nan"))
    if damage == "a layer less":
        del weights[last]
    save_file(weights, file)
    with pytest.raises(UserError, match="does not fit its base model|holds NaN"):
        load_edited(run)


def test_a_clip_with_another_file_that_decides_is_another_model(tmp_path, monkeypatch):
    def recorded(model):
        return edit_run([FOX], model=str(model), runs_dir=tmp_path).model_hash

    monkeypatch.setattr(runs, "_run", lambda parameters, folder: parameters)
    copy = shutil.copytree(ASSETS / "tiny-clip", tmp_path / "copy")
    assert recorded(copy) == recorded("tiny-clip") == "83416b933221"
    (copy / "tokenizer_config.json").write_text("{}")
    assert recorded(copy) != recorded("tiny-clip")
    assert recorded("openai/clip-vit-base-patch32") == ""


def test_one_after_another_each_edit_starts_where_the_last_one_ended(tmp_path, pixel_values):
    first = edit_run([UNSAFE[0]], settings=SHORT, runs_dir=tmp_path)
    second = edit_run([FOX], earlier=[UNSAFE[0]], settings=SHORT, runs_dir=tmp_path)
    assert set(second.metrics["tuple"]) == {str(FOX), str(UNSAFE[0])}
    edited = load_edited(second)
    with frozen(edited.model):
        before = edited.encode_images(pixel_values)
    # A merged adapter rounds once more than one beside the weights: float32, a few layers deep.
    assert torch.allclose(before, load_edited(first).encode_images(pixel_values), atol=1e-5)


@pytest.mark.parametrize(("split", "least"), [("test", 0.95), ("val", 0.93)])
def test_the_shipped_measures_are_what_tiny_clip_reads(split, least):
    """95%: an edit can only take away, or keep, what the base reads. On val images roles are
    harder: 94%, and a point less for another processor."""

    def plain(table):
        table = table.fillna({"wording": ""})
        rows = table[(table["wording"] == "{s} {r} {o}") & (table["tuples"] == "seen")]
        return rows.set_index("measure")["value"]

    values = plain(reading(split=split))
    assert values["tuple top-1"] >= 0.95 and values["role swap"] >= least
    if split == "test":
        shipped = plain(pd.read_csv(ASSETS / "tiny-clip" / "measures.csv"))
        # One image in a few hundred may fall on the other side on another processor.
        assert values["role swap"] == pytest.approx(shipped["role swap"], abs=0.01)
