"""The tool behind the exercises: from one source, what students get and what tutors get.

A source, `notebooks/exercises/a_name.ipynb`, holds prose, solutions and everything around them; the
module `safeerase_lite/exercises/a_name.py` declares the exercises. From both come the box above an
exercise, the cell that checks and grades it, the student's copy (what nbgrader would release), the
tutor's page, and the table of contents.
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
        module = f"module safeerase_lite/exercises/{name}.py"
        lacks = module if name in files else f"notebook notebooks/exercises/{name}.ipynb"
        raise UserError(f"the exercises {name} have no {lacks}: write it, under this name")
    return {name: (files[name], declared[name]) for name in files}


def completed(node: NotebookNode, module: ModuleType, address: str = "") -> NotebookNode:
    """A source with its generated cells made anew, nbgrader's metadata, and no outputs."""
    exercises = {exercise.id: exercise for exercise in module.EXERCISES}
    old = {id for exercise in exercises for id in (exercise, f"{exercise}-test")}
    cells, boxed = [], set()
    for cell in node.cells:
        if cell.id in old:
            continue
        id, _, part = cell.id.partition("-")
        exercise = exercises.get(id)
        if exercise and id not in boxed:
            boxed.add(id)
            cells.append(lessons.mark_generated(new_markdown_cell(box(exercise)), id))
        if cell.id == "import":
            lessons.mark_generated(cell, "import").source = lessons.import_source(address)
        cells.append(cell)
        if exercise and part == "answer":
            cell.metadata["nbgrader"] = _nbgrader(cell.id, solution=True)
            cells.append(_test_cell(exercise))
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
        f"| {_ratings(exercise)} |"
    )


def _ratings(exercise: Exercise) -> str:
    """Difficulty and importance, of five, minutes and points, as cells of a table."""
    of_five = ["●" * n + "○" * (5 - n) for n in (exercise.difficulty, exercise.importance)]
    return f"{' | '.join(of_five)} | {exercise.minutes} | {exercise.points}"


def _test_cell(exercise: Exercise) -> NotebookNode:
    call = f'("{exercise.id}", {exercise.name})'
    cell = new_code_cell(
        f"check{call}\n### BEGIN HIDDEN TESTS\nfrom safeerase_lite.exercises import score\n\n"
        f"score{call}\n### END HIDDEN TESTS"
    )
    id = f"{exercise.id}-test"
    cell.metadata["nbgrader"] = _nbgrader(id, solution=False, points=exercise.points)
    return lessons.mark_generated(cell, id)


def _nbgrader(id: str, solution: bool, **points: int) -> NotebookNode:
    about = {"schema_version": 3, "grade_id": id, "solution": solution, "task": False}
    return NotebookNode(about | {"grade": not solution, "locked": not solution} | points)


# ---- what every source holds to ----


def findings(node: NotebookNode, module: ModuleType, name: str) -> list[str]:
    """What is wrong with a completed source, a line each."""
    lesson = lesson_rules.Lesson(name, Path(), {})
    wrong = [*lesson_rules.form(node, lesson), *lesson_rules.kernelspec(node, lesson)]
    declared = {exercise.id: exercise for exercise in module.EXERCISES}
    wrong += [(id, what) for id, exercise in declared.items() for what in _lacks(node, exercise)]
    for cell in node.cells:
        if re.match(r"[a-z]\d+-", cell.id) and cell.id.split("-")[0] not in declared:
            wrong.append((cell.id, "belongs to no exercise of its module: declare it"))
        if cell.cell_type == "markdown" and LINK.search(cell.source):
            wrong.append((cell.id, "has a relative link, dead in a copy: name the lesson"))
    return [f"{name}: {place}: {what}" for place, what in wrong]


def _lacks(node: NotebookNode, exercise: Exercise) -> list[str]:
    """What an exercise lacks in its notebook."""
    own = [cell for cell in node.cells if cell.id.split("-")[0] == exercise.id]
    code = "\n".join(cell.source for cell in own if cell.cell_type == "code")
    *texts, last = [cell.source for cell in own if cell.cell_type == "markdown"] or [""]
    task = "\n".join(texts)
    lacks = []
    if f'sl.predict("{exercise.id}"' not in code.split("### BEGIN SOLUTION")[0]:
        lacks.append(f'asks for no prediction: sl.predict("{exercise.id}", …) before the answer')
    if task.count("<details>") != HINTS or task.count("</details>") != HINTS:
        lacks.append(f"has not {HINTS} hints: write each in <details>")
    if not own or own[-1].id != f"{exercise.id}-discussion":
        lacks.append(f"does not end in a discussion: add the cell {exercise.id}-discussion")
    elif not last.startswith("<details>"):
        lacks.append("has an open discussion, which spoils the task: fold it, <details>…</details>")
    if not solution(node, exercise).strip():
        lacks.append(f"has no solution: write it into the cell {exercise.id}-answer")
    elif " ..." not in code.split("### BEGIN SOLUTION")[0]:
        lacks.append("has no `...` above its solution: a student's copy would not run")
    return lacks


def solution(node: NotebookNode, exercise: Exercise) -> str:
    """The text between the markers of an exercise's answer; "" when there is none."""
    answers = [cell.source for cell in node.cells if cell.id == f"{exercise.id}-answer"]
    return "".join(SOLUTION.findall("\n".join(answers)))


