"""Exercises that check themselves.

A notebook of exercises, `notebooks/exercises/a_….ipynb`, has a module of the same name here that
declares its exercises. It contains the right answers: reading them is allowed, and teaches less.
"""

from .checking import agree, check, judge, score
from .exercise import Exercise, Mistake, find, modules, slip
from .progress_file import progress, solved

__all__ = [
    "Exercise", "Mistake", "agree", "check", "find", "judge", "modules", "progress", "score",
    "slip", "solved",
]  # fmt: skip
