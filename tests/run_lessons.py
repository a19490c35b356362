"""A lesson's code in the process of a test."""

from pathlib import Path

import nbformat

NOTEBOOKS = (Path(__file__).parents[1] / "notebooks").glob("*.ipynb")
LESSONS = {path.name[:2]: path for path in NOTEBOOKS}


def lesson_03(model: Path, data: Path, folder: Path):
    """Lesson 03, executed with two steps on a model and data by `safeerase run`'s own way in the
    profile `laptop`; nothing on stderr."""
    from safeerase_lite.runs.notebook import execute

    given = {"profile": "laptop", "model_dir": str(model), "data_dir": str(data), "steps": 2,
             "runs_dir": str(folder / "runs")}  # fmt: skip
    node = nbformat.read(execute(LESSONS["03"], folder / "03.ipynb", given), as_version=4)
    outputs = [output for cell in node.cells for output in cell.get("outputs", [])]
    told = [output["text"] for output in outputs if output.get("name") == "stderr"]
    # LFM2 on a CPU: transformers says once that a GPU's kernel is not installed.
    assert not [text for text in told if "falling back to its reference" not in text]
    return node


def run_here(number, **parameters):
    """A lesson's code, in this process."""
    names = {"display": print}
    for cell in nbformat.read(LESSONS[number], as_version=4).cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, cell.id, "exec"), names)
        if "parameters" in cell.metadata.get("tags", []):
            names.update(parameters)
