"""The book: the pages that git holds, gathered into one folder, and Sphinx's site of them.

`book/` holds the settings and the pages that are written for the book alone. All others (lessons,
exercises, docs, reports) are where they always were, and are gathered under the same paths, so that
their links hold. The repository's address comes from pyproject.toml, as in the lessons.
"""

import ast
import json
import re
import shutil
from functools import cache
from pathlib import Path
from typing import Annotated

import typer
from lesson_rules import title
from lessons import read

from safeerase_lite.cli import OneLineErrors
from safeerase_lite.utils import UserError

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    "README.md", "C[HO]*.md", "SECURITY.md", "book/[gr]*.md", "docs/*.md", "notebooks/*.ipynb",
    "notebooks/capstone.md", "benchmarks/RESULTS.md",
    "notebooks/exercises/README.md", "notebooks/exercises/student/*.ipynb", "results/*/*.md",
    "sweeps/README.md", "safeerase_lite/tinyworld/DATASHEET.md",
    "safeerase_lite/tinyworld/assets/*/README.md",
]  # fmt: skip
LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)")
SHOWN = re.compile(r'(?:src|srcset)="(?!\w+:)([^"\s]+)')  # by HTML, whose paths Sphinx leaves alone
PLAY = "# Try it in the browser\n\n"
PLAY_CARD = """- **[Try it](play.md)**
  Compose a picture, ask a question, and watch three models answer."""
SOLUTIONS = re.compile(r"exercises\.[a-z]_")  # modules that hold what an exercise asks for


def gather(root: Path, source: Path) -> None:
    """Fill `source` with every page of the book, what the pages link to, and the API's pages."""
    shutil.rmtree(source, ignore_errors=True)
    pages = sorted(page for pattern in PAGES for page in root.glob(pattern))
    for page in pages:
        put(source / page.relative_to(root), page_text(page, root))
        text = text_of(page)
        copy_linked(LINK.findall(text), page.parent, root, source, besides=pages)
        copy_linked(SHOWN.findall(text), page.parent, root, source / "extra")
    index = (root / "book" / "index.md").read_text(encoding="utf-8")
    copy_linked(LINK.findall(index), root, root, source, besides=pages)
    for word, folder in {
        "LESSONS": "notebooks",
        "EXERCISES": "notebooks/exercises/student",
    }.items():
        index = index.replace(f"\n{word}\n", f"\n{numbered(root, folder)}\n")
    page = play(root, source / "extra")
    index = index.replace("\nPLAY\n", f"\n{PLAY_CARD}\n" if page else "\n")
    index = index.replace("\nPLAY PAGE\n", "\nplay\n" if page else "\n")
    put(source / "index.md", index)
    put(source / "results" / "index.md", reports(root))
    put(source / "api.rst", api(root))
    if page:
        put(source / "play.md", page)


def numbered(root: Path, folder: str) -> str:
    """The notebooks of a folder, as a table of contents lists them: number or letter, title."""
    files = sorted((root / folder).glob("*_*.ipynb"))
    listed = [f"{file.stem.split('_')[0]} · {title(read(file))}" for file in files]
    return "\n".join(
        f"{entry} <{folder}/{file.stem}>" for entry, file in zip(listed, files, strict=True)
    )


