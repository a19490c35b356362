"""Charts of what happens inside a model: gradients, attention, hidden states, one direction."""

import altair as alt
import pandas as pd

from . import theme

# A cell of the 2×2 → the loss that covers it in training, and what that loss asks for.
COVERED = {
    ("hazard", "template"): ("L(idk)", "refuse"),
    ("hazard", "ordinary"): ("L(r)", "answer"),
    ("safe", "template"): ("", "nothing"),
    ("safe", "ordinary"): ("", "nothing"),
}
BY_DECOUPLE = {
    "none": {},
    "pd": {("safe", "template"): ("L(d)", "answer")},
    "placebo": {("safe", "ordinary"): ("L(placebo)", "answer")},
}
CELL_COLOURS = {"refuse": theme.VERMILION, "answer": theme.BLUE, "nothing": "#FFFFFF"}
WORDS = {"hazard": "a hazard", "safe": "a safe thing",
         "template": "a template", "ordinary": "an ordinary question"}  # fmt: skip


def two_by_two(decouple: str = "none"):
    """Which loss covers which pairs of picture and question in training: the cell that nothing
    covers is free to go along with the others. decouple: none, pd or placebo."""
    covered = COVERED | BY_DECOUPLE[decouple]
    rows = pd.DataFrame(
        [
            {"picture": WORDS[picture], "question": WORDS[question], "asks": asks,
             "label": f"{loss}: {asks}" if loss else "no loss"}
            for (picture, question), (loss, asks) in covered.items()
        ]
    )  # fmt: skip
    across = alt.X("question:N", title="question", sort=None, axis=alt.Axis(labelAngle=0))
    down = alt.Y("picture:N", title="picture", sort=None, axis=alt.Axis(labelLimit=200))
    base = alt.Chart(rows).encode(x=across.axis(orient="top", labelAngle=0, ticks=False), y=down)
    colours = theme.encode_by(alt.Color, "asks", list(CELL_COLOURS), CELL_COLOURS, legend=None)
    cells = base.mark_rect(stroke=theme.INK, strokeWidth=1.5, strokeDash=[4, 3]).encode(
        color=colours
    )
    ink = alt.condition(alt.datum.asks == "nothing", alt.value(theme.INK), alt.value("white"))
    texts = base.mark_text(fontSize=14, fontWeight="bold").encode(text="label:N", color=ink)
    chart = alt.layer(cells, texts).properties(width=380, height=150)
    pairs = theme.listed(rows, "{picture} with {question}: {label}")
    table = rows[["picture", "question", "label"]]
    return theme.styled(chart, f"Which loss covers which pair in training. {pairs}.", table)


def gradient_cosines(rows: pd.DataFrame, order: list[str]):
    """How alike the gradients of several losses are: first, second, cosine; `order` of both."""
    rows = rows[rows["first"].isin(order) & rows["second"].isin(order)]
    rows = rows.assign(text=rows["cosine"].map("{:.2f}".format).str.replace("-0.00", "0.00"))
    axis = alt.Axis(labelLimit=260)
    base = alt.Chart(rows).encode(
        x=alt.X(
            "second:N", title=None, sort=order, axis=axis.copy().to_dict() | {"labelAngle": -35}
        ),
        y=alt.Y("first:N", title=None, sort=order, axis=axis),
    )
    scale = alt.Scale(domain=[-1, 0, 1], range=[theme.VERMILION, "#FFFFFF", theme.BLUE])
    colour = alt.Color("cosine:Q", scale=scale, title="cosine")
    ink = alt.condition(alt.datum.cosine > 0.6, alt.value("white"), alt.value(theme.INK))
    cells = base.mark_rect(stroke="#DDDDDD").encode(color=colour)
    texts = base.mark_text(fontSize=12).encode(text="text:N", color=ink)
    chart = alt.layer(cells, texts).properties(width=46 * len(order), height=34 * len(order))
    upper = rows[
        [
            order.index(a) < order.index(b)
            for a, b in zip(rows["first"], rows["second"], strict=True)
        ]
    ]
    about = theme.listed(upper, "{first} with {second} {cosine:.2f}")
    table = rows[["first", "second", "cosine"]]
    return theme.styled(chart, f"Cosines of gradients. {about}.", table)


