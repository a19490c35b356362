"""A model and data in the format of the real ones.

The model has every field of LLaVA-1.5-7B's configuration but its size. The data are the tiny world
without its mark and without all that the benchmark does not have.
"""

import json
import shutil

import pytest

ONLY_TINY = ("SDkeyword", "placebo_pairs", "specificity_pairs")


@pytest.fixture(scope="session")
def real_format_model(tmp_path_factory):
    """A folder in the format of llava-hf/llava-1.5-7b-hf, its random weights in several shards."""
    import random_llava

    folder = tmp_path_factory.mktemp("models") / "llava-1.5"
    config = random_llava.configuration(
        width=64, feed_forward=128, layers=2, heads=2, vision_width=64, vision_feed_forward=128,
        vision_layers=3, vision_heads=2,
    )  # fmt: skip
    random_llava.write(folder, config, shard_bytes=3_000_000)
    return folder


@pytest.fixture(scope="session")
def real_format_data(world, tmp_path_factory):
    """A folder as the benchmark's: no test split, no extra keys, no mark; few records."""
    from safeerase_lite.tinyworld import WORLD_FILE

    root = tmp_path_factory.mktemp("data") / "safeeraser"
    shutil.copytree(world.root, root)
    (root / WORLD_FILE).unlink()
    (root / "all_test.json").unlink()
    for split, count in (("train", 4), ("val", 1)):
        path = root / f"all_{split}.json"
        records = json.loads(path.read_text())[:count]
        records = [{k: v for k, v in r.items() if k not in ONLY_TINY} for r in records]
        records = [record | {"unsafe_pairs": record["unsafe_pairs"][:1]} for record in records]
        path.write_text(json.dumps(records))
    return root


@pytest.fixture
def small_t4(real_format_model, monkeypatch):
    """Make the profile t4 small: that model, two steps, short answers."""
    import sys

    small = {"model": str(real_format_model), "steps": 2, "batch": 2, "accumulation": 2,
             "samples": 0, "new_tokens": 2, "evaluation_batch": 16}  # fmt: skip
    fields = sys.modules["safeerase_lite.config"]._FIELDS
    monkeypatch.setitem(fields, "t4", fields["t4"] | small)
