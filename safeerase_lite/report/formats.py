"""One document, four ways to write it: Markdown, LaTeX, HTML, and a terminal."""

import re
from dataclasses import dataclass, field
from html import escape
from typing import Any


@dataclass(frozen=True)
class Sheet:
    """A table of texts. The first `words` columns are words, the others numbers."""

    title: str
    head: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)
    words: int = 1


@dataclass(frozen=True)
class Section:
    """A heading, and what stands under it, in this order: lines, tables, charts.

    charts: pairs of a title and an Altair chart with its description; for HTML alone.
    """

    title: str
    lines: list[str] = field(default_factory=list)
    sheets: list[Sheet] = field(default_factory=list)
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
        parts.append(f"## {section.title}")
        parts += ["\n".join(f"- {line}" for line in section.lines)] if section.lines else []
        for sheet in section.sheets:
            parts += [f"### {sheet.title}", _markdown_table(sheet), " ".join(sheet.notes)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _markdown_table(sheet: Sheet) -> str:
    rows = [[text.replace("|", r"\|") for text in row] for row in [sheet.head, *sheet.rows]]
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]

    def line(row: list[str]) -> str:
        padded = [
            text.ljust(width) if index < sheet.words else text.rjust(width)
            for index, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rules = ["-" * w if i < sheet.words else f"{'-' * (w - 1)}:" for i, w in enumerate(widths)]
    return "\n".join([line(rows[0]), line(rules), *map(line, rows[1:])])


# ---- LaTeX ----

SPECIAL = {
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
        parts += ["\n".join(f"% {line}" for line in section.lines)]
        parts += [_latex_table(section.title, sheet) for sheet in section.sheets]
    return "\n\n".join(part for part in parts if part) + "\n"


def tex(text: str) -> str:
    """A text with LaTeX's special characters escaped."""
    return "".join(SPECIAL.get(sign, sign) for sign in text)


def _latex_table(section: str, sheet: Sheet) -> str:
    columns = "l" * sheet.words + "r" * (len(sheet.head) - sheet.words)
    head, *rows = (" & ".join(map(tex, row)) + r" \\" for row in [sheet.head, *sheet.rows])
    caption = tex(f"{section}: {sheet.title}. {' '.join(sheet.notes)}".strip())
    label = re.sub(r"[^a-z0-9]+", "-", f"{section} {sheet.title}".lower()).strip("-")
    lines = [r"\begin{table*}", r"\centering\scriptsize\setlength{\tabcolsep}{3pt}"]
    lines += [
        rf"\caption{{{caption}}}",
        rf"\label{{tab:{label}}}",
        rf"\begin{{tabular}}{{{columns}}}",
    ]
    lines += [r"\toprule", head, r"\midrule", *rows, r"\bottomrule"]
    return "\n".join([*lines, r"\end{tabular}", r"\end{table*}"])


# ---- HTML ----

STYLE = """
:root { color-scheme: light dark; --ink: #222; --paper: #fff; --line: #ccc; --faint: #f4f4f4; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --paper: #16181c; --line: #444a52; --faint: #22262c; }
}
body { color: var(--ink); background: var(--paper); font: 16px/1.5 system-ui, sans-serif;
  max-width: 84rem; margin: 0 auto; padding: 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.8rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: 0.4rem 0; }
th, td { padding: 0.25rem 0.45rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; }
thead th { border-bottom: 2px solid var(--ink); vertical-align: bottom; white-space: normal; }
.word { text-align: left; }
tbody tr:nth-child(even) { background: var(--faint); }
.note { font-size: 0.8rem; max-width: 60rem; }
figure { margin: 1rem 0; }
figure svg { max-width: 100%; height: auto; border-radius: 6px; }
"""


def html(document: Document) -> str:
    """One page that needs nothing else: charts as inline SVG, light or dark as the reader likes."""
    body = [f"<h1>{escape(document.title)}</h1>"]
    for section in document.sections:
        body.append(f"<h2>{escape(section.title)}</h2>")
        if section.lines:
            lines = "".join(f"<li>{escape(line)}</li>" for line in section.lines)
            body.append(f"<ul>{lines}</ul>")
        body += [_html_table(sheet) for sheet in section.sheets]
        body += [_figure(title, chart) for title, chart in section.charts]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(document.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _html_table(sheet: Sheet) -> str:
    heads = ['th scope="col"'] * len(sheet.head)
    cells = ['th scope="row"'] + ["td"] * (len(sheet.head) - 1)
    rows = "\n".join(_html_row(row, cells, sheet.words) for row in sheet.rows)
    caption = f"<caption>{escape(sheet.title)}</caption>\n" if sheet.title else ""
    note = f'\n<p class="note">{escape(" ".join(sheet.notes))}</p>' if sheet.notes else ""
    return (
        f'<div class="wide" tabindex="0"><table>\n{caption}'
        f"<thead>{_html_row(sheet.head, heads, sheet.words)}</thead>\n"
        f"<tbody>\n{rows}\n</tbody>\n</table></div>{note}"
    )


def _html_row(texts: list[str], tags: list[str], words: int) -> str:
    classes = [' class="word"' if index < words else "" for index in range(len(texts))]
    cells = zip(texts, tags, classes, strict=True)
    written = (f"<{tag}{word}>{escape(text)}</{tag.split()[0]}>" for text, tag, word in cells)
    return f"<tr>{''.join(written)}</tr>"


def _figure(title: str, chart: Any) -> str:
    """A chart as inline SVG that says what it shows, with the numbers behind it folded away."""
    import vl_convert

    from safeerase_lite.report.plots import numbers

    said = f"<title>{escape(title)}</title><desc>{escape(chart.description)}</desc>"
    drawn = vl_convert.vegalite_to_svg(chart.to_json())
    drawn = drawn.replace(">", f' role="img">{said}', 1)
    table, folded = numbers(chart), ""
    if table is not None:
        rows = table.astype(object).where(table.notna(), "–").map(str).to_numpy().tolist()
        sheet = _html_table(Sheet("", [str(column) for column in table], rows))
        folded = f"<details><summary>The numbers</summary>{sheet}</details>"
    return f"<figure>{drawn}<figcaption>{escape(title)}</figcaption>{folded}</figure>"


# ---- terminal ----


def printed(sheet: Sheet) -> Any:
    """The table for rich's `print`."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=sheet.title, title_justify="left", box=box.SIMPLE, padding=(0, 0, 0, 1))
    for index, heading in enumerate(sheet.head):
        word = index < sheet.words
        table.add_column(heading, justify="left" if word else "right", no_wrap=word)
    for row in sheet.rows:
        table.add_row(*map(Text, row))
    return table
