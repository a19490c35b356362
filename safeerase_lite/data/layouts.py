"""Which published data set is in a folder? Each is known by a file that its authors named."""

from pathlib import Path

# The set's name → paths in its folder, of which at least one is there.
LAYOUTS = {
    "SafeEraser": ("all_train.json",),
    "XSTest": ("xstest_prompts.csv", "xstest_v2_prompts.csv"),
    "MOSSBench": ("images_information/information.json",),
    "MM-SafetyBench": ("processed_questions",),
    "SIUO": ("siuo_gen.json",),
    "VLGuard": ("test.json",),
}


def find_set(folder: Path, name: str) -> Path | None:
    """The path that marks the set of that name in a folder or, as in a clone of its authors'
    repository, in the folder's `data/`."""
    places = [base / path for base in (folder, folder / "data") for path in LAYOUTS[name]]
    return next((place for place in places if place.exists()), None)


def name_of(folder: Path) -> str:
    """The name of the set that a folder holds; "" if it is none of those known."""
    return next((name for name in LAYOUTS if find_set(folder, name)), "")
