"""Every picture. A chart function takes a table and returns an Altair chart with its description;
`show` displays it: interactive when somebody watches, a small PNG with alt text when headless.
"""

from safeerase_lite.report.plots.answers import VERDICTS, heat_map, trajectory, verdicts
from safeerase_lite.report.plots.data import interval_steps
from safeerase_lite.report.plots.relations import (
    attack_curves,
    best_captions,
    collateral,
    several,
    tuple_graph,
)
from safeerase_lite.report.plots.runs import (
    cues,
    forgetting,
    history,
    one_step,
    over_forgetting,
    plane,
)
from safeerase_lite.report.plots.seeds import seeds
from safeerase_lite.report.plots.theme import (
    COLOURS,
    INK,
    OBJECTIVES,
    contact_sheet,
    numbers,
    png,
    save,
    show,
    styled,
)
from safeerase_lite.report.plots.weights import level_spacing, memory, weight_block

__all__ = [
    "tuple_graph",
    "several",
    "collateral",
    "best_captions",
    "attack_curves",
    "COLOURS",
    "INK",
    "OBJECTIVES",
    "VERDICTS",
    "contact_sheet",
    "cues",
    "forgetting",
    "heat_map",
    "history",
    "interval_steps",
    "level_spacing",
    "memory",
    "numbers",
    "one_step",
    "over_forgetting",
    "plane",
    "png",
    "save",
    "seeds",
    "show",
    "styled",
    "trajectory",
    "verdicts",
    "weight_block",
]
