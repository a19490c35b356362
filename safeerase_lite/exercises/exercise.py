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
    """A common wrong answer, and its message.

    Attributes:
        answer: what they hand in: a function like the reference, or a value.
        message: names the mistake, not only the fact, and leads on.
        credit: the share of the points it is still worth, 0 to 1.
    """

    answer: Any
    message: str
    credit: float = 0.0


def slip(answer: Any, message: str, credit: float = 0.5) -> Mistake:
    """A mistake that is still worth a part of the points."""
    return Mistake(answer, message, credit)


@dataclass(frozen=True)
class Exercise:
    """A task of a student, and how its answer is judged.

    An answer is right when it gives what `reference` gives; when it gives what one of the
    `mistakes` gives, that one is named. With `inputs` answers are functions, compared on several
    random inputs (no constant passes); without, they are values: a number, a choice, a set.

    Attributes:
        id: the notebook's letter and a number, such as a3.
        name: the variable that holds the answer in the notebook.
        title: a few words.
        difficulty, importance: 1 to 5.
        minutes: for a student who has read the lesson.
        outcome: which option of the prediction comes true.
        reference: a right answer.
        mistakes: at least three.
        inputs: makes the arguments of one call; all that is random in them comes from the
            generator it is given.
        observe: what is compared, called with an answer and its inputs. By default what the answer
            returns; a gradient, for instance, is another thing to compare.
        tolerance: how far numbers may differ, relative to the right one.
    """

    id: str
    name: str
    title: str
    difficulty: int
    importance: int
    minutes: int
    outcome: str
    reference: Any
    mistakes: tuple[Mistake, ...]
    inputs: Callable[[np.random.Generator], tuple] | None = None
    observe: Callable[..., Any] = lambda answer, *inputs: answer(*inputs)
    tolerance: float = 1e-4

    @property
    def points(self) -> int:
        """As many as it is difficult; nbgrader's."""
        return self.difficulty


# ---- all that are declared ----


def modules(letters: str = "") -> dict[str, ModuleType]:
    """The modules of exercises by their letters. Each has a TITLE and its EXERCISES.

    Args:
        letters: only those are imported; "" for all.
    """
    names = sorted(path.stem for path in Path(__file__).parent.glob("[a-z]_*.py"))
    wanted = [name for name in names if not letters or name[0] in letters]
    return {name[0]: import_module(f"{__package__}.{name}") for name in wanted}


def find(id: str) -> Exercise:
    """The exercise of an id such as "a3".

    Raises:
        UserError: there is none.
    """
    letter = str(id)[:1]
    exercises = {one.id: one for module in modules(letter).values() for one in module.EXERCISES}
    if id in exercises:
        return exercises[id]
    options = ", ".join(exercises or (f"{letter}1" for letter in modules()))
    raise UserError(f"there is no exercise {id!r}; there are {options}")
