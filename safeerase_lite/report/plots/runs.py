"""Charts of runs: what they reach, and how they get there."""

import altair as alt
import pandas as pd

from safeerase_lite.report.plots.theme import (
    INK,
    OBJECTIVES,
    SHAPES,
    TRAININGS,
    colour,
    name_of,
    percent,
    styled,
)
from safeerase_lite.utils import UserError

CELLS = [(kinds, templates) for kinds in ("seen", "unseen") for templates in ("seen", "unseen")]
PANELS = {cell: f"{cell[0]} objects, {cell[1]} questions" for cell in CELLS}


def over_forgetting(summary: pd.DataFrame, *, split: str = "test", world: str | None = None):
    """SARR with and without PD, for every objective, as the 2×2 of kinds and templates.

    Args:
        summary: tidy, with objective, decouple, split, kinds, templates, metric, value, low, high
            (the demo's `summary.csv`, or a ledger's metrics).
        split: which split to show.
        world: `default` or `fresh`, where the table has both.
    """
    if world is not None:
        summary = summary[summary["world"] == world]
    rows = _two_by_two(summary, ["sarr"], split)
    rows["slot"] = rows["training"].map({"plain": 0, "PD": 1, "placebo": 2, "model": 1})
    names = [name_of(o) for o in ["vanilla", "gold", *OBJECTIVES]]
    trainings = _in_order(rows["training"], SHAPES)
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
        shape=_shape(trainings),
        tooltip=["objective", "training", *(percent(c) for c in ("value", "low", "high")), "n"],
    )
    intervals = base.mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q")
    order = _in_order(rows["panel"], PANELS.values())
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


