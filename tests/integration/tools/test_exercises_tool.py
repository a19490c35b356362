"""Exercises have one source: what is copied, stripped or told to tutors comes from it."""

import json
import re
import shutil
from pathlib import Path

import exercises as tool
import lessons
import pytest
from typer.testing import CliRunner

from safeerase_lite.exercises.checking import RIGHT, judge
from safeerase_lite.utils import UserError

pytest.importorskip("nbgrader", reason="no nbgrader: pip install 'safeerase-lite[classroom]'")

ROOT = Path(__file__).parents[3]
SOURCES = tool.sources(ROOT)
A = "a_the_loss_on_the_answer.ipynb"

every = pytest.mark.parametrize("name", SOURCES)


@pytest.fixture
def repository(tmp_path):
    """A copy of what the tool reads."""
    shutil.copytree(ROOT / "notebooks" / "exercises", tmp_path / "notebooks" / "exercises")
    shutil.copy(ROOT / "notebooks" / "00_quickstart.ipynb", tmp_path / "notebooks")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def run(command, root):
    return CliRunner().invoke(tool.app, [command, "--root", str(root)])


def edit(path, cell, change):
    """Replace the source of a cell of a notebook file."""
    node = json.loads(path.read_text())
    [match] = [one for one in node["cells"] if one["id"] == cell]
    match["source"] = change("".join(match["source"]))
    path.write_text(json.dumps(node, indent=1, ensure_ascii=False) + "\n")


# ---- what is committed ----


def test_what_is_committed_is_what_the_sources_give():
    assert tool.stale(ROOT) == [], "run `make exercises`"


@every
def test_the_solution_in_the_notebook_is_right(name):
    """Its answers run after the cells tagged `given` alone, and the checker says ✅ to each."""
    path, module = SOURCES[name]
    names = {}
    for cell in lessons.read(path).cells:
        if "given" in cell.metadata.get("tags", []) or re.fullmatch(r"\w+-answer", cell.id):
            exec(cell.source, names)
    for exercise in module.EXERCISES:
        verdict = judge(exercise, names[exercise.name])
        assert verdict.mark == RIGHT, f"{exercise.id}: {verdict.message}"


@every
def test_a_student_s_copy_holds_no_solution_and_no_hidden_test(name):
    path, module = SOURCES[name]
    text = (path.parent / "student" / path.name).read_text()
    for trace in ("BEGIN SOLUTION", "END SOLUTION", "HIDDEN TESTS", "score("):
        assert trace not in text
    copied = lessons.read(path.parent / "student" / path.name)
    for exercise in module.EXERCISES:
        [answer] = [cell.source for cell in copied.cells if cell.id == f"{exercise.id}-answer"]
        assert "..." in answer and "# your code here" in answer
        for line in tool.solution(lessons.read(path), exercise).splitlines():
            assert line.strip() not in answer


# ---- what breaks it ----


def test_a_student_s_copy_edited_by_hand_is_found(repository):
    assert run("check", repository).exit_code == 0
    edit(repository / "notebooks/exercises/student" / A, "a1-answer", lambda source: source + "\n")
    result = run("check", repository)
    assert result.exit_code == 1 and f"student/{A}: not what its source gives" in result.output
    assert f"student/{A}: written" in run("build", repository).output
    assert run("check", repository).exit_code == 0


def test_a_copy_of_no_source_is_found(repository):
    shutil.copy(
        *[repository / "notebooks/exercises/student" / name for name in (A, "z_other.ipynb")]
    )
    assert "z_other.ipynb" in run("check", repository).output


def unsolved(source):
    return re.sub(r" *### BEGIN.*END SOLUTION\n", "", source, flags=re.S)


def emptied(source):
    return re.sub(r"(BEGIN SOLUTION\n).*( {4}### END)", r"\1\2", source, flags=re.S)


@pytest.mark.parametrize(
    ("cell", "change", "message"),
    [
        ("a1-answer", unsolved, "a1: has no solution: write it into the cell a1-answer"),
        ("a1-answer", emptied, "a1: has no solution"),
        ("a1-answer", lambda source: source.replace("...", "0"), "a1: has no `...`"),
        ("a2-predict", lambda source: "", 'a2: asks for no prediction: sl.predict("a2", …)'),
        ("a3-task", lambda source: source.replace("<details>", "", 1), "a3: has not 3 hints"),
        ("a4-discussion", lambda source: "Open.", "a4: has an open discussion"),
        ("a4-discussion", lambda source: "[04](../04.ipynb)", "a4-discussion: has a relative link"),
    ],
)
def test_a_source_that_lacks_something_is_refused_with_its_place(repository, cell, change, message):
    edit(repository / "notebooks/exercises" / A, cell, change)
    for command in ("build", "check"):
        result = run(command, repository)
        assert result.exit_code == 2 and f"{A}: {message}" in result.output


def test_a_notebook_without_a_module_and_a_module_without_a_notebook(repository):
    folder = repository / "notebooks/exercises"
    shutil.copy(folder / A, folder / "z_other.ipynb")
    with pytest.raises(
        UserError, match="z_other have no module safeerase_lite/exercises/z_other.py"
    ):
        tool.sources(repository)
    (folder / "z_other.ipynb").unlink()
    (folder / A).unlink()
    with pytest.raises(UserError, match=f"no notebook notebooks/exercises/{A}"):
        tool.sources(repository)


def test_what_is_generated_is_made_anew(repository):
    path = repository / "notebooks/exercises" / A
    before = path.read_text()
    node = json.loads(before)
    node["cells"] = [cell for cell in node["cells"] if cell["id"] not in ("a1", "a1-test")]
    node["cells"][3]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "said"}]
    path.write_text(json.dumps(node))
    edit(path, "a2-test", lambda source: "check('a2', 3)")
    assert run("build", repository).exit_code == 0
    assert path.read_text() == before


# ---- the tutor's kit ----


@every
def test_the_kit_has_the_solutions_the_points_and_every_mistake(name):
    path, module = SOURCES[name]
    files = {
        str(file.relative_to(ROOT / "output/exercises")): text
        for file, text in tool.kit(ROOT).items()
    }
    page = files[f"tutor/{name}.md"]
    for exercise in module.EXERCISES:
        assert f"## {exercise.id} · {exercise.title}\n" in page
        lines = tool.solution(lessons.read(path), exercise).splitlines()
        assert all(line in page for line in lines)
        assert f"**What comes true:** {exercise.outcome}\n" in page
        assert all(mistake.message in page for mistake in exercise.mistakes)
    assert "###" not in page
    assert files[f"student/{path.name}"] == (path.parent / "student" / path.name).read_text()
    assert files[f"course/source/{name}/{path.name}"] == path.read_text()
    assert "code_stub" in files["course/nbgrader_config.py"]