def without_markers(source: str) -> str:
    """A cell without nbgrader's marker lines."""
    return re.sub(r"^ *### (BEGIN|END) .*\n?", "", source, flags=re.M).rstrip("\n")


# ---- the student's copy, the tutor's page, the table of contents ----


def for_students(node: NotebookNode, folder: Path) -> NotebookNode:
    """What `nbgrader generate_assignment` makes of a source, with the configuration in `folder`."""
    from nbgrader import preprocessors as step
    from traitlets.config import PyFileConfigLoader

    config = PyFileConfigLoader(CONFIG, path=str(folder)).load_config()
    student, resources = copy.deepcopy(node), {}
    for make in (
        step.LockCells, step.ClearSolutions, step.ClearOutput,
        step.CheckCellMetadata, step.ClearHiddenTests, step.ComputeChecksums,
    ):  # fmt: skip
        student, resources = make(config=config).preprocess(student, resources)
    return student


def for_tutors(node: NotebookNode, module: ModuleType) -> str:
    """Timing, points, tasks, solutions, what comes true of the prediction, and for each mistake
    its message to students and how many points it gives, as Markdown."""
    rows = [f"| {e.id} | {e.title} | {_ratings(e)} |\n" for e in module.EXERCISES]
    return (
        f"# {module.TITLE}: for the tutor\n\n"
        "| | exercise | difficulty | importance | minutes | points |\n|---|---|---|---|---:|---:|\n"
        f"{''.join(rows)}| | together | | | {_totals(module)} |\n\n"
        + "\n".join(_for_tutors(node, exercise) for exercise in module.EXERCISES)
    )


def _for_tutors(node: NotebookNode, exercise: Exercise) -> str:
    ids = [cell.id for cell in node.cells]
    first, last = (ids.index(f"{exercise.id}-{part}") for part in ("question", "answer"))
    question, *task = [c.source for c in node.cells[first:last] if c.cell_type == "markdown"]
    # As one would write it: without markers, and without the `x = ...` before its solution.
    code = without_markers(node.cells[last].source)
    code = re.sub(r"^ *[\w, \[\]]+ = \.\.\.(, \.\.\.)*\n", "", code, flags=re.M)
    right = f"agreement with the solution on {SAMPLES} inputs that the student has not seen"
    if exercise.inputs is None:
        right = f"`{brief(exercise.reference)}`"
    mistakes = [
        f"| {mistake.credit * exercise.points:g} | "
        f"{'' if exercise.inputs else f'`{brief(mistake.answer)}`: '}{mistake.message} |\n"
        for mistake in exercise.mistakes
    ]
    return (
        f"## {exercise.id} · {exercise.title}\n\n{question}\n\n"
        f"**What comes true:** {exercise.outcome}\n\n"
        + "".join(f"{part}\n\n" for part in task)
        + f"```python\n{code}\n```\n\n| points | for |\n|---:|---|\n"
        f"| {exercise.points} | {right} |\n{''.join(mistakes)}| 0 | anything else |\n"
    )


def contents(root: Path) -> str:
    """Notebook, exercises, minutes, points, and badges where the address is known."""
    about = lessons.course(root)
    rows = ["| | exercises | minutes | points |", "|---|---:|---:|---:|"]
    for name, (_, module) in sources(root).items():
        badges = lessons.badges(about, f"exercises/student/{name}.ipynb")
        first = f"{name[0]} [{module.TITLE}](student/{name}.ipynb) {badges}".strip()
        rows.append(f"| {first} | {len(module.EXERCISES)} | {_totals(module)} |")
    return "\n".join(rows)


def _totals(module: ModuleType) -> str:
    """Minutes and points of a notebook, as two cells of a table."""
    return " | ".join(
        str(sum(getattr(exercise, field) for exercise in module.EXERCISES))
        for field in ("minutes", "points")
    )


# ---- the files ----


def committed(root: Path) -> dict[Path, str]:
    """The text of every committed file that is generated, fully or in part.

    Raises:
        UserError: a source breaks a rule; every finding is a line.
    """
    folder, address = root / "notebooks/exercises", lessons.course(root).address
    files, wrong = {}, []
    for path, module in sources(root).values():
        node = completed(lessons.read(path), module, address)
        wrong += findings(node, module, path.name)
        files[path] = lesson_rules.written(node)
        if not wrong:
            student = for_students(node, folder)
            files[folder / "student" / path.name] = lesson_rules.written(student)
    if wrong:
        raise UserError("\n".join(wrong))
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
    """Committed files that are not as generated, and students' copies of no source."""
    files = committed(root)
    copies = set((root / "notebooks/exercises/student").glob("*.ipynb"))
    wrong = {path for path, text in files.items() if not _is_current(path, text)}
    return sorted(str(path.relative_to(root)) for path in wrong | (copies - files.keys()))


def _is_current(path: Path, text: str) -> bool:
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
        if not _is_current(path, text):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            typer.echo(f"{path.relative_to(root)}: written")


@app.command("check")
def check_command(root: Root = ROOT) -> None:
    """Name every committed file that is not what its source gives; status 1 when there is one."""
    wrong = stale(root)
    typer.echo("\n".join(f"{path}: not what its source gives" for path in wrong) or "as generated")
    if wrong:
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
