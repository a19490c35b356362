"""The tool behind the exercises: from one source, what students get and what tutors get.

A source, `notebooks/exercises/a_name.ipynb`, holds prose, solutions and everything around them; the
module `safeerase_lite/exercises/a_name.py` declares the exercises. From both come the box above an
exercise, the cell that checks and grades it, the student's copy (what nbgrader would release), the
tutor's page, and the table of what there is.
"""

import copy
import re
from pathlib import Path
from types import ModuleType
from typing import Annotated

import lesson_rules
import lessons
import typer
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

from safeerase_lite.cli import OneLineErrors
from safeerase_lite.exercises import Exercise, modules
from safeerase_lite.exercises.checking import SAMPLES
from safeerase_lite.exercises.comparing import brief
from safeerase_lite.utils import UserError

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "nbgrader_config.py"
MARKERS = ("<!-- exercises -->", "<!-- /exercises -->")
SOLUTION = re.compile(r"^ *### BEGIN SOLUTION\n(.*?)^ *### END SOLUTION", re.M | re.S)
HINTS = 3
LINK = re.compile(r"\]\((?!https?:|#)")


# ---- the source, completed ----


def sources(root: Path) -> dict[str, tuple[Path, ModuleType]]:
    """Every source and the module that declares its exercises, by their common name.

    Raises:
        UserError: one of the two is missing.
    """
    files = {path.stem: path for path in sorted((root / "notebooks/exercises").glob("*.ipynb"))}
    declared = {module.__name__.split(".")[-1]: module for module in modules().values()}
    for name in sorted(files.keys() ^ declared.keys()):
        lacks = f"module safeerase_lite/exercises/{name}.py"
        lacks = lacks if name in files else f"notebook notebooks/exercises/{name}.ipynb"
        raise UserError(f"the exercises {name} have no {lacks}: write it, under this name")
    return {name: (files[name], declared[name]) for name in files}


def completed(node: NotebookNode, module: ModuleType, address: str = "") -> NotebookNode:
    """A source with its generated cells made anew, nbgrader's metadata, and no outputs."""
    exercises = {exercise.id: exercise for exercise in module.EXERCISES}
    generated = {id for exercise in exercises for id in (exercise, f"{exercise}-test")}
    boxed, cells = set(), []
    for cell in node.cells:
        if cell.id in generated:
            continue
        id, _, part = cell.id.partition("-")
        if id in exercises and id not in boxed:
            boxed.add(id)
            cells.append(_generated(new_markdown_cell(box(exercises[id])), id))
        if cell.id == "import":
            _generated(cell, "import").source = lessons.import_source(address)
        cells.append(cell)
        if id in exercises and part == "answer":
            cell.metadata["nbgrader"] = _metadata(cell.id, solution=True)
            cells.append(_test(exercises[id]))
    for cell in cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    metadata = {"kernelspec": node.metadata["kernelspec"], "language_info": {"name": "python"}}
    return NotebookNode(node | {"cells": cells, "metadata": NotebookNode(metadata)})


def box(exercise: Exercise) -> str:
    """Title, difficulty, importance, minutes and points, as Markdown."""
    return (
        f"## {exercise.id} · {exercise.title}\n\n"
        "| difficulty | importance | minutes | points |\n|:-:|:-:|:-:|:-:|\n"
        f"| {_of_five(exercise.difficulty)} | {_of_five(exercise.importance)} "
        f"| {exercise.minutes} | {exercise.points} |"
    )


def _of_five(level: int) -> str:
    return "●" * level + "○" * (5 - level)


def _test(exercise: Exercise) -> NotebookNode:
    call = f'("{exercise.id}", {exercise.name})'
    cell = new_code_cell(
        f"check{call}\n### BEGIN HIDDEN TESTS\nfrom safeerase_lite.exercises import score\n\n"
        f"score{call}\n### END HIDDEN TESTS"
    )
    id = f"{exercise.id}-test"
    cell.metadata["nbgrader"] = _metadata(id, points=exercise.points)
    return _generated(cell, id)


def _metadata(id: str, solution: bool = False, **points: int) -> NotebookNode:
    return NotebookNode(
        schema_version=3,
        grade_id=id,
        solution=solution,
        grade=not solution,
        locked=not solution,
        task=False,
        **points,
    )


def _generated(cell: NotebookNode, id: str) -> NotebookNode:
    cell.id = id
    cell.metadata["tags"] = sorted({*cell.metadata.get("tags", []), "generated"})
    return cell


# ---- what every source holds to ----


