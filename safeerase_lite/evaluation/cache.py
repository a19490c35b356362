"""A cache on disk for results that are slow or cost money: a failure or a kill loses none of them.

Two things are stored so: the verdicts of a judge, and the answers that still wait for one.
"""

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safeerase_lite.utils import reading, setting_aside


@dataclass(frozen=True)
class JsonCache:
    """A file with a JSON line per entry, in a folder that only its owner can open.

    An entry is on disk when `append` returns. A line that a kill has torn, or that its checksum
    contradicts, is ignored; older lines have none.
    """

    path: Path

    def read(self) -> dict[str, Any]:
        """All entries by their keys; of a key that was stored twice, the last."""
        content, entries = b"", {}
        with setting_aside(self.path, self.path.with_name("damaged")), reading(self.path):
            content = self.path.read_bytes()
        for line in content.split(b"\n"):
            try:
                key, value, *checksum = json.loads(line)
                if checksum in ([], [_checksum(key, value)]):
                    entries[key] = value
            except (ValueError, TypeError, RecursionError):
                continue
        return entries

    def append(self, key: str, value: Any) -> None:
        """Store an entry; value: anything JSON can hold, NaN included."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            # The line break comes first, so that a torn line before it does not spoil this one.
            file.write("\n" + json.dumps([key, value, _checksum(key, value)]))

    def delete(self) -> None:
        """Remove the file, with all entries."""
        self.path.unlink(missing_ok=True)


def _checksum(key: str, value: Any) -> int:
    return zlib.crc32(json.dumps([key, value]).encode())
