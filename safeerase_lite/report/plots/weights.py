"""Charts of weights: what four bits make of them, and what a model takes in memory."""

import altair as alt
import numpy as np
import pandas as pd

from safeerase_lite.report.plots.theme import INK, styled

WEIGHT, ROUNDED = "#0072B2", "#D55E00"
GROUPS = {  # group → colour, the short name written on its bar, and that name's ink
    "4-bit weights": ("#0072B2", "4-bit", "white"),
    "dense weights": ("#56B4E9", "dense", "black"),
    "what learns": ("#E69F00", "learns", "black"),
    "activations": ("#009E73", "activations", "white"),
    "logits and workspace": ("#CC79A7", "rest", "black"),
}
GB = 10**9


def weight_block(weights, rounded, levels):
    """One block of weights before and after rounding, on the levels it may take.

    Args:
        weights: the block's weights, in order.
        rounded: the same weights after rounding.
        levels: the 16 values the block may take (levels times the block's scale).
    """
    rows = pd.DataFrame({"weight": weights, "rounded": rounded}).astype(float)
    rows.insert(0, "index", range(len(rows)))
    place = alt.X(
        "index:Q",
        title="weight in its block",
        scale=alt.Scale(domain=[-1, len(rows)]),
        axis=alt.Axis(grid=False),
    )
    value = {"title": "value", "axis": alt.Axis(format=".2~f", grid=False)}
    rules = (
        alt.Chart(pd.DataFrame({"level": np.asarray(levels, dtype=float)}))
        .mark_rule(color="#BBBBBB")
        .encode(y=alt.Y("level:Q", **value))
    )
    errors = (
        alt.Chart(rows)
        .mark_rule(color=INK, strokeWidth=1.5)
        .encode(x=place, y=alt.Y("weight:Q", **value), y2="rounded:Q")
    )
    states = ["weight", "rounded"]
    points = (
        alt.Chart(rows.melt("index", states, "state", "value"))
        .mark_point(filled=True, opacity=1)
        .encode(
            x=place,
            y=alt.Y("value:Q", **value),
            color=alt.Color(
                "state:N",
                sort=states,
                title=None,
                scale=alt.Scale(domain=states, range=[WEIGHT, ROUNDED]),
            ),
            shape=alt.Shape(
                "state:N",
                sort=states,
                title=None,
                scale=alt.Scale(domain=states, range=["circle", "diamond"]),
            ),
            tooltip=["index", "state", alt.Tooltip("value:Q", format=".4f")],
        )
    )
    error = (rows["weight"] - rows["rounded"]).abs()
    said = (
        f"A block of {len(rows)} weights between {rows['weight'].min():.3f} and "
        f"{rows['weight'].max():.3f}, each moved to the nearest of {len(levels)} levels (lines, "
        f"close together near zero and far apart at the ends). Errors are {error.mean():.4f} on "
        f"average, {error.max():.4f} at most."
    )
    chart = alt.layer(rules, errors, points).properties(width=460, height=210)
    table = error.groupby(rows["rounded"]).agg(["size", "max"]).reset_index()
    table.columns = ["level", "weights", "largest error"]
    return styled(chart, said, table)


def level_spacing(weights, spacings: dict):
    """How weights, each divided by its block's scale, lie between -1 and 1; below, the levels of
    several roundings.

    Args:
        weights: any number of scaled weights.
        spacings: name → the 16 levels of a rounding.
    """
    counts, edges = np.histogram(np.asarray(weights, dtype=float), bins=40, range=(-1, 1))
    share = counts / counts.sum()
    bars = pd.DataFrame({"from": edges[:-1], "to": edges[1:], "share": share})
    axis = alt.X("from:Q", bin="binned", title=None, axis=alt.Axis(labels=False))
    histogram = (
        alt.Chart(bars)
        .mark_bar(color="#BBBBBB")
        .encode(
            x=axis,
            x2="to:Q",
            y=alt.Y("share:Q", title="share of weights", axis=alt.Axis(format="%")),
        )
        .properties(width=460, height=110)
    )
    names = list(spacings)
    ticks = pd.DataFrame(
        [(name, n, float(v)) for name, levels in spacings.items() for n, v in enumerate(levels)],
        columns=["levels", "number", "value"],
    )
    lines = (
        alt.Chart(ticks)
        .mark_tick(thickness=3, size=20, opacity=1)
        .encode(
            x=alt.X("value:Q", title="weight ÷ its block's scale", scale=alt.Scale(domain=[-1, 1])),
            y=alt.Y("levels:N", title=None, sort=names),
            color=alt.Color(
                "levels:N",
                sort=names,
                legend=None,
                scale=alt.Scale(domain=names, range=[WEIGHT, ROUNDED, "#009E73"][: len(names)]),
            ),
        )
        .properties(width=460, height=30 * len(names))
    )
    middle = share[np.abs(edges[:-1] + edges[1:]) / 2 < 0.25].sum()
    said = "; ".join(
        f"{name}: {sum(abs(float(v)) < 0.25 for v in levels)} of {len(levels)} levels lie there"
        for name, levels in spacings.items()
    )
    table = ticks.pivot(index="number", columns="levels", values="value")[names].reset_index()
    return styled(
        alt.vconcat(histogram, lines),
        f"Scaled weights heap up near zero: {middle:.0%} lie within 0.25 of it. {said}.",
        table,
    )


