"""What every module needs: one exception, progress, and files that are complete or absent."""

import codecs
import difflib
import hashlib
import inspect
import io
import math
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, wraps
from importlib import import_module
from itertools import count
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout

IMPORTED = time.perf_counter()  # when the package was imported
MAX_SEED = 2**43  # the trainer gives torch a million times a seed, in 64 bits


class UserError(ValueError):
    """Bad input. The message is one line: what is wrong, where, and what to do."""


class Damaged(UserError):
    """A file of ours is missing, or holds something else than was written."""

    def __init__(self, problem: str, remedy: str):
        super().__init__(problem, remedy)  # both, so that it can be sent between processes
        self.problem = problem

    def __str__(self) -> str:
        return ": ".join(self.args)


def check_choice(value: str, choices: tuple[str, ...], what: str) -> None:
    """Raise a UserError, which names the nearest choice, unless `value` is one of the choices."""
    if value in choices:
        return
    in_lower_case = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(str(value).lower(), in_lower_case, n=1)
    hint = f"; did you mean {in_lower_case[near[0]]!r}?" if near else ""
    raise UserError(f"unknown {what} {value!r}: choose one of {', '.join(choices)}{hint}")


def expects(function: Callable) -> Callable:
    """Refuse, in a line, a record of another class than annotated, and one text for several."""
    signature = inspect.signature(function)

    @wraps(function)
    def checked(*args, **options):
        for name, value in signature.bind(*args, **options).arguments.items():
            kind = signature.parameters[name].annotation
            ours = getattr(kind, "__module__", "").startswith(f"{__package__}.")
            one_text = kind == Sequence[str] and isinstance(value, str)
            if one_text or (ours and not isinstance(value, kind)):
                wanted = "list of texts" if one_text else kind.__name__
                usage = f"{function.__name__}({', '.join(signature.parameters)})"
                raise UserError(f"{name} is a {type(value).__name__}, not a {wanted}: call {usage}")
        return function(*args, **options)

    return checked


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


PLAINER = {"−": "-", "–": "-", "…": "...", "→": "->", "×": "x"}


def print_any_character() -> None:
    """Print what the terminal's encoding lacks as a plainer character, or as "?"."""

    def plain(error: UnicodeError) -> tuple[str, int]:
        lacking = error.object[error.start : error.end]
        return "".join(PLAINER.get(character, "?") for character in lacking), error.end

    codecs.register_error("plain", plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="plain")


# ---- locks ----


# Held for this process's life, or until released. The process id is part of the key because a
# forked process inherits the dictionary, but not the right to write.
_locks: dict[tuple[int, Path], FileLock] = {}


def take_lock(path: Path, run_id: str, wait: float = 0.0) -> None:
    """Take the lock file at `path`; taking it twice in one process is fine.

    The lock ends with this process, however that ends. On a file system without locks a note is
    printed once, and the caller goes on.

    Args:
        wait: seconds to wait for another process; math.inf: as long as it takes.

    Raises:
        UserError: another process still holds the lock after `wait` seconds; names its process id.
    """
    if (os.getpid(), path) in _locks:
        return
    lock = FileLock(
        path,
        timeout=-1 if wait == math.inf else wait,
        thread_local=False,  # whichever thread releases it
        fallback_to_soft=False,  # a soft lock would outlive a killed process
    )
    try:
        lock.acquire()
    except Timeout:
        holder = ""
        with suppress(OSError):  # Windows refuses to read what is locked
            holder = path.read_text(encoding="utf-8").strip()
        raise UserError(
            f"run {run_id} is being written by process {holder or 'unknown'} in {path.parent}: "
            "wait for it, or stop it and open the run again"
        ) from None
    except OSError:
        if not os.access(path, os.W_OK):  # the file is what fails, not the lock
            raise
        path.unlink()
        _note_missing_locks(path.parent)
        return
    with suppress(OSError):  # Windows refuses to write what is locked
        path.write_text(str(os.getpid()), encoding="utf-8")
    _locks[os.getpid(), path] = lock


def release_lock(path: Path) -> None:
    """Give the lock back and remove its file; does nothing if this process does not hold it."""
    lock = _locks.pop((os.getpid(), path), None)
    if lock is not None:
        with suppress(OSError):  # before the release, so that nobody else loses a lock just taken
            path.unlink()
        lock.release()


@cache
def _note_missing_locks(folder: Path) -> None:
    print(
        f"note: {folder} is on a file system without locks, so two processes could "
        "write one run there: start one at a time"
    )


# ---- processes and the machine ----

