"""A prediction is stored, never blocks, and comes back at the end beside what happened."""

import pytest

from safeerase_lite.lessons.predictions import calibration, outcome, predict
from safeerase_lite.lessons.stamp import stamp
from safeerase_lite.utils import UserError

OPTIONS = ["a plan", "a refusal"]


@pytest.fixture(autouse=True)
def runs_dir(tmp_path, monkeypatch):
    """A ledger of its own, where the predictions are stored too."""
    monkeypatch.setenv("SAFEERASE_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def test_an_unanswered_prediction_blocks_nothing(capsys):
    predict("mug", options=OPTIONS)
    outcome("mug", "a refusal")
    table = calibration("mug")
    assert "a plan / a refusal?" in capsys.readouterr().out
    assert table["happened"].tolist() == ["a refusal"] and table["right"].tolist() == ["–"]


def test_a_prediction_is_replayed_with_the_readers_calibration(capsys):
    predict("mug", "a refusal", 0.9, options=OPTIONS)
    predict("tent", "a plan", 0.7, options=OPTIONS)
    for name in ("mug", "tent"):
        outcome(name, "a refusal")
    table = calibration()
    assert table["right"].tolist() == [True, False]
    output = capsys.readouterr().out
    assert "a refusal; as you predicted, 90% sure" in output
    assert "a refusal; you predicted a plan, 70% sure" in output
    assert "right 50% of the time, 80% sure. Brier score 0.25" in output  # (0.1² + 0.7²) / 2


def test_a_prediction_survives_running_the_cell_again(capsys):
    predict("mug", "a refusal", 0.9, options=OPTIONS)
    predict("mug", options=OPTIONS)
    assert capsys.readouterr().out.count("You predict: a refusal, 90% sure") == 2


def test_a_folder_that_cannot_be_written_is_no_crash(runs_dir, monkeypatch, capsys):
    runs_dir.touch()
    monkeypatch.setenv("SAFEERASE_RUNS", str(runs_dir / "below a file"))
    predict("mug", "a refusal", 0.9, options=OPTIONS)
    outcome("mug", "a refusal")
    assert "as you predicted" in capsys.readouterr().out
    assert calibration("mug")["right"].tolist() == [True]


@pytest.mark.parametrize(
    "content", ["", "null", "[1]", '{"mug": 5}', '{"mug": {"choice": 1}}', "\udcff"]
)
def test_damaged_predictions_are_set_aside_and_begin_anew(runs_dir, capsys, content):
    runs_dir.mkdir()
    damaged = content.encode(errors="surrogateescape")
    (runs_dir / "predictions.json").write_bytes(damaged)
    predict("mug", "a refusal", 0.9, options=OPTIONS)
    assert calibration().empty and "note:" in capsys.readouterr().out
    outcome("mug", "a refusal")
    assert calibration()["right"].tolist() == [True]
    assert (runs_dir / "damaged" / "predictions.json-1").read_bytes() == damaged


def test_a_confidence_is_at_least_that_of_a_guess(capsys):
    predict("mug", "a refusal", 0.1, options=OPTIONS)
    assert "50% sure" in capsys.readouterr().out


def test_in_a_browser_buttons_and_slider_store_the_choice(monkeypatch):
    monkeypatch.setenv("SAFEERASE_HEADLESS", "0")
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    predict("mug", options=OPTIONS)
    _, buttons, slider = shown[0].children
    assert buttons.value is None
    buttons.value, slider.value = "a refusal", 0.8
    outcome("mug", "a plan")
    assert calibration("mug")["confidence"].tolist() == [pytest.approx(0.8)]


def test_a_wrong_prediction_is_an_error_and_leaves_nothing():
    with pytest.raises(UserError, match="'a poem' is no option"):
        predict("mug", "a poem", options=OPTIONS)
    with pytest.raises(UserError, match="confidence 90"):
        predict("mug", "a plan", 90, options=OPTIONS)
    with pytest.raises(UserError, match="nobody was asked"):
        outcome("mug", "a plan")
    predict("mug", options=OPTIONS)
    with pytest.raises(UserError, match="'a poem' is no option"):
        outcome("mug", "a poem")
    assert calibration("mug").empty


def test_the_stamp_prints_versions_time_and_memory(monkeypatch, world):
    calls = []
    monkeypatch.setattr("IPython.display.display", lambda *a, **k: calls.append((a, k)))
    stamp(world)
    [((bundle,), options)] = calls
    assert "torch 2." in bundle["text/plain"] and world.digest in bundle["text/plain"]
    figures = options["metadata"]["safeerase"]
    # torch alone takes more than 50 MB; over 24 GB the unit would be wrong, not the tests large.
    assert figures["seconds"] > 0 and 0.05 < figures["peak_memory_gb"] < 24


def test_predictions_are_stored_beside_the_runs(runs_dir):
    predict("mug", "a plan", 0.8, options=OPTIONS)
    assert '"confidence": 0.8' in (runs_dir / "predictions.json").read_text()
