"""What a student has solved, kept in the notebook's folder."""

import contextlib
import json
import os
from pathlib import Path

from safeerase_lite.exercises.judging import NOT_YET, RIGHT, WRONG

FILE = ".safeerase_progress.json"
_checked: dict[str, str] = {}  # this kernel's last verdict on each exercise
_unwritten: dict[str, dict] = {}  # what a folder that cannot be written did not take


def place() -> Path:
    """The record's file: `$SAFEERASE_PROGRESS`, else in the working folder, the notebook's own."""
    return Path(os.environ.get("SAFEERASE_PROGRESS") or FILE)


def read() -> dict[str, dict]:
    """By exercise: {"done": whether it was ever right, "tries": how often it was checked}."""
    try:
        kept = json.loads(place().read_text(encoding="utf-8"))
        kept = {
            id: {"done": bool(of["done"]), "tries": int(of["tries"])} for id, of in kept.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        kept = {}  # none yet, or broken: a record is no reason to stop
    return kept | _unwritten


def note(id: str, mark: str) -> None:
    """Take down a verdict. What was right once stays done; not yet is no try."""
    _checked[id] = mark
    if mark == NOT_YET:
        return
    kept = read()
    before = kept.get(id, {"done": False, "tries": 0})
    kept[id] = {"done": before["done"] or mark == RIGHT, "tries": before["tries"] + 1}
    draft = place().with_name(f"{place().name}.{os.getpid()}")
    try:
        draft.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        draft.replace(place())
        _unwritten.clear()
    except OSError:
        _unwritten.update(kept)
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


def now_right(id: str) -> bool:
    """Whether the answer this kernel last checked was right."""
    return _checked.get(id) == RIGHT


def lost() -> bool:
    """Whether the folder did not take the record."""
    return bool(_unwritten)


def mark(id: str, kept: dict[str, dict]) -> str:
    """One exercise's state in a record."""
    if id not in kept:
        return NOT_YET
    return RIGHT if kept[id]["done"] else WRONG