STOPPING = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
GRACE = 2.0  # seconds in which a stopped process may tidy up


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM (a container's stop) and SIGHUP (a closed terminal) stop the block as Ctrl-C does: by
    a KeyboardInterrupt, here with the signal's number, so that what has begun is tidied up.

    The processes that the block started are told to end, and waited for. Whatever of them is left
    after GRACE seconds is killed, and a second later this process too. A signal that was ignored
    before (nohup) stays so.
    """
    import psutil

    family: set[psutil.Process] = set()  # collected early: an orphan is no descendant any more

    def has_ended(process: psutil.Process) -> bool:
        """Or will with its parent: a resource tracker of multiprocessing ignores signals."""
        with suppress(psutil.Error):
            ended = not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
            return ended or "resource_tracker" in " ".join(process.cmdline())
        return True

    def collect() -> None:
        family.update(psutil.Process().children(recursive=True))

    def kill() -> None:
        collect()
        for process in list(family):
            with suppress(psutil.Error):
                if not has_ended(process):
                    process.kill()

    def kill_all(code: int) -> None:
        kill()
        time.sleep(1)
        os._exit(code)

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal deadline
        for each in before:
            signal.signal(each, signal.SIG_IGN)  # a second one would stop the tidying
        collect()
        for process in family:
            with suppress(psutil.Error):
                process.terminate()
        last_resort = threading.Timer(GRACE, kill_all, [128 + number])
        last_resort.daemon = True
        last_resort.start()
        deadline = time.monotonic() + GRACE
        raise KeyboardInterrupt(number)

    before, deadline = {}, 0.0
    for each in (getattr(signal, name) for name in STOPPING if hasattr(signal, name)):
        if signal.getsignal(each) != signal.SIG_IGN:
            before[each] = signal.signal(each, stop)
    try:
        yield
    finally:
        while time.monotonic() < deadline and not all(map(has_ended, list(family))):
            time.sleep(0.05)
        if deadline:
            kill()
        for each, handler in before.items():
            signal.signal(each, handler)


def peak_memory_gb(*, ended_processes: bool = False) -> float:
    """The most resident memory this process has held so far, in GiB.

    ended_processes: or any process that it started and that has ended, if that held more. Windows
        does not record those.
    """
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return psutil.Process().memory_info().peak_wset / 1024**3
    whose = [resource.RUSAGE_SELF] + [resource.RUSAGE_CHILDREN] * ended_processes
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kilobytes
    return max(resource.getrusage(who).ru_maxrss for who in whose) * unit / 1024**3


# ---- files and folders ----


OPENED = "SAFEERASE_OPENED"  # names a file to which the folder of every run that is opened is added


def cached(*names: str) -> Path:
    """A path in the cache of worlds and verdicts: `$SAFEERASE_CACHE`, else in the user's folder.

    Raises a UserError where it is not there and the cache cannot be written.
    """
    chosen = os.environ.get("SAFEERASE_CACHE")
    try:
        cache = Path(chosen) if chosen else Path.home() / ".cache" / "safeerase-lite"
        path = cache.joinpath(*names)
        if not path.exists():
            cache.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=cache).close()
    except (OSError, RuntimeError) as error:  # RuntimeError: a user without a home
        raise UserError(
            f"the cache cannot be written ({error}): set SAFEERASE_CACHE to a folder that can"
        ) from None
    return path


def require_new(folder: Path) -> None:
    """Raise a UserError unless the folder is absent or empty, and can be written."""
    require_writable(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already: name a new or an empty folder")


def require_writable(path: Path) -> None:
    """Make the folder that `path` is in. Raise a UserError unless it takes a draft beside `path`,
    with the longer name that a draft has."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.rmdir(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.draft-"))
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}: name another") from None


TOOLS = Path(__file__).parents[1] / "tools"  # in a clone of the project alone


def load_tool(name: str):
    """A module of the project's `tools/`. Raises a UserError outside a clone of the project."""
    if not (TOOLS / f"{name}.py").is_file():
        raise UserError(f"there is no {TOOLS / name}.py: run this in a clone of the project")
    if str(TOOLS) not in sys.path:
        sys.path.insert(0, str(TOOLS))  # worker processes import the module by its name
    return import_module(name)


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


# ---- damaged files ----


@contextmanager
def reading(path: Path, remedy: str = "move it away") -> Iterator[None]:
    """Turn whatever is wrong with a file that the block reads into one line, as Damaged.

    Raises a UserError instead where only this machine or user cannot read it.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        absent = isinstance(error, FileNotFoundError | NotADirectoryError)
        of_the_file = absent or isinstance(error, IsADirectoryError)
        if isinstance(error, OSError) and error.errno and not of_the_file:
            raise UserError(f"{path} cannot be read: {error.strerror}") from None
        empty = path.is_file() and not path.stat().st_size
        problem = f"{path} is {'missing' if absent else 'empty' if empty else 'damaged'}"
        # Not by way of a variable: this frame would keep the error, and the error all frames above,
        # with the model in one of them.
        raise Damaged(problem, remedy) from None


@contextmanager
def setting_aside(path: Path, folder: Path) -> Iterator[None]:
    """Where the block finds `path` damaged, move it into `folder`, print a note, and go on after
    the block, as if it had never been there.

    Raises a UserError where it cannot be moved.
    """
    try:
        yield
    except Damaged as error:
        if not path.exists():
            return
        targets = (folder / f"{path.name}-{number}" for number in count(1))
        target = next(target for target in targets if not target.exists())
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.rename(target)
            print(f"note: {error.problem}; what was there is now {target}", flush=True)
        except FileNotFoundError:
            pass  # another process was quicker
        except OSError as failure:
            there = next(path for path in (folder, *folder.parents) if path.exists())
            reason = failure.strerror if there.is_dir() else f"{there} is not a folder"
            raise UserError(f"{error.problem}, and cannot be moved to {folder}: {reason}") from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digests(folder: Path) -> dict[str, str]:
    """The sha256 of every file in a folder, by its path in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in files}


def verify(folder: Path, expected: dict[str, str], remedy: str = "move it away") -> None:
    """Raise Damaged at the first file that does not have its digest."""
    for name, digest in expected.items():
        with reading(folder / name, remedy):
            if _sha256(folder / name) != digest:
                raise ValueError


def atomic_write(path: Path, text: str) -> None:
    """Write a file so that a reader, or a crash, finds the old text or the new, never a half."""
    draft = path.with_suffix(f".draft-{os.getpid()}")  # two sweeps may write one table
    with draft.open("w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(draft, path)
