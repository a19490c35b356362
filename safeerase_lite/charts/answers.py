"""Charts of answers: what becomes of each picture and question."""

import altair as alt
import pandas as pd

from .theme import colour, percent, styled


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
    order = [
        v
        for v in ("right", "wrong", "refused", "gibberish", "unknown")
        if v in set(counts["verdict"])
    ]
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
        .mark_text(align="right", dx=-4, color="white", fontWeight="bold")
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
