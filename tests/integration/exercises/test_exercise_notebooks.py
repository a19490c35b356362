"""Exercises run to their end under papermill: unsolved as students get them, and solved, all ✅."""

import logging
from pathlib import Path

import lessons
import papermill
import pytest

from safeerase_lite.exercises import modules
from safeerase_lite.exercises.progress_file import NOT_YET, RIGHT
from safeerase_lite.runs.notebook import ThisInterpreter

FOLDER = Path(__file__).parents[3] / "notebooks" / "exercises"
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


@every
def test_unsolved_it_runs_to_its_end(path, outputs):
    results = outputs(FOLDER / "student" / path.name)
    for exercise in modules()[path.name[0]].EXERCISES:
        assert printed(results[f"{exercise.id}-test"]).startswith(f"{exercise.id} {NOT_YET}: ")
    assert "✅" not in str(results) and "❌" not in str(results)
    assert quiet(results)


@every
def test_solved_it_ends_all_right_with_all_its_points(path, outputs):
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
