"""Headless, a browser is a few figures; live, controls redraw the same view."""

import pytest

from safeerase_lite.lessons.widgets import browse
from safeerase_lite.utils import UserError


def drawer():
    drawn = []

    def view(run, step):
        drawn.append((run, step))

    return drawn, view


def test_headless_one_figure_of_the_first_values():
    drawn, view = drawer()
    browse(view, run=["plain", "PD"], step=range(0, 48, 4))
    assert drawn == [("plain", 0)]


def test_headless_every_figure_asked_for():
    drawn, view = drawer()
    browse(
        view, [{"step": 44}, {"run": "PD", "step": 8}], run=["plain", "PD"], step=range(0, 48, 4)
    )
    assert drawn == [("plain", 44), ("PD", 8)]


def test_live_a_moved_control_draws_again(monkeypatch):
    monkeypatch.setenv("SAFEERASE_HEADLESS", "0")
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    drawn, view = drawer()
    browse(view, [{"step": 8}], run=["plain", "PD"], step=range(0, 48, 4))
    menu, slider, _ = shown[0].children
    menu.value, slider.value = "PD", 44
    assert drawn == [("plain", 8), ("PD", 8), ("PD", 44)]


@pytest.mark.parametrize(
    ("figures", "choices", "complaint"),
    [
        ([], {"run": [], "step": [0]}, "run has no values"),
        ([], {"run": ["PD"], "stepp": [0]}, "takes no 'stepp'"),
        ([{"step": 3}], {"run": ["PD"], "step": [0]}, "step=3"),
    ],
)
def test_a_choice_that_cannot_be_is_an_error(figures, choices, complaint):
    _, view = drawer()
    with pytest.raises(UserError, match=complaint):
        browse(view, figures, **choices)
