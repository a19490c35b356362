"""Solved exercises run to their end under papermill; those that train do so every night."""

import pytest
from run_exercises import NOTEBOOKS, assert_solved


@pytest.mark.parametrize(
    "path", [path for path in NOTEBOOKS if path.name[0] not in "bcgh"], ids=lambda path: path.stem
)
def test_solved_it_ends_all_right_with_all_its_points(path, outputs):
    assert_solved(path, outputs)
