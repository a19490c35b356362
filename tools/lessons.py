"""The tool behind the lessons: navigation, rules, outputs, the table of what they cost.

The list of lessons is the folder: every notebooks/NN_name.ipynb in order, titled by its heading.
The repository's address is in one place, [project.urls] Repository of pyproject.toml; without
it there are no badges and nothing to install from.
"""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import nbformat
import typer
from lesson_rules import COLLAPSED, Lesson, findings, revealing, stamped, title, written
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from safeerase_lite.cli import OneLineErrors
from safeerase_lite.utils import UserError

ROOT = Path(__file__).resolve().parents[1]
PAGE = "docs/lessons.md"
CONTENTS = f"../{PAGE}"
IMPORT = "import safeerase_lite as sl"
GITHUB = re.compile(r"https://github\.com/([\w.-]+)/([\w.-]+?)(?:\.git)?/?")
MARKERS = ("<!-- lessons -->", "<!-- /lessons -->")


@dataclass(frozen=True)
class Course:
    """The lessons' folder, their titles by file name, in order, and OWNER/NAME on GitHub or ""."""

    folder: Path
    titles: dict[str, str]
    address: str = ""

    def lesson(self, name: str) -> Lesson:
        """What the rules hold a lesson against."""
        return Lesson(name, self.folder, generated(self, name))


def course(root: Path) -> Course:
    """The course of a repository.

    Raises:
        UserError: no lesson there, or an address that is not GitHub's.
    """
    folder = root / "notebooks"
    files = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not files:
        raise UserError(f"{folder} holds no lesson: a lesson is called NN_name.ipynb")
    titles = {file.name: title(read(file)) or file.stem for file in files}
    pyproject = root / "pyproject.toml"
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    url = project.get("urls", {}).get("Repository", "")
    match = GITHUB.fullmatch(url)
    if url and not match:
        raise UserError(
            f"{pyproject}: [project.urls] Repository is {url!r}: make it "
            "https://github.com/OWNER/NAME"
        )
    return Course(folder, titles, "/".join(match.groups()) if match else "")


def read(path: Path) -> NotebookNode:
    """A notebook as in its file, without repairs."""
    try:
        return nbformat.v4.reads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{path} is no notebook of nbformat 4 ({error}): restore it") from None


# ---- navigate ----


def links(about: Course, name: str) -> str:
    """Previous, contents, next; the first lesson has no previous and the last no next."""
    names = list(about.titles)
    place = names.index(name)
    before = [f"[← {about.titles[name]}]({name})" for name in names[:place][-1:]]
    after = [f"[{about.titles[name]} →]({name})" for name in names[place + 1 :][:1]]
    return " · ".join([*before, f"[Contents]({CONTENTS})", *after])


def badges(about: Course, name: str) -> str:
    """Colab and Binder, or "" where nobody knows the address."""
    if not about.address:
        return ""
    colab = f"https://colab.research.google.com/github/{about.address}/blob/main/notebooks/{name}"
    binder = f"https://mybinder.org/v2/gh/{about.address}/main?labpath=notebooks/{name}"
    return (
        "[![Open this lesson in Colab]"
        f"(https://colab.research.google.com/assets/colab-badge.svg)]({colab}) "
        f"[![Open this lesson on Binder](https://mybinder.org/badge_logo.svg)]({binder})"
    )


def import_source(address: str) -> str:
    """Import; where there is an address, install first what is not there. A torch that is there
    stays: the package asks for open ranges."""
    if not address:
        return IMPORT
    return (
        f"try:\n    {IMPORT}\nexcept ImportError:  # on Colab, the first time\n"
        f'    %pip install --quiet "safeerase-lite[notebooks] @ git+https://github.com/{address}"\n'
        f"    {IMPORT}"
    )


def generated(about: Course, name: str) -> dict[str, str]:
    """The source of every generated cell of a lesson, by its id."""
    line = links(about, name)
    return {
        "navigation": "\n\n".join(filter(None, [line, badges(about, name)])),
        "import": import_source(about.address),
        "navigation-end": line,
    }


def navigated(node: NotebookNode, lesson: Lesson) -> NotebookNode:
    """The notebook with its generated cells made anew, and what tells an outcome collapsed; all
    else, outputs too, as it was."""
    first, last = (
        mark_generated(new_markdown_cell(lesson.generated[id]), id)
        for id in ("navigation", "navigation-end")
    )
    cells = [cell for cell in node.cells if cell.get("id") not in (first.id, last.id)]
    for cell in cells:
        if cell.get("id") == "import" or cell.source.strip() == IMPORT:
            cell.source = lesson.generated["import"]
            mark_generated(cell, "import")
            break
    return collapsed(NotebookNode(node | {"cells": [first, *cells, last]}))


