"""What the page is told, before any browser reads it."""

import re
import shutil
from dataclasses import replace

import build_page
import numpy as np
import page_graphs
import page_records
import pytest
import torch

from safeerase_lite.models.inputs import prompt_ids
from safeerase_lite.models.llava import load_model, save_adapter, trainable
from safeerase_lite.tinyworld import facts
from safeerase_lite.utils import UserError


def test_a_prompt_is_its_beginning_the_question_and_its_end(base_model):
    told = build_page.prompt(base_model, 40)
    asked = facts.QUESTIONS["colour"]
    words = [told["words"].index(word) for word in re.findall(r"\w+|[^\w\s]+", asked.lower())]
    assert [*told["before"], *words, *told["after"]] == list(
        prompt_ids(base_model.processor, asked)
    )
    assert told["before"].count(told["image"]) == (told["side"] // 16) ** 2  # the patches of 16


def test_an_adapter_laid_over_the_base_is_the_adapted_model(make_config, tmp_path):
    config = make_config(objective="po")
    model = load_model(config)
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter.add_(torch.randn_like(parameter) / 8)
    save_adapter(model, tmp_path)
    factors, scale = page_graphs.adapter(config, tmp_path)
    base = dict(load_model(config, adapt=False).named_parameters())
    merged = dict(model.merge_and_unload().named_parameters())
    assert {name.split(".lora_")[0] for name in factors} <= base.keys()
    for name, weight in base.items():
        laid_over = factors.get(name, weight)
        if f"{name}.lora_A" in factors:
            laid_over = weight + scale * factors[f"{name}.lora_B"] @ factors[f"{name}.lora_A"]
        torch.testing.assert_close(laid_over, merged[name])


def test_weights_are_found_where_the_layout_says(tmp_path):
    weights = {"a": torch.rand(2, 3), "b": torch.rand(4)}
    layout = page_graphs._write_weights(weights, tmp_path / "some.bin", "<f4")
    numbers = np.fromfile(tmp_path / "some.bin", "<f4")
    for name, (offset, shape) in layout.items():
        read = numbers[offset : offset + np.prod(shape)].reshape(shape)
        np.testing.assert_array_equal(read, weights[name])


def test_the_world_tells_what_training_asks_to_forget(world):
    told = build_page.world(world)
    assert told["kinds"].keys() == facts.kinds().keys() == told["shapes"].keys()
    trained = {name for name, kind in told["kinds"].items() if kind["trained"]}
    train = {
        name: set(table.loc[table["split"] == "train", "kind"])
        for name, table in (("forget", world.forget), ("decouple", world.decouple))
    }
    assert trained == train["forget"] | train["decouple"]
    unseen = replace(world, decouple=world.decouple[world.decouple["split"] != "train"])
    kinds = build_page.world(unseen)["kinds"].values()
    assert {kind["hazard"] for kind in kinds if kind["trained"]} == {True}


def test_what_is_filmed_is_what_the_film_says(world):
    requested, shown = page_records.seen_kinds(world)
    first, second, seen, new = page_records.FILMED
    assert {first, second} <= requested and seen in shown and new not in shown
    assert page_records.QUESTION in set(build_page.trained_templates(world))
    assert [one.kind for one in page_records.filmed_scenes()] == [*page_records.FILMED]


def test_each_curve_begins_without_a_dose_and_has_a_control():
    curves = page_records.dose_curves()
    for chosen in (("ablated", "PO+PD", "right"), ("ablated", "PO", "right"),
                   ("added", "PO", "begun")):  # fmt: skip
        rows = [row for row in curves
                if (row["intervention"], row["model"], row["measure"]) == chosen]  # fmt: skip
        assert {row["other"] for row in rows} == {"refusal", "random"}
        assert min(row["dose"] for row in rows) == 0
        assert all(row["min"] <= row["mean"] <= row["max"] for row in rows)


def test_without_npm_one_is_told_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("SAFEERASE_CACHE", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(UserError, match="install Node.js"):
        build_page.installed_runtime()
    assert not any(tmp_path.iterdir())