def findings(node: NotebookNode, module: ModuleType, name: str) -> list[str]:
    """What is wrong with a completed source, a line each."""
    lesson = lesson_rules.Lesson(name, Path(), {})
    form = [*lesson_rules.form(node, lesson), *lesson_rules.kernelspec(node, lesson)]
    found = [f"{name}: {cell}: {what}" for cell, what in form]
    for exercise in module.EXERCISES:
        found += [f"{name}: {exercise.id}: {what}" for what in _lacks(node, exercise)]
    declared = {exercise.id for exercise in module.EXERCISES}
    for cell in node.cells:
        if re.match(r"[a-z]\d+-", cell.id) and cell.id.split("-")[0] not in declared:
            found.append(f"{name}: {cell.id}: belongs to no exercise of its module: declare it")
        if cell.cell_type == "markdown" and LINK.search(cell.source):
            found.append(f"{name}: {cell.id}: has a relative link, dead in a copy: name the lesson")
    return found


def _lacks(node: NotebookNode, exercise: Exercise) -> list[str]:
    own = [cell for cell in node.cells if cell.id.split("-")[0] == exercise.id]
    ids = [cell.id.partition("-")[2] for cell in own]
    code = "\n".join(cell.source for cell in own if cell.cell_type == "code")
    *told, last = [cell.source for cell in own if cell.cell_type == "markdown"] or [""]
    prose = "\n".join(told)
    found = []
    if f'sl.predict("{exercise.id}"' not in code.split("### BEGIN SOLUTION")[0]:
        found.append(f'asks for no prediction: sl.predict("{exercise.id}", …) before the answer')
    if prose.count("<details>") != HINTS or prose.count("</details>") != HINTS:
        found.append(f"has not {HINTS} hints: write each in <details>")
    if ids[-1:] != ["discussion"]:
        found.append(f"does not end in a discussion: add the cell {exercise.id}-discussion")
    elif not last.startswith("<details>"):
        found.append("has an open discussion, which spoils the task: fold it, <details>…</details>")
    if not solution(node, exercise).strip():
        found.append(f"has no solution: write it into the cell {exercise.id}-answer")
    elif " ..." not in code.split("### BEGIN SOLUTION")[0]:
        found.append("has no `...` above its solution: a student's copy would not run")
    return found


def solution(node: NotebookNode, exercise: Exercise) -> str:
    """What stands between the markers of an exercise's answer, "" when nothing does."""
    for cell in node.cells:
        if cell.id == f"{exercise.id}-answer":
            return "".join(SOLUTION.findall(cell.source))
    return ""


def without_stub(source: str) -> str:
    """An answer as one would write it: no markers, and no `x = ...` before its solution."""
    return re.sub(r"^ *[\w, \[\]]+ = \.\.\.(, \.\.\.)*\n", "", without_markers(source), flags=re.M)


def without_markers(source: str) -> str:
    """A cell without nbgrader's marker lines."""
    return re.sub(r"^ *### (BEGIN|END) .*\n?", "", source, flags=re.M).rstrip("\n")


# ---- the student's copy ----


def for_students(node: NotebookNode, folder: Path) -> NotebookNode:
    """What `nbgrader generate_assignment` makes of a source, with the configuration in `folder`."""
    from nbgrader.preprocessors import (
        CheckCellMetadata,
        ClearHiddenTests,
        ClearOutput,
        ClearSolutions,
        ComputeChecksums,
        LockCells,
    )
    from traitlets.config import PyFileConfigLoader

    config = PyFileConfigLoader(CONFIG, path=str(folder)).load_config()
    steps = (LockCells, ClearSolutions, ClearOutput, CheckCellMetadata, ClearHiddenTests)
    made, resources = copy.deepcopy(node), {}
    for step in (*steps, ComputeChecksums):
        made, resources = step(config=config).preprocess(made, resources)
    return made


# ---- the tutor's page ----


def for_tutors(node: NotebookNode, module: ModuleType) -> str:
    """Timing, points, tasks, solutions, what comes true of the prediction, and what is told and
    given for which mistake, as Markdown."""
    sources = {cell.id: cell.source for cell in node.cells}
    rows = [
        f"| {e.id} | {e.title} | {_of_five(e.difficulty)} | {_of_five(e.importance)} | {e.minutes} "
        f"| {e.points} |"
        for e in module.EXERCISES
    ]
    minutes, points = (
        sum(getattr(e, of) for e in module.EXERCISES) for of in ("minutes", "points")
    )
    lines = [
        f"# {module.TITLE}: for the tutor\n",
        "| | exercise | difficulty | importance | minutes | points |\n|---|---|---|---|---:|---:|",
        *rows,
        f"| | together | | | {minutes} | {points} |\n",
    ]
    for exercise in module.EXERCISES:
        question, *task = [cell.source for cell in _told(node, exercise)]
        lines += [
            f"## {exercise.id} · {exercise.title}\n",
            f"{question}\n",
            f"**What comes true:** {exercise.outcome}\n",
            *(f"{part}\n" for part in task),
            f"```python\n{without_stub(sources[f'{exercise.id}-answer'])}\n```\n",
            "| points | for |\n|---:|---|",
            f"| {exercise.points} | {_right(exercise)} |",
            *(_mistaken(exercise, mistake) for mistake in exercise.mistakes),
            "| 0 | anything else |\n",
        ]
    return "\n".join(lines)


