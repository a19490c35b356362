"""How models, settings and numbers read in a report: shares as percent, changes as percentage
points."""

from collections.abc import Iterable
from typing import Any

import pandas as pd

from safeerase_lite.evaluation.metrics import METRICS, TWO_BY_TWO
from safeerase_lite.unlearning.objectives import OBJECTIVES, UNTRAINED, label_of

BLANK = "–"
TRAININGS = {"none": "plain", "pd": "PD", "placebo": "placebo"}  # decouple → how it reads

Measure = tuple[str, str, str, str]  # metric, split, kinds, templates
Cells = dict[Measure, dict[str, float]]  # a row's numbers of each measure: value, low, high, …


# ---- models and settings ----


def objective_order() -> list[str]:
    """The objectives' names, in the order in which tables and charts show them."""
    return list(OBJECTIVES)


def model_label(objective: str, decouple: str) -> str:
    """A model's label, such as PO, PO+PD or vanilla."""
    return label_of(objective) + {"pd": "+PD", "placebo": "+placebo"}.get(decouple, "")


def in_display_order(labels: Iterable[str]) -> list[str]:
    """The labels once each: untrained models, the objectives, then those of one's own by name."""
    known = [*UNTRAINED, *map(label_of, objective_order())]
    present = set(labels)
    return [label for label in known if label in present] + sorted(present - set(known))


def setting(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or BLANK
    if value is None or value == "" or pd.isna(value):
        return BLANK
    return f"{value:g}" if isinstance(value, float) else str(value)


def settings(row: dict, keys: list[str]) -> list[str]:
    """The settings that mean something for this row, each with its name."""
    texts = {key.replace("_", " "): setting(row[key]) for key in keys}
    return [f"{name} {text}" for name, text in texts.items() if text != BLANK]


# ---- numbers ----


def share(cells: Cells, measure: Measure) -> str:
    """A share as percent; where judgements are unknown, both bounds."""
    cell = cells.get(measure)
    if cell is None or pd.isna(cell["value"]):
        return BLANK
    upper = cells.get((f"{measure[0]}_upper", *measure[1:]))
    bounds = [cell] if upper is None else [cell, upper]
    return " to ".join(f"{100 * bound['value']:.1f}" for bound in bounds)


def share_interval(cells: Cells, measure: Measure) -> str:
    """A share and its interval, as percent; of harmful questions also the kinds it is about."""
    text = share(cells, measure)
    if text == BLANK or pd.isna(cells[measure]["low"]):
        return text
    high = cells.get((f"{measure[0]}_upper", *measure[1:]), cells[measure])["high"]
    text += f" [{100 * cells[measure]['low']:.0f}, {100 * high:.0f}]"
    if METRICS[measure[0]].set not in TWO_BY_TWO:
        return text
    return text + " ({kinds_hit} of {n_kinds})".format_map(cells[measure])


def rounded_interval(row: dict) -> str:
    """A value and its interval in whole percent."""
    value, low, high = (f"{100 * row[name]:.0f}" for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def signed(number: float, digits: int = 1) -> str:
    """With its sign, a minus and not a hyphen; nothing is minus zero."""
    return f"{round(number, digits) + 0.0:+.{digits}f}".replace("-", "−")


def change(row: dict) -> str:
    """A change and its interval in points, and how many kinds fell; where judgements are unknown,
    both bounds instead."""
    if row["unknown"]:
        least, most = (signed(100 * row[end]) for end in ("at_least", "at_most"))
        return f"{least} to {most} ({row['unknown']} of {row['n']} pairs unknown)"
    low, high = (signed(100 * row[end], 0) for end in ("low", "high"))
    interval = "" if pd.isna(row["low"]) else f" [{low}, {high}]"
    return f"{signed(100 * row['value'])}{interval} ({row['kinds_fell']} of {row['n_kinds']})"


def spread(row: dict) -> str:
    return " to ".join(signed(100 * row[end]) for end in ("least", "most"))


def relative_change(row: dict) -> str:
    unknown = pd.isna(row["relative"]) or row["unknown"]
    return BLANK if unknown else f"{signed(-100 * row['relative'])}%"


def before_after(row: dict | None) -> str:
    if row is None:
        return BLANK
    return f"{100 * row['before']:.1f} → {100 * row['after']:.1f}: {change(row)}"


def p_values(row: dict, p: str) -> str:
    """A p value and, in parentheses, the one adjusted by Holm."""
    plain, adjusted = (
        BLANK if pd.isna(value) else "<0.001" if value < 0.001 else f"{value:.3g}"
        for value in (row[p], row[f"{p}_holm"])
    )
    return f"{plain} ({adjusted})"
