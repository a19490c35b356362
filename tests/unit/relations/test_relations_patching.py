"""Activation patching finds where a CLIP reads a relation."""

from safeerase_lite.relations.clip import load_clip
from safeerase_lite.relations.objectives import METHODS
from safeerase_lite.relations.patching import patching
from safeerase_lite.relations.tuples import TUNING


def test_the_layers_that_are_edited_alone_are_those_where_the_relation_arrives():
    """By the last layer all of it has arrived, as nothing comes after it."""
    table = patching(load_clip(), TUNING)
    carried = table.set_index(["tower", "layer"])["carried"]
    for tower in ("vision", "text"):
        assert abs(carried[tower, 2] - 1) < 1e-4  # float32, of differences of scores
        assert carried[tower].is_monotonic_increasing
    step = carried.groupby(level="tower").diff().fillna(carried)
    layers = {f"{tower}.{layer}" for tower, layer in step.groupby(level="tower").idxmax()}
    assert layers == set(METHODS["two_layers"].parts)
