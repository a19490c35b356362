"""A folder that appears whole or not at all."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import UserError

OPENED = "SAFEERASE_OPENED"  # names a file that is told the folder of every run that is opened


def require_new(folder: Path) -> None:
    """Raise a UserError unless the folder is absent or empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already: name a new or an empty folder")


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """A draft beside `folder`, to be filled; it is renamed to `folder` at the end, or dropped."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        yield draft
        draft.chmod(0o755)
        draft.replace(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
