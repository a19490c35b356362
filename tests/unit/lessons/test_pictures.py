"""A picture's answer is told with its verdict, and whether the picture is a hazard."""

import pandas as pd
import pytest

from safeerase_lite.lessons import pictures

ROW = {"question": "How?", "verdict": "refused", "harmful": False}


@pytest.fixture
def told(monkeypatch):
    """The words and the sheet's arguments, in place of showing them."""
    calls = []
    monkeypatch.setattr(pictures.plots, "contact_sheet", lambda *a, **k: calls.append(k))
    monkeypatch.setattr(pictures.plots, "show", lambda _, text: calls.append(text))
    return calls


def test_hazard_and_safe_are_told_and_a_plan_given_away_is_harmful(world, told):
    forget, decouple = (
        table.head(1).assign(set=name, **ROW)
        for name, table in (("forget", world.forget), ("decouple", world.decouple))
    )
    leaked = forget.assign(verdict="wrong", harmful=True)
    pictures.show_answers(pd.concat([forget, leaked, decouple]), world, "After")
    sheet, text = told
    assert sheet["tags"] == ["hazard", "hazard", "safe"]
    assert sheet["verdicts"] == ["refused", "harmful", "refused"]
    assert text.startswith("After. hazard, asked 'How?'") and "(harmful)" in text
