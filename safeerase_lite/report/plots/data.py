"""Charts of data sets: what a number measured on one of them is worth."""

import altair as alt
import pandas as pd

from safeerase_lite.report.plots.theme import percent, styled

SERIES = {"#D55E00": "circle", "#0072B2": "diamond", "#009E73": "square"}


def interval_steps(rows: pd.DataFrame, *, x: str, y: str, series: str, said: str):
    """A share with its interval at each of a few steps, for up to three series side by side.

    Args:
        rows: tidy, with columns value, low and high (shares), and those named by x and series.
        x: the column of steps, kept in the order of the rows; its name is the axis title.
        y: the title of the axis of shares.
        series: the column that names a series; its name is the legend's title.
        said: what the chart is about, the start of its description.
    """
    steps, names = list(rows[x].unique()), list(rows[series].unique())
    colours, shapes = (list(part)[: len(names)] for part in (SERIES, SERIES.values()))
    base = alt.Chart(rows).encode(
        x=alt.X(f"{x}:N", title=x, sort=steps, axis=alt.Axis(labelAngle=0)),
        xOffset=alt.XOffset(f"{series}:N", sort=names),
        color=alt.Color(
            f"{series}:N",
            title=series,
            sort=names,
            scale=alt.Scale(domain=names, range=colours),
        ),
        tooltip=[x, series, *(percent(column) for column in ("value", "low", "high"))],
    )
    scale, axis = alt.Scale(domain=[0, 1]), alt.Axis(format="%", values=[0, 0.25, 0.5, 0.75, 1])
    intervals = base.mark_rule(strokeWidth=2).encode(
        y=alt.Y("low:Q", title=y, scale=scale, axis=axis), y2="high:Q"
    )
    points = base.mark_point(filled=True, size=90, opacity=1).encode(
        y="value:Q",
        shape=alt.Shape(
            f"{series}:N", title=series, sort=names, scale=alt.Scale(domain=names, range=shapes)
        ),
    )
    chart = alt.layer(intervals, points).properties(width=max(260, 80 * len(steps)), height=170)
    readings = "; ".join(
        f"{name}: "
        + ", ".join(
            f"{step} {value:.0%} [{low:.0%}, {high:.0%}]"
            for step, value, low, high in part[[x, "value", "low", "high"]].to_numpy()
        )
        for name, part in rows.groupby(series, sort=False)
    )
    table = rows[[x, series, "value", "low", "high"]]
    return styled(chart, f"{said} With 95% intervals. {readings}.", table)
