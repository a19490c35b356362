"""Charts of runs: what they reach, and how they get there."""

import altair as alt
import pandas as pd

from ..errors import UserError
from .theme import OBJECTIVES, SHAPES, TRAININGS, colour, name_of, percent, styled


def over_forgetting(summary: pd.DataFrame, *, split: str = "test", world: str | None = None):
    """SARR with and without PD, for every objective, as the 2×2 of kinds and templates.

    Args:
        summary: tidy, with objective, decouple, split, kinds, templates, metric, value, low, high
            (the demo's `summary.csv`, or a ledger's metrics).
        split: which split to show.
        world: `default` or `fresh`, where the table has both.
    """
    rows = summary[(summary["metric"] == "sarr") & (summary["split"] == split)]
    if world is not None:
        rows = rows[rows["world"] == world]
    rows = rows[rows["kinds"].isin(["seen", "unseen"]) & rows["templates"].isin(["seen", "unseen"])]
    if rows.empty:
        raise UserError(f"there is no SARR on {split!r} in this table")
    rows = rows.assign(
        training=rows["decouple"].map(TRAININGS).where(rows["objective"].isin(OBJECTIVES), "model"),
        objective=rows["objective"].map(name_of),
        panel=[
            f"{kinds} objects, {templates} questions"
            for kinds, templates in zip(rows["kinds"], rows["templates"], strict=True)
        ],
    )
    rows["slot"] = rows["training"].map({"plain": 0, "PD": 1, "placebo": 2, "model": 1})
    names = [name_of(o) for o in ["vanilla", "gold", *OBJECTIVES]]
    trainings = [name for name in SHAPES if name in set(rows["training"])]
    x = alt.X(
        "value:Q",
        title="SARR",
        scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(format="%", values=[0, 0.5, 1]),
    )
    base = alt.Chart(rows).encode(
        y=alt.Y("objective:N", title=None, sort=[n for n in names if n in set(rows["objective"])]),
        yOffset=alt.YOffset("slot:N", sort=list(range(3)), scale=alt.Scale(domain=[0, 1, 2])),
        color=colour("training", trainings, "trained"),
    )
    points = base.mark_point(filled=True, size=80, opacity=1).encode(
        x=x,
        shape=alt.Shape(
            "training:N",
            title="trained",
            sort=trainings,
            scale=alt.Scale(domain=trainings, range=[SHAPES[t] for t in trainings]),
        ),
        tooltip=["objective", "training", *(percent(c) for c in ("value", "low", "high")), "n"],
    )
    intervals = base.mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q")
    panels = [f"{k} objects, {t} questions" for k in ("seen", "unseen") for t in ("seen", "unseen")]
    order = [panel for panel in panels if panel in set(rows["panel"])]
    chart = (
        alt.layer(intervals, points)
        .properties(width=230, height=32 * rows["objective"].nunique())
        .facet(alt.Facet("panel:N", title=None, sort=order), columns=2)
    )
    best = rows[rows["panel"] == order[0]]
    said = "; ".join(
        f"{objective} {training} {value:.0%}"
        for objective, training, value in best[["objective", "training", "value"]].to_numpy()
    )
    columns = ["objective", "training", "panel", "value", "low", "high", "n"]
    return styled(
        chart, f"SARR with its 95% interval on {split}. {order[0]}: {said}.", rows[columns]
    )


def history(steps: pd.DataFrame):
    """The terms of the loss, step by step, in nats per answer token."""
    terms = [t for t in ("forget", "refuse", "retain", "decouple") if t in steps]
    rows = steps.melt("step", terms, "term", "nats")
    colours = dict(zip(terms, ["#D55E00", "#CC79A7", "#009E73", "#0072B2"], strict=False))
    chart = (
        alt.Chart(rows)
        .mark_line(strokeWidth=2)
        .encode(
            x=alt.X("step:Q", title="step"),
            y=alt.Y("nats:Q", title="negative log-likelihood, nats per token"),
            color=alt.Color(
                "term:N",
                sort=terms,
                title="answers to",
                scale=alt.Scale(domain=terms, range=[colours[t] for t in terms]),
            ),
            strokeDash=alt.StrokeDash(
                "term:N", sort=terms, title="answers to", scale=alt.Scale(domain=terms)
            ),
            tooltip=["step", "term", alt.Tooltip("nats:Q", format=".3f")],
        )
        .properties(width=480, height=220)
    )
    ends = ", ".join(f"{t} {steps[t].iloc[0]:.2f} to {steps[t].iloc[-1]:.2f}" for t in terms)
    every = steps.loc[:: max(1, len(steps) // 12), ["step", *terms]]
    return styled(chart, f"Loss terms over {len(steps)} steps, in nats per token: {ends}.", every)
