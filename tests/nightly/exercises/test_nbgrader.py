"""nbgrader releases the exercises as we do, and grades them: all, half and none of the points.

One notebook here, for all: the metadata of every source is tested with the tool, and
`tests/nightly/exercises/test_classroom.py` grades them all.
"""

import lessons
import pandas as pd
import pytest

api = pytest.importorskip("nbgrader.api", reason="pip install 'safeerase-lite[classroom]'")
from nbgrader_course import SOURCES, STUDENTS, graded, points  # noqa: E402

NAME = "a_the_loss_on_the_answer"


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    return graded(tmp_path_factory.mktemp("course"), [NAME])


@pytest.mark.parametrize(("student", "share"), STUDENTS.items())
def test_the_gradebook_has_the_points(course, student, share):
    with api.Gradebook(f"sqlite:///{course / 'gradebook.db'}") as gradebook:
        submission = gradebook.find_submission(NAME, student)
        assert submission.max_score == points(NAME)
        assert submission.score == share * points(NAME)
        assert not submission.needs_manual_grade


def test_the_table_of_grades_has_them_all(course):
    table = pd.read_csv(course / "grades.csv").set_index("student_id")
    assert dict(table["score"]) == {name: share * points(NAME) for name, share in STUDENTS.items()}


def test_every_student_gets_feedback(course):
    for student in STUDENTS:
        page = course / "feedback" / student / NAME / f"{NAME}.html"
        assert SOURCES[NAME][1].EXERCISES[0].title in page.read_text()


def test_what_nbgrader_releases_is_the_committed_copy(course):
    source = SOURCES[NAME][0]
    released = lessons.read(course / "release" / NAME / f"{NAME}.ipynb")
    assert released.cells == lessons.read(source.parent / "student" / source.name).cells
