"""nbgrader grades every notebook: full, half and no points to the three made submissions."""

import pytest

api = pytest.importorskip("nbgrader.api", reason="pip install 'safeerase-lite[classroom]'")
from nbgrader_course import SOURCES, STUDENTS, graded, points  # noqa: E402


@pytest.mark.parametrize("name", SOURCES)
def test_full_half_and_no_points(name, tmp_path):
    course = graded(tmp_path, [name])
    with api.Gradebook(f"sqlite:///{course / 'gradebook.db'}") as gradebook:
        given = {student: gradebook.find_submission(name, student) for student in STUDENTS}
        assert {s: one.score for s, one in given.items()} == {
            student: share * points(name) for student, share in STUDENTS.items()
        }
        assert not any(one.needs_manual_grade for one in given.values())
    for student in STUDENTS:
        assert (course / "feedback" / student / name / f"{name}.html").is_file()
