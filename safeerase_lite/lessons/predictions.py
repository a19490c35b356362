"""A reader's predictions: requested before a result is shown, replayed at the end of the lesson.

They are stored in `predictions.json` beside the runs, so they survive a restart. An unanswered one
blocks nothing: run headless, a lesson ends as if there were no predictions.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from pydantic import BaseModel, TypeAdapter

from safeerase_lite.runs.store import default_runs_dir
from safeerase_lite.utils import UserError, atomic_write, is_interactive, reading, setting_aside

_unwritten: dict[Path, dict[str, dict]] = {}  # predictions whose folder cannot be written


class _Prediction(BaseModel):
    """What predictions.json holds of each; without a choice, it is unanswered."""

    options: list[str]
    choice: str = ""
    confidence: float = 0
    outcome: str = ""


def predict(
    id: str, choice: str | None = None, confidence: float = 0.0, *, options: Sequence[str]
) -> None:
    """Ask a reader what will happen, before it does. In a browser, buttons and a slider ask; a
    choice given in the call is stored as well.

    Args:
        id: names the question; `outcome` answers it and `calibration` replays it.
        choice: one of the options; None: not yet.
        confidence: how sure, from 1 / number of options (a guess) to 1; 0: not stated.
        options: what may happen.

    Raises:
        UserError: a choice that is no option, or a confidence that is no share.
    """
    if choice and choice not in options:
        choices = " / ".join(options)
        raise UserError(f"prediction {id!r}: {choice!r} is no option; choose {choices}")
    if not 0 <= confidence <= 1:
        raise UserError(f"prediction {id!r}: confidence {confidence} is not between 0 and 1")
    record: dict = {"options": list(options)}
    if choice:
        record |= {"choice": choice, "confidence": max(confidence, 1 / len(options))}
    record = _store(id, record)
    if is_interactive():
        _show_controls(id, record)
    elif "choice" in record:
        print(f"You predict: {record['choice']}, {record['confidence']:.0%} sure.")
    else:
        print(f"Your prediction: {' / '.join(options)}?")


def outcome(id: str, option: str) -> None:
    """Print what happened, and what the reader had predicted.

    Args:
        id: of an earlier prediction.
        option: the one that came true.

    Raises:
        UserError: no such prediction, or an outcome that is none of its options.
    """
    record = _load().get(id)
    if record is None:
        raise UserError(f"nobody was asked to predict {id!r}: run that cell first")
    if option not in record["options"]:
        options = " / ".join(record["options"])
        raise UserError(f"outcome of {id!r}: {option!r} is no option: {options}")
    record = _store(id, {"outcome": option})
    comment = "."
    if "choice" in record:
        right = record["choice"] == option
        comment = "; as you predicted" if right else f"; you predicted {record['choice']}"
        comment += f", {record['confidence']:.0%} sure."
    print(f"What happened: {option}{comment}")


def calibration(*ids: str) -> pd.DataFrame:
    """The reader's predictions beside what happened.

    Prints how often they were right, how sure they were, and the Brier score: the mean squared
    distance of the confidence from 1 (right) or 0 (wrong); 0 is best. Source: Brier 1950, of the
    chosen option alone.

    Args:
        ids: which predictions, in this order; none: all.

    Returns:
        A row per prediction with an outcome: id, predicted, confidence, happened, right.
    """
    stored = _load()
    rows = []
    for id in ids or stored:
        record = stored.get(id, {})
        if "outcome" in record:
            choice, happened = record.get("choice", "–"), record["outcome"]
            right = choice == happened if "choice" in record else "–"
            rows.append((id, choice, record.get("confidence", "–"), happened, right))
    table = pd.DataFrame(rows, columns=["id", "predicted", "confidence", "happened", "right"])
    answered = table[table["predicted"] != "–"]
    if len(answered):
        right, sure = answered["right"].astype(float), answered["confidence"].astype(float)
        brier = ((sure - right) ** 2).mean()
        print(
            f"{len(answered)} predictions: right {right.mean():.0%} of the time, {sure.mean():.0%} "
            f"sure. Brier score {brier:.2f} (0 is best; always '50% sure' scores 0.25)."
        )
    return table


def _show_controls(id: str, record: dict) -> None:
    import ipywidgets as widgets
    from IPython.display import display

    options = record["options"]
    buttons = widgets.ToggleButtons(
        options=options,
        value=record.get("choice"),
        style={"button_width": "auto"},  # the default width cuts off longer texts
    )
    slider = widgets.FloatSlider(
        value=record.get("confidence", 1 / len(options)),
        min=1 / len(options),
        max=1,
        step=0.05,
        description="how sure",
        readout_format=".0%",
    )

    def save(_change) -> None:
        if buttons.value is not None:
            _store(id, {"choice": buttons.value, "confidence": slider.value})

    buttons.observe(save, "value")
    slider.observe(save, "value")
    display(widgets.VBox([widgets.Label("Your prediction:"), buttons, slider]))


def _file() -> Path:
    return default_runs_dir() / "predictions.json"


def _load() -> dict[str, dict]:
    file, stored = _file(), {}
    with setting_aside(file, file.with_name("damaged")), reading(file):
        content = TypeAdapter(dict[str, _Prediction]).validate_json(file.read_bytes())
        stored = {id: record.model_dump(exclude_unset=True) for id, record in content.items()}
    return stored | _unwritten.get(file, {})


def _store(id: str, fields: dict) -> dict:
    """Add fields to a prediction's record; returns the record."""
    file, everything = _file(), _load()
    everything[id] = everything.get(id, {}) | fields
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(file, json.dumps(everything, indent=1) + "\n")
    except OSError:  # a prediction is no reason to stop: it lasts as long as this kernel
        _unwritten[file] = everything
    return everything[id]