def step_changes(rows: pd.DataFrame):
    """What one step does to the loss of each cell, predicted to first order and measured: step (a
    name), cell, predicted, measured (nats per token)."""
    tidy = rows.melt(["step", "cell"], ["predicted", "measured"], "which", "change")
    cells, steps = list(rows["cell"].unique()), list(rows["step"].unique())
    looks = {"predicted": (theme.ORANGE, "circle"), "measured": (theme.BLUE, "diamond")}
    chart = alt.Chart(tidy).mark_point(size=90, strokeWidth=2.5, opacity=1).encode(
        x=alt.X("change:Q", title="change of the loss, nats per token"),
        y=alt.Y("cell:N", title=None, sort=cells, axis=alt.Axis(labelLimit=260)),
        color=theme.encode_by(alt.Color, "which", list(looks), [c for c, _ in looks.values()]),
        shape=theme.encode_by(alt.Shape, "which", list(looks), [s for _, s in looks.values()]),
        tooltip=["step", "cell", "which", alt.Tooltip("change:Q", format=".4f")],
    )  # fmt: skip
    chart = chart.properties(width=220, height=28 * len(cells))
    chart = theme.panels(chart, "step", steps).resolve_scale(x="independent")
    about = theme.listed(rows, "{step}, {cell}: predicted {predicted:.4f}, measured {measured:.4f}")
    return theme.styled(chart, f"Changes of losses after one step. {about}.", rows)


def attention(rows: pd.DataFrame):
    """Attention on the picture before the answer, by layer: group, model, layer, picture (share);
    and low and high, where several seeds were measured."""
    models = list(rows["model"].unique())
    looks = dict(zip(models, theme.SEVEN_COLOURS, strict=False))
    base = alt.Chart(rows).encode(
        x=alt.X("layer:O", title="layer", axis=alt.Axis(labelAngle=0)),
        color=theme.encode_by(alt.Color, "model", models, looks),
    )
    lines = base.mark_line(strokeWidth=2).encode(
        y=theme.share_axis(alt.Y, "picture", "attention on the picture"),
        strokeDash=alt.StrokeDash("model:N", sort=models, title=None),
    )
    points = base.mark_point(filled=True, size=60, opacity=1).encode(
        y=theme.share_axis(alt.Y, "picture", "attention on the picture"),
        shape=theme.encode_by(alt.Shape, "model", models, theme.SEVEN_SHAPES),
        tooltip=["model", "layer", *theme.percents("picture")],
    )
    layers = [lines, points]
    if "low" in rows:
        layers.insert(0, base.mark_rule(strokeWidth=1.5).encode(y="low:Q", y2="high:Q"))
    chart = alt.layer(*layers).properties(width=230, height=190)
    chart = theme.panels(chart, "group", list(rows["group"].unique()))
    last = rows[rows["layer"] == rows["layer"].max()]
    about = theme.listed(last, "{model}, {group} {picture:.0%}")
    columns = [c for c in ("group", "model", "layer", "picture", "low", "high") if c in rows]
    return theme.styled(chart, f"Attention on the picture's tokens; in the last layer: {about}.",
                        rows[columns])  # fmt: skip


def state_plane(rows: pd.DataFrame, variance: list[float]):
    """Hidden states in the plane of their first two principal components: model, group, x, y."""
    models, groups = list(rows["model"].unique()), list(rows["group"].unique())
    axes = [f"component {n}: {share:.0%} of the variance" for n, share in enumerate(variance, 1)]
    points = alt.Chart(rows).mark_point(size=45, strokeWidth=1.8, opacity=0.9).encode(
        x=alt.X("x:Q", title=axes[0]),
        y=alt.Y("y:Q", title=axes[1]),
        color=theme.encode_by(alt.Color, "group", groups, theme.PALETTE),
        shape=theme.encode_by(alt.Shape, "group", groups, theme.SEVEN_SHAPES),
        tooltip=["model", "group"],
    )  # fmt: skip
    chart = theme.panels(points.properties(width=190, height=190), "model", models, columns=3)
    centres = rows.groupby(["model", "group"], sort=False)[["x", "y"]].mean().reset_index()
    about = theme.listed(centres, "{model}, {group} ({x:.0f}, {y:.0f})")
    return theme.styled(chart, f"Hidden states in a plane, centres: {about}.", centres)


