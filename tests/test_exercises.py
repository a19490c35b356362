"""Every exercise knows its right answer and names the wrong ones, whatever it is handed."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from safeerase_lite import exercises
from safeerase_lite.errors import UserError
from safeerase_lite.exercises import Exercise, Mistake, check, progress, record, score, solved
from safeerase_lite.exercises.comparing import brief, difference
from safeerase_lite.exercises.judging import NOT_YET, RIGHT, WRONG, judge

EVERY = [e for module in exercises.modules().values() for e in module.EXERCISES]
SEEDS = (0, exercises.FRESH, 7)  # what `check` tries, what a grade rests on, and another

every = pytest.mark.parametrize("exercise", EVERY, ids=lambda exercise: exercise.id)


@pytest.fixture(autouse=True)
def own_record(tmp_path, monkeypatch):
    """A folder, a record and a kernel's memory of its own."""
    monkeypatch.delenv("SAFEERASE_PROGRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(record, "_checked", {})
    monkeypatch.setattr(record, "_unwritten", {})
    return tmp_path / record.FILE


def says(capsys, id, answer):
    check(id, answer)
    said = capsys.readouterr()
    assert said.err == "" and said.out.count("\n") == 1
    return said.out


# ---- every exercise ----


def test_a_notebook_has_five_to_eight_exercises_for_30_to_50_minutes():
    for letter, module in exercises.modules().items():
        numbered = [f"{letter}{n}" for n in range(1, len(module.EXERCISES) + 1)]
        assert [exercise.id for exercise in module.EXERCISES] == numbered
        assert 5 <= len(numbered) <= 8
        assert 30 <= sum(exercise.minutes for exercise in module.EXERCISES) <= 50


@every
def test_the_declaration_is_within_its_bounds(exercise):
    assert 1 <= exercise.difficulty <= 5 and 1 <= exercise.importance <= 5
    assert exercise.points == int(exercise.points) > 0
    assert exercise.name.isidentifier()
    assert len(exercise.mistakes) >= 3
    assert len({mistake.message for mistake in exercise.mistakes}) == len(exercise.mistakes)
    assert all(0 <= mistake.credit < 1 and mistake.message for mistake in exercise.mistakes)


@every
def test_a_stub_is_not_yet(exercise):
    stubs = [...]
    if exercise.inputs:
        stubs += [lambda *inputs: ..., lambda *inputs: (..., ...), lambda *inputs: 1 + ...]
    for stub in stubs:
        assert judge(exercise, stub).mark == NOT_YET
        assert score(exercise.id, stub) == 0


@every
@pytest.mark.parametrize("seed", SEEDS)
def test_the_reference_is_right_and_every_mistake_is_told_its_own_name(exercise, seed):
    assert judge(exercise, exercise.reference, seed).mark == RIGHT
    for mistake in exercise.mistakes:
        verdict = judge(exercise, mistake.answer, seed)
        assert (verdict.mark, verdict.message) == (WRONG, mistake.message)


@every
def test_the_points_are_the_verdict_s(exercise):
    assert score(exercise.id, exercise.reference) == exercise.points
    for mistake in exercise.mistakes:
        assert score(exercise.id, mistake.answer) == mistake.credit * exercise.points


@every
def test_what_is_right_once_is_not_right_always(exercise):
    """No hard-coded answer passes."""
    if exercise.inputs is None:
        return
    once = exercise.reference(*exercise.inputs(np.random.default_rng(0)))
    assert judge(exercise, lambda *inputs: once).mark == WRONG


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


@pytest.mark.slow
@every
def test_nothing_that_is_handed_in_gets_through(exercise, capsys):
    for bad in [*BAD, *FUNCTIONS] if exercise.inputs else BAD:
        assert says(capsys, exercise.id, bad).startswith(f"{exercise.id} {WRONG}: ")
        assert score(exercise.id, bad) == 0
        assert capsys.readouterr() == ("", "")
    assert judge(exercise, exercise.reference).mark == RIGHT


# ---- what a student reads ----

DOUBLE = Exercise(
    id="z1", title="Twice", name="double", difficulty=1, importance=1, minutes=1, points=2,
    reference=lambda number: 2 * number,
    mistakes=(Mistake(lambda number: number**2, "squared", credit=0.5),),
    inputs=lambda rng: (int(rng.integers(3, 9)),),
)  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda number: number * number, "squared"),
        (lambda number: number + 1, "with number = 8, `double` gives 9, should give 16."),
        (lambda number: None, "with number = 8, `double` gives None: does it end in `return`?"),
        (lambda number: [number], "`double` gives the shape (1,), should give ()."),
        (lambda number: "16", "`double` gives a str, should give one number."),
        (lambda number: number / 0, "`double` raises ZeroDivisionError: division by zero."),
        (lambda number: True, "`double` gives the type bool, should give int64."),
        (lambda: 1, "`double` raises TypeError: "),
        (16, "`double` should be a function; it is an int."),
        (float("nan"), "`double` should be a function; it is a float."),
        (lambda number: float("nan"), "`double` gives nan (not a number)."),
        (lambda number: sys.exit(), "`double` raises RuntimeError: it calls exit()."),
    ],
)
def test_the_message_says_what_where_and_what_it_should_be(answer, told):
    verdict = judge(DOUBLE, answer)
    assert verdict.mark == WRONG and told in verdict.message


