"""Imports run one way: each room may import from those before it, never from those after it."""

import ast
from pathlib import Path

import pytest

import safeerase_lite

HOUSE = Path(safeerase_lite.__file__).parent
# Lowest first. A file is in the first room that its path begins with. The formulas stand low,
# because the settings are checked against their registry.
ROOMS = [
    "utils",
    "tinyworld",
    "unlearning/objectives",
    "config",
    "data",
    "models",
    "unlearning",
    "evaluation",
    "runs",
    "report",
    "resources",
    "doctor",
    "inject",
    "export",
    "relations",
    "lessons",
    "exercises",
    "__init__",
    "cli",
    "__main__",
]
FILES = sorted(path.relative_to(HOUSE) for path in HOUSE.rglob("*.py"))


def room(module: str) -> int:
    """The place of a module, written with slashes, in the list of rooms."""
    return next(i for i, name in enumerate(ROOMS) if f"{module}/".startswith(f"{name}/"))


def imported(file: Path) -> set[str]:
    """Every module of the package that a file imports, inside functions too."""
    modules = set()
    for node in ast.walk(ast.parse((HOUSE / file).read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom):
            continue
        base = (node.module or "").split(".")
        if node.level:
            folder = list(file.parts[: len(file.parts) - node.level])
            base = folder + [part for part in base if part]
        elif base[0] != "safeerase_lite":
            continue
        else:
            base = base[1:]
        for name in node.names:
            whole = "/".join([*base, name.name])
            is_module = (HOUSE / f"{whole}.py").exists() or (HOUSE / whole).is_dir()
            modules.add(whole if is_module else "/".join(base) or "__init__")
    return modules


@pytest.mark.parametrize("file", FILES, ids=str)
def test_a_file_imports_from_no_room_above_its_own(file):
    own = room(file.with_suffix("").as_posix())
    above = [module for module in imported(file) if room(module) > own]
    assert not above, f"{file} imports from above: {', '.join(above)}"
