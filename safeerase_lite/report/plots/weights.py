"""Charts of weights: what four bits make of them, and what a model takes in memory."""

import altair as alt
import numpy as np
import pandas as pd

from . import theme

GROUPS = {  # group → colour, the short name written on its bar, and that name's ink
    "4-bit weights": (theme.BLUE, "4-bit", "white"),
    "dense weights": (theme.SKY, "dense", "black"),
    "what learns": (theme.ORANGE, "learns", "black"),
    "activations": (theme.GREEN, "activations", "white"),
    "logits and workspace": (theme.PINK, "rest", "black"),
}
GB = 10**9


def weight_block(weights, rounded, levels):
    """One block of weights before and after rounding, on the 16 levels (times the block's scale)
    it may take.

    In three seconds: large weights move far, small ones hardly.
    """
    rows = pd.DataFrame({"weight": weights, "rounded": rounded}).astype(float)
    rows.insert(0, "index", range(len(rows)))
    across = alt.X("index:Q", title="weight in its block", axis=alt.Axis(grid=False))
    across = across.scale(domain=[-1, len(rows)])
    axis = alt.Axis(format=".2~f", grid=False)
    level, weight, value = (
        alt.Y(f"{field}:Q", title="value", axis=axis) for field in ("level", "weight", "value")
    )
    lines = alt.Chart(pd.DataFrame({"level": np.asarray(levels, dtype=float)}))
    lines = lines.mark_rule(color="#BBBBBB").encode(y=level)
    errors = alt.Chart(rows).mark_rule(color=theme.INK, strokeWidth=1.5)
    errors = errors.encode(x=across, y=weight, y2="rounded:Q")
    states = ["weight", "rounded"]
    points = alt.Chart(rows.melt("index", states, "state", "value"))
    points = points.mark_point(filled=True, opacity=1).encode(
        x=across,
        y=value,
        color=theme.encode_by(alt.Color, "state", states, [theme.BLUE, theme.VERMILION]),
        shape=theme.encode_by(alt.Shape, "state", states, ["circle", "diamond"]),
        tooltip=["index", "state", alt.Tooltip("value:Q", format=".4f")],
    )
    chart = alt.layer(lines, errors, points).properties(width=460, height=210)
    error = (rows["weight"] - rows["rounded"]).abs()
    description = (
        f"A block of {len(rows)} weights between {rows['weight'].min():.3f} and "
        f"{rows['weight'].max():.3f}, each moved to the nearest of {len(levels)} levels (lines, "
        f"close together near zero and far apart at the ends). Errors are {error.mean():.4f} on "
        f"average, {error.max():.4f} at most."
    )
    table = error.groupby(rows["rounded"]).agg(["size", "max"]).reset_index()
    table.columns = ["level", "weights", "largest error"]
    return theme.styled(chart, description, table)


def level_spacing(weights, spacings: dict):
    """How weights, each divided by its block's scale, lie between -1 and 1; below, the levels of
    several roundings (name → 16 levels).

    In three seconds: NF4 has its levels where the weights are.
    """
    counts, edges = np.histogram(np.asarray(weights, dtype=float), bins=40, range=(-1, 1))
    share = counts / counts.sum()
    bins = alt.Chart(pd.DataFrame({"from": edges[:-1], "to": edges[1:], "share": share}))
    histogram = bins.mark_bar(color="#BBBBBB").encode(
        x=alt.X("from:Q", bin="binned", title=None, axis=alt.Axis(labels=False)),
        x2="to:Q",
        y=alt.Y("share:Q", title="share of weights", axis=alt.Axis(format="%")),
    )
    names = list(spacings)
    table = pd.DataFrame(spacings, dtype=float).rename_axis("number").reset_index()
    levels = table.melt("number", names, "levels", "value")
    colours = [theme.BLUE, theme.VERMILION, theme.GREEN]
    scaled = alt.X("value:Q", title="weight ÷ its block's scale", scale=alt.Scale(domain=[-1, 1]))
    ticks = alt.Chart(levels).mark_tick(thickness=3, size=20, opacity=1).encode(
        x=scaled,
        y=alt.Y("levels:N", title=None, sort=names),
        color=theme.encode_by(alt.Color, "levels", names, colours, legend=None),
    )  # fmt: skip
    chart = alt.vconcat(
        histogram.properties(width=460, height=110),
        ticks.properties(width=460, height=30 * len(names)),
    )
    middle = share[np.abs(edges[:-1] + edges[1:]) / 2 < 0.25].sum()
    near_zero = "; ".join(
        f"{name}: {(table[name].abs() < 0.25).sum()} of {len(table)} levels lie there"
        for name in names
    )
    about = f"Scaled weights heap up near zero: {middle:.0%} lie within 0.25 of it. {near_zero}."
    return theme.styled(chart, about, table)


