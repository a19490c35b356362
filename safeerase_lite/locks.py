"""One process writes a run: a lock that the system frees when its holder dies (POSIX only).

A mounted cloud folder may know no locks. Then the run goes on without one, and says so once.
"""

import fcntl
import os
import time
from functools import cache
from pathlib import Path
from typing import IO

from safeerase_lite.errors import UserError

# Held for this process's life, or until released. The process id is part of the key because a
# forked child inherits the dictionary, but not the right to write.
_held: dict[tuple[int, Path], IO[str]] = {}


def take(path: Path, run_id: str, wait: float = 0.0) -> None:
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


def release(path: Path) -> None:
    """Give the lock back and remove its file; does nothing if this process does not hold it."""
    handle = _held.pop((os.getpid(), path), None)
    if handle is not None:
        path.unlink(missing_ok=True)
        handle.close()
