"""An answer judged: not yet, right, or wrong and why. Nothing an answer does gets out of here."""

import contextlib
import inspect
import io
import re
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from safeerase_lite.utils import UserError

from .comparing import Objection, as_row, brief, difference, one_line, with_article
from .exercise import Exercise, find
from .progress_file import NOT_YET, RIGHT, WRONG, note

SAMPLES = 8  # random inputs a function is tried on
GRADING_SEED = 1000  # of the inputs a grade rests on; `check` shows others
EMPHASIS = re.compile(r"(?<![\w*])\*(\w[\w ]*)\*(?![\w*])")  # Markdown's; a message is plain text


@dataclass(frozen=True)
class Verdict:
    """Not yet, right or wrong; why, in a line; and the share of the points it is worth."""

    mark: str
    message: str
    credit: float = 0.0


def check(id: str, answer: Any = ...) -> None:
    """Say whether an answer is right: ⏳ not yet, ✅, or ❌ and what is wrong.

    Never raises, whatever the answer does.
    """
    try:
        verdict = judge(find(id), answer)
        note(id, verdict.mark)
    except UserError as error:
        verdict = Verdict(WRONG, str(error))
    print(f"{id} {verdict.mark}:", EMPHASIS.sub(r"\1", verdict.message))


def score(id: str, answer: Any = ...) -> float:
    """The points of an answer, on inputs `check` does not show; for a graded cell's last line.

    Prints nothing: nbgrader takes anything on stderr for a failure.

    Raises:
        UserError: there is no such exercise.
    """
    exercise = find(id)
    return exercise.points * judge(exercise, answer, GRADING_SEED).credit


def agree(yours: Any, package: Any) -> None:
    """Print it when an answer and the package differ in what a cell shows; else print nothing."""
    if how := difference(yours, package, tolerance=1e-3):
        print(f"❌ The package does not agree: yours {how}. Please tell us.")


def judge(exercise: Exercise, answer: Any, seed: int = 0) -> Verdict:
    """An answer, compared with the right one and the known mistakes.

    Args:
        seed: of the random inputs a function is tried on.
    """
    if exercise.inputs and answer is not ... and not callable(answer):
        message = f"`{exercise.name}` should be a function; it is {with_article(answer)}."
        return Verdict(WRONG, message)
    samples = range(seed * SAMPLES, (seed + 1) * SAMPLES) if exercise.inputs else [0]
    results = {sample: _result(exercise, answer, sample) for sample in samples}
    if any(map(_unsolved, results.values())):
        return Verdict(NOT_YET, f"`{exercise.name}`, or something it uses, is still `...`.")
    mismatch = _first_difference(exercise, results, exercise.reference)
    if not mismatch:
        on = f"on {SAMPLES} random inputs." if exercise.inputs else "that is it."
        return Verdict(RIGHT, on, 1.0)
    for mistake in exercise.mistakes:
        if not _first_difference(exercise, results, mistake.answer):
            return Verdict(WRONG, mistake.message, mistake.credit)
    if exercise.inputs is None:
        return Verdict(WRONG, _unknown_value(exercise, answer))
    if message := _wrong_unit(exercise, results):
        return Verdict(WRONG, message, 0.5)
    sample, how = mismatch
    end = "" if how.endswith("?") else "."
    if not isinstance(results[sample], Objection):
        values = _inputs(exercise, sample).items()
        end += f" That is with {', '.join(f'{name} = {brief(value)}' for name, value in values)}."
    return Verdict(WRONG, f"`{exercise.name}` {how}{end}")


def _inputs(exercise: Exercise, sample: int) -> dict[str, Any]:
    """The arguments of one call, by the reference's names for them."""
    inputs = exercise.inputs(np.random.default_rng(sample))
    return dict(zip(inspect.signature(exercise.reference).parameters, inputs, strict=False))


def _first_difference(exercise: Exercise, results: dict[int, Any], other: Any) -> tuple | None:
    """The first sample on which the results differ from another answer's, and how."""
    for sample, result in results.items():
        if how := difference(result, _result(exercise, other, sample)):
            return sample, how
    return None


def _result(exercise: Exercise, answer: Any, sample: int) -> Any:
    """What is observed of a function on one sample, or the exception it raises; a value itself."""
    if exercise.inputs is None or answer is ...:
        return answer
    # Made anew every time: an answer may write into its arguments.
    inputs, untouched = _inputs(exercise, sample), _inputs(exercise, sample)
    unseen = io.StringIO()  # what is on stderr would cost a graded cell all its points
    try:
        with (
            contextlib.redirect_stdout(unseen),
            contextlib.redirect_stderr(unseen),
            warnings.catch_warnings(action="ignore"),
        ):
            result = exercise.observe(answer, *inputs.values())
        for name in inputs:
            if difference(inputs[name], untouched[name]):
                message = (
                    f"changes its argument `{name}`, and whoever called it goes on with what is "
                    "left of it. Work on a copy"
                )
                return Objection(message, result)
        return result
    except SystemExit:
        return RuntimeError("it calls exit()")
    except Exception as error:
        return ... if "ellipsis" in one_line(error) else error  # it met a `...` and stumbled


def _unsolved(result: Any) -> bool:
    """Whether a `...` is left in it, at most two levels down."""
    parts = [result, *(result.values() if type(result) is dict else ())]
    parts += [inner for part in parts if type(part) in (list, tuple) for inner in part]
    return any(part is ... for part in parts)


def _wrong_unit(exercise: Exercise, results: dict[int, Any]) -> str:
    """Names a percentage or a count where a share is required; "" when it is neither."""
    rows = [as_row(result) for result in results.values()]
    right = [as_row(_result(exercise, exercise.reference, sample)) for sample in results]
    if any(row is None for row in rows + right):
        return ""
    if [row.shape for row in rows] != [row.shape for row in right]:
        return ""
    numbers, shares = np.concatenate(rows), np.concatenate(right)
    if not np.isfinite(numbers).all() or (shares < 0).any() or (shares > 1).any():
        return ""
    if np.allclose(numbers, 100 * shares, rtol=1e-3):
        return "this is in per cent: asked for is a share, a number between 0 and 1."
    some = shares > 0
    times = numbers[some] / shares[some]
    multiples = (times > 1.5).all() and np.allclose(times, times.round(), rtol=1e-3)
    if multiples and (numbers == numbers.round()).all() and not numbers[~some].any():
        return "this is a count: a share is a count divided by how many there are."
    return ""


def _unknown_value(exercise: Exercise, answer: Any) -> str:
    options = [exercise.reference, *(mistake.answer for mistake in exercise.mistakes)]
    if all(isinstance(option, str) for option in options):
        return f"{brief(answer)} is no option; choose one of {', '.join(sorted(options))}."
    return f"{brief(answer)} is not it. The hints help."