def memory(accounts: dict, *, line: float | None = None, line_label: str = ""):
    """What training takes, a bar per model, stacked by what it is for.

    In three seconds: which bars end before the dashed line, and which part is the longest.

    `accounts`: name → a table of group and bytes, as `resources.account` gives it; `line`: a limit
    to draw, in bytes.
    """
    names = list(accounts)
    parts = pd.concat([table.assign(model=name) for name, table in accounts.items()])
    rows = parts.groupby(["model", "group"])["bytes"].sum().reset_index()
    rows["GB"] = rows["bytes"] / GB
    order = theme.in_order(rows["group"], GROUPS)
    rows["rank"], rows["bar"] = rows["group"].map(order.index), rows["model"].map(names.index)
    rows = rows.sort_values(["bar", "rank"])
    y = alt.Y("model:N", title=None, sort=names)
    colours = [GROUPS[group][0] for group in order]
    legend = alt.Legend(columns=5, labelLimit=300)
    bars = alt.Chart(rows).mark_bar(stroke="white").encode(
        y=y,
        x=alt.X("GB:Q", title="GB, of a billion bytes", stack="zero").axis(tickCount=8),
        order="rank:Q",
        color=theme.encode_by(alt.Color, "group", order, colours, legend=legend),
        tooltip=["model", "group", alt.Tooltip("GB:Q", format=".3f")],
    )  # fmt: skip
    totals = rows.groupby("model")["GB"].sum().reindex(names).rename_axis("model").reset_index()
    totals["label"] = totals["GB"].map("{:.3g} GB".format)
    sums = alt.Chart(totals).mark_text(align="left", dx=5, color=theme.INK, fontWeight="bold")
    sums = sums.encode(y=y, x="GB:Q", text="label:N")
    halo = sums.mark_text(align="left", dx=5, fontWeight="bold", stroke="white", strokeWidth=6)
    limit = np.inf if line is None else line / GB
    widest = max(totals["GB"].max(), 0 if line is None else limit)
    layers = [bars, _names_on_bars(rows, y, widest, limit)]
    description = "Memory of one training step. " + "; ".join(
        f"{name}: {part['GB'].sum():.3g} GB, most of it {part.loc[part['GB'].idxmax(), 'group']}"
        for name, part in rows.groupby("model", sort=False)
    )
    if line is not None:
        at = pd.DataFrame({"GB": [limit], "label": [f"{line_label}: {limit:.3g} GB"]})
        at = alt.Chart(at).encode(x="GB:Q")
        dashed = at.mark_rule(color="#000000", strokeDash=[6, 4], strokeWidth=2)
        text = at.mark_text(align="left", baseline="bottom", dx=4, dy=-4, color=theme.INK)
        layers += [dashed, text.encode(y=alt.value(0), text="label:N")]
        description += f". The dashed line is {line_label}'s {limit:.3g} GB"
    chart = alt.layer(*layers, halo, sums).properties(width=440, height=36 * len(names))
    return theme.styled(chart, f"{description}.", rows[["model", "group", "GB"]])


def _names_on_bars(rows: pd.DataFrame, y, widest: float, limit: float):
    """Each part's short name at the start of its piece of the bar, where there is room for it and
    the limit's line does not cross it."""
    names = rows.assign(
        start=rows.groupby("model")["GB"].cumsum() - rows["GB"],
        name=[GROUPS[group][1] for group in rows["group"]],
        ink=[GROUPS[group][2] for group in rows["group"]],
    )
    needed = 0.015 * widest * (names["name"].str.len() + 1)  # a letter is 1.5% of the widest bar
    crossed = (names["start"] < limit) & (names["start"] + needed > limit)
    text = alt.Chart(names[(names["GB"] > needed) & ~crossed]).mark_text(align="left", dx=5)
    ink = alt.Color("ink:N", scale=None, legend=None)
    return text.encode(y=y, x="start:Q", text="name:N", color=ink)
