"""What a reader writes is held against what was asked for, and nothing it does gets out."""

import pytest

from safeerase_lite.lessons.yours import check_yours


def is_even(n):
    return n % 2 == 0


@pytest.mark.parametrize("answer", [None, ...])
def test_what_is_not_written_is_not_yet(capsys, answer):
    assert not check_yours(answer, is_even=is_even)
    assert "⏳ not yet" in capsys.readouterr().out


def test_what_meets_all_demands_is_right(capsys):
    assert check_yours(4, is_a_number=lambda n: isinstance(n, int), is_even=is_even)
    assert capsys.readouterr().out == "✅ right\n"


def test_the_first_demand_that_fails_is_named(capsys):
    assert not check_yours(5, is_even=is_even, is_six=lambda n: n == 6)
    assert "❌ not so: is even" in capsys.readouterr().out


def test_a_demand_that_cannot_be_tried_fails(capsys):
    assert not check_yours("five", is_even=is_even)
    assert "TypeError while checking: is even" in capsys.readouterr().out
