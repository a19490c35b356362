"""What a student has solved, stored in the notebook's folder."""

import json
import os
from pathlib import Path

import pandas as pd

from safeerase_lite.utils import atomic_write

from .exercise import modules

NOT_YET, RIGHT, WRONG = "⏳ not yet", "✅ right", "❌ wrong"  # words too: not every font has signs
FILE = ".safeerase_progress.json"
_last_marks: dict[str, str] = {}  # this kernel's last verdict on each exercise
_unwritten: dict[str, dict] = {}  # what a folder that cannot be written did not take


def solved(*ids: str) -> bool:
    """Whether these are right now, for cells that build on them; prints which are not."""
    missing = [id for id in ids if _last_marks.get(id) != RIGHT]
    if missing:
        print(f"This cell waits for {', '.join(missing)}: solve, check, and run it again.")
    return not missing


def progress(notebook: str = "") -> pd.DataFrame:
    """What is done, of one notebook (its letter) or of all.

    Returns:
        A row per exercise: title, done (✅ once right, ❌ tried, ⏳ not yet), tries.
    """
    marks = {None: NOT_YET, True: RIGHT, False: WRONG}
    rows, stored = {}, read()
    for module in modules(notebook).values():
        for exercise in module.EXERCISES:
            entry = stored.get(exercise.id, {"done": None, "tries": 0})
            rows[exercise.id] = (exercise.title, marks[entry["done"]], entry["tries"])
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["exercise", "done", "tries"])
    print(f"{(table['done'] == RIGHT).sum()} of {len(table)} done.")
    if _unwritten:
        print("This folder cannot be written: a restart forgets it.")
    return table


def note(id: str, mark: str) -> None:
    """Store a verdict. What was right once stays done; not yet is no try."""
    _last_marks[id] = mark
    if mark == NOT_YET:
        return
    stored = read()
    before = stored.get(id, {"done": False, "tries": 0})
    stored[id] = {"done": before["done"] or mark == RIGHT, "tries": before["tries"] + 1}
    try:
        atomic_write(_path(), json.dumps(stored, indent=1, sort_keys=True) + "\n")
        _unwritten.clear()
    except OSError:
        _unwritten.update(stored)


def read() -> dict[str, dict]:
    """By exercise: {"done": whether it was ever right, "tries": how often it was checked}."""
    try:
        entries = json.loads(_path().read_text(encoding="utf-8"))
        stored = {
            id: {"done": bool(entry["done"]), "tries": int(entry["tries"])}
            for id, entry in entries.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        stored = {}  # none yet, or broken: a record is no reason to stop
    return stored | _unwritten


def _path() -> Path:
    """`$SAFEERASE_PROGRESS`, else in the working folder, which is the notebook's own."""
    return Path(os.environ.get("SAFEERASE_PROGRESS") or FILE)
