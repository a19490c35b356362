"""Lesson 03 runs on a random model of every family, in the profile `laptop`."""

import pytest
import random_families
from run_lessons import lesson_03

from safeerase_lite.runs import store


@pytest.mark.parametrize("family", sorted(random_families.BUILDERS))
def test_lesson_03_runs_on_a_family(family, real_format_data, tmp_path):
    random_families.write(tmp_path / "model", family)
    node = lesson_03(tmp_path / "model", real_format_data, tmp_path)
    [parts] = [cell for cell in node.cells if cell.id == "e9d7aec1"]
    assert "vision tower" in parts.outputs[0]["data"]["text/plain"]
    tables = store.load(tmp_path / "runs")
    assert list(tables.runs["status"]) == ["complete"]
    assert set(tables.metrics["split"]) == {"train", "val"}
