"""What every committed lesson holds to.

A rule takes a notebook and the lesson it should be, and yields (cell id, what is wrong and what to
do); `-` is the notebook itself.
"""

import ast
import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.validator import iter_validate

from safeerase_lite.runs.notebook import TYPES, parameters
from safeerase_lite.utils import UserError

MAX_BYTES = 150_000  # bytes
MAX_LINES = 150  # of code; the rest belongs to safeerase_lite/lessons, with tests
FIGURE, TO_DO = "figure", "to-do"  # tags
COLLAPSED = "hide-output"  # the tag for the site; JupyterLab has metadata of its own
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:tmp|home|root|Users)\b|site-packages")
LINK = re.compile(r"\]\((?!https?:|mailto:|attachment:|#)([^)#\s]+)")
NOTEBOOK = "-"


@dataclass(frozen=True)
class Lesson:
    """A lesson's file name, its folder, and the source of its generated cells by id."""

    name: str
    folder: Path
    generated: dict[str, str]


Findings = Iterator[tuple[str, str]]
RULES: list[Callable[[NotebookNode, Lesson], Findings]] = []


def rule(check: Callable[[NotebookNode, Lesson], Findings]) -> Callable:
    """Enter a rule that every lesson of a sound form is held to."""
    RULES.append(check)
    return check


def findings(node: NotebookNode, lesson: Lesson) -> list[str]:
    """What is wrong with a lesson, a line each: `file: cell id: what is wrong, what to do`."""
    wrong = list(form(node, lesson))
    if not wrong:  # the rules rest on a sound form
        wrong = [finding for check in RULES for finding in check(node, lesson)]
    return [f"{lesson.name}: {cell}: {what}" for cell, what in wrong]


def form(node: NotebookNode, lesson: Lesson) -> Findings:
    """A valid notebook of nbformat 4.5 with unique ids."""
    if (node.get("nbformat"), node.get("nbformat_minor")) != (4, 5):
        yield NOTEBOOK, "is not nbformat 4.5: open it in JupyterLab 4 and save it"
        return
    for error in iter_validate(node):
        yield NOTEBOOK, f"is no valid notebook ({str(error).splitlines()[0]}): restore it"
    for id, count in Counter(cell.get("id") for cell in node.cells).items():
        if count > 1:
            yield id, f"this id stands on {count} cells: give each its own"
    if not cells(node, "code"):
        yield NOTEBOOK, "has no code: a lesson runs"


@rule
def kernelspec(node: NotebookNode, lesson: Lesson) -> Findings:
    """Without it JupyterLab asks for a kernel first."""
    if not node.metadata.get("kernelspec", {}).get("name"):
        yield NOTEBOOK, "has no metadata.kernelspec: set it to python3"


@rule
def navigation(node: NotebookNode, lesson: Lesson) -> Findings:
    """The generated cells are in their places and equal what would be generated now."""
    by_id = {cell.id: cell for cell in node.cells}
    for id, source in lesson.generated.items():
        if id not in by_id:
            alone = " (it takes the cell that says only `import safeerase_lite as sl`)"
            yield id, f"is missing: run `navigate`{alone if id == 'import' else ''}"
        elif by_id[id].source != source or "generated" not in by_id[id].metadata.get("tags", []):
            yield id, "is not as generated: run `navigate`"
    places = {"navigation": node.cells[0], "navigation-end": node.cells[-1]}
    for id, cell in places.items():
        if id in by_id and cell.id != id:
            yield id, "is not in its place: run `navigate`"
    if "import" in by_id and cells(node, "code")[0].id != "import":
        yield cells(node, "code")[0].id, "is code before the import: let the import come first"


@rule
def relative_links(node: NotebookNode, lesson: Lesson) -> Findings:
    """What a relative link points at is there."""
    for cell in cells(node, "markdown"):
        for target in LINK.findall(cell.source):
            if not (lesson.folder / target).exists():
                yield cell.id, f"links to {target}, which is not there: correct the link"


