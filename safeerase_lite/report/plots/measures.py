"""Charts of measures: what trained models reach, with intervals and seed by seed.

A summary is a Report, or a tidy table with objective, decouple, split, kinds, templates, metric,
value, low and high: the demo's `summary.csv`, or a ledger's metrics. Its split is by default test
where there is one, else val.
"""

import altair as alt
import pandas as pd

from safeerase_lite.evaluation.metrics import chosen_split
from safeerase_lite.utils import UserError

from ..texts import in_display_order, model_label
from . import theme

PANELS = {
    (kinds, templates): f"{kinds} objects, {templates} questions"
    for kinds in ("seen", "unseen")
    for templates in ("seen", "unseen")
}
IDEAL = {"objective": "ideal", "training": "model", "rr": 1.0, "right": 1.0, "asr": 0.0}
HALVES, QUARTERS = [0, 0.5, 1], [0, 0.25, 0.5, 0.75, 1]


def over_forgetting(summary, *, split: str | None = None, world: str | None = None):
    """SARR with and without PD, for every objective, as the 2×2 of kinds and templates.

    world: `default` or `fresh`, where the table has both.
    """
    summary = _metrics_table(summary)
    summary = summary if world is None else summary[summary["world"] == world]
    rows, split = _by_panel(summary, ["sarr"], split)
    rows["slot"] = rows["training"].map({"plain": 0, "PD": 1, "placebo": 2, "model": 1})
    colour, shape = theme.by_training(rows)
    base = alt.Chart(rows).encode(
        y=alt.Y("objective:N", title=None, sort=in_display_order(rows["objective"])),
        yOffset=alt.YOffset("slot:N", sort=[0, 1, 2], scale=alt.Scale(domain=[0, 1, 2])),
        color=colour,
    )
    tooltip = ["objective", "training", *theme.percents("value", "low", "high"), "n"]
    value = theme.share_axis(alt.X, "value", "SARR", HALVES)
    layers = _with_intervals(base, "x", "low:Q", value, 80, shape=shape, tooltip=tooltip)
    layers = layers.properties(width=230, height=32 * rows["objective"].nunique())
    panels = theme.in_order(rows["panel"], PANELS.values())
    first = theme.listed(rows[rows["panel"] == panels[0]], "{objective} {training} {value:.0%}")
    description = f"SARR with its 95% interval on {split}. {panels[0]}: {first}."
    table = rows[["objective", "training", "panel", "value", "low", "high", "n"]]
    return theme.styled(theme.panels(layers, "panel", panels), description, table)


def plane(summary, *, split: str | None = None):
    """Safety against helpfulness: every run, the gold model, and what would be ideal.

    Across: harmful questions about harmful pictures that are refused. Up: the same questions about
    harmless pictures, answered right (1 − safe error). Runs at one place share a label.
    """
    rows = _metrics_table(summary).query(
        "kinds == 'all' and templates == 'all' and metric in ['rr', 'asr', 'safe_error']"
    )
    split = chosen_split(rows["split"], split)
    rows = rows[rows["split"] == split]
    rows = rows.pivot_table("value", ["objective", "decouple"], "metric", sort=False).reset_index()
    names = [model_label(*one) for one in zip(rows["objective"], rows["decouple"], strict=True)]
    rows = theme.labelled(rows).assign(right=1 - rows["safe_error"])
    table = rows[["objective", "training", "rr", "right", "asr"]]
    rows = pd.concat([table, pd.DataFrame([IDEAL])], ignore_index=True)
    rows["name"] = [*names, "ideal"]
    near = [(rows[axis] * 12).round() for axis in ("rr", "right")]
    rows["label"] = rows.groupby(near)["name"].transform(", ".join)
    rows["label"] = rows["label"].where(~rows.duplicated("label"), "")
    rows["align"] = (rows["rr"] > 0.5).map({True: "right", False: "left"})
    colour, shape = theme.by_training(rows)
    x = alt.X("rr:Q", title="harmful questions refused", axis=alt.Axis(format="%"))
    y = alt.Y("right:Q", title="harmless pictures answered right", axis=alt.Axis(format="%"))
    base = alt.Chart(rows).encode(x=x.scale(domain=[-0.04, 1.04]), y=y.scale(domain=[-0.04, 1.1]))
    points = base.mark_point(filled=True, size=90, opacity=1).encode(
        color=colour, shape=shape, tooltip=["name", *theme.percents("rr", "right", "asr")]
    )
    texts = [
        base.transform_filter(alt.datum.align == side)
        .mark_text(align=side, dx=dx, dy=-9, color=theme.INK, fontSize=12)
        .encode(text="label:N")
        for side, dx in (("left", 9), ("right", -9))
    ]
    chart = alt.layer(points, *texts).properties(width=400, height=250)
    placed = theme.listed(rows, "{name} {rr:.0%} and {right:.0%}")
    about = f"Share of harmful questions refused, and of harmless ones answered right: {placed}."
    return theme.styled(chart, about, table)


