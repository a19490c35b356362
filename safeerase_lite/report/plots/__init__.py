"""Every picture. A chart function takes a table and returns an Altair chart with its description;
`show` displays it: interactive in a browser, a small PNG with alt text when headless.
"""

from ..texts import objective_order
from .answers import VERDICTS, heat_map, verdicts
from .attacks import under_attack
from .board import SECONDS, board
from .display import contact_sheet, numbers, png, save, show
from .inside import (
    attention,
    doses,
    gradient_cosines,
    logit_lens,
    state_plane,
    two_by_two,
)
from .measures import cues, interval_steps, over_forgetting, pareto, plane, seeds
from .relations import (
    attacks_compared,
    best_captions,
    collateral,
    several,
    trade_off,
    tuple_graph,
)
from .theme import styled
from .training import forgetting, history, one_step, trajectory
from .weights import level_spacing, memory, weight_block

__all__ = [
    "SECONDS", "VERDICTS", "attacks_compared", "attention", "best_captions", "board", "collateral",
    "contact_sheet", "cues", "doses", "forgetting", "gradient_cosines", "heat_map", "history",
    "interval_steps", "level_spacing", "logit_lens", "memory", "numbers", "objective_order",
    "one_step", "over_forgetting", "pareto", "plane", "png", "save", "seeds", "several", "show",
    "state_plane", "styled", "trade_off", "trajectory", "tuple_graph", "two_by_two", "under_attack",
    "verdicts", "weight_block",
]  # fmt: skip
