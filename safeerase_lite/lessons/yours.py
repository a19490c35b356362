"""*Write it yourself*, checked as an exercise is: not yet, right, or what is wrong."""

from collections.abc import Callable
from typing import Any

NOT_YET, RIGHT, WRONG = "⏳ not yet", "✅ right", "❌"


def check_yours(answer: Any, **demands: Callable[[Any], bool]) -> bool:
    """Hold an answer of a reader's own against what was asked for; prints the first that fails.

    Never raises, whatever the answer is.

    Args:
        answer: None or ...: not written yet.
        demands: what is asked for, as `words_with_underscores` → whether the answer does so. They
            are tried in order, so a later one may rely on those before it.

    Returns:
        Whether all hold.
    """
    if answer is None or answer is ...:
        print(f"{NOT_YET}: write it, and run this cell again")
        return False
    for demand, holds in demands.items():
        words = demand.replace("_", " ")
        try:
            if not holds(answer):
                print(f"{WRONG} not so: {words}")
                return False
        except Exception as error:  # an answer may be any object, and fail in any way
            print(f"{WRONG} {type(error).__name__} while checking: {words} ({error})")
            return False
    print(RIGHT)
    return True
