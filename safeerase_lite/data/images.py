"""The pictures a data set names: opened as a viewer shows them, hashed, and named when broken."""

import hashlib
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageOps

from safeerase_lite.data.schema import GIT_LFS_HEADER, Record
from safeerase_lite.utils import UserError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")  # none that starts another program
SMALLEST, NARROWEST = 8, 50  # pixels; sides: a model's processor scales the short side to its own
REMEDIES = {
    "missing or unreadable": "copy them there or correct their paths",
    "a Git-LFS pointer, not the picture": "run `git lfs pull` where they came from",
    "truncated or not a picture": "download them again",
    "too large to open safely": "replace them by smaller copies",
    "too small or too narrow": "crop or replace them",
    "in colours that are not read here": "save them as 8-bit PNG or JPEG",
}


@dataclass(frozen=True)
class Picture:
    """A picture's sha256, and what is wrong with it (a key of `REMEDIES`, or "")."""

    digest: str = ""
    problem: str = ""


def file_signature(path: Path | str) -> tuple[str, int, int]:
    """A picture's path, when it was written and how large it is: a key under which to keep what was
    made of it, until another picture takes its place."""
    found = Path(path).stat()
    return str(path), found.st_mtime_ns, found.st_size


def open_image(path: Path | str) -> Image.Image:
    """A picture in RGB as a viewer shows it: turned by its EXIF orientation, 16 bits scaled to 8 (a
    plain conversion would clip them to white), the first frame of an animation."""
    with Image.open(path, formats=FORMATS) as image:
        return _as_seen(image)


def _as_seen(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("nobody says which numbers are black and white")
    if image.mode.startswith("I"):
        image = image.point(lambda value: value * (1 / 256)).convert("L")
    return ImageOps.exif_transpose(image).convert("RGB")


def inspect_images(records: Iterable[Record]) -> dict[Path, Picture]:
    """Hash and decode every picture the records name, once each."""
    paths = {path for record in records for path in record.pictures}
    return {path: _inspect(path) for path in sorted(paths)}


def require_valid_images(pictures: dict[Path, Picture], root: Path) -> None:
    """Raise one UserError that counts what is broken, by what is wrong, with a few names."""
    complaints = []
    for problem, remedy in REMEDIES.items():
        broken = [path for path, picture in pictures.items() if picture.problem == problem]
        names = [printable(path, root) for path in broken[:3]]
        if broken:
            shown = ", ".join(names) + (", …" if len(broken) > 3 else "")
            complaints.append(f"{len(broken)} {problem} ({shown}): {remedy}")
    if complaints:
        raise UserError(f"{root}: of {len(pictures)} pictures, " + "; ".join(complaints))


def printable(path: Path, root: Path) -> str:
    """A path within the data set for a message: one line, at most 80 characters, its end kept."""
    text = path.relative_to(root).as_posix()
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= 80 else f"…{text[-79:]}"


def _inspect(path: Path) -> Picture:
    try:
        content = path.read_bytes()
    except (OSError, ValueError):
        return Picture(problem="missing or unreadable")
    if content.startswith(GIT_LFS_HEADER):
        return Picture(problem="a Git-LFS pointer, not the picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(BytesIO(content), formats=FORMATS)
            short, long = sorted(image.size)
            image.draft(None, (64, 64))  # a JPEG is read to its end, at an eighth of its size
            image.load()
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        return Picture(problem="too large to open safely")
    except Exception:  # Pillow raises many kinds for a damaged file
        return Picture(problem="truncated or not a picture")
    if short < SMALLEST or long > NARROWEST * short:
        return Picture(problem="too small or too narrow")
    try:
        _as_seen(image)
    except Exception:
        return Picture(problem="in colours that are not read here")
    return Picture(digest=hashlib.sha256(content).hexdigest())
