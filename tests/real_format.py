"""A model and data in the format of the real ones.

The model has every field of LLaVA-1.5-7B's configuration but its size. The data are the tiny world
without its mark and without all that the benchmark does not have.
"""

import pytest
from small_dataset import copy_as_documented, edit


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
    """A folder as the benchmark's, of few records and questions."""
    root = copy_as_documented(world.root, tmp_path_factory.mktemp("data") / "safeeraser")

    def shorten(records, count):
        del records[count:]
        for record in records:
            del record["unsafe_pairs"][1:]

    for split, count in (("train", 4), ("val", 1)):
        edit(root, split, lambda records, count=count: shorten(records, count))
    return root


@pytest.fixture
def small_t4(real_format_model, monkeypatch):
    """Make the profile t4 small: that model, two steps, short answers."""
    import sys

    small = {"model": str(real_format_model), "steps": 2, "pictures": 2, "accumulation": 2,
             "samples": 0, "max_new_tokens": 2, "eval_batch_size": 16}  # fmt: skip
    fields = sys.modules["safeerase_lite.config"]._FIELDS
    monkeypatch.setitem(fields, "t4", fields["t4"] | small)
