"""A prediction is kept, never blocks, and comes back at the end beside what happened."""

import pytest

from safeerase_lite.lessons.predictions import calibration, outcome, predict, stamp
from safeerase_lite.utils import UserError

OPTIONS = ["a plan", "a refusal"]


@pytest.fixture
def kept(tmp_path):
    return {"runs_dir": tmp_path / "runs"}


def test_an_unanswered_prediction_blocks_nothing(kept, capsys):
    predict("mug", options=OPTIONS, **kept)
    outcome("mug", "a refusal", **kept)
    table = calibration("mug", **kept)
    assert "a plan / a refusal?" in capsys.readouterr().out
    assert table["happened"].tolist() == ["a refusal"] and table["right"].tolist() == ["–"]


def test_a_prediction_is_replayed_with_the_readers_calibration(kept, capsys):
    predict("mug", "a refusal", 0.9, options=OPTIONS, **kept)
    predict("tent", "a plan", 0.7, options=OPTIONS, **kept)
    for name in ("mug", "tent"):
        outcome(name, "a refusal", **kept)
    table = calibration(**kept)
    assert table["right"].tolist() == [True, False]
    said = capsys.readouterr().out
    assert "a refusal; as you predicted, 90% sure" in said
    assert "a refusal; you predicted a plan, 70% sure" in said
    assert "right 50% of the time, 80% sure. Brier score 0.25" in said  # (0.1² + 0.7²) / 2


def test_a_prediction_survives_running_the_cell_again(kept, capsys):
    predict("mug", "a refusal", 0.9, options=OPTIONS, **kept)
    predict("mug", options=OPTIONS, **kept)
    assert capsys.readouterr().out.count("You predict: a refusal, 90% sure") == 2


def test_a_folder_that_cannot_be_written_is_no_crash(tmp_path, capsys):
    (tmp_path / "file").touch()
    nowhere = {"runs_dir": tmp_path / "file" / "runs"}
    predict("mug", "a refusal", 0.9, options=OPTIONS, **nowhere)
    outcome("mug", "a refusal", **nowhere)
    assert "as you predicted" in capsys.readouterr().out
    assert calibration("mug", **nowhere)["right"].tolist() == [True]


def test_nobody_is_less_sure_than_a_guess(kept, capsys):
    predict("mug", "a refusal", 0.1, options=OPTIONS, **kept)
    assert "50% sure" in capsys.readouterr().out


def test_live_the_buttons_keep_the_choice(kept, monkeypatch):
    monkeypatch.setenv("SAFEERASE_HEADLESS", "0")
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    predict("mug", options=OPTIONS, **kept)
    _, buttons, sure = shown[0].children
    assert buttons.value is None
    buttons.value, sure.value = "a refusal", 0.8
    outcome("mug", "a plan", **kept)
    assert calibration("mug", **kept)["confidence"].tolist() == [pytest.approx(0.8)]


def test_bad_predictions_are_errors_and_leave_nothing(kept):
    with pytest.raises(UserError, match="'a poem' is no option"):
        predict("mug", "a poem", options=OPTIONS, **kept)
    with pytest.raises(UserError, match="confidence 90"):
        predict("mug", "a plan", 90, options=OPTIONS, **kept)
    with pytest.raises(UserError, match="nobody was asked"):
        outcome("mug", "a plan", **kept)
    predict("mug", options=OPTIONS, **kept)
    with pytest.raises(UserError, match="'a poem' is no option"):
        outcome("mug", "a poem", **kept)
    assert calibration("mug", **kept).empty


def test_the_stamp_says_versions_time_and_memory(monkeypatch, world):
    calls = []
    monkeypatch.setattr("IPython.display.display", lambda *a, **k: calls.append((a, k)))
    stamp(world)
    [((bundle,), how)] = calls
    assert "torch 2." in bundle["text/plain"] and world.digest in bundle["text/plain"]
    figures = how["metadata"]["safeerase"]
    assert figures["seconds"] > 0 and 0.05 < figures["peak_memory_gb"] < 24
