"""One document, four ways to write it: Markdown, LaTeX, HTML, and a terminal."""

import re
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import pandas as pd
import rich.table
import vl_convert
from rich import box
from rich.text import Text

from .plots.display import folded_numbers


@dataclass(frozen=True)
class Table:
    """A table of texts: its first `words` columns are words, the others numbers."""

    title: str
    frame: pd.DataFrame
    notes: list[str] = field(default_factory=list)
    words: int = 1


@dataclass(frozen=True)
class Section:
    """A heading, and below it, in this order: lines, tables, charts.

    charts: pairs of a title and an Altair chart with its description; for HTML alone.
    """

    title: str
    lines: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    charts: list[tuple[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Document:
    title: str
    sections: list[Section]


# ---- Markdown ----


def markdown(document: Document) -> str:
    """GitHub's Markdown, its columns aligned so that the text itself can be read."""
    parts = [f"# {document.title}"]
    for section in document.sections:
        parts += [f"## {section.title}", "\n".join(f"- {line}" for line in section.lines)]
        for table in section.tables:
            parts += [f"### {table.title}", _markdown_table(table), " ".join(table.notes)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _markdown_table(table: Table) -> str:
    frame = table.frame.map(_escaped).rename(columns=_escaped)
    align = ["left"] * table.words + ["right"] * (frame.shape[1] - table.words)
    colalign = align if len(frame) else None  # tabulate 0.9 fails on a table without rows
    return frame.to_markdown(index=False, colalign=colalign, disable_numparse=True)


def _escaped(text: str) -> str:
    return text.replace("|", r"\|")


# ---- LaTeX ----

ESCAPES = {
    "\\": r"\textbackslash{}",
    **{sign: rf"\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "−": "$-$",
    "×": r"$\times$",
    "–": "--",
    "→": r"$\to$",
    "<": r"\textless{}",
    "[": "{[}",  # after \\ a bare one would be its argument
    "]": "{]}",
}


def latex(document: Document) -> str:
    """Tables for a paper, to be read by `\\input`; needs the package booktabs."""
    parts = [f"% {document.title}\n% needs \\usepackage{{booktabs}}"]
    for section in document.sections:
        parts.append("\n".join(f"% {line}" for line in section.lines))
        parts += [_latex_table(section.title, table) for table in section.tables]
    return "\n\n".join(part for part in parts if part) + "\n"


def tex(text: str) -> str:
    """A text with LaTeX's special characters escaped; pandas leaves those outside ASCII."""
    return "".join(ESCAPES.get(sign, sign) for sign in text)


def _latex_table(section: str, table: Table) -> str:
    """Small and over both columns of a page, which pandas' own `table` is not."""
    columns = "l" * table.words + "r" * (table.frame.shape[1] - table.words)
    caption = tex(f"{section}: {table.title}. {' '.join(table.notes)}".strip())
    label = re.sub(r"[^a-z0-9]+", "-", f"{section} {table.title}".lower()).strip("-")
    frame = table.frame.map(tex).rename(columns=tex)
    tabular = frame.to_latex(index=False, column_format=columns)
    return (
        "\\begin{table*}\n\\centering\\scriptsize\\setlength{\\tabcolsep}{3pt}\n"
        f"\\caption{{{caption}}}\n\\label{{tab:{label}}}\n{tabular}\\end{{table*}}"
    )


# ---- HTML ----

PAGE = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))


def html(document: Document) -> str:
    """One page that needs nothing else: charts as inline SVG, light or dark as the reader likes."""
    body = []
    for section in document.sections:
        lines = "".join(f"<li>{escape(line)}</li>" for line in section.lines)
        body += [f"<h2>{escape(section.title)}</h2>", f"<ul>{lines}</ul>" if lines else ""]
        body += [_html_table(table) for table in section.tables]
        body += [_figure(title, chart) for title, chart in section.charts]
    return PAGE.substitute(title=escape(document.title), body="\n".join(filter(None, body)))


def _html_table(table: Table) -> str:
    # The first column as the index: its cells are then headers of their rows.
    frame = table.frame.set_index(table.frame.columns[0])
    frame = frame.rename_axis(index=None, columns=table.frame.columns[0])
    rows = frame.to_html(border=0, classes=f"words-{table.words}")
    rows = rows.replace("<thead>", f"<caption>{escape(table.title)}</caption>\n  <thead>", 1)
    note = f'\n<p class="note">{escape(" ".join(table.notes))}</p>' if table.notes else ""
    return f'<div class="wide" tabindex="0">{rows}</div>{note}'


def _figure(title: str, chart: Any) -> str:
    """A chart as inline SVG with its description, and the numbers behind it folded."""
    text = f"<title>{escape(title)}</title><desc>{escape(chart.description)}</desc>"
    svg = vl_convert.vegalite_to_svg(chart.to_json()).replace(">", f' role="img">{text}', 1)
    caption = f"<figcaption>{escape(title)}</figcaption>"
    return f"<figure>{svg}{caption}{folded_numbers(chart)}</figure>"


# ---- terminal ----


def printed(table: Table) -> Any:
    """The table for rich's `print`, which folds long headings: pandas' would be too wide."""
    look = {"title_justify": "left", "box": box.SIMPLE, "padding": (0, 0, 0, 1)}
    grid = rich.table.Table(title=table.title, **look)
    for index, heading in enumerate(table.frame):
        word = index < table.words
        grid.add_column(heading, justify="left" if word else "right", no_wrap=word)
    for row in table.frame.itertuples(index=False):
        grid.add_row(*map(Text, row))
    return grid
