"""An exercise as a record: its right answer, and the wrong ones it knows by name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Mistake:
    """A wrong answer people give, and what they are told.

    Attributes:
        answer: what they hand in: a function like the reference, or a value.
        message: names the mistake, not only the fact, and leads on.
        credit: the share of the points it is still worth, 0 to 1.
    """

    answer: Any
    message: str
    credit: float = 0.0


def call(answer: Callable, *inputs) -> Any:
    """What is looked at of a function, unless an exercise looks at something else."""
    return answer(*inputs)


@dataclass(frozen=True)
class Exercise:
    """What a student is asked for, and how it is judged.

    An answer is right when it says what `reference` says; when it says what one of the `mistakes`
    says, that one is named. With `inputs` answers are functions, compared on several random inputs
    (no constant passes); without, they are values: a number, a choice, a set.

    Attributes:
        id: the notebook's letter and a number, such as a3.
        title: a few words.
        name: the variable that holds the answer in the notebook.
        difficulty, importance: 1 to 5.
        minutes: for a student who has read the lesson.
        outcome: which option of the prediction comes true.
        reference: a right answer.
        mistakes: at least three.
        inputs: draws the arguments of one call; all that is random in them comes from the
            generator it is given.
        observe: what is compared, of an answer and its inputs. By default what the call returns;
            a gradient, for instance, is another thing to look at.
        tolerance: how far numbers may differ, relative to the right one.
    """

    id: str
    title: str
    name: str
    difficulty: int
    importance: int
    minutes: int
    outcome: str
    reference: Any
    mistakes: tuple[Mistake, ...]
    inputs: Callable[[np.random.Generator], tuple] | None = None
    observe: Callable[..., Any] = call
    tolerance: float = 1e-4

    @property
    def points(self) -> int:
        """As many as it is difficult; nbgrader's."""
        return self.difficulty
