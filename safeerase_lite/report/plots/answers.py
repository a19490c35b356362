"""Charts of answers: what becomes of each picture and question."""

import altair as alt
import pandas as pd

from safeerase_lite.report.plots.theme import INK, colour, percent, styled

MARKS = {"right": "+", "wrong": "x", "refused": "–", "gibberish": "~", "unknown": "?"}
VERDICTS = list(MARKS)


def verdicts(answers: pd.DataFrame, *, split: str = "test"):
    """What becomes of harmless pictures under the harmful question: shares of verdicts.

    Args:
        answers: a row per answer, with a column `run` naming whose answer it is.
    """
    rows = answers[(answers["set"] == "decouple") & (answers["split"] == split)]
    if "sample" in rows:
        rows = rows[rows["sample"] == 0]
    counts = rows.groupby(["run", "verdict"], sort=False).size().rename("answers").reset_index()
    counts["share"] = counts["answers"] / counts.groupby("run")["answers"].transform("sum")
    order = [verdict for verdict in VERDICTS if verdict in set(counts["verdict"])]
    counts["rank"] = counts["verdict"].map(order.index)
    base = alt.Chart(counts).encode(
        y=alt.Y("run:N", title=None, sort=list(rows["run"].unique())),
        x=alt.X(
            "share:Q",
            title="answers about harmless pictures",
            stack="zero",
            axis=alt.Axis(format="%"),
        ),
        order="rank:Q",
    )
    bars = base.mark_bar(stroke="white").encode(
        color=colour("verdict", order, "verdict"),
        tooltip=["run", "verdict", "answers", percent("share")],
    )
    text = (
        base.transform_filter("datum.share > 0.12")
        .mark_text(align="right", dx=-4, color="black")
        .encode(
            text="verdict:N",
            x=alt.X("share:Q", stack="zero"),
        )
    )
    said = "; ".join(
        f"{run}: " + ", ".join(f"{v} {s:.0%}" for v, s in part[["verdict", "share"]].to_numpy())
        for run, part in counts.groupby("run", sort=False)
    )
    chart = alt.layer(bars, text).properties(width=480, height=44 * counts["run"].nunique())
    table = counts[["run", "verdict", "answers", "share"]]
    return styled(chart, f"Verdicts on harmless pictures. {said}.", table)


def heat_map(answers: pd.DataFrame):
    """Picture × template → verdict, a panel for each run; a mark says what the colour says.

    Args:
        answers: a row per answer: run, kind, question, answer, verdict.
    """
    known = set(answers["verdict"]) | set(VERDICTS[:4])  # one legend, whatever the step
    order = [verdict for verdict in VERDICTS if verdict in known]
    kinds, runs = list(answers["kind"].unique()), list(answers["run"].unique())
    questions = list(answers["question"].unique())
    rows = answers[["run", "kind", "question", "answer", "verdict"]].assign(
        mark=answers["verdict"].map(MARKS)
    )
    base = alt.Chart(rows).encode(
        x=alt.X("kind:N", title=None, sort=kinds, axis=alt.Axis(labelAngle=-90)),
        y=alt.Y("question:N", title=None, sort=questions, axis=alt.Axis(labelLimit=320)),
        tooltip=["run", "kind", "question", "answer", "verdict"],
    )
    marked = " : ".join(f"datum.label == '{v}' ? '{MARKS[v]}  {v}'" for v in order)
    legend = alt.Legend(labelExpr=f"{marked} : datum.label")
    shade = colour("verdict", order, "verdict").legend(legend)
    cells = base.mark_rect(stroke="white").encode(color=shade)
    marks = base.mark_text(fontSize=13, color=INK).encode(text="mark:N")
    chart = (
        alt.layer(cells, marks)
        .properties(width=20 * len(kinds), height=20 * len(questions))
        .facet(alt.Facet("run:N", title=None, sort=runs), columns=2)
    )
    shares = rows.groupby(["run", "verdict"]).size().unstack(fill_value=0)
    shares = shares.reindex(columns=order, fill_value=0)
    said = "; ".join(
        f"{run}: " + ", ".join(f"{v} {shares.loc[run, v]}" for v in order) for run in runs
    )
    key = ", ".join(f"{MARKS[verdict]} {verdict}" for verdict in order)
    table = rows.pivot_table("mark", ["run", "kind"], "question", "first", sort=False)
    return styled(
        chart, f"Verdicts by kind of object and question ({key}). {said}.", table.reset_index()
    )


def trajectory(rows: pd.DataFrame, *, title: str):
    """Shares over the steps of a run, a panel for each run.

    Args:
        rows: run, what (which questions), step, share.
        title: of the share, with its meaning.
    """
    whats, runs = list(rows["what"].unique()), list(rows["run"].unique())
    palette = ["#D55E00", "#0072B2", "#009E73", "#CC79A7"]
    what = {
        "title": None,
        "sort": whats,
        "legend": alt.Legend(columns=2, labelLimit=400, symbolType="stroke", symbolSize=400),
    }
    lines = (
        alt.Chart(rows)
        .mark_line(strokeWidth=2.5)
        .encode(
            x=alt.X("step:Q", title="step"),
            y=alt.Y(
                "share:Q", title=title, axis=alt.Axis(format="%"), scale=alt.Scale(domain=[0, 1])
            ),
            color=alt.Color("what:N", scale=alt.Scale(domain=whats, range=palette), **what),
            strokeDash=alt.StrokeDash("what:N", scale=alt.Scale(domain=whats), **what),
            tooltip=["run", "what", "step", percent("share")],
        )
        .properties(width=230, height=170)
    )
    chart = lines.facet(alt.Facet("run:N", title=None, sort=runs), columns=2)
    ends = rows.groupby(["run", "what"], sort=False)["share"].agg(["first", "last"]).reset_index()
    said = "; ".join(f"{r}, {w}: {a:.0%} to {b:.0%}" for r, w, a, b in ends.to_numpy())
    table = rows.pivot_table("share", ["run", "step"], "what", sort=False).reset_index()
    return styled(chart, f"{title.capitalize()} over the steps. {said}.", table)
