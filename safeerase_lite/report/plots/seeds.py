"""Charts of several seeds: how much a result owes to the seed of its training."""

import altair as alt
import pandas as pd

from safeerase_lite.report.plots.runs import _in_order, _labelled, _shape
from safeerase_lite.report.plots.theme import (
    INK,
    OBJECTIVES,
    SHAPES,
    colour,
    name_of,
    percent,
    styled,
)
from safeerase_lite.utils import UserError


def seeds(table: pd.DataFrame, *, title: str = "SARR"):
    """One number of every seed: a mark per seed, a tick at their mean.

    Args:
        table: objective, decouple, seed, value (a share).
        title: what the number is.
    """
    if table.empty:
        raise UserError("there is no seed in this table")
    rows = _labelled(table[["objective", "decouple", "seed", "value"]])
    trainings = _in_order(rows["training"], SHAPES)
    names = [name_of(o) for o in OBJECTIVES]
    names = [*_in_order(rows["objective"], names), *sorted(set(rows["objective"]) - set(names))]
    ticks = alt.Axis(format="%", values=[0, 0.25, 0.5, 0.75, 1])
    x = alt.X("value:Q", title=title, scale=alt.Scale(domain=[0, 1]), axis=ticks)
    base = alt.Chart(rows).encode(
        y=alt.Y("objective:N", title=None, sort=names, scale=alt.Scale(paddingInner=0.4)),
        yOffset=alt.YOffset("training:N", sort=trainings),
    )
    marks = base.mark_point(size=60, opacity=0.7, strokeWidth=1.5).encode(
        x=x,
        color=colour("training", trainings, "trained"),
        shape=_shape(trainings),
        tooltip=["objective", "training", "seed", percent("value")],
    )
    means = base.mark_tick(color=INK, thickness=2, size=16).encode(x="mean(value):Q")
    chart = alt.layer(marks, means).properties(width=460, height=24 * len(trainings) * len(names))
    spread = rows.groupby(["objective", "training"], sort=False)["value"].agg(["min", "max"])
    said = "; ".join(
        f"{objective} {training} {low:.0%} to {high:.0%}"
        for (objective, training), (low, high) in spread.iterrows()
    )
    wide = rows.pivot_table("value", ["objective", "training"], "seed", sort=False)
    wide.columns = [f"seed {seed}" for seed in wide.columns]
    return styled(chart, f"{title} of every seed, lowest to highest: {said}.", wide.reset_index())
