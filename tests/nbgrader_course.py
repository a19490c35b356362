"""A course of nbgrader's as the tutor's kit has it: released, handed in by three students, graded.

`all` solved everything, `half` as many exercises as give half the points, `none` nothing: every
other answer is wrong, and the cell that grades it is forged.
"""

import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import exercises as tool
import lesson_rules
import lessons

ROOT = Path(__file__).parents[1]
SOURCES = tool.sources(ROOT)
STUDENTS = {"all": 1, "half": 0.5, "none": 0}  # the share of the points


def points(name: str) -> int:
    return sum(exercise.points for exercise in SOURCES[name][1].EXERCISES)


def graded(folder: Path, names: list[str]) -> Path:
    """Generate, collect, grade, give feedback and export, with nbgrader's own commands."""
    for path, text in tool.kit(ROOT).items():
        if "course" in path.parts:
            target = folder / path.relative_to(ROOT / "output" / "exercises" / "course")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
    for name in names:
        _nbgrader(folder, "generate_assignment", name)
        _hand_in(folder, name)
        for command in ("zip_collect", "autograde", "generate_feedback"):
            _nbgrader(folder, command, name)
    _nbgrader(folder, "export")
    return folder


def _nbgrader(folder: Path, command: str, *names: str) -> None:
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # it calls alembic
    done = subprocess.run(
        [sys.executable, "-m", "nbgrader", command, *names],
        cwd=folder, env=os.environ | {"PATH": programs}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def _hand_in(folder: Path, name: str) -> None:
    exercises = SOURCES[name][1].EXERCISES
    released = folder / "release" / name / f"{name}.ipynb"
    texts = {
        "all": _answered(name, released, exercises),
        "half": _answered(name, released, _half(name)),
        "none": _answered(name, released, (), exercises[::2]),
    }
    for student, text in texts.items():
        sent = folder / "downloaded" / name / "archive" / f"{student}__{name}.ipynb"
        sent.parent.mkdir(parents=True, exist_ok=True)
        sent.write_text(text, encoding="utf-8")


def _half(name: str):
    """Exercises whose points are half of all."""
    exercises = SOURCES[name][1].EXERCISES
    choices = (some for n in range(1, len(exercises)) for some in combinations(exercises, n))
    return next(c for c in choices if 2 * sum(exercise.points for exercise in c) == points(name))


def _answered(name: str, released: Path, right, wrong=()) -> str:
    """A released notebook, some exercises solved as in the source, some wrongly."""
    source, module = SOURCES[name]
    node, solved = lessons.read(released), {cell.id: cell for cell in lessons.read(source).cells}
    for cell in node.cells:
        for exercise in module.EXERCISES:
            if cell.id == f"{exercise.id}-answer" and exercise in right:
                cell.source = tool.without_markers(solved[cell.id].source)
            elif cell.id == f"{exercise.id}-answer" and exercise in wrong:
                cell.source += f"\n{exercise.name} = lambda *inputs: 1 / 0"
            elif cell.id == f"{exercise.id}-test" and exercise in wrong:
                cell.source = f"{exercise.points}"
    return lesson_rules.written(node)