def cues(summary: pd.DataFrame, *, split: str | None = None):
    """SARR and safe error in the 2×2 for each `cue`, the reliability of the visible sign."""
    titles = {"sarr": "SARR", "safe_error": "safe error"}
    rows, split = _by_panel(summary, titles, split)
    rows["measure"] = rows["metric"].map(titles)
    colour, shape = theme.by_training(rows)
    base = alt.Chart(rows).encode(
        x=alt.X("cue:O", title="cue", axis=alt.Axis(labelAngle=0)),
        xOffset=alt.XOffset("training:N", sort=colour["sort"]),
        color=colour,
    )
    value = theme.share_axis(alt.Y, "value")
    tooltip = ["cue", "training", *theme.percents("value", "low", "high"), "n"]
    layers = _with_intervals(base, "y", "low:Q", value, 60, shape=shape, tooltip=tooltip)
    panels = theme.in_order(rows["panel"], PANELS.values())
    two_lines = alt.Header(labelExpr="split(datum.label, ', ')")
    chart = layers.properties(width=120, height=110).facet(
        column=alt.Column("panel:N", title=None, sort=panels, header=two_lines),
        row=alt.Row("measure:N", title=None, sort=list(titles.values())),
    )
    places = ["measure", "panel", "training"]
    table = rows.assign(text=theme.with_intervals(rows)).pivot_table(
        "text", places, "cue", "first", sort=False
    )
    with_pd = rows[rows["training"] == "PD"]
    readings = theme.listed_by(with_pd, ["measure", "panel"], "{value:.0%} at cue {cue}")
    description = f"SARR and safe error with their 95% intervals on {split}. With PD: {readings}."
    return theme.styled(chart, description, table.add_prefix("cue ").reset_index())


def seeds(table: pd.DataFrame, *, title: str = "SARR"):
    """A share of every seed, from objective, decouple, seed, value; a tick at their mean."""
    if table.empty:
        raise UserError("there is no seed in this table")
    rows = theme.labelled(table[["objective", "decouple", "seed", "value"]])
    colour, shape = theme.by_training(rows)
    objectives, trainings = in_display_order(rows["objective"]), colour["sort"]
    base = alt.Chart(rows).encode(
        y=alt.Y("objective:N", title=None, sort=objectives, scale=alt.Scale(paddingInner=0.4)),
        yOffset=alt.YOffset("training:N", sort=trainings),
    )
    marks = base.mark_point(size=60, opacity=0.7, strokeWidth=1.5).encode(
        x=theme.share_axis(alt.X, "value", title, QUARTERS),
        color=colour,
        shape=shape,
        tooltip=["objective", "training", "seed", *theme.percents("value")],
    )
    means = base.mark_tick(color=theme.INK, thickness=2, size=16).encode(x="mean(value):Q")
    height = 24 * len(trainings) * len(objectives)
    chart = alt.layer(marks, means).properties(width=460, height=height)
    model, each = ["objective", "training"], "{objective} {training} {min:.0%} to {max:.0%}"
    ranges = theme.listed_ends(rows, model, "value", each)
    wide = rows.pivot_table("value", model, "seed", sort=False).add_prefix("seed ").reset_index()
    return theme.styled(chart, f"{title} of every seed, lowest to highest: {ranges}.", wide)


def interval_steps(rows: pd.DataFrame, *, x: str, y: str, series: str, about: str):
    """A share with its interval at each of a few steps, for up to three series side by side.

    `x` and `series` name columns of the rows, besides value, low and high; `y` is the title of the
    axis of shares, and `about` the start of the description.
    """
    steps, names = list(rows[x].unique()), list(rows[series].unique())
    base = alt.Chart(rows).encode(
        x=alt.X(f"{x}:N", title=x, sort=steps, axis=alt.Axis(labelAngle=0)),
        xOffset=alt.XOffset(f"{series}:N", sort=names),
        color=theme.encode_by(alt.Color, series, names, theme.PALETTE[:3], series),
        tooltip=[x, series, *theme.percents("value", "low", "high")],
    )
    shape = theme.encode_by(alt.Shape, series, names, theme.SEVEN_SHAPES[:3], series)
    low = theme.share_axis(alt.Y, "low", y, QUARTERS)
    chart = _with_intervals(base, "y", low, "value:Q", 90, shape=shape)
    chart = chart.properties(width=max(260, 80 * len(steps)), height=170)
    texts = rows.assign(text=theme.with_intervals(rows))
    description = theme.listed_by(texts, [series], f"{{{x}}} {{text}}")
    description = f"{about} With 95% intervals. {description}."
    return theme.styled(chart, description, rows[[x, series, "value", "low", "high"]])


def _with_intervals(base, axis: str, low, value, size: int, **encodings) -> alt.LayerChart:
    """Rules from `low` to `high` along an axis, x or y, and a point at each `value`."""
    intervals = base.mark_rule(strokeWidth=2).encode(**{axis: low, f"{axis}2": "high:Q"})
    points = base.mark_point(filled=True, size=size, opacity=1)
    return alt.layer(intervals, points.encode(**{axis: value}, **encodings))


# ---- rows ----


def _metrics_table(summary) -> pd.DataFrame:
    """The table itself; or the metrics of one run's Report, under the label of that run."""
    table = getattr(summary, "metrics", summary)
    if "objective" in table:
        return table
    return table.assign(objective=getattr(summary, "label", None) or "this run", decouple="")


def _by_panel(summary: pd.DataFrame, metrics, split: str | None) -> tuple[pd.DataFrame, str]:
    """The rows of those metrics in the four panels of the 2×2, labelled, and their one split."""
    panel = [PANELS.get(cell) for cell in zip(summary["kinds"], summary["templates"], strict=True)]
    rows = summary.assign(panel=panel)
    rows = rows[rows["metric"].isin(metrics) & rows["panel"].notna()]
    split = chosen_split(rows["split"], split)
    return theme.labelled(rows[rows["split"] == split]), split
