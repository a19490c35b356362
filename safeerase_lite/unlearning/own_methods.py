"""Objectives of the user's own, from a file: every process that runs them reads it anew."""

import runpy
from pathlib import Path

from safeerase_lite.utils import UserError

from .objectives import OBJECTIVES


def load_methods(path: Path | str | None) -> list[str]:
    """Execute a Python file that adds to `OBJECTIVES`, for as long as this process lasts.

    Args:
        path: relative to the working folder; None: there is nothing to add.

    Returns:
        The names it added or replaced.

    Raises:
        UserError: there is no such file, it does not run, or it adds nothing.
    """
    if path is None:
        return []
    path = Path(path).expanduser().resolve()
    if not path.is_file():
        raise UserError(f"methods_file: there is no file {path}")
    before = dict(OBJECTIVES)
    try:
        runpy.run_path(str(path))
    except Exception as error:
        place = next((f"line {n}, " for n in _lines(error, path)), "")
        raise UserError(f"methods_file: {path}: {place}{type(error).__name__}: {error}") from error
    added = [name for name in OBJECTIVES if before.get(name) is not OBJECTIVES[name]]
    if not added:
        raise UserError(
            f"methods_file: {path} adds no objective: end it with OBJECTIVES['mine'] = Objective(…)"
        )
    return added


def _lines(error: BaseException, path: Path) -> list[int]:
    """The lines of a file that an error came through, the innermost first."""
    lines, place = [], error.__traceback__
    while place:
        if place.tb_frame.f_code.co_filename == str(path):
            lines.insert(0, place.tb_lineno)
        place = place.tb_next
    return lines
