"""Charts of training: what changes in one step, and over all of them."""

import math

import altair as alt
import pandas as pd

from . import theme

TERMS = ("forget", "refuse", "retain", "decouple")


def history(steps: pd.DataFrame):
    """The terms of the loss (nats per answer token), a row and column `step` each.

    In three seconds: which term is being learned, and which one is lost on the way.
    """
    terms = [term for term in TERMS if term in steps]
    rows = steps.melt("step", terms, "term", "nats")
    chart = _lines(
        rows,
        y=alt.Y("nats:Q", title="negative log-likelihood, nats per token"),
        by="term",
        width=2,
        title="answers to",
        tooltip=["step", "term", alt.Tooltip("nats:Q", format=".3f")],
        colours=[theme.VERMILION, theme.PINK, theme.GREEN, theme.BLUE],
    ).properties(width=480, height=220)
    ends = ", ".join(f"{t} {steps[t].iloc[0]:.2f} to {steps[t].iloc[-1]:.2f}" for t in terms)
    table = steps.loc[:: max(1, len(steps) // 12), ["step", *terms]]
    about = f"Loss terms over {len(steps)} steps, in nats per token: {ends}."
    return theme.styled(chart, about, table)


def forgetting(rows: pd.DataFrame):
    """How unlikely several runs make the harmful answers: run, step, forget (nats per token).

    In three seconds: which line goes on rising, and which one levels off.
    """
    chart = _lines(
        rows,
        y=alt.Y("forget:Q", title="harmful answers, nats per token"),
        by="run",
        tooltip=["run", "step", alt.Tooltip("forget:Q", format=".2f")],
    ).properties(width=480, height=220)
    changes = theme.listed_ends(rows, ["run"], "forget", "{run} from {first:.2f} to {last:.2f}")
    every = rows[rows["step"] % max(1, rows["step"].max() // 8) == 0]
    table = every.pivot_table("forget", "step", "run", sort=False).reset_index()
    return theme.styled(chart, f"Nats per token of the harmful answers: {changes}.", table)


def trajectory(rows: pd.DataFrame, *, title: str):
    """How answers fail over the steps: a row of panels per run, a column per group of questions.

    In three seconds: which panels rise, how early, and which come back.

    Takes run, what (which questions), step, verdict, share: a row for every step and verdict.
    """
    runs, groups = list(rows["run"].unique()), list(rows["what"].unique())
    lines = _lines(
        rows,
        x=alt.X("step:Q", axis=alt.Axis(tickCount=3)),
        y=alt.Y("share:Q", title=title, axis=alt.Axis(format="%", values=[0, 0.5, 1]),
                scale=alt.Scale(domain=[0, 1.04])),
        by="verdict",
        tooltip=["run", "what", "step", "verdict", *theme.percents("share")],
        legend=alt.Legend(symbolType="stroke", symbolSize=400),
        colours=[theme.VERMILION, theme.BLUE],
    ).properties(width=150, height=90)  # fmt: skip
    chart = lines.facet(
        row=alt.Row("run:N", title=None, sort=runs),
        column=alt.Column("what:N", title=None, sort=groups),
    )
    together = rows.groupby(["run", "what", "step"], sort=False)["share"].sum().reset_index()
    each = "{run}, {what}: {max:.0%} at most, {last:.0%} at the end"
    changes = theme.listed_ends(together, ["run", "what"], "share", each)
    every = rows[rows["step"] % max(1, rows["step"].max() // 8) == 0]
    table = every.pivot_table("share", ["run", "what", "verdict"], "step", sort=False)
    table = table.add_prefix("step ").reset_index()
    return theme.styled(chart, f"{title.capitalize()} over the steps. {changes}.", table)


TICK = "M0,-1.2L0,1.2"  # where an answer stood before the step


def one_step(rows: pd.DataFrame):
    """What one step does to answers: objective, decouple, answer, before and after (mean
    probability per token).

    In three seconds: how far each point has moved from its tick, and whether the diamond has moved
    less than the circle. Answers that were likely share an axis, and so do those that were not.
    """
    rows = theme.labelled(rows)
    trained = theme.in_order(rows["training"], theme.TRAINING_COLOURS)
    looks = {
        "before": (theme.INK, TICK),
        **{name: (theme.TRAINING_COLOURS[name], theme.TRAINING_SHAPES[name]) for name in trained},
    }
    likely = rows.groupby("answer")["before"].mean().map(lambda p: p > 0.5)
    charts = []
    for answer in rows["answer"].unique():
        alike = rows[rows["answer"].map(likely) == likely[answer]]
        values = alike[["before", "after"]].to_numpy()
        ends = [math.floor(values.min() * 20) / 20, math.ceil(values.max() * 20) / 20]
        title = alt.Title(answer, fontSize=13, fontWeight="normal", color=theme.INK)
        charts.append(_moved(rows[rows["answer"] == answer], ends, looks).properties(title=title))
    chart = alt.concat(*charts, columns=2)
    table = rows[["objective", "training", "answer", "before", "after"]]
    changes = theme.listed(table, "{objective} {training}, {answer} {before:.2f} to {after:.2f}")
    about = f"Probability per token before and after one step: {changes}."
    return theme.styled(chart, about, table)


def _moved(rows: pd.DataFrame, ends: list[float], looks: dict):
    """A tick where each answer stood, a point where it stands, and a line between them."""
    objectives = list(rows["objective"].unique())
    ticks = rows.assign(at=rows["before"], seen="before")
    points = pd.concat([ticks, rows.assign(at=rows["after"], seen=rows["training"])])
    base = alt.Chart(points).encode(
        y=alt.Y("objective:N", title=None, sort=objectives),
        yOffset=alt.YOffset("training:N", sort=list(looks)[1:]),
    )
    colours, shapes = ({name: look[n] for name, look in looks.items()} for n in (0, 1))
    names = {"field": "seen", "values": list(looks), "title": "after one step"}
    change = base.transform_filter(alt.datum.seen != "before").mark_rule(strokeWidth=2)
    along = {"title": "probability per token", "axis": alt.Axis(tickCount=4),
             "scale": alt.Scale(domain=ends)}  # fmt: skip
    change = change.encode(x=alt.X("before:Q", **along), x2="after:Q",
                           color=theme.encode_by(alt.Color, looks=colours, **names))  # fmt: skip
    marks = base.mark_point(filled=True, size=70, opacity=1, strokeWidth=2).encode(
        x=alt.X("at:Q", **along),
        color=theme.encode_by(alt.Color, looks=colours, **names),
        stroke=theme.encode_by(alt.Stroke, looks=colours, **names),
        shape=theme.encode_by(alt.Shape, looks=shapes, **names),
        tooltip=["objective", "training", "answer", *theme.percents("before", "after")],
    )  # fmt: skip
    return alt.layer(change, marks).properties(width=230, height=34 * len(objectives))


def _lines(
    rows, *, y, by, tooltip, x="step:Q", title=None, width=2.5, colours=theme.PALETTE, **options
):
    """A line over the steps for each value of the column `by`, told apart by colour and dash."""
    names = list(rows[by].unique())
    scale = alt.Scale(domain=names)
    dash = alt.StrokeDash(f"{by}:N", title=title, sort=names, scale=scale, **options)
    colour = theme.encode_by(alt.Color, by, names, colours, title, **options)
    encodings = {"x": x, "y": y, "color": colour, "strokeDash": dash, "tooltip": tooltip}
    return alt.Chart(rows).mark_line(strokeWidth=width).encode(**encodings)
