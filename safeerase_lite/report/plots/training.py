"""Charts of training: what changes in one step, and over all of them."""

import altair as alt
import pandas as pd

from . import theme

TERMS = ("forget", "refuse", "retain", "decouple")


def history(steps: pd.DataFrame):
    """The terms of the loss (nats per answer token), a row and column `step` each."""
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
    """How unlikely several runs make the harmful answers: run, step, forget (nats per token)."""
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
    """Shares over the steps, a panel per run, from run, what (which questions), step, share."""
    legend = alt.Legend(columns=2, labelLimit=400, symbolType="stroke", symbolSize=400)
    lines = _lines(
        rows,
        y=theme.share_axis(alt.Y, "share", title),
        by="what",
        tooltip=["run", "what", "step", *theme.percents("share")],
        legend=legend,
    ).properties(width=230, height=170)
    each = "{run}, {what}: {first:.0%} to {last:.0%}"
    changes = theme.listed_ends(rows, ["run", "what"], "share", each)
    table = rows.pivot_table("share", ["run", "step"], "what", sort=False).reset_index()
    chart = theme.panels(lines, "run", list(rows["run"].unique()))
    return theme.styled(chart, f"{title.capitalize()} over the steps. {changes}.", table)


def one_step(rows: pd.DataFrame):
    """What one step does to answers: objective, decouple, answer, before and after (mean
    probability per token)."""
    rows = theme.labelled(rows)
    colour, shape = theme.by_training(rows)
    objectives, answers = list(rows["objective"].unique()), list(rows["answer"].unique())
    base = alt.Chart(rows).encode(
        y=alt.Y("objective:N", title=None, sort=objectives),
        yOffset=alt.YOffset("training:N", sort=colour["sort"]),
    )
    change = base.mark_rule(strokeWidth=2).encode(
        x=alt.X("before:Q", title="probability per token", scale=alt.Scale(domain=[0, 1])),
        x2="after:Q",
        color=colour,
    )
    after = base.mark_point(filled=True, size=70, opacity=1).encode(
        x="after:Q",
        color=colour,
        shape=shape,
        tooltip=["objective", "training", "answer", *theme.percents("before", "after")],
    )
    start = base.mark_tick(color=theme.INK, thickness=2, size=12).encode(x="before:Q")
    layers = alt.layer(change, start, after).properties(width=190, height=34 * len(objectives))
    chart = theme.panels(layers, "answer", answers)
    table = rows[["objective", "training", "answer", "before", "after"]]
    changes = theme.listed(table, "{objective} {training}, {answer} {before:.2f} to {after:.2f}")
    about = f"Probability per token before and after one step: {changes}."
    return theme.styled(chart, about, table)


def _lines(rows, *, y, by, tooltip, title=None, width=2.5, colours=theme.PALETTE, **options):
    """A line over the steps for each value of the column `by`, told apart by colour and dash."""
    names = list(rows[by].unique())
    scale = alt.Scale(domain=names)
    dash = alt.StrokeDash(f"{by}:N", title=title, sort=names, scale=scale, **options)
    colour = theme.encode_by(alt.Color, by, names, colours, title, **options)
    encodings = {"y": y, "color": colour, "strokeDash": dash, "tooltip": tooltip}
    return alt.Chart(rows).mark_line(strokeWidth=width).encode(x="step:Q", **encodings)