@rule
def parameters_cell(node: NotebookNode, lesson: Lesson) -> Findings:
    """One cell tagged `parameters`, of which papermill reads each line, type and all."""
    tagged = [cell for cell in node.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        yield NOTEBOOK, f"{len(tagged)} cells are tagged 'parameters': tag the one that holds them"
        return
    [cell] = tagged
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / lesson.name
        copy.write_text(written(node), encoding="utf-8")
        try:
            types = {parameter.name: parameter.type for parameter in parameters(copy)}
            lines = ast.parse(cell.source).body
        except UserError as error:
            yield cell.id, str(error).replace(str(copy), lesson.name)
            return
    for line in lines:
        name = getattr(getattr(line, "target", None), "id", None)
        if types.get(name, "").split("[")[0] not in TYPES:
            yield (
                cell.id,
                (
                    f"papermill cannot read line {line.lineno} with its type: write "
                    f"`name: type = literal  # help`, the type one of {', '.join(TYPES)}"
                ),
            )


@rule
def opening(node: NotebookNode, lesson: Lesson) -> Findings:
    """A title, and before any code but the import what is learned, how long, what it needs."""
    own = [cell for cell in node.cells if cell.id not in lesson.generated]
    first = next((n for n, cell in enumerate(own) if cell.cell_type == "code"), len(own))
    text = "\n".join(cell.source for cell in own[:first])
    if not title(node):
        yield NOTEBOOK, "has no `# ` heading: give it a title"
    for words in ("You will learn", "Minutes", "Needs", "The question", "The figure", "To do"):
        if f"**{words}" not in text:
            yield NOTEBOOK, f"does not open with **{words}**: say it before the first code"


@rule
def story(node: NotebookNode, lesson: Lesson) -> Findings:
    """One figure answers its question, and at least one cell asks the reader to do something."""
    tagged = {tag: [c for c in node.cells if tag in c.metadata.get("tags", [])]
              for tag in (FIGURE, TO_DO)}  # fmt: skip
    if len(tagged[FIGURE]) != 1:
        yield (
            NOTEBOOK,
            f"{len(tagged[FIGURE])} cells are tagged {FIGURE!r}: tag the one that answers",
        )
    for cell in tagged[FIGURE]:
        if not any("image/png" in output.get("data", {}) for output in cell.get("outputs", [])):
            yield cell.id, f"is tagged {FIGURE!r} and shows no picture: run the lesson again"
    if not tagged[TO_DO]:
        yield NOTEBOOK, f"no cell is tagged {TO_DO!r}: let the reader do something, and tag it"


@rule
def length(node: NotebookNode, lesson: Lesson) -> Findings:
    """Short enough to be read: what is long is a function of the package."""
    lines = [line for cell in cells(node, "code") for line in cell.source.split("\n")]
    if (count := sum(bool(line.strip()) for line in lines)) > MAX_LINES:
        yield (
            NOTEBOOK,
            f"has {count} lines of code, {MAX_LINES} at most: move functions into "
            "safeerase_lite/lessons",
        )


@rule
def spoilers(node: NotebookNode, lesson: Lesson) -> Findings:
    """What is saved between a prediction and its outcome is collapsed: it would tell."""
    for cell in revealing(node):
        if cell.outputs and not is_collapsed(cell):
            yield cell.id, "shows what was to be predicted: run `navigate`, which collapses it"


@rule
def sections(node: NotebookNode, lesson: Lesson) -> Findings:
    """It asks what would refute it, and says where to go on."""
    headings = re.findall(
        r"^#+ (.+?)\s*$", "\n".join(c.source for c in cells(node, "markdown")), re.M
    )
    for section in ("What would refute this?", "What to try next"):
        if section not in headings:
            yield NOTEBOOK, f"has no section '{section}': add it"


@rule
def predictions(node: NotebookNode, lesson: Lesson) -> Findings:
    """Two predictions or more, each before its outcome, and a calibration after them all."""
    predicted: dict[str, tuple[int, int]] = {}
    revealed: dict[str, tuple[int, int]] = {}
    calibrated = (-1, 0)
    for number, cell in enumerate(node.cells):
        if cell.cell_type != "code":
            continue
        for call in re.finditer(r"\bsl\.(predict|outcome)\(\s*[\"']([^\"']+)", cell.source):
            places = predicted if call[1] == "predict" else revealed
            places.setdefault(call[2], (number, call.start()))
        for call in re.finditer(r"\bsl\.calibration\(", cell.source):
            calibrated = (number, call.start())
    if len(predicted) < 2:
        yield (
            NOTEBOOK,
            f"asks for {len(predicted)} predictions: ask for two or more with sl.predict",
        )
    for id, place in predicted.items():
        if revealed.get(id, (-1, 0)) < place:
            cell = node.cells[place[0]].id
            yield cell, f"prediction {id!r} has no sl.outcome after it: add its reveal"
    if calibrated < max(revealed.values(), default=(0, 0)):
        yield NOTEBOOK, "has no sl.calibration after the last sl.outcome: add it near the end"


@rule
def stamp(node: NotebookNode, lesson: Lesson) -> Findings:
    """The last code stamps, and its output carries seconds and memory for the table."""
    last = cells(node, "code")[-1]
    if "sl.stamp(" not in last.source:
        yield last.id, "is the last code and does not call sl.stamp: end with it"
    elif not stamped(node):
        yield last.id, "has no stamp in its output: run the lesson again"


@rule
def alt_text(node: NotebookNode, lesson: Lesson) -> Findings:
    """Every picture says what it shows, in outputs and in Markdown."""
    for cell, output in outputs(node):
        if "image/png" in output.get("data", {}):
            about = output.get("metadata", {}).get("image/png", {})
            if not about.get("alt", "").strip():
                yield cell.id, "shows a picture without alt text: show it with sl.plots.show"
    for cell in cells(node, "markdown"):
        if re.search(r"!\[\s*\]\(", cell.source):
            yield cell.id, "has a picture without alt text: write it between the brackets"


@rule
def stripped(node: NotebookNode, lesson: Lesson) -> Findings:
    """No widget state (GitHub would show nothing) and no trace of papermill."""
    parts = [(NOTEBOOK, node.metadata), *((cell.id, cell.metadata) for cell in node.cells)]
    for id, metadata in parts:
        for key in sorted({"widgets", "papermill", "safeerase"} & metadata.keys()):
            yield id, f"carries metadata.{key}: strip it"


@rule
def quiet(node: NotebookNode, lesson: Lesson) -> Findings:
    """No error, and nothing on stderr."""
    for cell, output in outputs(node):
        if output.output_type == "error":
            yield cell.id, f"ends in {output.ename}: mend it and run the lesson again"
        elif output.get("name") == "stderr":
            yield cell.id, "writes to stderr: silence what warns and run the lesson again"


@rule
def machine_paths(node: NotebookNode, lesson: Lesson) -> Findings:
    """Outputs name no folder of the machine that made them."""
    for cell, output in outputs(node):
        texts = [str(text) for kind, text in output.get("data", {}).items() if "image/" not in kind]
        texts += [output.get("text", ""), json.dumps(output.get("metadata", {}))]
        if path := MACHINE_PATH.search("\n".join(texts)):
            yield cell.id, f"prints a path of this machine ({path[0]}): print the name alone"


@rule
def executed(node: NotebookNode, lesson: Lesson) -> Findings:
    """Run once, from top to bottom, and committed with what came out."""
    code = [cell for cell in cells(node, "code") if cell.source.strip()]
    for count, cell in enumerate(code, 1):
        if cell.execution_count != count:
            yield cell.id, f"ran as [{cell.execution_count}], should be [{count}]: run all in order"
            return
    if not any(cell.outputs for cell in code):
        yield NOTEBOOK, "has no outputs: commit it executed"


@rule
def size(node: NotebookNode, lesson: Lesson) -> Findings:
    """Small enough to be read on GitHub and stored in git."""
    weight = len(written(node).encode())
    if weight > MAX_BYTES:
        yield (
            NOTEBOOK,
            f"weighs {weight / 1e3:.0f} KB of {MAX_BYTES / 1e3:.0f}: show fewer pictures",
        )


# ---- looking at a notebook ----


def revealing(node: NotebookNode) -> list[NotebookNode]:
    """The cells of code after a prediction, up to the one that tells its outcome."""
    waiting: set[str] = set()
    found = []
    for cell in cells(node, "code"):
        asked, told = (set(re.findall(rf"\bsl\.{name}\(\s*[\"']([^\"']+)", cell.source))
                       for name in ("predict", "outcome"))  # fmt: skip
        if waiting and not asked:
            found.append(cell)
        waiting = (waiting | asked) - told
    return found


def is_collapsed(cell: NotebookNode) -> bool:
    """Whether its output waits for a click, in JupyterLab and on the site."""
    hidden = cell.metadata.get("jupyter", {}).get("outputs_hidden", False)
    return hidden and COLLAPSED in cell.metadata.get("tags", [])


def title(node: NotebookNode) -> str:
    """The first `# ` heading, "" when there is none."""
    text = "\n".join(cell.source for cell in cells(node, "markdown"))
    return heading[1].strip() if (heading := re.search(r"^# (.+)$", text, re.M)) else ""


def stamped(node: NotebookNode) -> dict | None:
    """The stamp's figures: {"seconds": …, "peak_memory_gb": …}."""
    figures = [output.get("metadata", {}).get("safeerase") for _, output in outputs(node)]
    return next(filter(None, reversed(figures)), None)


def written(node: NotebookNode) -> str:
    """A notebook as the text of its file."""
    return nbformat.v4.writes(node).rstrip("\n") + "\n"


def cells(node: NotebookNode, kind: str) -> list[NotebookNode]:
    """The cells of a kind: code or markdown."""
    return [cell for cell in node.cells if cell.cell_type == kind]


def outputs(node: NotebookNode) -> list[tuple[NotebookNode, NotebookNode]]:
    """Every output, after its cell."""
    return [(cell, output) for cell in cells(node, "code") for output in cell.outputs]
