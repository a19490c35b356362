"""Headless, `browse` draws a few figures; in a browser, controls redraw the same view."""

import pytest

from safeerase_lite.lessons.widgets import browse
from safeerase_lite.utils import UserError


def make_view():
    """(what was drawn, a view that records it)"""
    calls = []

    def view(run, step):
        calls.append((run, step))

    return calls, view


def test_headless_one_figure_of_the_first_values():
    calls, view = make_view()
    browse(view, run=["plain", "PD"], step=range(0, 48, 4))
    assert calls == [("plain", 0)]


def test_headless_every_named_figure():
    calls, view = make_view()
    browse(
        view, [{"step": 44}, {"run": "PD", "step": 8}], run=["plain", "PD"], step=range(0, 48, 4)
    )
    assert calls == [("plain", 44), ("PD", 8)]


def test_interactive_a_moved_control_draws_again(monkeypatch):
    monkeypatch.setenv("SAFEERASE_HEADLESS", "0")
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    calls, view = make_view()
    browse(view, [{"step": 8}], run=["plain", "PD"], step=range(0, 48, 4))
    menu, slider, _ = shown[0].children
    menu.value, slider.value = "PD", 44
    assert calls == [("plain", 8), ("PD", 8), ("PD", 44)]


@pytest.mark.parametrize(
    ("figures", "choices", "complaint"),
    [
        ([], {"run": [], "step": [0]}, "run has no values"),
        ([], {"run": ["PD"], "stepp": [0]}, "takes no 'stepp'"),
        ([{"step": 3}], {"run": ["PD"], "step": [0]}, "step=3"),
    ],
)
def test_a_wrong_choice_is_an_error(figures, choices, complaint):
    _, view = make_view()
    with pytest.raises(UserError, match=complaint):
        browse(view, figures, **choices)
