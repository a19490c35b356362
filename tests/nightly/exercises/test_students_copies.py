"""Unsolved, as students get them, exercises run to their end under papermill."""

from run_exercises import FOLDER, every, printed, quiet

from safeerase_lite.exercises import modules
from safeerase_lite.exercises.progress_file import NOT_YET


@every
def test_unsolved_it_runs_to_its_end(path, outputs):
    results = outputs(FOLDER / "student" / path.name)
    for exercise in modules()[path.name[0]].EXERCISES:
        assert printed(results[f"{exercise.id}-test"]).startswith(f"{exercise.id} {NOT_YET}: ")
    assert "✅" not in str(results) and "❌" not in str(results)
    assert quiet(results)
