"""Every mistake of every exercise under several seeds, and whatever else may be handed in."""

import sys

import numpy as np
import pytest
import torch

from safeerase_lite import exercises
from safeerase_lite.exercises import check, judge, score
from safeerase_lite.exercises.checking import GRADING_SEED
from safeerase_lite.exercises.progress_file import RIGHT, WRONG

EVERY = [e for module in exercises.modules().values() for e in module.EXERCISES]
every = pytest.mark.parametrize("exercise", EVERY, ids=lambda exercise: exercise.id)


@pytest.fixture(autouse=True)
def own_record(tmp_path, monkeypatch):
    monkeypatch.setenv("SAFEERASE_PROGRESS", str(tmp_path / "progress.json"))


@every
@pytest.mark.parametrize("seed", [0, GRADING_SEED, 7])
def test_the_reference_is_right_and_every_mistake_is_named(exercise, seed):
    """With what `check` tries, with what a grade rests on, and with another seed."""
    assert judge(exercise, exercise.reference, seed).mark == RIGHT
    for mistake in exercise.mistakes:
        verdict = judge(exercise, mistake.answer, seed)
        assert (verdict.mark, verdict.message) == (WRONG, mistake.message)
        assert verdict.credit == mistake.credit


@every
def test_the_points_are_the_verdict_s(exercise):
    assert score(exercise.id, exercise.reference) == exercise.points
    for mistake in exercise.mistakes:
        assert score(exercise.id, mistake.answer) == mistake.credit * exercise.points


class Hostile:
    """Fails at whatever is done with it."""

    def _fail(self, *args, **kwargs):
        raise RuntimeError("two\nlines")

    __eq__ = __repr__ = __str__ = __len__ = __iter__ = __array__ = __bool__ = __call__ = _fail
    __hash__ = None


def loud(*inputs):
    print("said")
    print("warned", file=sys.stderr)
    return 1


def recursive(*inputs):
    return recursive(*inputs)


def spoiling(*inputs):
    for thing in inputs:
        if isinstance(thing, torch.Tensor):
            thing.zero_()
        elif isinstance(thing, list):
            thing.clear()


BAD = [
    *(None, 3, 2.5, float("nan"), True, "text", b"", [], {}, set(), object(), Hostile(), int),
    *(torch.ones(2, 3), np.array([None]), [[1], [2, 3]], [torch.ones(2), "x"], {"a": 1}),
    ValueError("not raised"),
]
FUNCTIONS = [
    *[(lambda *inputs, bad=bad: bad) for bad in BAD],
    *(loud, recursive, spoiling, lambda: 1),
    lambda *inputs: 1 / 0,
    lambda *inputs: sys.exit(3),
    lambda *inputs: inputs[0],
    lambda *inputs: [inputs, inputs],
    lambda *inputs: Hostile().anything,
]


@every
def test_nothing_that_is_handed_in_gets_through(exercise, capsys):
    for bad in [*BAD, *FUNCTIONS] if exercise.inputs else BAD:
        check(exercise.id, bad)
        printed = capsys.readouterr()
        assert printed.out.startswith(f"{exercise.id} {WRONG}: ")
        assert printed.err == "" and printed.out.count("\n") == 1
        assert score(exercise.id, bad) == 0
        assert capsys.readouterr() == ("", "")
    assert judge(exercise, exercise.reference).mark == RIGHT
