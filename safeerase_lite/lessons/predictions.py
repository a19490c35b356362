"""What every lesson shares: a reader's predictions, replayed at the end, and the closing stamp.

Predictions are kept in `predictions.json` beside the runs, so they survive a restart. An unanswered
one blocks nothing: run headless, a lesson ends as if nobody had been asked.
"""

import json
import platform
import resource
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import pandas as pd

from safeerase_lite.runs.store import default_runs_dir
from safeerase_lite.utils import UserError, is_interactive

_imported = time.perf_counter()
_unwritten: dict[Path, dict[str, dict]] = {}  # predictions whose folder cannot be written


def predict(
    id: str,
    choice: str = "",
    confidence: float = 0.0,
    *,
    options: Sequence[str],
    runs_dir: Path | str | None = None,
) -> None:
    """Ask a reader what will happen, before it does. Live, buttons and a slider ask; a choice given
    in the call is kept as well.

    Args:
        id: names the question; `outcome` answers it and `calibration` replays it.
        choice: one of the options; empty: not yet.
        confidence: how sure, from 1 / number of options (a guess) to 1; 0: not said.
        options: what may happen.
        runs_dir: where predictions are kept; by default the ledger's folder.

    Raises:
        UserError: a choice that is no option, or a confidence that is no share.
    """
    if choice and choice not in options:
        raise UserError(f"prediction {id!r}: {choice!r} is no option; choose {_either(options)}")
    if not 0 <= confidence <= 1:
        raise UserError(f"prediction {id!r}: confidence {confidence} is not between 0 and 1")
    record = {"options": list(options)}
    if choice:
        record |= {"choice": choice, "confidence": max(confidence, 1 / len(options))}
    kept = _keep(id, record, runs_dir)
    if is_interactive():
        _ask(id, kept, runs_dir)
    elif "choice" in kept:
        print(f"You predict: {kept['choice']}, {kept['confidence']:.0%} sure.")
    else:
        print(f"Your prediction: {_either(options)}?")


def outcome(id: str, what: str, *, runs_dir: Path | str | None = None) -> None:
    """Say what did happen, and what the reader had predicted.

    Args:
        id: of a prediction asked before.
        what: one of its options.

    Raises:
        UserError: no such prediction, or an outcome that is none of its options.
    """
    kept = _read(runs_dir).get(id)
    if kept is None:
        raise UserError(f"nobody was asked to predict {id!r}: run that cell first")
    if what not in kept["options"]:
        raise UserError(f"outcome of {id!r}: {what!r} is no option: {_either(kept['options'])}")
    kept = _keep(id, {"outcome": what}, runs_dir)
    said = "."
    if "choice" in kept:
        right = "as you predicted" if kept["choice"] == what else f"you predicted {kept['choice']}"
        said = f"; {right}, {kept['confidence']:.0%} sure."
    print(f"What happened: {what}{said}")


def calibration(*ids: str, runs_dir: Path | str | None = None) -> pd.DataFrame:
    """The reader's predictions beside what happened.

    Prints how often they were right and how sure they were, and the Brier score: the mean squared
    distance of the confidence from 1 (right) or 0 (wrong); 0 is best. Source: Brier 1950, of the
    chosen option alone.

    Args:
        ids: which predictions, in this order; none: all.

    Returns:
        A row per prediction with an outcome: id, predicted, confidence, happened, right.
    """
    kept = _read(runs_dir)
    rows = [
        {
            "id": id,
            "predicted": kept[id].get("choice", "–"),
            "confidence": kept[id].get("confidence", "–"),
            "happened": kept[id]["outcome"],
            "right": kept[id]["choice"] == kept[id]["outcome"] if "choice" in kept[id] else "–",
        }
        for id in ids or kept
        if "outcome" in kept.get(id, {})
    ]
    table = pd.DataFrame(rows, columns=["id", "predicted", "confidence", "happened", "right"])
    made = table[table["predicted"] != "–"]
    if len(made):
        right, sure = made["right"].astype(float), made["confidence"].astype(float)
        brier = ((sure - right) ** 2).mean()
        print(
            f"{len(made)} predictions: right {right.mean():.0%} of the time, {sure.mean():.0%} "
            f"sure. Brier score {brier:.2f} (0 is best; always '50% sure' scores 0.25)."
        )
    return table


def stamp(data=None) -> None:
    """Close a lesson: versions, the data's hash, seconds since the package was imported and the
    most memory this process has held. The figures are also in the output's metadata.
    """
    from IPython.display import display

    seconds = time.perf_counter() - _imported
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
    names = ("safeerase-lite", "torch", "transformers", "peft", "bitsandbytes")
    versions = ", ".join(f"{name} {_version(name)}" for name in names)
    about = f", data {data.digest}" if data is not None else ""
    text = (
        f"Python {platform.python_version()}, {versions}{about}. "
        f"{seconds:.0f} seconds, {peak / 1024**3:.2f} GB at most."
    )
    figures = {"seconds": round(seconds, 1), "peak_memory_gb": round(peak / 1024**3, 3)}
    display({"text/plain": text}, raw=True, metadata={"safeerase": figures})


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _either(options: Sequence[str]) -> str:
    return " / ".join(options)


def _ask(id: str, kept: dict, runs_dir: Path | str | None) -> None:
    import ipywidgets as widgets
    from IPython.display import display

    options = kept["options"]
    whole = {"button_width": "auto"}  # the default width cuts what does not fit
    buttons = widgets.ToggleButtons(options=options, value=kept.get("choice"), style=whole)
    sure = widgets.FloatSlider(
        value=kept.get("confidence", 1 / len(options)),
        min=1 / len(options),
        max=1,
        step=0.05,
        description="how sure",
        readout_format=".0%",
    )

    def save(_change) -> None:
        if buttons.value is not None:
            _keep(id, {"choice": buttons.value, "confidence": sure.value}, runs_dir)

    buttons.observe(save, "value")
    sure.observe(save, "value")
    display(widgets.VBox([widgets.Label("Your prediction:"), buttons, sure]))


def _file(runs_dir: Path | str | None) -> Path:
    return Path(runs_dir or default_runs_dir()).expanduser() / "predictions.json"


def _read(runs_dir: Path | str | None) -> dict[str, dict]:
    file = _file(runs_dir)
    kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return kept | _unwritten.get(file, {})


def _keep(id: str, record: dict, runs_dir: Path | str | None) -> dict:
    file, everything = _file(runs_dir), _read(runs_dir)
    everything[id] = everything.get(id, {}) | record
    draft = file.with_suffix(".draft")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")
        draft.replace(file)
    except OSError:  # a prediction is no reason to stop: it lasts as long as this kernel
        _unwritten[file] = everything
    return everything[id]
