"""Formulas as MathML, made when the book is built: browsers draw it without a script or a font."""

from docutils import nodes
from latex2mathml.converter import convert


def inline(self, node):
    """Write a formula in the line."""
    self.body.append(convert(node.astext()))
    raise nodes.SkipNode


def display(self, node):
    """Write a formula of its own line."""
    self.body.append(f'<div class="math">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (inline, None), (display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
