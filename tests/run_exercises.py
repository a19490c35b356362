"""Exercises under papermill: one run of a notebook, and what its cells gave."""

import logging
from pathlib import Path

import lessons
import papermill
import pytest

from safeerase_lite.runs.notebook import ThisInterpreter

FOLDER = Path(__file__).parents[1] / "notebooks" / "exercises"
every = pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    """Run a notebook, with a record of its own; return what every code cell gave, by its id."""
    monkeypatch.setenv("SAFEERASE_PROGRESS", str(tmp_path / "progress.json"))
    logging.getLogger("papermill").addHandler(logging.NullHandler())

    def run(path):
        papermill.execute_notebook(
            str(path),
            str(tmp_path / path.name),
            kernel_manager_class=ThisInterpreter,
            extra_arguments=["--log-level=CRITICAL"],
            progress_bar=False,
            cwd=tmp_path,
        )
        cells = lessons.read(tmp_path / path.name).cells
        return {cell.id: cell.outputs for cell in cells if cell.cell_type == "code"}

    return run


def printed(outputs):
    return "".join(output.text for output in outputs if output.get("name") == "stdout")


def quiet(outputs):
    return not any(one.get("name") == "stderr" for of_cell in outputs.values() for one in of_cell)
