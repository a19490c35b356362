"""An exercise as a record: its right answer, and the wrong ones it knows by name."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from safeerase_lite.utils import UserError


@dataclass(frozen=True)
class Mistake:
    """A common wrong answer: a function like the reference, or a value."""

    answer: Any
    message: str  # names the mistake, not only the fact, and leads on
    credit: float = 0.0  # the share of the points it is still worth


def slip(answer: Any, message: str, credit: float = 0.5) -> Mistake:
    """A mistake that is still worth a part of the points."""
    return Mistake(answer, message, credit)


@dataclass(frozen=True)
class Exercise:
    """A task of a student, and how its answer is judged.

    An answer is right when it gives what `reference` gives; when it gives what one of the
    `mistakes` gives, that one is named. With `inputs` answers are functions, compared on several
    random inputs (no constant passes); without, they are values: a number, a choice, a set.
    """

    id: str  # the notebook's letter and a number, such as a3
    name: str  # the variable that holds the answer in the notebook
    title: str
    difficulty: int  # 1 to 5, as importance is
    importance: int
    minutes: int  # for a student who has read the lesson
    outcome: str  # which option of the prediction comes true
    reference: Any  # a right answer
    mistakes: tuple[Mistake, ...]  # at least three
    # The arguments of one call; all that is random in them comes from the generator.
    inputs: Callable[[np.random.Generator], tuple] | None = None
    # What is compared, of an answer and its inputs: what it returns, or its gradient, for instance.
    observe: Callable[..., Any] = lambda answer, *inputs: answer(*inputs)

    @property
    def points(self) -> int:
        """As many as it is difficult; nbgrader's."""
        return self.difficulty


def modules(letters: str = "") -> dict[str, ModuleType]:
    """The modules of these letters, or all: each has a TITLE and its EXERCISES."""
    names = sorted(path.stem for path in Path(__file__).parent.glob("[a-z]_*.py"))
    wanted = [name for name in names if not letters or name[0] in letters]
    return {name[0]: import_module(f"{__package__}.{name}") for name in wanted}


def find(id: str) -> Exercise:
    """The exercise of an id such as "a3". Raises a UserError when there is none."""
    letter = str(id)[:1]
    exercises = {one.id: one for module in modules(letter).values() for one in module.EXERCISES}
    if id in exercises:
        return exercises[id]
    options = ", ".join(exercises or (f"{letter}1" for letter in modules()))
    raise UserError(f"there is no exercise {id!r}; there are {options}")