def memory(accounts: dict, *, line: float | None = None, line_label: str = ""):
    """What training takes, a bar per model, stacked by what it is for.

    Args:
        accounts: name → a table from `memory.account`, or any with group and bytes.
        line: a limit to draw, in bytes, with its label.
    """
    names = list(accounts)
    parts = pd.concat([table.assign(model=name) for name, table in accounts.items()])
    rows = parts.groupby(["model", "group"])["bytes"].sum().reset_index()
    rows["GB"] = rows["bytes"] / GB
    order = [group for group in GROUPS if group in set(rows["group"])]
    rows["rank"] = rows["group"].map(order.index)
    rows["bar"] = rows["model"].map(names.index)
    rows = rows.sort_values(["bar", "rank"])
    totals = rows.groupby("model")["GB"].sum().reindex(names)
    y = alt.Y("model:N", title=None, sort=names)
    bars = (
        alt.Chart(rows)
        .mark_bar(stroke="white")
        .encode(
            y=y,
            x=alt.X(
                "GB:Q",
                title="GB, of a billion bytes",
                stack="zero",
                axis=alt.Axis(tickCount=8),
            ),
            order="rank:Q",
            color=alt.Color(
                "group:N",
                title=None,
                sort=order,
                scale=alt.Scale(domain=order, range=[GROUPS[group][0] for group in order]),
                legend=alt.Legend(columns=5, labelLimit=300),
            ),
            tooltip=["model", "group", alt.Tooltip("GB:Q", format=".3f")],
        )
    )
    limit = np.inf if line is None else line / GB
    letter = 0.015 * max(totals.max(), 0 if line is None else limit)
    chart = alt.layer(bars, _names_on(rows, y, letter, limit), _totals(totals, y))
    said = "; ".join(
        f"{name}: {totals[name]:.3g} GB, most of it {part.loc[part['GB'].idxmax(), 'group']}"
        for name, part in rows.groupby("model", sort=False)
    )
    if line is not None:
        chart = alt.layer(chart, *_limit(limit, line_label))
        said += f". The dashed line is {line_label}'s {limit:.3g} GB"
    chart = chart.properties(width=440, height=36 * len(names))
    table = rows[["model", "group", "GB"]]
    return styled(chart, f"Memory of one training step. {said}.", table)


def _names_on(rows: pd.DataFrame, y, letter: float, limit: float):
    """Each part's short name at the start of its piece of the bar, where there is room for it and
    the limit's line does not cross it."""
    names = rows.assign(
        start=rows.groupby("model")["GB"].cumsum() - rows["GB"],
        name=[GROUPS[group][1] for group in rows["group"]],
        ink=[GROUPS[group][2] for group in rows["group"]],
    )
    needed = letter * (names["name"].str.len() + 1)
    crossed = (names["start"] < limit) & (names["start"] + needed > limit)
    text = alt.Chart(names[(names["GB"] > needed) & ~crossed]).mark_text(align="left", dx=5)
    ink = alt.Color("ink:N", scale=None, legend=None)
    return text.encode(y=y, x="start:Q", text="name:N", color=ink)


def _totals(totals: pd.Series, y):
    rows = pd.DataFrame({"model": totals.index, "GB": totals.to_numpy()})
    rows["label"] = [f"{total:.3g} GB" for total in totals]
    text = alt.Chart(rows).mark_text(align="left", dx=5, color=INK, fontWeight="bold")
    return text.encode(y=y, x="GB:Q", text="label:N")


def _limit(size: float, label: str):
    rows = pd.DataFrame({"GB": [size], "label": [f"{label}: {size:.3g} GB"]})
    rule = alt.Chart(rows).mark_rule(color="#000000", strokeDash=[6, 4], strokeWidth=2)
    text = alt.Chart(rows).mark_text(align="left", baseline="bottom", dx=4, dy=-4, color=INK)
    return rule.encode(x="GB:Q"), text.encode(x="GB:Q", y=alt.value(0), text="label:N")
