"""Make the slides of the 90-minute class (docs/teaching.md) from the lessons: `make slides`.

One HTML file that needs nothing but a browser: arrow keys, or a swipe, lead from slide to slide.
Texts, code, tables and pictures are those of the committed lessons, so the two cannot differ.
"""

import re
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Annotated

import typer
from lesson_rules import outputs, title
from lessons import course, read
from nbconvert.filters import markdown2html
from nbformat import NotebookNode

from safeerase_lite.exercises import find
from safeerase_lite.utils import UserError

ROOT = Path(__file__).resolve().parents[1]
PAGE = Path(__file__).with_name("slides.html")
TEXT, CODE, SHOWN = "text", "code", "shown"  # parts of a slide
FORMULA = re.compile(r"\$\$.*?\$\$", re.S)  # a page without a network draws none: the code says it


@dataclass(frozen=True)
class Slide:
    """Cells of lesson 00 by their ids, and what of each is on the slide."""

    cells: tuple[tuple[str, str], ...] = ()
    exercises: tuple[str, ...] = ()  # instead of cells: ids
    minutes: int = 0
    paragraphs: int = 2  # of each text, its heading not counted


LESSON = "00_quickstart.ipynb"
CLASS = (
    Slide((("b4be0645", TEXT),), paragraphs=2),
    Slide((("27f4ad56", TEXT), ("9dc6a0ae", SHOWN)), minutes=10, paragraphs=0),
    Slide((("61dfedec", TEXT),)),
    Slide((("ccb65767", TEXT), ("43f705eb", SHOWN)), paragraphs=1),
    Slide((("q-predict", TEXT), ("q-predict-1", SHOWN))),
    Slide(exercises=("a1", "a2", "a3", "a4", "a5"), minutes=40),
    Slide(exercises=("a3", "a7"), minutes=10),
    Slide((("1d3413f1", SHOWN), ("33451b3e", TEXT)), minutes=20, paragraphs=1),
    Slide((("08e812f9", SHOWN), ("72f70b60", TEXT))),
    Slide((("four-cells", TEXT), ("two-by-two", SHOWN))),
    Slide((("da5bdd89", TEXT), ("6b93f378", CODE)), paragraphs=1),
    Slide((("6e8ce03c", TEXT), ("052538de", SHOWN)), paragraphs=0),
    Slide((("be7b2715", TEXT), ("q-predict-2", SHOWN))),
    Slide((("3c790f91", SHOWN), ("c80ac5af", TEXT)), paragraphs=1),
    Slide((("cb2cdafb", TEXT), ("0e053d76", SHOWN), ("a87c123d", TEXT)), minutes=10, paragraphs=1),
    Slide((("d3d13ef9", TEXT),)),
)


def slides(node: NotebookNode, plan: tuple[Slide, ...] = CLASS) -> list[str]:
    """The slides of a lesson, each as HTML.

    Raises:
        UserError: the plan names a cell that the lesson lacks, or what a cell shows and it shows
            nothing.
    """
    cells = {cell.id: cell for cell in node.cells}
    pages = []
    for slide in plan:
        parts = [_exercises(slide.exercises)] if slide.exercises else []
        for id, what in slide.cells:
            if id not in cells:
                raise UserError(f"{LESSON} has no cell {id!r}: correct CLASS in tools/slides.py")
            parts.append(_part(cells[id], what, node, slide.paragraphs))
        minutes = f'<p class="minutes">{slide.minutes} minutes</p>' if slide.minutes else ""
        pages.append("\n".join([minutes, *parts]))
    return pages


def _part(cell: NotebookNode, what: str, node: NotebookNode, paragraphs: int) -> str:
    if what == TEXT:
        return markdown2html(_shortened(cell.source, paragraphs))
    if what == CODE:
        return f"<pre><code>{escape(cell.source)}</code></pre>"
    shown = [_output(output) for of, output in outputs(node) if of.id == cell.id]
    if not (shown := [part for part in shown if part]):
        raise UserError(f"{LESSON}: cell {cell.id!r} shows nothing: run the lesson again")
    return "\n".join(shown)


def _shortened(source: str, paragraphs: int) -> str:
    """A text's heading and its first paragraphs, without formulas and links."""
    text = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", FORMULA.sub("", source))
    blocks = [block for block in text.split("\n\n") if block.strip()]
    headings = [block for block in blocks if block.startswith("#")]
    rest = [block for block in blocks if not block.startswith("#")]
    return "\n\n".join([*headings, *rest[:paragraphs]])


def _output(output: NotebookNode) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        alt = escape(output.metadata["image/png"]["alt"])
        return f'<img alt="{alt}" src="data:image/png;base64,{data["image/png"].strip()}">'
    if "text/html" in data:
        return "" if "<details>" in data["text/html"] else data["text/html"]
    return f"<p>{escape(output.get('text', '').strip())}</p>"


def _exercises(ids: tuple[str, ...]) -> str:
    rows = [f"<li><b>{id}</b> {escape(find(id).title)}</li>" for id in ids]
    return f"<h2>Exercises</h2><ul>{''.join(rows)}</ul>"


def page(root: Path) -> str:
    """The whole page."""
    node = read(course(root).folder / LESSON)
    sections = "\n".join(f"<section>{slide}</section>" for slide in slides(node))
    template = PAGE.read_text(encoding="utf-8")
    return template.replace("{title}", escape(title(node))).replace("{slides}", sections)


def main(
    output: Annotated[Path, typer.Argument(help="The page.")] = ROOT / "output" / "slides.html",
    root: Annotated[Path, typer.Option(hidden=True)] = ROOT,
) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(page(root), encoding="utf-8")
    typer.echo(f"{len(CLASS)} slides: {output}")


if __name__ == "__main__":
    typer.run(main)