def collapsed(node: NotebookNode) -> NotebookNode:
    """The notebook, its outputs shown but for those that tell what a prediction asks: these wait
    for a click. Running a cell opens its output."""
    telling = {cell.id for cell in revealing(node)}
    for cell in node.cells:
        if cell.cell_type != "code":
            continue
        about, tags = cell.metadata.get("jupyter", {}), {*cell.metadata.get("tags", [])}
        about = {key: value for key, value in about.items() if key != "outputs_hidden"}
        tags -= {COLLAPSED}
        if cell.id in telling:
            about, tags = about | {"outputs_hidden": True}, tags | {COLLAPSED}
        for key, value in (("jupyter", about), ("tags", sorted(tags))):
            cell.metadata.pop(key, None)
            if value:
                cell.metadata[key] = value
    return node


def mark_generated(cell: NotebookNode, id: str) -> NotebookNode:
    """Give a cell its id and the tag of the cells that a tool writes."""
    cell.id = id
    cell.metadata["tags"] = sorted({*cell.metadata.get("tags", []), "generated"})
    return cell


# ---- take ----


def stripped(node: NotebookNode) -> NotebookNode:
    """An executed notebook without papermill's records, times and widget state.

    Raises:
        UserError: it was executed with parameters of its own, which would be committed.
    """
    for cell in node.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            raise UserError("it was run with parameters: run the lesson with its defaults")
        for key in ("papermill", "execution", "widgets"):
            cell.metadata.pop(key, None)
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]
    for key in ("papermill", "widgets", "safeerase"):
        node.metadata.pop(key, None)
    return node


# ---- table ----


def table(about: Course, folder: Path) -> str:
    """Lesson, seconds (papermill's own record) and memory (the lesson's stamp), as Markdown.

    Raises:
        UserError: a lesson was not executed into `folder`, or its record lacks a figure.
    """
    rows = ["| lesson | seconds to run | memory, GB |", "|---|---:|---:|"]
    for name, heading in about.titles.items():
        if not (folder / name).exists():
            raise UserError(f"{folder} has no {name}: run `safeerase demo --all` first")
        node = read(folder / name)
        seconds, figures = node.metadata.get("papermill", {}).get("duration"), stamped(node)
        if seconds is None or figures is None:
            raise UserError(f"{folder / name} lacks papermill's record or a stamp: run it again")
        memory = figures["peak_memory_gb"]
        lesson = f"{name[:2]} [{heading}](../notebooks/{name})"
        rows.append(f"| {lesson} | {seconds:.0f} | {memory:.1f} |")
    return "\n".join(rows)


def with_table(page: str, rows: str, markers: tuple[str, str] = MARKERS) -> str:
    """A page with the text between the markers replaced.

    Raises:
        UserError: the markers are not there, once each and in order.
    """
    begin, end = markers
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise UserError(f"{PAGE} needs the lines {begin} and {end}, once each: add them")
    return f"{page.split(begin)[0]}{begin}\n{rows}\n{end}{page.split(end)[1]}"


# ---- the command line ----

app = typer.Typer(
    cls=OneLineErrors,
    no_args_is_help=True,
    add_completion=False,
    help="The lessons: navigation, rules, outputs, the table of what they cost.",
)
Root = Annotated[Path, typer.Option(help="The repository.", show_default="this one")]


@app.command("navigate")
def navigate_command(root: Root = ROOT) -> None:
    """Generate links, badges and the import cell; a second time nothing changes."""
    about = course(root)
    for name in about.titles:
        path = about.folder / name
        text = written(navigated(read(path), about.lesson(name)))
        if text != path.read_text(encoding="utf-8"):
            path.write_text(text, encoding="utf-8")
            typer.echo(f"{name}: written")


@app.command("check")
def check_command(root: Root = ROOT) -> None:
    """Hold every lesson against the rules: a line per finding; status 1 when there is one."""
    about = course(root)
    wrong = []
    for name in about.titles:
        wrong += findings(read(about.folder / name), about.lesson(name))
    typer.echo("\n".join(wrong) or f"{len(about.titles)} lessons, nothing to mend")
    if wrong:
        raise typer.Exit(1)


@app.command("take")
def take_command(
    executed: Annotated[list[Path], typer.Argument(help="Executed lessons.")], root: Root = ROOT
) -> None:
    """Put executed lessons, stripped, into notebooks/, to be committed."""
    for path in executed:
        target = root / "notebooks" / path.name
        target.write_text(written(stripped(read(path))), encoding="utf-8")
        typer.echo(f"{path.name}: taken")


@app.command("table")
def table_command(
    folder: Annotated[
        Path | None, typer.Option(help="Executed lessons.", show_default="output/notebooks")
    ] = None,
    root: Root = ROOT,
) -> None:
    """Write seconds and memory of every lesson into docs/lessons.md, from executed notebooks."""
    rows = table(course(root), folder or root / "output" / "notebooks")
    page = root / PAGE
    page.write_text(with_table(page.read_text(encoding="utf-8"), rows), encoding="utf-8")
    typer.echo(rows)


if __name__ == "__main__":
    app()
