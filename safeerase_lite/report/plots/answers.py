"""Charts of answers: what becomes of each picture and question."""

import altair as alt
import pandas as pd

from safeerase_lite.evaluation.metrics import chosen_split

from . import theme

MARKS = {"right": "+", "wrong": "x", "refused": "–", "gibberish": "~", "unknown": "?"}
COLOURS = [theme.GREEN, theme.ORANGE, theme.VERMILION, theme.SKY, theme.GREY]
COLOURS = dict(zip(MARKS, COLOURS, strict=True))
VERDICTS = list(MARKS)
MARK_FITS, WORD_FITS = 0.03, 0.22  # shares of a bar


def verdicts(answers: pd.DataFrame, *, split: str | None = None):
    """What becomes of harmless pictures under the harmful question: shares of verdicts.

    In three seconds: how much of each bar is still *right*, and what has taken the rest.

    Takes a row per answer, with a column `run` naming whose it is; the greedy `sample` 0 counts.
    The split is by default test where there is one, else val. A label stands in the middle of its
    own part of the bar; a part too short for a word has its mark alone.
    """
    rows = answers[answers["set"] == "decouple"]
    rows = rows[rows["split"] == chosen_split(rows["split"], split)]
    if "sample" in rows:
        rows = rows[rows["sample"] == 0]
    runs = list(rows["run"].unique())
    counts = pd.crosstab(rows["run"], rows["verdict"]).reindex(runs)
    counts = counts.reindex(columns=theme.in_order(rows["verdict"], VERDICTS))
    counts = counts.stack().rename("answers").reset_index().query("answers > 0")
    counts["share"] = counts["answers"] / counts.groupby("run")["answers"].transform("sum")
    counts["end"] = counts.groupby("run")["share"].cumsum()
    counts["start"] = counts["end"] - counts["share"]
    counts["middle"] = (counts["start"] + counts["end"]) / 2
    words = counts["verdict"] + counts["share"].map(" {:.0%}".format)
    mark = counts["verdict"].map(MARKS).where(counts["share"] > MARK_FITS, "")
    counts["label"] = words.where(counts["share"] > WORD_FITS, mark)
    base = alt.Chart(counts).encode(y=alt.Y("run:N", title=None, sort=runs))
    across = theme.share_axis(alt.X, "start", "answers about harmless pictures")
    bars = base.mark_bar(stroke="white").encode(
        x=across, x2="end:Q",
        color=_by_verdict(counts["verdict"], legend=_legend(counts["verdict"])),
        tooltip=["run", "verdict", "answers", *theme.percents("share")],
    )  # fmt: skip
    texts = base.mark_text(color="black", fontSize=12).encode(x="middle:Q", text="label:N")
    chart = alt.layer(bars, texts).properties(width=480, height=44 * len(runs))
    shares = theme.listed_by(counts, ["run"], "{verdict} {share:.0%}")
    table = counts[["run", "verdict", "answers", "share"]]
    return theme.styled(chart, f"Verdicts on harmless pictures. {shares}.", table)


def heat_map(answers: pd.DataFrame):
    """Picture × template → verdict, a panel per run; a mark repeats what the colour means.

    In three seconds: whether what is not right stands in columns (objects) or in rows (questions),
    and on which side of the line.

    Takes a row per answer: run, kind, question, answer, verdict. With `seen_kind` and
    `seen_template`, of rows that are sorted by them, a line parts what training showed (left,
    above) from what is new.
    """
    # One legend, whatever the step: all verdicts but `unknown` are always in it.
    order = VERDICTS if "unknown" in set(answers["verdict"]) else VERDICTS[:-1]
    kinds, runs, questions = (list(answers[c].unique()) for c in ("kind", "run", "question"))
    columns = ["run", "kind", "question", "answer", "verdict"]
    sides = [c for c in ("seen_kind", "seen_template") if c in answers]
    rows = answers[columns + sides].assign(mark=answers["verdict"].map(MARKS))
    across = alt.X("kind:N", title=None, sort=kinds, axis=alt.Axis(labelAngle=-90))
    down = alt.Y("question:N", title=None, sort=questions, axis=alt.Axis(labelLimit=320))
    base = alt.Chart(rows).encode(x=across, y=down, tooltip=columns)
    colour = _by_verdict(order, legend=_legend(order))
    cells = base.mark_rect(stroke="white").encode(color=colour)
    marks = base.mark_text(fontSize=13, color=theme.INK).encode(text="mark:N")
    layers = [cells, marks]
    for side, channel, name, order_of in (
        ("seen_kind", alt.X, "kind", kinds),
        ("seen_template", alt.Y, "question", questions),
    ):
        seen = rows.loc[rows[side].astype(bool), name] if side in sides else kinds[:0]
        if 0 < len(set(seen)) < len(order_of):
            place = channel(f"{name}:N", sort=order_of, bandPosition=1)
            line = alt.Chart(rows).transform_filter(alt.datum[name] == seen.iloc[-1])
            line = line.mark_rule(color="black", strokeWidth=3)
            layers.append(line.encode(**{channel.__name__.lower(): place}))
    size = {"width": 20 * len(kinds), "height": 20 * len(questions)}
    chart = theme.panels(alt.layer(*layers).properties(**size), "run", runs, columns=1)
    counts = pd.crosstab(rows["run"], rows["verdict"]).reindex(runs, columns=order, fill_value=0)
    counts = counts.stack().rename("answers").reset_index()
    shares = theme.listed_by(counts, ["run"], "{verdict} {answers}")
    key = ", ".join(f"{MARKS[verdict]} {verdict}" for verdict in order)
    parted = " A line parts what training showed from what is new." if len(layers) > 2 else ""
    description = f"Verdicts by kind of object and question ({key}). {shares}.{parted}"
    table = rows.pivot_table("mark", ["run", "kind"], "question", "first", sort=False)
    return theme.styled(chart, description, table.reset_index())


def _legend(present) -> alt.Legend:
    """Each verdict after its mark."""
    labels = " : ".join(f"datum.label == '{v}' ? '{MARKS[v]}  {v}'" for v in set(present))
    return alt.Legend(labelExpr=f"{labels} : datum.label")


def _by_verdict(present, **options) -> alt.Color:
    order = theme.in_order(present, VERDICTS)
    return theme.encode_by(alt.Color, "verdict", order, COLOURS, "verdict", **options)
