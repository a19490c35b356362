"""Every exercise knows its right answer and names the wrong ones, whatever it is handed."""

import json
import random
import sys

import numpy as np
import pytest
import torch

from safeerase_lite import exercises
from safeerase_lite.exercises import (
    Exercise,
    agree,
    check,
    judge,
    progress,
    progress_file,
    score,
    slip,
    solved,
)
from safeerase_lite.exercises.checking import GRADING_SEED
from safeerase_lite.exercises.comparing import brief, difference
from safeerase_lite.exercises.progress_file import NOT_YET, RIGHT, WRONG
from safeerase_lite.utils import UserError

EVERY = [e for module in exercises.modules().values() for e in module.EXERCISES]
every = pytest.mark.parametrize("exercise", EVERY, ids=lambda exercise: exercise.id)


@pytest.fixture(autouse=True)
def own_record(tmp_path, monkeypatch):
    """A folder, a record and a kernel's memory of its own."""
    monkeypatch.delenv("SAFEERASE_PROGRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(progress_file, "_last_marks", {})
    monkeypatch.setattr(progress_file, "_unwritten", {})
    return tmp_path / progress_file.FILE


def says(capsys, id, answer):
    check(id, answer)
    printed = capsys.readouterr()
    assert printed.err == "" and printed.out.count("\n") == 1
    return printed.out


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
    assert exercise.outcome
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
def test_the_reference_is_right_and_every_mistake_is_named_and_scored(exercise):
    """On the inputs a grade rests on; `tests/nightly` takes others as well."""
    assert judge(exercise, exercise.reference, GRADING_SEED).mark == RIGHT
    for mistake in exercise.mistakes:
        verdict = judge(exercise, mistake.answer, GRADING_SEED)
        assert (verdict.mark, verdict.message) == (WRONG, mistake.message)
        assert verdict.credit == mistake.credit


def test_the_points_are_the_share_that_the_verdict_gives():
    exercise = exercises.find("a1")
    assert score("a1", exercise.reference) == exercise.points
    for mistake in exercise.mistakes:
        assert score("a1", mistake.answer) == mistake.credit * exercise.points


@every
def test_what_is_right_once_is_not_right_always(exercise):
    """No hard-coded answer passes."""
    if exercise.inputs is None:
        return
    once = exercise.reference(*exercise.inputs(np.random.default_rng(0)))
    assert judge(exercise, lambda *inputs: once).mark == WRONG


# ---- what a student reads ----

DOUBLE = Exercise(
    id="z1", name="double", title="Twice", difficulty=2, importance=1, minutes=1, outcome="",
    reference=lambda number: 2 * number,
    mistakes=(slip(lambda number: number**2, "squared"),),
    inputs=lambda rng: (int(rng.integers(3, 9)),),
)  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda number: number * number, "squared"),
        (lambda number: number + 1, "`double` gives 9, should give 16. That is with number = 8."),
        (lambda number: None, "`double` gives None: does it end in `return`? That is with number"),
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
def test_the_message_says_what_where_and_what_it_should_be(answer, message):
    verdict = judge(DOUBLE, answer)
    assert verdict.mark == WRONG and message in verdict.message


def test_an_answer_may_come_in_any_kind_of_number():
    for kind in (
        float,
        np.float32,
        torch.tensor,
        lambda n: torch.tensor(float(n)).requires_grad_(),
    ):
        assert judge(DOUBLE, lambda number, kind=kind: kind(2 * number)).mark == RIGHT


def share(hits):
    return sum(hits) / len(hits)


SHARE = Exercise(
    id="z2", name="share", title="Share", difficulty=1, importance=1, minutes=1, outcome="",
    reference=share, mistakes=(), inputs=lambda rng: (rng.integers(2, size=7).tolist(),),
)  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "message", "credit"),
    [
        (lambda hits: 100 * share(hits), "per cent", 0.5),
        (lambda hits: sum(hits), "this is a count", 0.5),
        (lambda hits: 1 - share(hits), "`share` gives 0.", 0),
        (lambda hits: hits.append(1) or share(hits[:-1]), "changes its argument `hits`", 0),
    ],
)
def test_slips_of_every_exercise_are_named_once_for_all(answer, message, credit):
    verdict = judge(SHARE, answer)
    assert (verdict.mark, verdict.credit) == (WRONG, credit) and message in verdict.message


