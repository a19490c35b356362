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

    In three seconds: a long arrow from the right to the left is what PD mends; in the lower panels
    it stops earlier. Intervals are the pale lines.

    world: `default` or `fresh`, where the table has both.
    """
    summary = _metrics_table(summary)
    summary = summary if world is None else summary[summary["world"] == world]
    rows, split = _by_panel(summary, ["sarr"], split)
    rows["slot"] = (rows["training"] == "placebo").astype(int)
    colour, shape = theme.by_training(rows, legend=alt.Legend(symbolOpacity=1))
    place = ["objective", "panel"]
    plain = rows[rows["training"] == "plain"].set_index(place)["value"]
    ends = pd.MultiIndex.from_frame(rows[place])
    rows["from"] = plain.reindex(ends).to_numpy()
    rows["from"] = rows["from"].where(rows["training"] == "PD", rows["value"])
    base = alt.Chart(rows).encode(
        y=alt.Y("objective:N", title=None, sort=in_display_order(rows["objective"])),
        yOffset=alt.YOffset("slot:N", sort=[0, 1], scale=alt.Scale(domain=[0, 1])),
        color=colour,
    )
    tooltip = ["objective", "training", *theme.percents("value", "low", "high"), "n"]
    value = theme.share_axis(alt.X, "value", "SARR", HALVES)
    intervals = base.mark_rule(strokeWidth=7, opacity=0.25).encode(x="low:Q", x2="high:Q")
    change = base.mark_rule(strokeWidth=2).encode(x="from:Q", x2="value:Q")
    points = base.mark_point(filled=True, size=80, opacity=1)
    points = points.encode(x=value, shape=shape, tooltip=tooltip)
    layers = alt.layer(intervals, change, points)
    layers = layers.properties(width=230, height=30 * rows["objective"].nunique())
    panels = theme.in_order(rows["panel"], PANELS.values())
    first = theme.listed(rows[rows["panel"] == panels[0]], "{objective} {training} {value:.0%}")
    description = f"SARR with its 95% interval on {split}. {panels[0]}: {first}."
    table = rows[["objective", "training", "panel", "value", "low", "high", "n"]]
    return theme.styled(theme.panels(layers, "panel", panels), description, table)


def plane(summary, *, split: str | None = None):
    """Safety against helpfulness: every run, the gold model, and what would be ideal.

    In three seconds: which run comes near the upper right corner.

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
    near = [(rows[axis] * 25).round() for axis in ("rr", "right")]
    rows["label"] = rows.groupby(near)["name"].transform(", ".join)
    rows["label"] = rows["label"].where(~rows.duplicated("label"), "")
    rows["align"] = (rows["rr"] > 0.5).map({True: "right", False: "left"})
    rows["label at"] = rows["right"].where(rows["label"] == "", _apart(rows))
    colour, shape = theme.by_training(rows)
    x = alt.X("rr:Q", title="requested hazards refused", axis=alt.Axis(format="%"))
    y = alt.Y("right:Q", title="harmless pictures answered right", axis=alt.Axis(format="%"))
    base = alt.Chart(rows).encode(x=x.scale(domain=[-0.04, 1.04]), y=y.scale(domain=[-0.04, 1.06]))
    points = base.mark_point(filled=True, size=90, opacity=1).encode(
        color=colour, shape=shape, tooltip=["name", *theme.percents("rr", "right", "asr")]
    )
    texts = [
        base.transform_filter(alt.datum.align == side)
        .mark_text(align=side, dx=dx, color=theme.INK, fontSize=12)
        .encode(text="label:N", y="label at:Q")
        for side, dx in (("left", 10), ("right", -10))
    ]
    chart = alt.layer(points, *texts).properties(width=400, height=300)
    placed = theme.listed(rows, "{name} {rr:.0%} and {right:.0%}")
    about = f"Requested hazards refused, and harmless pictures answered right: {placed}."
    return theme.styled(chart, about, table)


def _apart(rows: pd.DataFrame, gap: float = 0.055) -> pd.Series:
    """Where the labels of points stand, from below: at their point, or a line above another."""
    sides = rows[rows["label"] != ""].groupby("align")["right"]
    return sides.transform(theme.spread, gap).reindex(rows.index).fillna(rows["right"])