def logit_lens(rows: pd.DataFrame):
    """Token by token and place by place, how likely an answer's token is: model, token, text,
    place, answer (its probability), refusal (of refusal words together)."""
    rows = rows.assign(word=rows["token"].map("{:02d} ".format) + rows["text"])
    tidy = rows.melt(["model", "word", "place"], ["answer", "refusal"], "which", "probability")
    tidy["panel"] = (
        tidy["model"]
        + ": "
        + tidy["which"].map({"answer": "the plan's token", "refusal": "a refusal's word"})
    )
    base = alt.Chart(tidy).encode(
        x=alt.X("word:N", title=None, sort=None,
                axis=alt.Axis(labelAngle=-50, labelExpr="substring(datum.label, 3)")),
        y=alt.Y("place:O", title="place in the stream", sort="descending"),
    )  # fmt: skip
    scale = alt.Scale(domain=[0, 1], range=["#FFFFFF", theme.BLUE])
    cells = base.mark_rect(stroke="#EEEEEE").encode(
        color=alt.Color(
            "probability:Q", scale=scale, title="probability", legend=alt.Legend(format="%")
        ),
        tooltip=["model", "word", "place", *theme.percents("probability")],
    )
    dots = base.transform_filter(alt.datum.probability >= 0.5).mark_point(
        filled=True, color="white", size=18, opacity=1
    )
    panels = list(tidy["panel"].unique())
    chart = alt.layer(cells, dots).properties(width=290, height=90)
    chart = theme.panels(chart, "panel", panels)
    last = rows[(rows["place"] == rows["place"].max())]
    means = last.groupby("model", sort=False)[["answer", "refusal"]].mean().reset_index()
    about = theme.listed(means, "{model}: plan {answer:.0%}, refusal {refusal:.0%}")
    description = (
        "Logit lens over the tokens of a plan (dots: 50% or more). Means over the tokens at the "
        f"last place: {about}."
    )
    return theme.styled(chart, description, last.drop(columns="word"))


def doses(rows: pd.DataFrame, measures: dict[str, str], *, title: str):
    """Shares of answers under each dose of an intervention.

    Args:
        rows: panel, direction (refusal or random), measure, dose, value; low and high where several
            seeds were measured.
        measures: measure → how it reads.
        title: of the axis of doses.
    """
    rows = rows[rows["measure"].isin(measures)]
    rows = rows.assign(line=rows["measure"].map(measures))
    lines, kinds = list(measures.values()), ["refusal", "random"]
    base = alt.Chart(rows).encode(
        x=alt.X("dose:Q", title=title),
        color=theme.encode_by(alt.Color, "line", lines, theme.SEVEN_COLOURS),
        detail="direction:N",
    )
    dash = theme.encode_by(alt.StrokeDash, "direction", kinds, [[1, 0], [3, 4]], "direction")
    value = theme.share_axis(alt.Y, "value", "share of answers")
    layers = [
        base.mark_line(strokeWidth=2).encode(y=value, strokeDash=dash),
        base.mark_point(filled=True, size=45, opacity=1).encode(
            y=value,
            shape=theme.encode_by(alt.Shape, "line", lines, theme.SEVEN_SHAPES),
            tooltip=["panel", "direction", "line", "dose", *theme.percents("value")],
        ),
    ]
    if "low" in rows:
        layers.insert(0, base.mark_rule(strokeWidth=1.5).encode(y="low:Q", y2="high:Q"))
    chart = alt.layer(*layers).properties(width=230, height=180)
    chart = theme.panels(chart, "panel", list(rows["panel"].unique()))
    most = rows[rows["dose"] == rows["dose"].max()]
    about = theme.listed(most, "{panel}, {direction}: {line} {value:.0%}")
    table = rows.drop(columns=["line"])
    return theme.styled(chart, f"Shares of answers by dose; at the highest dose: {about}.", table)
