"""The embedded default: an invented, harmless world in the layout of the SafeEraser benchmark."""

from pathlib import Path

ASSETS = Path(__file__).parent / "assets"


def shipped_model(name: str) -> Path | None:
    """The folder of a model that ships with the package, or None."""
    folder = ASSETS / name
    return folder if name == folder.name and folder.is_dir() else None
