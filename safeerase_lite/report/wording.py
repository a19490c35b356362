"""A report's numbers and settings in words: shares as percent, changes as points."""

from typing import Any

import pandas as pd

from safeerase_lite.report.plots.theme import name_of

BLANK = "–"


def model(row: dict) -> str:
    extra = {"none": "", "pd": "+PD", "placebo": "+placebo"}[row["decouple"]]
    return f"{name_of(row['objective'])}{extra}"


def told(row: dict, keys: list[str]) -> list[str]:
    """Settings in words, those that mean something for this row."""
    return [
        f"{key.replace('_', ' ')} {value(row[key])}" for key in keys if value(row[key]) != BLANK
    ]


def value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or BLANK
    if value is None or value == "" or pd.isna(value):
        return BLANK
    return f"{value:g}" if isinstance(value, float) else str(value)


def value_alone(at: dict, place: tuple) -> str:
    """A share as percent; where judgements are unknown, both bounds."""
    metric, *rest = place
    if place not in at or pd.isna(at[place]["value"]):
        return BLANK
    upper = at.get((f"{metric}_upper", *rest))
    value = f"{100 * at[place]['value']:.1f}"
    return value if upper is None else f"{value} to {100 * upper['value']:.1f}"


def percent(at: dict, place: tuple) -> str:
    """A share and its interval, as percent."""
    text = value_alone(at, place)
    if text == BLANK:
        return text
    metric, *rest = place
    low, high = at[place]["low"], at.get((f"{metric}_upper", *rest), at[place])["high"]
    return text if pd.isna(low) else f"{text} [{100 * low:.0f}, {100 * high:.0f}]"


def signed(number: float, digits: int = 1) -> str:
    """With its sign, a minus and not a hyphen; nothing is minus zero."""
    return f"{round(number, digits) + 0.0:+.{digits}f}".replace("-", "−")


def points(row: dict) -> str:
    """The change and its interval; where judgements are unknown, both bounds instead."""
    if row["unknown"]:
        least, most = (signed(100 * row[end]) for end in ("at_least", "at_most"))
        return f"{least} to {most} ({row['unknown']} of {row['n']} pairs unknown)"
    low, high = (signed(100 * row[end], 0) for end in ("low", "high"))
    interval = "" if pd.isna(row["low"]) else f" [{low}, {high}]"
    return signed(100 * row["value"]) + interval


def relative(row: dict) -> str:
    return (
        BLANK
        if pd.isna(row["relative"]) or row["unknown"]
        else f"{signed(-100 * row['relative'])}%"
    )


def moved(row: dict | None) -> str:
    if row is None:
        return BLANK
    return f"{100 * row['before']:.1f} → {100 * row['after']:.1f}: {points(row)}"


def p_value(p: float) -> str:
    if pd.isna(p):
        return BLANK
    return "<0.001" if p < 0.001 else f"{p:.3g}"
