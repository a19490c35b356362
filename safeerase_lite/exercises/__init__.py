"""Exercises that check themselves.

A notebook of exercises, `notebooks/exercises/a_….ipynb`, has a module of the same name here that
declares its exercises. The right answers stand in it: reading them is allowed, and teaches less.
"""

import re
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

import pandas as pd

from safeerase_lite.exercises import record
from safeerase_lite.exercises.comparing import difference
from safeerase_lite.exercises.exercise import Exercise, Mistake, call
from safeerase_lite.exercises.judging import WRONG, Verdict, judge
from safeerase_lite.utils import UserError

__all__ = [
    "Exercise",
    "Mistake",
    "agree",
    "call",
    "check",
    "find",
    "modules",
    "progress",
    "score",
    "solved",
]

EMPHASIS = re.compile(r"(?<![\w*])\*(\w[\w ]*)\*(?![\w*])")  # Markdown's; a message is plain text
FRESH = 1000  # the seed of the inputs a grade rests on; `check` shows others


def modules() -> dict[str, ModuleType]:
    """Every module of exercises, by its letter. Each has a TITLE and its EXERCISES."""
    return {letter: import_module(f".{name}", __name__) for letter, name in _names().items()}


def find(id: str) -> Exercise:
    """The exercise of an id such as "a3".

    Raises:
        UserError: there is none.
    """
    exercises = {exercise.id: exercise for exercise in _of(str(id)[:1])}
    if id in exercises:
        return exercises[id]
    there = ", ".join(exercises or (f"{letter}1" for letter in _names()))
    raise UserError(f"there is no exercise {id!r}; there are {there}")


def _names() -> dict[str, str]:
    """The modules' names by their letters."""
    names = sorted(module.name for module in iter_modules(__path__))
    return {name[0]: name for name in names if name[1] == "_"}


def _of(letter: str) -> tuple[Exercise, ...]:
    name = _names().get(letter)
    return import_module(f".{name}", __name__).EXERCISES if name else ()


def check(id: str, answer: Any = ...) -> None:
    """Say whether an answer is right: ⏳ not yet, ✅, or ❌ and what is wrong.

    Never raises, whatever the answer does.
    """
    try:
        verdict = judge(find(id), answer)
        record.note(id, verdict.mark)
    except UserError as error:
        verdict = Verdict(WRONG, str(error))
    print(f"{id} {verdict.mark}:", EMPHASIS.sub(r"\1", verdict.message))


def score(id: str, answer: Any = ...) -> float:
    """The points of an answer, on inputs `check` does not show; for a graded cell's last line.

    Says nothing: nbgrader takes anything on stderr for a failure.

    Raises:
        UserError: there is no such exercise.
    """
    exercise = find(id)
    return exercise.points * judge(exercise, answer, FRESH).credit


def agree(yours: Any, package: Any) -> None:
    """Say so when an answer and the package differ in what a cell shows; nothing is said if not."""
    if how := difference(yours, package, tolerance=1e-3):
        print(f"❌ The package does not agree: yours {how}. Please tell us.")


def solved(*ids: str) -> bool:
    """Whether these are right now, for cells that build on them; says so when they are not."""
    missing = [id for id in ids if not record.now_right(id)]
    if missing:
        print(f"This cell waits for {', '.join(missing)}: solve, check, and run it again.")
    return not missing


def progress(notebook: str = "") -> pd.DataFrame:
    """What is done, of one notebook (its letter) or of all.

    Returns:
        A row per exercise: title, done (✅ once right, ❌ tried, ⏳ not yet), tries.
    """
    letters = [notebook] if notebook else _names()
    exercises = [exercise for letter in letters for exercise in _of(letter)]
    kept = record.read()
    rows = {
        exercise.id: {
            "exercise": exercise.title,
            "done": record.mark(exercise.id, kept),
            "tries": kept.get(exercise.id, {}).get("tries", 0),
        }
        for exercise in exercises
    }
    done = sum(kept.get(id, {}).get("done", False) for id in rows)
    print(f"{done} of {len(rows)} done.")
    if record.lost():
        print("This folder cannot be written: a restart forgets it.")
    return pd.DataFrame.from_dict(rows, orient="index", columns=["exercise", "done", "tries"])
