"""Every picture. A chart function takes a table and returns an Altair chart with its description;
`show` displays it: interactive when somebody watches, a small PNG with alt text when headless.
"""

from .answers import verdicts
from .runs import history, over_forgetting
from .theme import COLOURS, INK, OBJECTIVES, contact_sheet, numbers, png, save, show, styled

__all__ = [
    "COLOURS",
    "INK",
    "OBJECTIVES",
    "contact_sheet",
    "history",
    "numbers",
    "over_forgetting",
    "png",
    "save",
    "show",
    "styled",
    "verdicts",
]
