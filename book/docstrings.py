"""Docstrings as they are written here, for a parser of reStructuredText: single bars, a name with a
letter after its backtick, and lists of `name: meaning` whose lines are continued by an indent."""

import re

ENTRY = re.compile(r"[a-z_]\w*(?:, [a-z_]\w*)*: ")
CODE_OR_BAR = re.compile(r"(``.+?``|`[^`]+`)(?=(\w?))|\|")


def as_restructured(app, what, name, about, options, lines):
    """Rewrite the lines of a docstring in place."""
    paragraphs = "\n".join(lines).split("\n\n")
    lines[:] = "\n\n".join(map(paragraph, paragraphs)).split("\n")


def paragraph(text: str) -> str:
    """One paragraph; a list of entries gets its bullets."""
    text = CODE_OR_BAR.sub(escaped, text)
    rows = text.split("\n")
    if not ENTRY.match(text) or not any(row.startswith("    ") for row in rows):
        return text
    return "\n".join(f"  {row.strip()}" if row.startswith(" ") else f"- {row}" for row in rows)


def escaped(match: re.Match) -> str:
    """A bar of the text, or code that a letter follows; other code as it is."""
    if not match[1]:
        return r"\|"
    return match[1] + ("\\ " if match[2] else "")


def setup(app):
    app.connect("autodoc-process-docstring", as_restructured)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
