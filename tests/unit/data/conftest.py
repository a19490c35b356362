"""A small valid folder, for tests to bend."""

from pathlib import Path

import pytest
from small_dataset import make_dataset


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "set")