def test_an_answer_may_come_in_any_kind_of_number():
    for kind in (
        float,
        np.float32,
        torch.tensor,
        lambda n: torch.tensor(float(n)).requires_grad_(),
    ):
        assert judge(DOUBLE, lambda number, kind=kind: kind(2 * number)).mark == RIGHT


def test_a_loop_without_an_end_can_be_stopped():
    def interrupted(number):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judge(DOUBLE, interrupted)


@pytest.mark.parametrize(
    ("answer", "right", "how"),
    [
        ({1, 2}, {2, 1}, ""),
        ({1}, {2}, "wrongly holds 1 and lacks 2"),
        ({3}, {1, 2, 3}, "lacks 1"),
        ([1], {1}, "gives a list, should give a set"),
        (" Yes", "yes", ""),
        ("no", "yes", "gives 'no', should give 'yes'"),
        ([1, 2], (1, 2), ""),
        ({"a": 1, "b": 2.0}, {"a": 1, "b": 2}, ""),
        ({"a": 1}, {"b": 1}, "gives the keys ['a'], should give ['b']"),
        ({"a": 1}, {"a": 2}, "at 'a' gives 1, should give 2"),
        (1, {"a": 2}, "gives an int, should give a dict"),
        (("x", [1]), ("x", [1]), ""),
        (("x", [1]), ("x", [2]), "in part 1 gives [1], should give [2]"),
        (["x"], ["x", "y"], "gives 1 parts, should give 2"),
        (1.00001, 1, ""),
        (1.001, 1, "gives 1.001, should give 1"),
        (None, None, ""),
    ],
)
def test_values_of_many_kinds_are_compared(answer, right, how):
    assert difference(answer, right) == how


def test_a_thing_is_brief():
    assert brief(torch.tensor([1 / 3, 2])) == "[0.3333, 2.0]"
    assert brief(torch.zeros(3, 9, 9)) == "<float32, shape (3, 9, 9)>"
    assert brief([(torch.zeros(30), "x")]) == "[[<float32, shape (30,)>, 'x']]"
    assert brief(Hostile()) == "a Hostile" and len(brief("long " * 100)) < 130


def test_an_exercise_that_is_not_there_is_named(capsys):
    assert says(capsys, "a99", 1).startswith(
        f"a99 {WRONG}: there is no exercise 'a99'; there are a1"
    )
    assert "'?'; there are a1" in says(capsys, "?", 1)
    check(None, 1)
    with pytest.raises(UserError, match="no exercise 'a99'"):
        score("a99", 1)


# ---- progress ----


def right(id):
    return exercises.find(id).reference


def test_what_is_done_is_kept_and_stays_done(own_record, capsys):
    check("a1", lambda *inputs: 3)
    check("a1", right("a1"))
    check("a1", ...)
    check("a1", None)
    check("a3", None)
    capsys.readouterr()
    table = progress("a")
    assert list(table.loc["a1", ["done", "tries"]]) == [RIGHT, 3]
    assert list(table.loc["a3", ["done", "tries"]]) == [WRONG, 1]
    assert list(table.loc["a2", ["done", "tries"]]) == [NOT_YET, 0]
    assert capsys.readouterr().out == f"1 of {len(table)} done.\n"
    assert [path.name for path in own_record.parent.iterdir()] == [record.FILE]


def test_it_survives_a_restart(own_record):
    check("a1", right("a1"))
    said = subprocess.run(
        [sys.executable, "-c", "from safeerase_lite.exercises import progress; progress('a')"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert said.stdout.startswith("1 of ")


def test_a_cell_that_builds_on_an_answer_waits_for_this_kernel_s(own_record, capsys):
    own_record.write_text('{"a1": {"done": true, "tries": 1}}')
    assert not solved("a1", "a2")
    assert (
        capsys.readouterr().out == "This cell waits for a1, a2: solve, check, and run it again.\n"
    )
    check("a1", right("a1"))
    assert solved("a1")
    check("a1", ...)
    assert not solved("a1")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a1": 3}', '{"a1": {"done": true}}', "\xff"])
def test_a_broken_record_is_begun_anew(own_record, text):
    own_record.write_bytes(text.encode("latin-1"))
    check("a1", right("a1"))
    assert json.loads(own_record.read_text()) == {"a1": {"done": True, "tries": 1}}


def test_a_folder_that_cannot_be_written_is_no_crash(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SAFEERASE_PROGRESS", str(tmp_path / "file" / "record"))
    check("a1", right("a1"))
    check("a2", None)
    capsys.readouterr()
    table = progress("a")
    assert list(table["done"][:2]) == [RIGHT, WRONG]
    assert "cannot be written: a restart forgets it" in capsys.readouterr().out
