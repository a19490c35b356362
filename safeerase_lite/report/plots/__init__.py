"""Every picture. A chart function takes a table and returns an Altair chart with its description;
`show` displays it: interactive in a browser, a small PNG with alt text when headless.
"""

from ..texts import objective_order
from .answers import VERDICTS, heat_map, verdicts
from .attacks import under_attack
from .board import SECONDS, board
from .display import contact_sheet, numbers, png, save, show
from .measures import cues, interval_steps, over_forgetting, pareto, plane, seeds
from .relations import attack_curves, best_captions, collateral, several, tuple_graph
from .theme import styled
from .training import forgetting, history, one_step, trajectory
from .weights import level_spacing, memory, weight_block

__all__ = [
    "SECONDS", "VERDICTS", "attack_curves", "best_captions", "board", "collateral",
    "contact_sheet", "cues", "forgetting", "heat_map", "history", "interval_steps",
    "level_spacing", "memory", "numbers", "objective_order", "one_step", "over_forgetting",
    "pareto", "plane", "png", "save", "seeds", "several", "show", "styled", "trajectory",
    "tuple_graph", "under_attack", "verdicts", "weight_block",
]  # fmt: skip
