"""nbgrader releases the exercises as we do, and grades them: all, half and none of the points."""

import os
import shutil
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import exercises as tool
import lesson_rules
import lessons
import pandas as pd
import pytest

api = pytest.importorskip("nbgrader.api", reason="pip install 'safeerase-lite[classroom]'")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
NAME = "a_the_loss_on_the_answer"  # one for all: metadata of every source is tested with the tool
SOURCE, MODULE = tool.sources(ROOT)[NAME]
POINTS = sum(exercise.points for exercise in MODULE.EXERCISES)


def half():
    """Exercises whose points are half of all."""
    counts = range(1, len(MODULE.EXERCISES))
    choices = (chosen for count in counts for chosen in combinations(MODULE.EXERCISES, count))
    return next(c for c in choices if 2 * sum(exercise.points for exercise in c) == POINTS)


def answered(released, right, wrong=()):
    """A released notebook, some exercises solved as in the source, some answered wrongly and with
    the cell that grades them forged."""
    node, solved = lessons.read(released), {cell.id: cell for cell in lessons.read(SOURCE).cells}
    for cell in node.cells:
        for exercise in MODULE.EXERCISES:
            if cell.id == f"{exercise.id}-answer" and exercise in right:
                cell.source = tool.without_markers(solved[cell.id].source)
            elif cell.id == f"{exercise.id}-answer" and exercise in wrong:
                cell.source += f"\n{exercise.name} = lambda *inputs: 1 / 0"
            elif cell.id == f"{exercise.id}-test" and exercise in wrong:
                cell.source = f"{exercise.points}"
    return lesson_rules.written(node)


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A course as the kit has it: generated, submitted three times, graded, with feedback."""
    folder = tmp_path_factory.mktemp("course")
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # it calls alembic
    for path, text in tool.kit(ROOT).items():
        if "course" in path.parts:
            target = folder / path.relative_to(ROOT / "output" / "exercises" / "course")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")

    def nbgrader(command, *names):
        done = subprocess.run(
            [sys.executable, "-m", "nbgrader", command, *names],
            cwd=folder, env=os.environ | {"PATH": programs}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    nbgrader("generate_assignment", NAME)
    released = folder / "release" / NAME / f"{NAME}.ipynb"
    hand_in = {
        "all": answered(released, MODULE.EXERCISES),
        "half": answered(released, half()),
        "none": answered(released, (), MODULE.EXERCISES[::2]),
    }
    for student, text in hand_in.items():
        sent = folder / "downloaded" / NAME / "archive" / f"{student}__{NAME}.ipynb"
        sent.parent.mkdir(parents=True, exist_ok=True)
        sent.write_text(text, encoding="utf-8")
    nbgrader("zip_collect", NAME)
    nbgrader("autograde", NAME)
    nbgrader("generate_feedback", NAME)
    nbgrader("export")
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize(("student", "share"), [("all", 1), ("half", 0.5), ("none", 0)])
def test_the_gradebook_has_the_points(course, student, share):
    with api.Gradebook(f"sqlite:///{course / 'gradebook.db'}") as gradebook:
        submission = gradebook.find_submission(NAME, student)
        assert submission.max_score == POINTS
        assert submission.score == share * POINTS
        assert not submission.needs_manual_grade


def test_the_table_of_grades_has_them_all(course):
    table = pd.read_csv(course / "grades.csv").set_index("student_id")
    assert dict(table["score"]) == {"all": POINTS, "half": POINTS / 2, "none": 0}


def test_every_student_gets_feedback(course):
    for student in ("all", "half", "none"):
        page = course / "feedback" / student / NAME / f"{NAME}.html"
        assert MODULE.EXERCISES[0].title in page.read_text()


def test_what_nbgrader_releases_is_the_committed_copy(course):
    released = lessons.read(course / "release" / NAME / f"{NAME}.ipynb")
    copied = lessons.read(SOURCE.parent / "student" / SOURCE.name)
    assert released.cells == copied.cells
