"""Solved exercises run to their end under papermill, all ✅, with all their points."""

from run_exercises import every, printed, quiet

from safeerase_lite.exercises import modules
from safeerase_lite.exercises.progress_file import RIGHT


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
