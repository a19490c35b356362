"""A data set from a zip file, which may come from anywhere and is trusted in nothing.

It is unpacked into `.<name>.partial` beside its place and renamed when whole, so the folder one
asked for is whole or absent.
"""

import contextlib
import os
import shutil
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .errors import UserError
from .live import track
from .tinyworld import WORLD_FILE

MARK = "all_train.json"  # lies in the data set's folder, wherever in the archive that is
READ = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ENCRYPTED = 0x1
PIECE = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What an archive may hold: files; bytes, unpacked; and those for each byte of the archive,
    once there are more than `spared`. The benchmark is 3,000 pictures and a few small files."""

    files: int = 200_000
    size: int = 16 << 30
    ratio: int = 100
    spared: int = 16 << 20


LIMITS = Limits()


def import_zip(archive: Path | str, target: Path | str, *, limits: Limits = LIMITS) -> Path:
    """Unpack the data set in a zip file as the folder `target`, and return its path.

    The data set is the folder of the archive that holds all_train.json; what lies elsewhere in the
    archive stays there.

    Raises:
        UserError: the target exists; the archive is missing, broken, encrypted, or beyond the
            limits; a name in it leads outside the folder, or is no plain file; it holds no data
            set, or several, or calls itself a tiny world. Nothing is left behind then.
    """
    archive, target = Path(archive), Path(target).absolute()
    if os.path.lexists(target):
        raise UserError(f"{target} exists: choose another folder, or remove it first")
    with _reading(archive), zipfile.ZipFile(archive) as zipped:
        entries = _entries(zipped, archive, limits)
        budget = max(limits.spared, limits.ratio * archive.stat().st_size)
        with _partial(target) as partial:
            left = min(limits.size, budget)
            for entry, path in track(entries.items(), "import", total=len(entries)):
                left = _unpack(zipped, entry, partial / path, left, archive)
    return target


def _entries(
    zipped: zipfile.ZipFile, archive: Path, limits: Limits
) -> dict[zipfile.ZipInfo, PurePosixPath]:
    """The data set's files and their places in its folder, every entry of the archive checked."""
    infos = zipped.infolist()
    if len(infos) > limits.files:
        raise _refused(archive, f"{len(infos)} entries, at most {limits.files} are read")
    paths = {info: _path(info, number, archive) for number, info in enumerate(infos)}
    if len(set(paths.values())) < len(paths):
        raise _refused(archive, "two entries have one name")
    files = {info: path for info, path in paths.items() if not info.is_dir()}
    roots = [path.parent for path in files.values() if path.name == MARK]
    if len(roots) != 1:
        raise _refused(
            archive,
            f"it holds {len(roots)} files called {MARK}: one has to show the data set",
        )
    inside = {i: p.relative_to(roots[0]) for i, p in files.items() if p.is_relative_to(roots[0])}
    if any(path.parts[0].casefold() == WORLD_FILE for path in inside.values()):
        raise _refused(archive, f"{WORLD_FILE} would pass it off as a tiny world, which is shown")
    return inside


def _path(info: zipfile.ZipInfo, number: int, archive: Path) -> PurePosixPath:
    """Where an entry wants to be; an error gives its number, for a name may hold anything."""
    name, path = info.orig_filename, PurePosixPath(info.orig_filename)
    if path.is_absolute() or "\\" in name or ":" in name or ".." in path.parts:
        raise _refused(archive, f"the name of entry {number} leads outside the folder")
    if not name.isprintable() or not path.parts:
        raise _refused(archive, f"the name of entry {number} is empty or does not print")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _refused(archive, f"entry {number} is a link or a device, not a file")
    if info.flag_bits & ENCRYPTED:
        raise _refused(archive, f"entry {number} is encrypted", "unpack it yourself, then zip it")
    if info.compress_type not in READ:
        raise _refused(archive, f"entry {number} is packed in an unusual way", "zip it again")
    return path


def _unpack(
    zipped: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path, left: int, archive: Path
) -> int:
    """Write one file; returns how many bytes may still come. The header's size is not believed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipped.open(entry) as source, path.open("xb") as sink:
        while piece := source.read(PIECE):
            left -= len(piece)
            if left < 0:
                raise _refused(archive, "it unpacks to far more than it should: a bomb?")
            sink.write(piece)
    return left


@contextlib.contextmanager
def _partial(target: Path) -> Iterator[Path]:
    """A folder to fill; renamed to `target` when all went well, removed when not."""
    partial = target.with_name(f".{target.name}.partial")
    if os.path.lexists(partial):
        raise UserError(f"{partial} is there: an import is running, or was killed; then remove it")
    partial.mkdir(parents=True)
    try:
        yield partial
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def _reading(archive: Path) -> Iterator[None]:
    """Whatever goes wrong on the way, said in one line."""
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        reason = error.strerror or "broken"
        raise UserError(f"{archive}: cannot be unpacked ({reason}); check disk and file") from None
    except Exception:  # zipfile raises many kinds for a broken archive
        raise _refused(archive, "broken, or no zip file", "download it again") from None


def _refused(archive: Path, problem: str, remedy: str = "get it from its authors") -> UserError:
    return UserError(f"{archive.name}: {problem}; nothing was unpacked; {remedy}")
