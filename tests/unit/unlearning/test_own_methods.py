"""A file with objectives of one's own joins the registry, or says in one line why not."""

import pytest

from safeerase_lite.unlearning.objectives import OBJECTIVES, own_recipe
from safeerase_lite.unlearning.own_methods import load_methods
from safeerase_lite.utils import UserError

MINE = """\
from safeerase_lite.unlearning.objectives import OBJECTIVES, Objective, nll


def mine(x, w):
    return -{factor} * nll(x.forget)


OBJECTIVES["mine"] = Objective(mine, needs=("forget",))
"""


@pytest.fixture
def write(tmp_path):
    before = dict(OBJECTIVES)

    def write(text):
        path = tmp_path / "my_methods.py"
        path.write_text(text, encoding="utf-8")
        return path

    yield write
    OBJECTIVES.clear()
    OBJECTIVES.update(before)


def test_no_file_adds_nothing():
    before = dict(OBJECTIVES)
    assert load_methods(None) == []
    assert before == OBJECTIVES


def test_a_file_adds_its_objectives_and_its_source_is_their_recipe(write):
    assert load_methods(write(MINE.format(factor=1))) == ["mine"]
    first = own_recipe("mine")
    assert "return -1 * nll(x.forget)" in first
    assert load_methods(write(MINE.format(factor=2))) == ["mine"]  # read anew
    assert "return -2 * nll(x.forget)" in own_recipe("mine") != first


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("x = 1\n", "adds no objective"),
        ("x = 1\ny = x / 0\n", "my_methods.py: line 2, ZeroDivisionError"),
        ("def f(:\n", "SyntaxError"),
        (MINE.replace('"forget",', '"forgett",'), "line 8, UserError: .*did you mean 'forget'"),
    ],
)
def test_a_file_that_adds_nothing_is_refused_with_its_line(write, text, complaint):
    with pytest.raises(UserError, match=complaint):
        load_methods(write(text.replace("{factor}", "1")))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="there is no file .*nothing.py"):
        load_methods(tmp_path / "nothing.py")
