"""The chart of the board of methods: a panel for each measure, a line for each objective."""

import altair as alt
import pandas as pd

from ..texts import in_display_order
from . import theme

PER_ROW = 4
SECONDS = "seconds"  # the one panel that is no share
SLOTS = {"plain": 0, "model": 1, "PD": 2, "placebo": 3}  # places on an objective's line
UTILITY = ("retain", "safe pictures", "specificity")  # the panels in which more is better


def board(table: pd.DataFrame, *, split: str):
    """Every method's measures side by side, plain and with PD.

    In three seconds: in which panels the diamonds leave the circles.

    Args:
        table: objective, decouple, panel (the measure's title), value, low and high (NaN where
            there is no interval); the panel `seconds` is drawn on an axis of its own. An arrow in
            each title says where better is.
    """
    rows = theme.labelled(table)
    objectives, panels = in_display_order(rows["objective"]), list(rows["panel"].unique())
    present = theme.in_order(rows["training"], theme.TRAINING_COLOURS)
    height = 18 * len(objectives)
    charts = []
    for number, panel in enumerate(panels):
        here = rows[rows["panel"] == panel]
        first = number % PER_ROW == 0
        charts.append(_panel(here, panel, objectives, present, first, height))
    chart = alt.concat(*charts, columns=PER_ROW, spacing=12)
    headline = rows[rows["panel"] == panels[0]]
    listed = theme.listed(headline, "{objective} {training} {value:.0%}", ", ")
    about = (
        f"{len(panels)} measures of {len(objectives)} models on {split}, plain and with PD: "
        f"{', '.join(panels)}. {panels[0]}: {listed}."
    )
    numbers = rows[["panel", "objective", "training", "value", "low", "high"]]
    return theme.styled(chart, about, numbers)


def _panel(rows: pd.DataFrame, title: str, objectives: list, present: list, first: bool, height):
    axis = alt.Axis(labels=first, ticks=first, labelLimit=110)
    slots = list(SLOTS.values())[: 4 if "placebo" in present else 3]
    base = alt.Chart(rows.assign(slot=rows["training"].map(SLOTS))).encode(
        y=alt.Y("objective:N", title=None, sort=objectives, axis=axis,
                scale=alt.Scale(domain=objectives, paddingInner=0.25)),
        yOffset=alt.YOffset("slot:N", sort=slots, scale=alt.Scale(domain=slots)),
        color=theme.encode_by(alt.Color, "training", present, theme.TRAINING_COLOURS, "trained"),
    )  # fmt: skip
    shape = theme.encode_by(alt.Shape, "training", present, theme.TRAINING_SHAPES, "trained")
    if title == SECONDS:
        value, tooltip = alt.X("value:Q", title=None), ["objective", "training", "value:Q"]
    else:
        value = theme.share_axis(alt.X, "value", None, [0, 0.5, 1])
        tooltip = ["objective", "training", *theme.percents("value", "low", "high")]
    points = base.mark_point(filled=True, size=45, opacity=1)
    layers = [points.encode(x=value, shape=shape, tooltip=tooltip)]
    ranged = base.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=1.5)
    if rows["low"].notna().any():
        layers.insert(0, ranged.encode(x="low:Q", x2="high:Q"))
    text = f"{title} →" if title in UTILITY else f"← {title}"
    label = alt.Title(text, fontSize=12, fontWeight="normal", color=theme.INK)
    return alt.layer(*layers).properties(width=120, height=height, title=label)
