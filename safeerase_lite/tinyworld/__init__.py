"""The embedded default: an invented, harmless world in the layout of the SafeEraser benchmark."""

from pathlib import Path

ASSETS = Path(__file__).parent / "assets"
DEFAULT_SEED, FRESH_SEED = 0, 7919  # the fresh world: nothing was ever chosen on it
WORLD_FILE = "world.json"  # marks a folder as a tiny world


def is_tiny_world(folder: Path | str) -> bool:
    """Whether a data set's folder is a tiny world: nothing in it is harmful."""
    return Path(folder, WORLD_FILE).is_file()


def shipped_model(name: str) -> Path | None:
    """The folder of a model that ships with the package, or None."""
    folder = ASSETS / name
    return folder if name == folder.name and folder.is_dir() else None
