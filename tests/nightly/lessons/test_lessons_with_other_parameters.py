"""Every lesson runs under papermill with other parameters than its own, and keeps its promises."""

from pathlib import Path

import nbformat
import pytest

from safeerase_lite.lessons.demo import lessons
from safeerase_lite.runs.notebook import execute

CHANGED = {
    "00_quickstart": {"seed": 1, "precision": "nf4"},
    "01_load_quantized_llava": {"seed": 1},
    "02_forget_retain_decouple": {"seed": 1, "precision": "nf4"},
    "03_unlearn": {"objective": "ga", "decouple": "none", "precision": "dense", "steps": 8},
    "04_objectives_compared": {"objectives": ["kl"], "step_rate": 0.001},
    "05_over_forgetting": {"objective": "gd", "every": 24},
    "06_inside_over_forgetting": {"seed": 1, "precision": "nf4", "size": 16},
    "07_does_it_really_forget": {
        "seed": 1,
        "precision": "nf4",
        "tokens": [0, 2],
        "relearned_steps": [0, 3],
    },
    "08_relationship_aware": {"unsafe": ["imp tasting fizz"], "methods": ["relation"], "seed": 1},
    "09_sweeps_and_seeds": {"with_sweep": False, "kinds": "seen"},
}


def test_every_lesson_has_parameters_to_change():
    assert set(CHANGED) == {path.stem for path in lessons()}


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory):
    """One ledger, as a reader has: a lesson reads what another trained with the same numbers."""
    return tmp_path_factory.mktemp("runs")


@pytest.mark.parametrize("lesson", lessons(), ids=lambda path: path.stem)
def test_a_lesson_runs_with_other_parameters_and_says_what_it_cost(
    lesson: Path, runs_dir, tmp_path
):
    given = CHANGED[lesson.stem] | {"runs_dir": str(runs_dir)}
    node = nbformat.read(execute(lesson, tmp_path / lesson.name, given), as_version=4)
    outputs = [output for cell in node.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    [cost] = [o.metadata.safeerase for o in outputs if "safeerase" in o.get("metadata", {})]
    assert cost["peak_memory_gb"] < 2
