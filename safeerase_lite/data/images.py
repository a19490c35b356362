"""The images a data set names: opened as a viewer shows them, hashed, and reported when broken."""

import hashlib
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageOps

from safeerase_lite.utils import UserError

from .json_files import GIT_LFS_HEADER

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")  # none that starts another program
MIN_SIDE, MAX_ASPECT_RATIO = 8, 50  # pixels; a model's processor scales the short side to its own
REMEDIES = {
    "missing or unreadable": "copy them there or correct their paths",
    "a Git-LFS pointer, not the picture": "run `git lfs pull` where they came from",
    "truncated or not a picture": "download them again",
    "too large to open safely": "replace them by smaller copies",
    "too small or too narrow": "crop or replace them",
    "in colours that are not read here": "save them as 8-bit PNG or JPEG",
}


@dataclass(frozen=True)
class InspectedImage:
    """An image's sha256, and what is wrong with it (a key of `REMEDIES`, or "")."""

    digest: str = ""
    problem: str = ""


def file_signature(path: Path | str) -> tuple[str, int, int]:
    """A file's path, modification time and size: a cache key that changes when the file does."""
    stat = Path(path).stat()
    return str(path), stat.st_mtime_ns, stat.st_size


def open_image(path: Path | str) -> Image.Image:
    """An image in RGB as a viewer shows it.

    It is turned by its EXIF orientation, what is transparent is laid on white (a plain conversion
    would show colours that nobody sees), 16 bits are scaled to 8 (it would clip them to white), and
    of an animation the first frame is taken.
    """
    with Image.open(path, formats=FORMATS) as image:
        return _as_viewed(image)


def inspect_images(paths: Iterable[str], root: Path) -> dict[str, InspectedImage]:
    """Hash and decode every image, once each. Paths, which are the keys, are relative to `root`."""
    return {path: _inspect(root / path) for path in sorted(set(paths))}


def require_valid_images(images: dict[str, InspectedImage], root: Path) -> None:
    """Raise one UserError that counts the broken images by problem and names a few of each."""
    complaints = []
    for problem, remedy in REMEDIES.items():
        broken = [display_path(path) for path, image in images.items() if image.problem == problem]
        if broken:
            names = ", ".join(broken[:3]) + (", …" if len(broken) > 3 else "")
            complaints.append(f"{len(broken)} {problem} ({names}): {remedy}")
    if complaints:
        raise UserError(f"{root}: of {len(images)} pictures, " + "; ".join(complaints))


def display_path(path: str) -> str:
    """A path for a message: one line, printable, at most 80 characters (the last ones)."""
    text = "".join(character if character.isprintable() else "?" for character in path)
    return text if len(text) <= 80 else f"…{text[-79:]}"


def _as_viewed(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point images do not say which numbers are black and white")
    if image.mode.startswith("I"):
        image = image.point(lambda value: value * (1 / 256)).convert("L")
    elif image.has_transparency_data:
        image = ImageOps.exif_transpose(image).convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return ImageOps.exif_transpose(image).convert("RGB")


def _inspect(path: Path) -> InspectedImage:
    try:
        content = path.read_bytes()
    except (OSError, ValueError):
        return InspectedImage(problem="missing or unreadable")
    if content.startswith(GIT_LFS_HEADER):
        return InspectedImage(problem="a Git-LFS pointer, not the picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(BytesIO(content), formats=FORMATS)
            short, long = sorted(image.size)
            image.draft(None, (64, 64))  # a JPEG is read to its end, at an eighth of its size
            image.load()
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        return InspectedImage(problem="too large to open safely")
    except Exception:  # Pillow raises many kinds for a damaged file
        return InspectedImage(problem="truncated or not a picture")
    if short < MIN_SIDE or long > MAX_ASPECT_RATIO * short:
        return InspectedImage(problem="too small or too narrow")
    try:
        _as_viewed(image)
    except Exception:
        return InspectedImage(problem="in colours that are not read here")
    return InspectedImage(digest=hashlib.sha256(content).hexdigest())
