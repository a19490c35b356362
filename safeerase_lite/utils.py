"""What every room needs: one exception, progress, and files that appear whole or not at all."""

import difflib
import fcntl
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO

IMPORTED = time.perf_counter()  # when the package was imported


class UserError(ValueError):
    """Bad input. The message is one line: what is wrong, where, and what to do."""


def cache_dir() -> Path:
    """Where worlds and verdicts are cached: `$SAFEERASE_CACHE`, else the user's cache folder."""
    folder = os.environ.get("SAFEERASE_CACHE")
    return Path(folder) if folder else Path.home() / ".cache" / "safeerase-lite"


def check_choice(value: str, choices: tuple[str, ...], what: str) -> None:
    """Raise a UserError, which names the nearest choice, unless `value` is one of the choices."""
    if value in choices:
        return
    near = difflib.get_close_matches(str(value), choices, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise UserError(f"unknown {what} {value!r}: choose one of {', '.join(choices)}{hint}")


# ---- progress ----


def is_interactive() -> bool:
    """Whether a person can see this update: a notebook in a browser, or a terminal.

    `SAFEERASE_HEADLESS=1` or `0` overrides what is detected.
    """
    override = os.environ.get("SAFEERASE_HEADLESS")
    if override is not None:
        if override not in ("0", "1"):
            raise UserError(f"SAFEERASE_HEADLESS is {override!r}; set it to 0 or 1")
        return override == "0"
    if "IPython" in sys.modules:
        kernel = getattr(sys.modules["IPython"].get_ipython(), "kernel", None)
        if kernel is not None:
            # papermill and nbclient cannot answer input(), and tell the kernel so
            return kernel._allow_stdin is not False
    return sys.stderr.isatty()


def track(items: Iterable, label: str, total: int | None = None) -> Iterator:
    """Yield the items, showing progress: a bar when interactive, one summary line when headless."""
    if is_interactive():
        from tqdm.auto import tqdm

        yield from tqdm(items, desc=label, total=total, leave=False)
        return
    begin, count = time.perf_counter(), 0
    for item in items:
        yield item
        count += 1
    seconds = time.perf_counter() - begin
    if seconds > 3:
        print(f"{label}: {count} in {seconds:.1f} s", flush=True)


# Held for this process's life, or until released. The process id is part of the key because a
# forked child inherits the dictionary, but not the right to write.
_held: dict[tuple[int, Path], IO[str]] = {}


def take_lock(path: Path, run_id: str, wait: float = 0.0) -> None:
    """Take the lock file at `path`; taking it twice in one process is fine.

    Raises UserError, with the process id, when another process still holds it after `wait` seconds.
    """
    deadline = time.monotonic() + wait
    if (os.getpid(), path) in _held:
        return
    while True:
        handle = path.open("a+")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < deadline:
                handle.close()
                time.sleep(0.2)
                continue
            handle.seek(0)
            holder = handle.read().strip() or "unknown"
            handle.close()
            raise UserError(
                f"run {run_id} is being written by process {holder} in {path.parent}: wait for "
                "it, or stop it and open the run again"
            ) from None
        except OSError:
            handle.close()
            path.unlink(missing_ok=True)
            _say_unlocked(path.parent)
            return
        if _is_at(path, handle):
            break
        handle.close()  # its holder removed this file between our open and our lock: try again
    handle.truncate(0)
    handle.write(str(os.getpid()))
    handle.flush()
    _held[os.getpid(), path] = handle


@cache
def _say_unlocked(folder: Path) -> None:
    print(
        f"note: {folder} is on a file system without locks, so nothing keeps two processes from "
        "writing one run there: run one at a time"
    )


def _is_at(path: Path, handle: IO[str]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle.fileno()))
    except FileNotFoundError:
        return False


def release_lock(path: Path) -> None:
    """Give the lock back and remove its file; does nothing if this process does not hold it."""
    handle = _held.pop((os.getpid(), path), None)
    if handle is not None:
        path.unlink(missing_ok=True)
        handle.close()


OPENED = "SAFEERASE_OPENED"  # names a file that is told the folder of every run that is opened


def require_new(folder: Path) -> None:
    """Raise a UserError unless the folder is absent or empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already: name a new or an empty folder")


@contextmanager
def atomic_directory(folder: Path) -> Iterator[Path]:
    """A draft beside `folder`, to be filled; it is renamed to `folder` at the end, or dropped."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        yield draft
        draft.chmod(0o755)
        draft.replace(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def atomic_write(path: Path, text: str) -> None:
    """Write a file so that a reader, or a crash, finds the old text or the new, never a half."""
    draft = path.with_suffix(f".draft-{os.getpid()}")  # two sweeps may write one table
    with draft.open("w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(draft, path)


def peak_memory_gb() -> float:
    """The most memory this process has held so far, in GB."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return psutil.Process().memory_info().peak_wset / 1024**3
    unit = 1 if sys.platform == "darwin" else 1024  # Linux counts in KB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1024**3
