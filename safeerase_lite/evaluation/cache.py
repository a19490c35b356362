"""A cache on disk for results that are slow or cost money: a failure or a kill loses none of them.

Two things are stored so: the verdicts of a judge, and the answers that still wait for one.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class JsonCache:
    """A file with a JSON line per entry, in a folder that only its owner can open.

    An entry is on disk when `append` returns. A line that a kill has torn is ignored.
    """

    path: Path

    def read(self) -> dict[str, Any]:
        """All entries by their keys; of a key that was stored twice, the last."""
        if not self.path.exists():
            return {}
        entries = {}
        for line in self.path.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                key, value = json.loads(line)
                entries[key] = value
            except (ValueError, TypeError):
                continue
        return entries

    def append(self, key: str, value: Any) -> None:
        """Store an entry; value: anything JSON can hold, NaN included."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            # The line break comes first, so that a torn line before it does not spoil this one.
            file.write("\n" + json.dumps([key, value]))

    def delete(self) -> None:
        """Remove the file, with all entries."""
        self.path.unlink(missing_ok=True)
