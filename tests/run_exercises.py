"""Exercises under papermill: one run of a notebook, and what its cells gave."""

import logging
from pathlib import Path

import lessons
import papermill
import pytest

from safeerase_lite.exercises import modules
from safeerase_lite.exercises.progress_file import RIGHT
from safeerase_lite.runs.notebook import ThisInterpreter

FOLDER = Path(__file__).parents[1] / "notebooks" / "exercises"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
every = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


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


def assert_solved(path, outputs):
    """A solved notebook ends all right, with all its points."""
    results = outputs(path)
    for exercise in modules()[path.name[0]].EXERCISES:
        *checked, scored = results[f"{exercise.id}-test"]  # a slow kernel may send a line in parts
        assert printed(checked).startswith(f"{exercise.id} {RIGHT}: ")
        assert float(scored.data["text/plain"]) == exercise.points
        assert any(
            f"What happened: {exercise.outcome}." in printed(of_cell)
            for cell, of_cell in results.items()
            if cell.startswith(exercise.id)
        )
    assert "⏳" not in str(results) and "❌" not in str(results)
    assert "This cell waits" not in str(results)
    assert quiet(results)


def printed(outputs):
    return "".join(output.text for output in outputs if output.get("name") == "stdout")


def quiet(outputs):
    return not any(one.get("name") == "stderr" for of_cell in outputs.values() for one in of_cell)
