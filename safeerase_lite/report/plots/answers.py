"""Charts of answers: what becomes of each picture and question."""

import altair as alt
import pandas as pd

from safeerase_lite.evaluation.metrics import chosen_split

from . import theme

MARKS = {"right": "+", "wrong": "x", "refused": "–", "gibberish": "~", "unknown": "?"}
COLOURS = [theme.GREEN, theme.ORANGE, theme.VERMILION, theme.SKY, theme.GREY]
COLOURS = dict(zip(MARKS, COLOURS, strict=True))
VERDICTS = list(MARKS)


def verdicts(answers: pd.DataFrame, *, split: str | None = None):
    """What becomes of harmless pictures under the harmful question: shares of verdicts.

    Takes a row per answer, with a column `run` naming whose it is; the greedy `sample` 0 counts.
    The split is by default test where there is one, else val.
    """
    rows = answers[answers["set"] == "decouple"]
    rows = rows[rows["split"] == chosen_split(rows["split"], split)]
    if "sample" in rows:
        rows = rows[rows["sample"] == 0]
    counts = rows.groupby(["run", "verdict"], sort=False).size().rename("answers").reset_index()
    counts["share"] = counts["answers"] / counts.groupby("run")["answers"].transform("sum")
    counts["rank"] = counts["verdict"].map(VERDICTS.index)
    x = alt.X("share:Q", title="answers about harmless pictures", stack="zero").axis(format="%")
    y = alt.Y("run:N", title=None, sort=list(rows["run"].unique()))
    base = alt.Chart(counts).encode(x=x, y=y, order="rank:Q")
    bars = base.mark_bar(stroke="white").encode(
        color=_by_verdict(counts["verdict"]),
        tooltip=["run", "verdict", "answers", *theme.percents("share")],
    )
    text = base.transform_filter("datum.share > 0.12")
    text = text.mark_text(align="right", dx=-4, color="black")
    text = text.encode(text="verdict:N", x=alt.X("share:Q", stack="zero"))
    chart = alt.layer(bars, text).properties(width=480, height=44 * counts["run"].nunique())
    shares = theme.listed_by(counts, ["run"], "{verdict} {share:.0%}")
    table = counts[["run", "verdict", "answers", "share"]]
    return theme.styled(chart, f"Verdicts on harmless pictures. {shares}.", table)


def heat_map(answers: pd.DataFrame):
    """Picture × template → verdict, a panel per run; a mark repeats what the colour means.

    Takes a row per answer: run, kind, question, answer, verdict.
    """
    # One legend, whatever the step: all verdicts but `unknown` are always in it.
    order = VERDICTS if "unknown" in set(answers["verdict"]) else VERDICTS[:-1]
    kinds, runs, questions = (list(answers[c].unique()) for c in ("kind", "run", "question"))
    columns = ["run", "kind", "question", "answer", "verdict"]
    rows = answers[columns].assign(mark=answers["verdict"].map(MARKS))
    base = alt.Chart(rows).encode(
        x=alt.X("kind:N", title=None, sort=kinds, axis=alt.Axis(labelAngle=-90)),
        y=alt.Y("question:N", title=None, sort=questions, axis=alt.Axis(labelLimit=320)),
        tooltip=columns,
    )
    labels = " : ".join(f"datum.label == '{v}' ? '{MARKS[v]}  {v}'" for v in order)
    colour = _by_verdict(order, legend=alt.Legend(labelExpr=f"{labels} : datum.label"))
    cells = base.mark_rect(stroke="white").encode(color=colour)
    marks = base.mark_text(fontSize=13, color=theme.INK).encode(text="mark:N")
    size = {"width": 20 * len(kinds), "height": 20 * len(questions)}
    chart = theme.panels(alt.layer(cells, marks).properties(**size), "run", runs)
    counts = pd.crosstab(rows["run"], rows["verdict"]).reindex(runs, columns=order, fill_value=0)
    counts = counts.stack().rename("answers").reset_index()
    shares = theme.listed_by(counts, ["run"], "{verdict} {answers}")
    key = ", ".join(f"{MARKS[verdict]} {verdict}" for verdict in order)
    description = f"Verdicts by kind of object and question ({key}). {shares}."
    table = rows.pivot_table("mark", ["run", "kind"], "question", "first", sort=False)
    return theme.styled(chart, description, table.reset_index())


def _by_verdict(present, **options) -> alt.Color:
    order = theme.in_order(present, VERDICTS)
    return theme.encode_by(alt.Color, "verdict", order, COLOURS, "verdict", **options)
