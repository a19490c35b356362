"""Formulas as MathML, made when the book is built: browsers draw it without a script or a font."""

import re
import unicodedata

from docutils import nodes
from latex2mathml.converter import convert

VARIANT = re.compile(r'<mi mathvariant="(script|double-struck|normal)">(\w)</mi>')


def formula(text: str, display: str) -> str:
    """A formula of LaTeX as MathML. Of the letters' variants browsers draw only *normal*, so the
    others become letters of their own."""
    return VARIANT.sub(letter, convert(text, display=display))


def letter(match: re.Match) -> str:
    """ℒ for a script L, 𝔼 for a double-struck E."""
    variant, plain = match.groups()
    for name in (f"{variant} CAPITAL {plain}", f"MATHEMATICAL {variant} CAPITAL {plain}"):
        try:
            return f"<mi>{unicodedata.lookup(name.upper())}</mi>"
        except KeyError:
            continue
    return match[0]


def inline(self, node):
    """Write a formula in the line."""
    self.body.append(formula(node.astext(), "inline"))
    raise nodes.SkipNode


def display(self, node):
    """Write a formula of its own line."""
    self.body.append(f'<div class="formula">{formula(node.astext(), "block")}</div>')
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (inline, None), (display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