def _told(node: NotebookNode, exercise: Exercise) -> list[NotebookNode]:
    """Question and task of an exercise, up to its answer."""
    ids = [cell.id for cell in node.cells]
    first, last = (ids.index(f"{exercise.id}-{part}") for part in ("question", "answer"))
    return [cell for cell in node.cells[first:last] if cell.cell_type == "markdown"]


def _right(exercise: Exercise) -> str:
    if exercise.inputs is None:
        return f"`{brief(exercise.reference)}`"
    return f"agreement with the solution on {SAMPLES} inputs that the student has not seen"


def _mistaken(exercise: Exercise, mistake) -> str:
    wrong = "" if exercise.inputs else f"`{brief(mistake.answer)}`: "
    return f"| {mistake.credit * exercise.points:g} | {wrong}{mistake.message} |"


# ---- the table of what there is ----


def contents(root: Path) -> str:
    """Notebook, exercises, minutes, points, and badges where the address is known."""
    about = lessons.course(root)
    rows = ["| | exercises | minutes | points | open |", "|---|---:|---:|---:|---|"]
    for name, (_, module) in sources(root).items():
        minutes, points = (
            sum(getattr(exercise, of) for exercise in module.EXERCISES)
            for of in ("minutes", "points")
        )
        badges = lessons.badges(about, f"exercises/student/{name}.ipynb")
        rows.append(
            f"| {name[0]} [{module.TITLE}](student/{name}.ipynb) | {len(module.EXERCISES)} "
            f"| {minutes} | {points} | {badges} |"
        )
    return "\n".join(rows)


# ---- all of it ----


def committed(root: Path) -> dict[Path, str]:
    """Every committed file that is generated, whole or in part, and what it should say.

    Raises:
        UserError: a source breaks a rule; every finding is a line.
    """
    folder, address = root / "notebooks/exercises", lessons.course(root).address
    files, found = {}, []
    for path, module in sources(root).values():
        node = completed(lessons.read(path), module, address)
        found += findings(node, module, path.name)
        files[path] = lesson_rules.written(node)
        if not found:
            copied = for_students(node, folder)
            files[folder / "student" / path.name] = lesson_rules.written(copied)
    if found:
        raise UserError("\n".join(found))
    page = folder / "README.md"
    text = page.read_text(encoding="utf-8")
    return files | {page: lessons.with_table(text, contents(root), MARKERS)}


def kit(root: Path) -> dict[Path, str]:
    """What goes into output/exercises: students' copies, tutors' pages, a course for nbgrader."""
    folder, output = root / "notebooks/exercises", root / "output/exercises"
    config = (folder / CONFIG).read_text(encoding="utf-8")
    files, made = {output / "course" / CONFIG: config}, committed(root)
    for name, (path, module) in sources(root).items():
        files[output / "student" / path.name] = made[folder / "student" / path.name]
        files[output / "course/source" / name / path.name] = made[path]
        node = completed(lessons.read(path), module)
        files[output / "tutor" / f"{name}.md"] = for_tutors(node, module)
    return files


def stale(root: Path) -> list[str]:
    """Committed files that do not say what they should, and students' copies of nothing."""
    files = committed(root)
    copies = set((root / "notebooks/exercises/student").glob("*.ipynb"))
    wrong = [path for path, text in files.items() if not _says(path, text)]
    return sorted(str(path.relative_to(root)) for path in {*wrong, *(copies - files.keys())})


def _says(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


# ---- the command line ----

app = typer.Typer(
    cls=OneLineErrors,
    no_args_is_help=True,
    add_completion=False,
    help="The exercises: students' copies and the tutor's kit, from one source.",
)
Root = Annotated[Path, typer.Option(help="The repository.", show_default="this one")]


@app.command("build")
def build_command(root: Root = ROOT) -> None:
    """Complete the sources, make the students' copies, and fill output/exercises."""
    for path, text in (committed(root) | kit(root)).items():
        if not _says(path, text):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            typer.echo(f"{path.relative_to(root)}: written")


@app.command("check")
def check_command(root: Root = ROOT) -> None:
    """Name every committed file that is not what its source gives; status 1 when there is one."""
    found = stale(root)
    typer.echo("\n".join(f"{path}: not what its source gives" for path in found) or "as generated")
    if found:
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