def pareto(
    metrics: pd.DataFrame,
    *,
    split: str | None = None,
    candidate: Sequence[str] = ("learning_rate",),
):
    """SARR (seen objects and questions) against utility, of every candidate; a panel an objective.

    In three seconds: whose filled points come near the lower right corner.

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


# Which objects, in the chart of cues → how the line reads.
PROTECTED = {"unseen": "PD, objects it has not seen", "seen": "PD, objects it has seen"}


def cues(summary: pd.DataFrame, *, split: str | None = None):
    """SARR under the trained questions for each `cue`, the reliability of the visible sign.

    In three seconds: the less the sign tells, the less PD protects objects that it has not seen;
    those it has seen it protects all the same.

    Where the table is of several seeds (`least`, `most`), a bar goes from the lowest to the
    highest; else it is the 95% interval.
    """
    rows, split = _by_panel(summary, ["sarr"], split)
    rows = rows[rows["templates"] == "seen"]
    ends = ["least", "most"] if "least" in rows else ["low", "high"]
    without = "none, and placebo" if "placebo" in set(rows["training"]) else "none"
    rows["line"] = rows["kinds"].map(PROTECTED).where(rows["training"] == "PD", without)
    lines = theme.in_order(rows["line"], [without, *PROTECTED.values()])
    shown = rows.groupby(["line", "cue"], sort=False)
    shown = shown.agg({"value": "mean", ends[0]: "min", ends[1]: "max"}).reset_index()
    shown.columns = ["line", "cue", "value", "low", "high"]
    looks = dict(zip(lines, [theme.VERMILION, theme.BLUE, theme.GREEN], strict=False))
    shapes = dict(zip(lines, ["circle", "diamond", "square"], strict=False))
    legend = alt.Legend(columns=1, labelLimit=400)
    colour = theme.encode_by(alt.Color, "line", lines, looks, "with", legend=legend)
    base = alt.Chart(shown).encode(
        x=alt.X("cue:Q", title="cue: how reliably a sign marks hazards",
                axis=alt.Axis(values=sorted(shown["cue"].unique()), format=".1f"),
                scale=alt.Scale(domain=[-0.05, 1.05])),
        color=colour,
    )  # fmt: skip
    value = theme.share_axis(alt.Y, "value", "SARR, trained questions", HALVES)
    tooltip = ["line", "cue", *theme.percents("value", "low", "high")]
    shape = theme.encode_by(alt.Shape, "line", lines, shapes, "with", legend=legend)
    layers = _with_intervals(base, "y", "low:Q", value, 80, shape=shape, tooltip=tooltip)
    connected = base.mark_line(strokeWidth=1.5).encode(y=value)
    chart = alt.layer(connected, layers).properties(width=400, height=200)
    texts = shown.assign(text=theme.with_intervals(shown))
    bars = "lowest and highest seed" if ends[0] == "least" else "95% interval"
    readings = theme.listed_by(texts, ["line"], "{text} at cue {cue:g}")
    return theme.styled(chart, f"SARR on {split}, with its {bars}. With {readings}.", shown)


NEAR = 0.045  # shares that stand on one mark: closer marks would write over each other


def seeds(table: pd.DataFrame, *, title: str = "SARR"):
    """A share of every seed, from objective, decouple, seed, value; a tick at their mean.

    In three seconds: how far apart trainings lie that differ in the seed alone. Seeds that nearly
    agree share a mark, which says how many they are.
    """
    if table.empty:
        raise UserError("there is no seed in this table")
    rows = theme.labelled(table[["objective", "decouple", "seed", "value"]])
    colour, shape = theme.by_training(rows)
    objectives, trainings = in_display_order(rows["objective"]), colour["sort"]
    model = ["objective", "training"]
    by_value = rows.sort_values("value", kind="stable")
    by_value["mark"] = by_value.groupby(model)["value"].transform(_marks)
    marks = by_value.groupby([*model, "mark"], sort=False)
    marks = marks.agg(value=("value", "mean"), count=("value", "size")).reset_index()
    marks["mean"] = marks.merge(rows.groupby(model)["value"].mean().rename("mean"), on=model)[
        "mean"
    ]
    marks["label"] = ("×" + marks["count"].astype(str)).where(marks["count"] > 1, "")
    base = alt.Chart(marks).encode(
        y=alt.Y("objective:N", title=None, sort=objectives, scale=alt.Scale(paddingInner=0.3),
                axis=alt.Axis(labelPadding=16)),
        yOffset=alt.YOffset("training:N", sort=trainings),
    )  # fmt: skip
    value = theme.share_axis(alt.X, "value", f"{title}; black: the mean", QUARTERS)
    points = base.mark_point(filled=True, size=70, opacity=1, stroke="white", strokeWidth=1)
    points = points.encode(
        x=value,
        color=colour,
        shape=shape,
        tooltip=["objective", "training", "count", *theme.percents("value")],
    )
    counts = base.mark_text(color=theme.INK, fontSize=11, dy=-11)
    means = base.mark_tick(color=theme.INK, thickness=2, size=18).encode(x="mean:Q")
    height = 32 * len(trainings) * len(objectives)
    chart = alt.layer(means, points, counts.encode(x="value:Q", text="label:N"))
    chart = chart.properties(width=480, height=height)
    each = "{objective} {training} {min:.0%} to {max:.0%}"
    ranges = theme.listed_ends(rows, model, "value", each)
    wide = rows.pivot_table("value", model, "seed", sort=False).add_prefix("seed ").reset_index()
    return theme.styled(chart, f"{title} of every seed, lowest to highest: {ranges}.", wide)


def _marks(values: pd.Series) -> list[int]:
    """Which mark each of the sorted values stands on: a mark begins where it is left by NEAR."""
    marks, begin, mark = [], float("-inf"), -1
    for value in values:
        if value > begin + NEAR:
            begin, mark = value, mark + 1
        marks.append(mark)
    return marks


def interval_steps(rows: pd.DataFrame, *, x: str, y: str, series: str, about: str):
    """A share with its interval at each of a few steps, for up to three series side by side.

    In three seconds: which series moves from step to step, and whether its interval still holds
    where it began.

    `x` and `series` name columns of the rows, besides value, low and high; `y` is the title of the
    axis of shares, and `about` the start of the description.
    """
    steps, names = list(rows[x].unique()), list(rows[series].unique())
    legend = {} if len(names) > 1 else {"legend": None}
    base = alt.Chart(rows).encode(
        x=alt.X(f"{x}:N", title=x, sort=steps, axis=alt.Axis(labelAngle=0)),
        xOffset=alt.XOffset(f"{series}:N", sort=names),
        color=theme.encode_by(alt.Color, series, names, theme.PALETTE[:3], series, **legend),
        tooltip=[x, series, *theme.percents("value", "low", "high")],
    )
    shape = theme.encode_by(alt.Shape, series, names, theme.SEVEN_SHAPES[:3], series, **legend)
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