def forgetting(rows: pd.DataFrame):
    """How unlikely several runs make the harmful answers, step by step.

    Args:
        rows: run, step, forget (nats per answer token).
    """
    runs = list(rows["run"].unique())
    palette = ["#D55E00", "#0072B2", "#009E73", "#CC79A7"]
    chart = (
        alt.Chart(rows)
        .mark_line(strokeWidth=2.5)
        .encode(
            x=alt.X("step:Q", title="step"),
            y=alt.Y("forget:Q", title="harmful answers, nats per token"),
            color=alt.Color(
                "run:N", title=None, sort=runs, scale=alt.Scale(domain=runs, range=palette)
            ),
            strokeDash=alt.StrokeDash("run:N", title=None, sort=runs, scale=alt.Scale(domain=runs)),
            tooltip=["run", "step", alt.Tooltip("forget:Q", format=".2f")],
        )
        .properties(width=480, height=220)
    )
    ends = rows.groupby("run", sort=False)["forget"].agg(["first", "last"])
    said = "; ".join(f"{run} from {a:.2f} to {b:.2f}" for run, (a, b) in ends.iterrows())
    every = rows[rows["step"] % max(1, rows["step"].max() // 8) == 0]
    table = every.pivot_table("forget", "step", "run", sort=False).reset_index()
    return styled(chart, f"Nats per token of the harmful answers: {said}.", table)


def plane(summary: pd.DataFrame, *, split: str = "test"):
    """Safety against helpfulness: every run, the gold model, and what would be ideal.

    Across: harmful questions about harmful pictures that are refused. Up: the same questions about
    harmless pictures, answered right (1 − safe error). Runs at one place share a label.

    Args:
        summary: tidy, with objective, decouple, split, kinds, templates, metric, value.
        split: which split to show.
    """
    whole = summary[
        (summary["split"] == split) & (summary["kinds"] == "all") & (summary["templates"] == "all")
    ]
    keys = ["objective", "decouple"]
    rows = whole[whole["metric"].isin(["rr", "asr", "safe_error"])]
    rows = rows.pivot_table("value", keys, "metric", sort=False).reset_index()
    if rows.empty:
        raise UserError(f"there is no RR and no safe error on {split!r} in this table")
    rows = _labelled(rows).assign(right=1 - rows["safe_error"])
    table = rows[["objective", "training", "rr", "right", "asr"]]
    ideal = {"objective": "ideal", "training": "model", "rr": 1.0, "right": 1.0, "asr": 0.0}
    rows = pd.concat([table, pd.DataFrame([ideal])], ignore_index=True)
    rows["name"] = rows["objective"] + rows["training"].map(
        {"PD": "+PD", "placebo": "+placebo"}
    ).fillna("")
    near = [(rows[axis] * 12).round() for axis in ("rr", "right")]
    rows["label"] = rows.groupby(near)["name"].transform(", ".join)
    rows["label"] = rows["label"].where(~rows.duplicated("label"), "")
    rows["align"] = (rows["rr"] > 0.5).map({True: "right", False: "left"})
    trainings = _in_order(rows["training"], SHAPES)
    base = alt.Chart(rows).encode(
        x=alt.X(
            "rr:Q",
            title="harmful questions refused",
            axis=alt.Axis(format="%"),
            scale=alt.Scale(domain=[-0.04, 1.04]),
        ),
        y=alt.Y(
            "right:Q",
            title="harmless pictures answered right",
            axis=alt.Axis(format="%"),
            scale=alt.Scale(domain=[-0.04, 1.1]),
        ),
    )
    points = base.mark_point(filled=True, size=90, opacity=1).encode(
        color=colour("training", trainings, "trained"),
        shape=_shape(trainings),
        tooltip=["name", percent("rr"), percent("right"), percent("asr")],
    )
    texts = [
        base.transform_filter(alt.datum.align == side)
        .mark_text(align=side, dx={"left": 9, "right": -9}[side], dy=-9, color=INK, fontSize=12)
        .encode(text="label:N")
        for side in ("left", "right")
    ]
    said = "; ".join(
        f"{n} {r:.0%} and {g:.0%}" for n, r, g in rows[["name", "rr", "right"]].to_numpy()
    )
    chart = alt.layer(points, *texts).properties(width=400, height=250)
    description = (
        f"Share of harmful questions refused, and of harmless ones answered right: {said}."
    )
    return styled(chart, description, table)


def cues(summary: pd.DataFrame, *, split: str = "test"):
    """SARR and safe error in the 2×2, for every reliability of the visible sign.

    Args:
        summary: tidy, of one objective, with cue, decouple, split, kinds, templates, metric, value,
            low, high.
        split: which split to show.
    """
    titles = {"sarr": "SARR", "safe_error": "safe error"}
    rows = _two_by_two(summary, titles, split)
    rows["measure"] = rows["metric"].map(titles)
    trainings = _in_order(rows["training"], SHAPES)
    base = alt.Chart(rows).encode(
        x=alt.X("cue:O", title="cue", axis=alt.Axis(labelAngle=0)),
        xOffset=alt.XOffset("training:N", sort=trainings),
        color=colour("training", trainings, "trained"),
    )
    y = alt.Y("value:Q", title=None, axis=alt.Axis(format="%"), scale=alt.Scale(domain=[0, 1]))
    points = base.mark_point(filled=True, size=60, opacity=1).encode(
        y=y,
        shape=_shape(trainings),
        tooltip=["cue", "training", *(percent(c) for c in ("value", "low", "high")), "n"],
    )
    intervals = base.mark_rule(strokeWidth=2).encode(y="low:Q", y2="high:Q")
    panels = _in_order(rows["panel"], PANELS.values())
    two_lines = alt.Header(labelExpr="split(datum.label, ', ')")
    chart = (
        alt.layer(intervals, points)
        .properties(width=120, height=110)
        .facet(
            column=alt.Column("panel:N", title=None, sort=panels, header=two_lines),
            row=alt.Row("measure:N", title=None, sort=list(titles.values())),
        )
    )
    table = rows.assign(
        shown=[
            f"{v:.0%} [{a:.0%}, {b:.0%}]" for v, a, b in rows[["value", "low", "high"]].to_numpy()
        ]
    ).pivot_table("shown", ["measure", "panel", "training"], "cue", "first", sort=False)
    table.columns = [f"cue {cue}" for cue in table.columns]
    pd_rows = rows[rows["training"] == "PD"]
    said = "; ".join(
        f"{measure}, {panel}: "
        + ", ".join(f"{value:.0%} at cue {cue}" for cue, value in part[["cue", "value"]].to_numpy())
        for (measure, panel), part in pd_rows.groupby(["measure", "panel"], sort=False)
    )
    description = f"SARR and safe error with their 95% intervals on {split}. With PD: {said}."
    return styled(chart, description, table.reset_index())


def one_step(rows: pd.DataFrame):
    """What one step of each objective does to the probability of several answers.

    Args:
        rows: objective, decouple, answer (which answer), before and after: mean probability per
            token.
    """
    rows = _labelled(rows)
    trainings = _in_order(rows["training"], SHAPES)
    answers = list(rows["answer"].unique())
    names = list(rows["objective"].unique())
    base = alt.Chart(rows).encode(
        y=alt.Y("objective:N", title=None, sort=names),
        yOffset=alt.YOffset("training:N", sort=trainings),
    )
    change = base.mark_rule(strokeWidth=2).encode(
        x=alt.X("before:Q", title="probability per token", scale=alt.Scale(domain=[0, 1])),
        x2="after:Q",
        color=colour("training", trainings, "trained"),
    )
    after = base.mark_point(filled=True, size=70, opacity=1).encode(
        x="after:Q",
        color=colour("training", trainings, "trained"),
        shape=_shape(trainings),
        tooltip=["objective", "training", "answer", percent("before"), percent("after")],
    )
    start = base.mark_tick(color=INK, thickness=2, size=12).encode(x="before:Q")
    chart = (
        alt.layer(change, start, after)
        .properties(width=190, height=34 * len(names))
        .facet(alt.Facet("answer:N", title=None, sort=answers), columns=2)
    )
    said = "; ".join(
        f"{o} {t}, {a} {x:.2f} to {y:.2f}"
        for o, t, a, x, y in rows[["objective", "training", "answer", "before", "after"]].to_numpy()
    )
    table = rows[["objective", "training", "answer", "before", "after"]]
    return styled(chart, f"Probability per token before and after one step: {said}.", table)


def _two_by_two(summary: pd.DataFrame, metrics, split: str) -> pd.DataFrame:
    """The rows of those metrics on a split, seen and unseen, labelled."""
    rows = summary[summary["metric"].isin(metrics) & (summary["split"] == split)]
    rows = rows[rows["kinds"].isin(["seen", "unseen"]) & rows["templates"].isin(["seen", "unseen"])]
    if rows.empty:
        raise UserError(f"there is no SARR on {split!r} in this table")
    return _labelled(rows)


def _labelled(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with how each was trained, its objective as a name, and its cell of the 2×2."""
    trained = rows["objective"].isin(OBJECTIVES)
    named = rows.assign(
        training=rows["decouple"].map(TRAININGS).where(trained, "model"),
        objective=rows["objective"].map(name_of),
    )
    if "kinds" not in rows:
        return named
    return named.assign(
        panel=[PANELS.get(cell) for cell in zip(rows["kinds"], rows["templates"], strict=True)]
    )


def _in_order(values: pd.Series, order) -> list[str]:
    return [value for value in order if value in set(values)]


def _shape(trainings: list[str]):
    scale = alt.Scale(domain=trainings, range=[SHAPES[name] for name in trainings])
    return alt.Shape("training:N", title="trained", sort=trainings, scale=scale)
