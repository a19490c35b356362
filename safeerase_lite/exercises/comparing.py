"""Two answers compared, whatever the second one is; and either of them in a few words."""

import reprlib
from typing import Any

import numpy as np

RESULT = ""  # the key of what an answer returns, beside what else is compared
PLAIN = int | float | str | bool | None
MAX_NUMBERS = 24  # a longer array is shown by its shape

_short = reprlib.Repr()
_short.maxlist = _short.maxtuple = _short.maxset = _short.maxfrozenset = _short.maxdict = 12
_short.maxstring = _short.maxother = 80


class Objection(Exception):
    """What is wrong with an answer whatever it returns; the text goes on from the answer's name."""

    def __init__(self, text: str, result: Any = None):
        super().__init__(text)
        self.result = result


def difference(answer: Any, right: Any, tolerance: float = 1e-4) -> str:
    """How an answer differs from the right one, in a few words; "" when it does not.

    A number may come as Python's, NumPy's or a tensor; a tensor of several as a tensor alone. Where
    a set is right, order, capitals and the container do not matter. An exception is a value:
    two agree when they are of one type and have one message.
    """
    if answer is None and right is not None:
        return "gives None: does it end in `return`?"
    try:
        return _difference(answer, right, tolerance)
    except Exception as error:  # an answer may be any object, and fail in any way
        return f"gives {with_article(answer)}, which cannot be compared ({type(error).__name__})"


def _difference(answer: Any, right: Any, tolerance: float) -> str:
    if isinstance(answer, Exception):
        objects = isinstance(answer, Objection)
        same = type(answer) is type(right) and one_line(answer) == one_line(right)
        if same and objects:
            same = not _difference(answer.result, right.result, tolerance)
        raises = "" if objects else f"raises {type(answer).__name__}: "
        return "" if same else raises + one_line(answer)
    if isinstance(right, dict):
        return _of_dicts(answer, right, tolerance)
    if isinstance(right, set | frozenset):
        return _of_sets(answer, right)
    numbers = _numbers(right)
    if hasattr(right, "detach") and right.ndim and not hasattr(answer, "detach"):
        return f"gives {with_article(answer)}, should give a tensor"
    if numbers is not None:
        return _of_numbers(answer, numbers, tolerance)
    if isinstance(right, list | tuple):
        return _of_sequences(answer, right, tolerance)
    same = isinstance(answer, str) == isinstance(right, str) and _folded(answer) == _folded(right)
    return "" if same else _gives(answer, right)


def _gives(answer: Any, right: Any) -> str:
    return f"gives {brief(answer)}, should give {brief(right)}"


def _of_dicts(answer: Any, right: dict, tolerance: float) -> str:
    if not isinstance(answer, dict):
        return f"gives {with_article(answer)}, should give a dict"
    if set(answer) != set(right):
        return f"gives the keys {brief(list(answer))}, should give {brief(list(right))}"
    for key in right:
        if how := _difference(answer[key], right[key], tolerance):
            return how if key == RESULT else f"at {brief(key)} {how}"
    return ""


def _of_sets(answer: Any, right: set | frozenset) -> str:
    if not isinstance(answer, set | frozenset | list | tuple):
        return f"gives {with_article(answer)}, should give a set"
    answer, right = ({_folded(one) for one in some} for some in (answer, right))
    surplus = {"wrongly holds": answer - right, "lacks": right - answer}
    return " and ".join(f"{how} {brief(min(s, key=repr))}" for how, s in surplus.items() if s)


def _of_sequences(answer: Any, right: list | tuple, tolerance: float) -> str:
    if not isinstance(answer, list | tuple):
        kind = f"{type(right).__name__} of {len(right)}"
        return f"gives {with_article(answer)}, should give a {kind}"
    if len(answer) != len(right):
        return f"gives {len(answer)} parts, should give {len(right)}"
    for place, pair in enumerate(zip(answer, right, strict=True), 1):
        if how := _difference(*pair, tolerance):
            return f"in part {place} of {len(right)} {how}"
    return ""


def _of_numbers(answer: Any, right: np.ndarray, tolerance: float) -> str:
    numbers, is_truth = _numbers(answer), right.dtype == bool
    if numbers is None:
        kind = "truth" if is_truth else "number"
        wanted = f"{kind}s of the shape {right.shape}" if right.ndim else f"one {kind}"
        return f"gives {with_article(answer)}, should give {wanted}"
    if numbers.shape != right.shape:
        return f"gives the shape {numbers.shape}, should give {right.shape}"
    if (numbers.dtype == bool) != is_truth and right.size:
        return f"gives the type {numbers.dtype}, should give {right.dtype}"
    if np.isnan(numbers).any() and not np.isnan(right).any():
        return "gives nan (not a number)"
    if np.allclose(numbers, right, rtol=tolerance, atol=tolerance / 100, equal_nan=True):
        return ""
    return _gives(numbers, right)


def _folded(one: Any) -> Any:
    """A text without what does not matter in it: capitals and outer spaces."""
    return one.strip().casefold() if isinstance(one, str) else one


def _numbers(value: Any) -> np.ndarray | None:
    """A number, array, tensor or list of numbers as an array; None for anything else."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()
    if isinstance(value, list | tuple):
        try:
            value = np.array(value)
        except (ValueError, RuntimeError):  # parts of several shapes, or with a gradient
            return None
    array = np.asarray(value)
    return array if array.dtype.kind in "biuf" else None


def as_row(value: Any) -> np.ndarray | None:
    """The numbers of a number, of several or of a dict, as one row; None for anything else."""
    try:
        if isinstance(value, dict):
            value = [value[key] for key in sorted(value, key=repr)]
        numbers = _numbers(value)
    except Exception:  # as in `difference`
        return None
    return None if numbers is None or numbers.dtype == bool else numbers.astype(float).ravel()


# ---- in a few words ----


def with_article(value: Any) -> str:
    """`a list`, `an int`."""
    if value is None:
        return "None"
    name = type(value).__name__.replace("ndarray", "array")
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def brief(value: Any) -> str:
    """A value on one short line; an array of many numbers by its shape."""
    try:
        if type(value) in (list, tuple) and not all(isinstance(part, PLAIN) for part in value):
            return one_line(f"[{', '.join(map(brief, value))}]", 120)
        numbers = None if isinstance(value, PLAIN | list | tuple) else _numbers(value)
        if numbers is None:
            return one_line(_short.repr(value), 120)
        if numbers.size > MAX_NUMBERS:
            return f"<{numbers.dtype}, shape {numbers.shape}>"
        if numbers.dtype.kind == "f":
            numbers = np.vectorize(lambda number: float(f"{number:.4g}"), otypes=[float])(numbers)
        return str(numbers.tolist())
    except Exception:  # its repr fails
        return with_article(value)


def one_line(message: Any, limit: int = 160) -> str:
    """The first line of a message, cut to a length."""
    try:
        text = " ".join(str(message).strip().splitlines()[:1])
    except Exception:  # its str fails
        text = type(message).__name__
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