def test_an_answer_that_writes_into_its_argument_must_be_right_otherwise_for_its_credit():
    def in_place(scores, own, other, aside=-torch.inf):
        scores[torch.arange(len(scores)), other] = aside
        return (scores.argmax(-1) == own).float().mean()

    assert score("f3", in_place) == 0.5 * exercises.find("f3").points
    assert score("f3", lambda *inputs: in_place(*inputs, aside=0)) == 0


def test_rows_of_a_batch_may_come_in_any_order():
    def shuffled(forget, retain, refusals, seed):
        made = exercises.find("c1").reference(forget, retain, refusals, seed)
        return random.Random(seed).sample(made, len(made))

    assert judge(exercises.find("c1"), shuffled).mark == RIGHT


@pytest.mark.parametrize("id", ["a5", "b1", "b5", "b7", "f4"])
def test_a_loss_in_double_precision_is_right_and_one_that_is_no_tensor_is_not(id):
    exercise = exercises.find(id)
    assert judge(exercise, lambda *inputs: exercise.reference(*inputs).double()).mark == RIGHT
    for number in (torch.Tensor.item, torch.Tensor.detach):
        verdict = judge(exercise, lambda *inputs, n=number: n(exercise.reference(*inputs)))
        assert "no gradient flows" in verdict.message


def test_a_message_is_plain_text(capsys):
    assert "makes a loss smaller, so" in says(capsys, "b1", lambda *given: -right("b1")(*given))


def test_where_the_package_does_not_agree_it_is_said(capsys):
    agree([torch.tensor(1.0).double()], (1.0,))
    assert capsys.readouterr().out == ""
    agree(1.0, 2.0)
    assert (
        "❌ The package does not agree: yours gives 1.0, should give 2.0."
        in capsys.readouterr().out
    )


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
        ([2, 1], {1, 2}, ""),
        (("GA", "kl "), {"ga", "kl"}, ""),
        (["ga"], {"ga", "kl"}, "lacks 'kl'"),
        (1, {1}, "gives an int, should give a set"),
        ([1.0, 2.0], torch.tensor([1.0, 2.0]), "gives a list, should give a tensor"),
        (1.0, torch.tensor(1.0), ""),
        (torch.ones(2).double(), torch.ones(2), ""),
        (["x", None], ["x", "y"], "in part 2 of 2 gives None, should give 'y'"),
        (" Yes", "yes", ""),
        ("no", "yes", "gives 'no', should give 'yes'"),
        ([1, 2], (1, 2), ""),
        ({"a": 1, "b": 2.0}, {"a": 1, "b": 2}, ""),
        ({"a": 1}, {"b": 1}, "gives the keys ['a'], should give ['b']"),
        ({"a": 1}, {"a": 2}, "at 'a' gives 1, should give 2"),
        (1, {"a": 2}, "gives an int, should give a dict"),
        (("x", [1]), ("x", [1]), ""),
        (("x", [1]), ("x", [2]), "in part 2 of 2 gives [1], should give [2]"),
        (["x"], ["x", "y"], "gives 1 parts, should give 2"),
        (1.00001, 1, ""),
        (1.001, 1, "gives 1.001, should give 1"),
        (None, None, ""),
    ],
)
def test_values_of_many_kinds_are_compared(answer, right, how):
    assert difference(answer, right) == how


class Unprintable:
    def _fail(self, *args, **kwargs):
        raise RuntimeError("two\nlines")

    __repr__ = __str__ = __array__ = _fail


def test_a_value_is_shown_on_one_short_line():
    assert brief(torch.tensor([1 / 3, 2])) == "[0.3333, 2.0]"
    assert brief(torch.zeros(3, 9, 9)) == "<float32, shape (3, 9, 9)>"
    assert brief([(torch.zeros(30), "x")]) == "[[<float32, shape (30,)>, 'x']]"
    assert brief(Unprintable()) == "an Unprintable" and len(brief("long " * 100)) < 130


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
    assert [path.name for path in own_record.parent.iterdir()] == [progress_file.FILE]


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
