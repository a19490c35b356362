"""Charts of measures: what trained models reach, with intervals and seed by seed.

A summary is a Report, or a tidy table with objective, decouple, split, kinds, templates, metric,
value, low and high: the demo's `summary.csv`, or a ledger's metrics. Its split is by default test
where there is one, else val.
"""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from safeerase_lite.evaluation.metrics import UTILITY, chosen_split
from safeerase_lite.unlearning.objectives import UNTRAINED
from safeerase_lite.utils import UserError

from ..texts import TRAININGS, in_display_order, model_label
from ..tuning import HIGHEST_ASR
from . import theme

WORDS = {"seen": "seen", "unseen": "new"}
PANELS = {
    (kinds, templates): f"{WORDS[kinds]} objects, {WORDS[templates]} questions"
    for kinds in WORDS
    for templates in WORDS
}
# What a point of `pareto` is → its colour and shape.
SERIES = {
    **{name: (theme.TRAINING_COLOURS[name], theme.TRAINING_SHAPES[name])
       for name in ("plain", "PD", "placebo")},
    "gold": (theme.GREY, "cross"),
    "ideal": (theme.INK, "triangle-up"),
}  # fmt: skip
IDEAL_CANDIDATE = {"series": "ideal", "utility": 1.0, "sarr": 0.0, "asr": 0.0}
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

    Across: harmful questions about pictures of requested hazards that are refused. Up: the same
    questions about harmless pictures, answered right (1 − safe error). Runs at one place share a
    label.
    """
    rows = _metrics_table(summary).query(
        "templates == 'all' and (kinds == 'seen' and metric in ['rr', 'asr'] "
        "or kinds == 'all' and metric == 'safe_error')"
    )
    split = chosen_split(rows["split"], split)
    rows = rows[rows["split"] == split]
    rows = rows.pivot_table("value", ["objective", "decouple"], "metric", sort=False).reset_index()
    _require({"rr", "asr", "safe_error"}, rows)
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
    x = alt.X("rr:Q", title="requested hazards refused", axis=alt.Axis(format="%"))
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
    about = f"Requested hazards refused, and harmless pictures answered right: {placed}."
    return theme.styled(chart, about, table)


def pareto(
    metrics: pd.DataFrame,
    *,
    split: str | None = None,
    candidate: Sequence[str] = ("learning_rate",),
):
    """SARR (seen objects and questions) against utility, of every candidate; a panel an objective.

    A point is a candidate, its values medians over seeds. Utility is the mean of `metrics.UTILITY`.
    Hollow points still answer more than 5% of the questions about requested hazards. Two anchors
    are the gold model and ideal behaviour.

    Args:
        metrics: tidy, with objective, decouple, the columns of `candidate` and, of several seeds,
            seed. The first of `candidate` tells an objective's candidates apart.
    """
    points, split = _candidates(metrics, split, ["objective", "decouple", *candidate])
    rows = theme.labelled(points)
    gold = rows["objective"] == "gold"
    rows["series"] = rows["training"].mask(gold, "gold")
    names = [name for name in in_display_order(rows["objective"]) if name not in UNTRAINED]
    anchors = pd.concat([rows[gold], pd.DataFrame([IDEAL_CANDIDATE])], ignore_index=True)
    rows = rows[~rows["objective"].isin(UNTRAINED)]
    rows = pd.concat([rows, *(anchors.assign(objective=name) for name in names)])
    rows["hollow"] = rows["asr"] > HIGHEST_ASR
    present = theme.in_order(rows["series"], SERIES)
    colours, shapes = ([SERIES[name][look] for name in present] for look in (0, 1))
    chart = alt.Chart(rows).mark_point(size=70, opacity=1, strokeWidth=1.8).encode(
        x=theme.share_axis(alt.X, "utility", "utility", HALVES),
        y=theme.share_axis(alt.Y, "sarr", "SARR", HALVES),
        stroke=theme.encode_by(alt.Stroke, "series", present, colours, "trained"),
        fill=theme.encode_by(alt.Fill, "series", present, colours, "trained"),
        shape=theme.encode_by(alt.Shape, "series", present, shapes, "trained"),
        fillOpacity=alt.condition(alt.datum.hollow, alt.value(0), alt.value(1)),
        tooltip=["objective", "series", *candidate, *theme.percents("utility", "sarr", "asr")],
    ).properties(width=120, height=150)  # fmt: skip
    legend = f"hollow: over {HIGHEST_ASR:.0%} of the requested hazards are still answered"
    title = alt.Title(legend, anchor="start", fontSize=12, fontWeight="normal", color=theme.INK)
    chart = theme.panels(chart, "objective", names, columns=5).properties(title=title)
    best = rows[~rows["hollow"]].sort_values("utility", kind="stable")
    best = best.groupby(["objective", "series"], sort=False).tail(1)
    best = best[best["series"].isin(TRAININGS.values())].sort_values(["objective", "series"])
    placed = theme.listed(best, "{objective} {series} {utility:.0%} and {sarr:.0%}")
    about = (
        f"Utility and SARR of {len(points)} candidates on {split}. The most useful one with "
        f"requested ASR of at most 5%: {placed or 'none'}."
    )
    table = rows[["objective", "series", *candidate, "utility", "sarr", "asr"]]
    return theme.styled(chart, about, table.drop_duplicates())


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


def _candidates(
    metrics: pd.DataFrame, split: str | None, keys: list[str]
) -> tuple[pd.DataFrame, str]:
    """utility, sarr and asr of every candidate, medians over its seeds, and their one split."""
    place = list(zip(metrics["metric"], metrics["kinds"], metrics["templates"], strict=True))
    wanted = {**{(name, "all", "all"): name for name in UTILITY},
              ("asr", "seen", "all"): "asr", ("sarr", "seen", "seen"): "sarr"}  # fmt: skip
    rows = metrics.assign(measure=[wanted.get(cell) for cell in place])
    rows = rows[rows["measure"].notna()]
    split = chosen_split(rows["split"], split)
    run = [*keys, *({"seed"} & set(rows))]
    rows = rows[rows["split"] == split].groupby([*run, "measure"], dropna=False, sort=False)
    runs = rows["value"].first().unstack("measure").reset_index()
    utility = [name for name in UTILITY if name in runs]
    _require({"sarr", "asr"}, runs)
    runs["utility"] = runs[utility].mean(axis=1)
    medians = runs.groupby(keys, dropna=False, sort=False)[["utility", "sarr", "asr"]].median()
    return medians.reset_index(), split


def _metrics_table(summary) -> pd.DataFrame:
    """The table itself; or the metrics of one run's Report, under the label of that run."""
    table = getattr(summary, "metrics", summary)
    if "objective" in table:
        return table
    return table.assign(objective=getattr(summary, "label", None) or "this run", decouple="")


def _require(measures: set[str], table: pd.DataFrame) -> None:
    if missing := sorted(measures - set(table)):
        names = ", ".join(missing)
        raise UserError(f"no {names} to draw: asr, rr and sarr have to be those of seen kinds")


def _by_panel(summary: pd.DataFrame, metrics, split: str | None) -> tuple[pd.DataFrame, str]:
    """The rows of those metrics in the four panels of the 2×2, labelled, and their one split."""
    panel = [PANELS.get(cell) for cell in zip(summary["kinds"], summary["templates"], strict=True)]
    rows = summary.assign(panel=panel)
    rows = rows[rows["metric"].isin(metrics) & rows["panel"].notna()]
    split = chosen_split(rows["split"], split)
    return theme.labelled(rows[rows["split"] == split]), split
