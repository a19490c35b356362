"""Imports run one way: each module may import from those before it, never from those after it."""

import ast
from pathlib import Path

import pytest

import safeerase_lite

PACKAGE = Path(safeerase_lite.__file__).parent
# Lowest first. A file belongs to the first entry that its path begins with. The formulas are low,
# because the settings are checked against their registry; so are the judges' names.
LAYERS = [
    "utils",
    "tinyworld",
    "unlearning/losses",
    "unlearning/further_objectives",
    "unlearning/objectives",
    "evaluation/statistics",
    "evaluation/metrics",
    "evaluation/judges/records",
    "evaluation/judges/rules",
    "config",
    "data",
    "models",
    "unlearning",
    "evaluation",
    "interpretability",
    "robustness",
    "runs",
    "report",
    "resources",
    "laptop",
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
FILES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def layer(module: str) -> int:
    """The place of a module, written with slashes, in the list."""
    return next(i for i, name in enumerate(LAYERS) if f"{module}/".startswith(f"{name}/"))


def imported(file: Path) -> set[str]:
    """Every module of the package that a file imports, inside functions too."""
    modules = set()
    for node in ast.walk(ast.parse((PACKAGE / file).read_text(encoding="utf-8"))):
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
            dotted = "/".join([*base, name.name])
            is_module = (PACKAGE / f"{dotted}.py").exists() or (PACKAGE / dotted).is_dir()
            modules.add(dotted if is_module else "/".join(base) or "__init__")
    return modules


@pytest.mark.parametrize("file", FILES, ids=str)
def test_a_file_imports_from_no_module_above_its_own(file):
    own = layer(file.with_suffix("").as_posix())
    above = [module for module in imported(file) if layer(module) > own]
    assert not above, f"{file} imports from above: {', '.join(above)}"
