"""Verdicts kept on disk: a server that fails, or a kill, loses none that was given.

One file per judge, a line per verdict. A line holds a hash of what was judged and the verdict, so
no text lies here, harmful or not.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

from safeerase_lite.evaluation.judges.opinion import Item, Opinion
from safeerase_lite.utils import UserError, cache_dir


def file_of(key: str) -> Path:
    """Where a judge's verdicts lie; `key` is what determines them."""
    return cache_dir() / "judgements" / f"{_sha(key)[:16]}.jsonl"


def read(key: str) -> dict[str, Opinion]:
    """Every verdict kept, by the hash of what was judged. A torn line is passed over."""
    path, kept = file_of(key), {}
    if not path.exists():
        return kept
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
            judged = record.pop("judged")
        except (ValueError, KeyError, AttributeError):
            continue
        kept[judged] = Opinion(**record)
    return kept


@contextmanager
def keeping(key: str) -> Iterator[Callable[[Item, Opinion], None]]:
    """A function that keeps one verdict; what it was given is on disk when it returns."""
    path = file_of(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as lines:
        lines.write("\n")  # ends a line that a kill has torn

        def keep(item: Item, opinion: Opinion) -> None:
            lines.write(json.dumps({"judged": hash_of(item)} | asdict(opinion)) + "\n")
            lines.flush()

        yield keep


def hash_of(item: Item) -> str:
    """sha256 of all that a judge is shown of an answer, the picture's bytes included."""
    reference = None if item.forget else item.expected
    picture = _picture(item.image) if item.image else None
    return _sha(json.dumps([item.question, reference, item.answer, picture]))


@lru_cache(maxsize=4096)
def _picture(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        raise UserError(
            f"the judge cannot see {path}: give answers with the full path of each picture"
        ) from None


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
