"""What tests share: a tiny random LLaVA, a small tiny world, and settings for both."""

from dataclasses import replace
from pathlib import Path

import pytest
from browser_fixtures import chromium, lab, open_notebook  # noqa: F401, fixtures of two tiers
from real_format import real_format_data, real_format_model, small_t4  # noqa: F401, the same
from run_exercises import outputs  # noqa: F401, the same


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory) -> Path:
    """A random LLaVA as small as NF4 allows, its weights large enough that pictures matter."""
    import build_tinyworld as build
    import torch
    from transformers import LlavaForConditionalGeneration

    recipe = build.Recipe(width=64, feed_forward=128, layers=2, vision_layers=1, heads=2, patch=16)
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(build.configuration(recipe))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(5)
    folder = tmp_path_factory.mktemp("models") / "tiny-random"
    build.save(model, recipe, folder)
    return folder


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A tiny world with two pictures of a hazard in train and one in val and test, read."""
    from safeerase_lite.data.dataset import read_data
    from safeerase_lite.tinyworld.world import World, write_world

    small = World(train_pictures=2, eval_pictures=1)
    return read_data(write_world(small, tmp_path_factory.mktemp("worlds") / "small"))


@pytest.fixture(scope="session")
def few(world):
    """The small world with a handful of questions of each table and split, for evaluations."""

    def some(table):
        return table.groupby("split").head(6).reset_index(drop=True)

    tables = ("forget", "retain", "decouple", "placebo", "specificity")
    return replace(world, **{name: some(getattr(world, name)) for name in tables})


@pytest.fixture(scope="session")
def make_config(tiny_model_dir):
    """Settings of the random model, dense by default, any field overridden."""
    from safeerase_lite.config import config

    small = {"precision": "dense", "lora_rank": 4, "pictures": 2, "steps": 4, "learning_rate": 1e-3,
             "max_new_tokens": 8, "eval_batch_size": 8, "samples": 0}  # fmt: skip

    def make(**fields):
        return config("tiny", **({"model": str(tiny_model_dir)} | small | fields))

    return make


@pytest.fixture(scope="session")
def base_model(make_config):
    """The dense random model without an adapter. Shared by all tests: never change it."""
    from safeerase_lite.models.llava import load_model

    return load_model(make_config(), adapt=False)