def put(file: Path, text: str) -> None:
    """Write a page, in a folder that may be new."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def copy_linked(names: list[str], base: Path, root: Path, to: Path, besides: list = ()) -> None:
    """Copy the files of the repository that are named from the folder `base`, under their paths."""
    for file in {(base / name).resolve() for name in names}.difference(besides):
        if file.is_file() and file.is_relative_to(root):
            target = to / file.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, target)


def text_of(page: Path) -> str:
    """A page's text; of a notebook, its Markdown cells'."""
    if page.suffix != ".ipynb":
        return page.read_text(encoding="utf-8")
    return "\n\n".join(cell.source for cell in read(page).cells if cell.cell_type == "markdown")


def page_text(page: Path, root: Path) -> str:
    """A page as the book has it: links to folders and to modules lead to their pages. A notebook
    has lost the links and badges of `lessons.py navigate`, since the site has its own."""
    if page.suffix != ".ipynb":
        return with_pages(page.read_text(encoding="utf-8"), page, root)
    node = read(page)
    node.cells = [cell for cell in node.cells if not cell.get("id", "").startswith("navigation")]
    for cell in node.cells:
        if cell.cell_type == "markdown":
            cell.source = with_pages(cell.source, page, root)
    return json.dumps(node, ensure_ascii=False)


def with_pages(text: str, page: Path, root: Path) -> str:
    """`text` with a page of the book for every link to a folder or to a module of the package."""

    def lead(match: re.Match) -> str:
        file = (page.parent / match[1]).resolve()
        if not file.is_relative_to(root):
            return match[0]
        up = "../" * len(page.relative_to(root).parent.parts)
        path = file.relative_to(root).as_posix()
        if file.is_dir():
            reports = sorted(file.glob("*.md"))
            to = reports[0].relative_to(root).as_posix() if reports else f"{path}/index.md"
            return match[0].replace(match[1], up + to)
        module = dotted(file, root)
        if path.startswith("safeerase_lite/") and module in modules(root):
            return match[0].replace(match[1], f"{up}api/{module}.rst")
        return match[0]

    return LINK.sub(lead, text)


def reports(root: Path) -> str:
    """The page of all reports, each by its own heading."""
    files = sorted((root / "results").glob("*/*.md"))
    listed = "\n".join(
        f"{file.parent.name.replace('_', ' ').capitalize()} <{file.parent.name}/{file.stem}>"
        for file in files
    )
    about = (
        "The committed reports of the [sweeps](../sweeps/README.md): every table with the settings "
        "of its runs, every figure with its interval."
    )
    return f"# Reports\n\n{about}\n\n```{{toctree}}\n:maxdepth: 1\n\n{listed}\n```\n"


# ---- the package's pages ----


def dotted(file: Path, root: Path) -> str:
    """The module of a file."""
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


@cache
def modules(root: Path) -> tuple[str, ...]:
    """Every module with public functions or classes, but those that hold solutions of exercises."""
    found = []
    for file in sorted((root / "safeerase_lite").rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        named = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        if any(not node.name.startswith("_") for node in named):
            found.append(dotted(file, root))
    return tuple(name for name in found if name != "safeerase_lite" and not SOLUTIONS.search(name))


def api(root: Path) -> str:
    """The API's first page: what `sl.` reaches, then every module by its folder."""
    from safeerase_lite import _FUNCTIONS, _MODULES

    own = {"config": "config", "has_gold": "config", "UserError": "utils"}
    names = sorted((own | _FUNCTIONS).items(), key=lambda item: item[0].lower())
    table = [f"   ~safeerase_lite.{module}.{name}" for name, module in names]
    reached = ", ".join(
        f":doc:`sl.{name} <api/safeerase_lite.{module}>`"
        if f"safeerase_lite.{module}" in modules(root)
        else f"``sl.{name}``"
        for name, module in sorted(_MODULES.items())
    )
    text = [
        "API reference", "=============", "",
        "``import safeerase_lite as sl``. What lessons use is reached by ``sl.`` alone:", "",
        ".. autosummary::", "   :nosignatures:", "", *table, "",
        f"and these modules: {reached}.", "", "Every module", "------------", "",
    ]  # fmt: skip
    folders: dict[str, list[str]] = {}
    for name in modules(root):
        folders.setdefault(".".join(name.split(".")[:2]), []).append(name)
    alone = [name for names in folders.values() if len(names) == 1 for name in names]
    groups = {name: names for name, names in folders.items() if len(names) > 1}
    for name, listed in {**groups, "and": alone}.items():
        heading = "The rest" if name == "and" else f"``{name.split('.')[1]}``"
        summary = [".. autosummary::", "   :toctree: api", "   :template: module.rst", ""]
        text += [heading, "~" * len(heading), "", *summary, *(f"   {name}" for name in listed), ""]
    return "\n".join(text)


# ---- the page that runs in the browser ----


def play(root: Path, extra: Path) -> str:
    """The page made by `make page`, in a frame, and its copy in `extra`; "" if there is none."""
    built = root / "output" / "page"
    extra.mkdir(exist_ok=True)
    if not (built / "index.html").exists():
        return ""
    shutil.copytree(built, extra / "page")
    return (
        f"{PLAY}The tiny LLaVA runs in this page, on your machine, and sends nothing anywhere.\n"
        '<a href="page/index.html">Give it the whole window.</a>\n\n'
        '<iframe class="play" src="page/index.html" title="The tiny LLaVA in the browser">'
        "</iframe>\n"
    )


# ---- the site ----


def launching(address: str) -> dict:
    """The theme's options that lead to the repository OWNER/NAME: its buttons, Colab and Binder.
    None where nobody knows the address."""
    if not address:
        return {}
    return {
        "repository_url": f"https://github.com/{address}",
        "repository_branch": "main",
        "use_repository_button": True,
        "use_issues_button": True,
        "launch_buttons": {
            "notebook_interface": "jupyterlab",
            "binderhub_url": "https://mybinder.org",
            "colab_url": "https://colab.research.google.com",
        },
    }


app = typer.Typer(cls=OneLineErrors, add_completion=False, help="The book, as a site.")


@app.callback(invoke_without_command=True)
def build(
    output: Annotated[
        Path | None, typer.Option(help="Folder of the site.", show_default="output/book")
    ] = None,
) -> None:
    """Build the site. A warning is an error."""
    try:
        from sphinx.cmd.build import build_main
    except ImportError:
        raise UserError("Sphinx is not installed: pip install 'safeerase-lite[book]'") from None
    output = output or ROOT / "output" / "book"
    source = output.with_name(f"{output.name}-source")
    gather(ROOT, source)
    shutil.rmtree(output, ignore_errors=True)
    options = ["-W", "--keep-going", "-q", "-b", "html", "-d", f"{source}-cache"]
    if build_main([*options, "-c", str(ROOT / "book"), str(source), str(output)]):
        raise UserError("the book was not built: mend what the warnings above name")
    typer.echo(output / "index.html")


if __name__ == "__main__":
    app()
