"""Two answers compared, whatever the second one is; and either of them in a few words."""

import reprlib
from typing import Any

import numpy as np

_brief = reprlib.Repr()
_brief.maxlist = _brief.maxtuple = _brief.maxset = _brief.maxfrozenset = _brief.maxdict = 12
_brief.maxstring = _brief.maxother = 80
NUMBERS = 24  # a longer array is told by its shape

RESULT = ""  # the key of what an answer returns, beside what else is looked at
PLAIN = int | float | str | bool | None


class Objection(Exception):
    """What is wrong with an answer whatever it says; its text goes on from the answer's name.

    Attributes:
        said: what the answer says, if it says something.
    """

    def __init__(self, text: str, said: Any = None):
        super().__init__(text)
        self.said = said


def difference(answer: Any, right: Any, tolerance: float = 1e-4) -> str:
    """How an answer differs from the right one, in a few words; "" when it does not.

    A number may come as Python's, NumPy's or a tensor; a tensor of several as a tensor alone. Where
    a set is right, order, capitals and the container do not matter. An exception stands for itself:
    two agree when they are of one type and say the same.
    """
    if answer is None and right is not None:
        return "gives None: does it end in `return`?"
    try:
        return _difference(answer, right, tolerance)
    except Exception as error:  # an answer may be any object, and fail in any way
        return f"gives {a(answer)}, which cannot be compared ({type(error).__name__})"


def _difference(answer: Any, right: Any, tolerance: float) -> str:
    if isinstance(answer, Exception):
        same = type(answer) is type(right) and one_line(answer) == one_line(right)
        if same and isinstance(answer, Objection):
            same = not _difference(answer.said, right.said, tolerance)
        raised = "" if isinstance(answer, Objection) else f"raises {type(answer).__name__}: "
        return "" if same else raised + one_line(answer)
    if isinstance(right, str):
        told = isinstance(answer, str) and answer.strip().casefold() == right.strip().casefold()
        return "" if told else f"gives {brief(answer)}, should give {brief(right)}"
    if isinstance(right, dict):
        return _of_dicts(answer, right, tolerance)
    if isinstance(right, set | frozenset):
        return _of_sets(answer, right)
    wanted = _numbers(right)
    if hasattr(right, "detach") and right.ndim and not hasattr(answer, "detach"):
        return f"gives {a(answer)}, should give a tensor"
    if wanted is not None:
        return _of_numbers(answer, wanted, tolerance)
    if isinstance(right, list | tuple):
        return _of_sequences(answer, right, tolerance)
    return "" if answer == right else f"gives {brief(answer)}, should give {brief(right)}"


def _of_dicts(answer: Any, right: dict, tolerance: float) -> str:
    if not isinstance(answer, dict):
        return f"gives {a(answer)}, should give a dict"
    if set(answer) != set(right):
        return f"gives the keys {brief(list(answer))}, should give {brief(list(right))}"
    parts = ((key, _difference(answer[key], right[key], tolerance)) for key in right)
    told = (f"at {brief(key)} {how}" if key != RESULT else how for key, how in parts if how)
    return next(told, "")


def _of_sets(answer: Any, right: set | frozenset) -> str:
    if not isinstance(answer, set | frozenset | list | tuple):
        return f"gives {a(answer)}, should give a set"
    answer, right = ({_folded(one) for one in some} for some in (answer, right))
    told = {"wrongly holds {}": answer - right, "lacks {}": right - answer}
    return " and ".join(how.format(brief(min(odd, key=repr))) for how, odd in told.items() if odd)


def _folded(one: Any) -> Any:
    return one.strip().casefold() if isinstance(one, str) else one


def _of_sequences(answer: Any, right: list | tuple, tolerance: float) -> str:
    if not isinstance(answer, list | tuple):
        return f"gives {a(answer)}, should give a {type(right).__name__} of {len(right)}"
    if len(answer) != len(right):
        return f"gives {len(answer)} parts, should give {len(right)}"
    pairs = enumerate(zip(answer, right, strict=True))
    parts = ((place, _difference(*pair, tolerance)) for place, pair in pairs)
    told = (f"in part {place + 1} of {len(right)} {how}" for place, how in parts if how)
    return next(told, "")


def _of_numbers(answer: Any, wanted: np.ndarray, tolerance: float) -> str:
    found = _numbers(answer)
    if found is None:
        return f"gives {a(answer)}, should give {_kind(wanted)}"
    if found.shape != wanted.shape:
        return f"gives the shape {found.shape}, should give {wanted.shape}"
    if (found.dtype == bool) != (wanted.dtype == bool) and wanted.size:
        return f"gives the type {found.dtype}, should give {wanted.dtype}"
    if np.isnan(found).any() and not np.isnan(wanted).any():
        return "gives nan (not a number)"
    if np.allclose(found, wanted, rtol=tolerance, atol=tolerance / 100, equal_nan=True):
        return ""
    return f"gives {brief(found)}, should give {brief(wanted)}"


def _numbers(thing: Any) -> np.ndarray | None:
    """A number, array, tensor or list of numbers as an array; None for anything else."""
    if hasattr(thing, "detach"):
        thing = thing.detach().cpu()
        thing = (thing.float() if thing.is_floating_point() else thing).numpy()
    if isinstance(thing, str | set | frozenset | dict):
        return None
    try:
        array = np.asarray(thing)
    except ValueError:  # parts of several shapes
        return None
    except RuntimeError:  # parts with a gradient
        if isinstance(thing, list | tuple):
            return None
        raise
    return array if array.dtype.kind in "biuf" else None


def in_a_row(thing: Any) -> np.ndarray | None:
    """The numbers of a number, of several or of a dict, as one row; None for anything else."""
    try:
        if isinstance(thing, dict):
            thing = [thing[key] for key in sorted(thing, key=repr)]
        numbers = _numbers(thing)
    except Exception:  # as in `difference`
        return None
    return None if numbers is None or numbers.dtype == bool else numbers.astype(float).ravel()


def _kind(numbers: np.ndarray) -> str:
    what = "truth" if numbers.dtype == bool else "number"
    return f"one {what}" if numbers.ndim == 0 else f"{what}s of the shape {numbers.shape}"


# ---- in a few words ----


def a(thing: Any) -> str:
    """`a list`, `an int`."""
    if thing is None:
        return "None"
    name = type(thing).__name__.replace("ndarray", "array")
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def brief(thing: Any) -> str:
    """A value on one short line; an array of many numbers by its shape."""
    try:
        if type(thing) in (list, tuple) and not all(isinstance(part, PLAIN) for part in thing):
            return one_line(f"[{', '.join(map(brief, thing))}]", 120)
        numbers = None if isinstance(thing, PLAIN | list | tuple) else _numbers(thing)
        if numbers is None:
            return one_line(_brief.repr(thing), 120)
        if numbers.size > NUMBERS:
            return f"<{numbers.dtype}, shape {numbers.shape}>"
        if numbers.dtype.kind == "f":
            numbers = np.array([float(f"{number:.4g}") for number in numbers.flat]).reshape(
                numbers.shape
            )
        return str(numbers.tolist())
    except Exception:  # its repr fails
        return a(thing)


def one_line(message: Any, limit: int = 160) -> str:
    """The first line of a message, cut to a length."""
    try:
        text = " ".join(str(message).strip().splitlines()[:1])
    except Exception:  # its str fails
        text = type(message).__name__
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
