"""Injected knowledge: a folder with an adapter that stays frozen under the one that unlearns.

The base model has not learned the tiny world; base and adapter together have. The folder can stand
wherever a model or a profile is named.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import UserError

NOTE = "injected.json"


@dataclass(frozen=True)
class Injected:
    """What an adapter's folder says it stands on.

    base: a shipped model, a folder, or a hub name.  profile: the name of the profile it was
    learned with.  numbers: what is to be another than in that profile.
    """

    folder: Path
    base: str
    profile: str
    numbers: dict[str, Any]


def read_injected(model: str) -> Injected | None:
    """The injected knowledge in a folder, or None when it is another kind of model."""
    note = Path(model) / NOTE
    if not note.is_file():
        return None
    try:
        told = json.loads(note.read_text(encoding="utf-8"))
        return Injected(note.parent, told["base"], told["profile"], told["numbers"])
    except (json.JSONDecodeError, KeyError, TypeError):
        raise UserError(f"{note} does not say base, profile, numbers: inject again") from None
