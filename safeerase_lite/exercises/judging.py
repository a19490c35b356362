"""An answer judged: not yet, right, or wrong and why. Nothing an answer does gets out of here."""

import contextlib
import inspect
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from safeerase_lite.exercises.comparing import Objection, a, brief, difference, in_a_row, one_line
from safeerase_lite.exercises.exercise import Exercise

NOT_YET, RIGHT, WRONG = "⏳ not yet", "✅ right", "❌ wrong"  # words too: not every font has signs
DRAWS = 8


@dataclass(frozen=True)
class Verdict:
    """Not yet, right or wrong; why, in a line; and the share of the points it is worth."""

    mark: str
    message: str
    credit: float = 0.0


def judge(exercise: Exercise, answer: Any, seed: int = 0) -> Verdict:
    """An answer, compared with the right one and the known mistakes.

    Args:
        seed: draws the inputs a function is tried on.
    """
    draws = [0] if exercise.inputs is None else range(seed * DRAWS, (seed + 1) * DRAWS)
    if exercise.inputs and answer is not ... and not callable(answer):
        return Verdict(WRONG, f"`{exercise.name}` should be a function; it is {a(answer)}.")
    said = {draw: _said(exercise, answer, draw) for draw in draws}
    if any(map(_unsolved, said.values())):
        return Verdict(NOT_YET, f"`{exercise.name}`, or something it uses, is still `...`.")
    found = _first_difference(exercise, said, exercise.reference)
    if not found:
        on = f"on {DRAWS} random inputs." if exercise.inputs else "that is it."
        return Verdict(RIGHT, on, 1.0)
    for mistake in exercise.mistakes:
        if not _first_difference(exercise, said, mistake.answer):
            return Verdict(WRONG, mistake.message, mistake.credit)
    if exercise.inputs is None:
        return Verdict(WRONG, _no_such_value(exercise, answer))
    if slip := _no_share(exercise, said):
        return Verdict(WRONG, slip, 0.5)
    draw, how = found
    end = "" if how.endswith("?") else "."
    on = "" if isinstance(said[draw], Objection) else f" That is with {_inputs(exercise, draw)}."
    return Verdict(WRONG, f"`{exercise.name}` {how}{end}{on}")


def _first_difference(exercise: Exercise, said: dict[int, Any], other: Any) -> tuple | None:
    """The first draw where what was said differs from what the other answer says, and how."""
    for draw, one in said.items():
        how = difference(one, _said(exercise, other, draw), exercise.tolerance)
        if how:
            return draw, how
    return None


def _said(exercise: Exercise, answer: Any, draw: int) -> Any:
    """What is observed of an answer on one draw, or the exception it raises; a value as it is. The
    inputs are drawn anew every time: an answer may write into its own."""
    if exercise.inputs is None or answer is ...:
        return answer
    inputs, fresh = (exercise.inputs(np.random.default_rng(draw)) for _ in "ab")
    try:
        with _silence():
            said = exercise.observe(answer, *inputs)
        changed = _overwritten(exercise, inputs, fresh)
        return Objection(changed, said) if changed else said
    except SystemExit:
        return RuntimeError("it calls exit()")
    except Exception as error:
        return ... if "ellipsis" in one_line(error) else error  # it met a `...` and stumbled


def _overwritten(exercise: Exercise, inputs: tuple, fresh: tuple) -> str:
    """What to say of an answer that has changed its arguments; "" of any other."""
    for name, now, before in zip(_names(exercise), inputs, fresh, strict=False):
        if difference(now, before):
            return (
                f"changes its argument `{name}`, and whoever called it goes on with what is left "
                "of it. Work on a copy"
            )
    return ""


def _no_share(exercise: Exercise, said: dict[int, Any]) -> str:
    """Names a percentage or a count where a share is asked; "" when there is nothing to name."""
    pairs = [
        (in_a_row(one), in_a_row(_said(exercise, exercise.reference, draw)))
        for draw, one in said.items()
    ]
    if any(one is None or right is None or one.shape != right.shape for one, right in pairs):
        return ""
    if any((right < 0).any() or (right > 1).any() for _, right in pairs):
        return ""
    if all(np.allclose(one, 100 * right, rtol=1e-3) for one, right in pairs):
        return "this is in per cent: asked for is a share, a number between 0 and 1."
    if all(_counted(one, right) for one, right in pairs):
        return "this is a count: a share is a count divided by how many there are."
    return ""


def _counted(found: np.ndarray, shares: np.ndarray) -> bool:
    """Whether these are whole numbers, and whole multiples of the shares."""
    some = shares > 0
    times = found[some] / shares[some]
    whole = np.isfinite(found).all() and (found == found.round()).all() and not found[~some].any()
    return bool(whole and (times > 1.5).all() and np.allclose(times, times.round(), rtol=1e-3))


def _no_such_value(exercise: Exercise, answer: Any) -> str:
    options = [exercise.reference, *(mistake.answer for mistake in exercise.mistakes)]
    if all(isinstance(option, str) for option in options):
        return f"{brief(answer)} is no option; choose one of {', '.join(sorted(options))}."
    return f"{brief(answer)} is not it. The hints help."


def _unsolved(answer: Any) -> bool:
    parts = [answer, *(answer.values() if type(answer) is dict else ())]
    parts += [one for part in parts if type(part) in (list, tuple) for one in part]
    return any(part is ... for part in parts)


def _inputs(exercise: Exercise, draw: int) -> str:
    """The arguments of a draw by the reference's names for them."""
    inputs = exercise.inputs(np.random.default_rng(draw))
    pairs = zip(_names(exercise), inputs, strict=False)
    return ", ".join(f"{name} = {brief(thing)}" for name, thing in pairs)


def _names(exercise: Exercise) -> list[str]:
    return list(inspect.signature(exercise.reference).parameters)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Nothing printed, nothing warned: on stderr it would cost a graded cell all its points."""
    said = io.StringIO()
    with (
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield
