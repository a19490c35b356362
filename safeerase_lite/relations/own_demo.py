"""`safeerase relations demo --pictures`: an edit on a user's own pictures, measured, and saved."""

import json
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table

from safeerase_lite.models.llava import LEARNING, add_adapter, save_adapter
from safeerase_lite.models.pretrained import model_hash
from safeerase_lite.utils import UserError, atomic_directory, reading, require_new

from . import clip
from .own_edit import HELD_OUT_WORDING, WORDINGS, OwnSettings, edit_own
from .own_measures import bag_of_words, compare, encode_own, own_outcome, own_reading
from .own_pictures import OwnPictures, read_own_pictures

RECORD = "edit.json"  # what determined an edit, beside its adapter
_LIBRARIES = ("safeerase-lite", "torch", "transformers", "peft")


def own_demo(
    model: str,
    pictures: Path,
    tuples: Path,
    output: Path,
    *,
    seed: int = 0,
    steps: int = OwnSettings.steps,
    learning_rate: float = OwnSettings.learning_rate,
) -> Path:
    """Edit a CLIP or SigLIP on the user's own pictures.

    Returns:
        The folder that was made in `output`: the adapter in PEFT's format, edit.json (what
        determined it), measures.csv, reading.csv and history.csv.
    """
    own, folder = read_own_pictures(pictures, tuples), Path(output) / "edited"
    require_new(folder)
    settings = replace(OwnSettings(), steps=steps, learning_rate=learning_rate)
    counts = own.table["split"].value_counts()
    print(
        f"{len(own.table)} pictures of {len(set(own.shown))} tuples: {counts['train']} to train "
        f"on, {counts['test']} to test; unsafe: {', '.join(map(str, own.unsafe))}"
    )
    base = load_on_device(model)
    features = encode_own(base, own, "pictures read")
    read = own_reading(base, own, features)
    verdict = _say_what_is_read(model, read)

    before = {wording: own_outcome(base, own, features, wording) for wording in _MEASURED}
    print(f"the edit, LoRA on both towers, on {base.device.type}:", flush=True)
    edited, history = edit_own(base, own, features, settings, seed=seed)
    features = encode_own(edited, own, "pictures read again")
    tables = [
        compare(before[wording], own_outcome(edited, own, features, wording)).assign(
            wording=wording
        )
        for wording in _MEASURED
    ]
    record = _record(model, own, settings, seed) | {"reads_relations": not verdict}
    edited.peft_config[LEARNING].base_model_name_or_path = model
    with atomic_directory(folder) as draft:
        save_adapter(edited, draft)
        (draft / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        pd.concat(tables).to_csv(draft / "measures.csv", index=False)
        read.to_csv(draft / "reading.csv", index=False)
        history.to_csv(draft / "history.csv", index=False)
    _print(tables[0])
    if verdict:
        print(f"All this says little: {verdict}.")
    print(f"The adapter, every measure and what determined them: {folder}")
    return folder


_MEASURED = (WORDINGS[0], HELD_OUT_WORDING)


def load_on_device(model: str):
    """A frozen CLIP or SigLIP, on the GPU where there is one."""
    return clip.load_clip(model).to("cuda" if torch.cuda.is_available() else "cpu")


def load_own_edit(model: str, folder: Path | str):
    """The CLIP with the adapter that `own_demo` saved in a folder; `with clip.frozen(…):` it is the
    one before.

    Raises:
        UserError: the folder holds no such adapter, or one of another model.
    """
    folder = Path(folder)
    record_file = folder / RECORD
    with reading(record_file, "name the folder that `relations demo --pictures` made"):
        record = json.loads(record_file.read_text(encoding="utf-8"))
        made_on, its_hash = record["model"], record["model_hash"]
    if its_hash != model_hash(model):
        raise UserError(f"{folder} is an edit of {made_on}, not of {model}: name its model")
    base = load_on_device(model)
    processor = base.processor
    edited = add_adapter(base, folder, LEARNING).eval()
    edited.processor = processor
    return edited


def _record(model: str, own: OwnPictures, settings: OwnSettings, seed: int) -> dict:
    """What determined an edit."""
    return {
        "model": model,
        "model_hash": model_hash(model),
        "pictures_hash": own.digest(),
        "unsafe": [list(u) for u in own.unsafe],
        "split": {name: int(n) for name, n in own.table["split"].value_counts().items()},
        "settings": asdict(settings),
        "wordings": list(WORDINGS),
        "seed": seed,
        "versions": {name: _version(name) for name in _LIBRARIES},
    }


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return ""


# ---- what is printed ----


def _say_what_is_read(model: str, read: pd.DataFrame) -> str:
    for row in read.itertuples():
        print(f"{model} reads {row.measure}: {_cell(row)}, n = {row.n}; chance {row.chance:.0%}")
    if blind := bag_of_words(read):
        verdict = (
            f"on these pictures {model} is too nearly a bag of words ({blind}): whatever is "
            "forgotten, it may not be the relation"
        )
        print(f"WARNING: {verdict}.")
        return verdict
    return ""


def _print(table: pd.DataFrame) -> None:
    shown = Table("measure, on test pictures", "tuple", padding=(0, 1))
    for name in ("before", "after", "n"):
        shown.add_column(name, justify="right")
    for (measure, t), rows in table.groupby(["measure", "tuple"], sort=False):
        cells = {row.when: _cell(row) for row in rows.itertuples()}
        shown.add_row(measure, t, cells.get("before", ""), cells["after"], str(rows["n"].iloc[-1]))
    Console(width=110).print(shown)
    print(
        "top-1: unsafe pictures that the unsafe caption fits best. margin: its score minus the\n"
        "best safe one's, in logits. leakage: |AUROC - 0.5| of its score, unsafe pictures against\n"
        "their neighbours'; 0 is forgotten, 0.5 is known or inverted. kept: of what was right\n"
        "before."
    )


def _cell(row) -> str:
    is_share = row.measure.split(",")[0] not in ("rank", "margin", "leakage")
    form = "{:.0%}" if is_share else "{:.2f}" if row.measure != "rank, median" else "{:g}"
    if np.isnan(row.value):
        return "–"
    ends = "" if np.isnan(row.low) else f" [{form.format(row.low)}, {form.format(row.high)}]"
    return form.format(row.value) + ends
