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
    covers is free to go along with the others. decouple: none, pd or placebo.

    In three seconds: which cells are white.
    """
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
    chart = alt.layer(cells, texts).properties(width=320, height=90)
    pairs = theme.listed(rows, "{picture} with {question}: {label}")
    return theme.styled(chart, f"Which loss covers which pair in training. {pairs}.")


# Few colours, so that a PNG of few colours has the same: an upper end → the colour up to there.
STEPS = {0.25: "#FFFFFF", 0.5: "#C6DBEF", 0.75: "#6BAED6", 1.0: theme.BLUE}


def stepped(channel, field: str):
    """A share or a cosine as one of four colours."""
    scale = alt.Scale(type="threshold", domain=list(STEPS)[:-1], range=list(STEPS.values()))
    return channel(f"{field}:Q", scale=scale)


def gradient_cosines(rows: pd.DataFrame, down: list[str], across: list[str]):
    """How alike the gradients of several losses are: first (of `down`), second (of `across`),
    cosine.

    In three seconds: the dark squares, losses that are learned together.
    """
    rows = rows[rows["first"].isin(down) & rows["second"].isin(across)]
    rows = rows.assign(text=rows["cosine"].map("{:.2f}".format).replace("-0.00", "0.00"))
    base = alt.Chart(rows).encode(
        x=alt.X("second:N", title=None, sort=across).axis(orient="top", labelAngle=0),
        y=alt.Y("first:N", title=None, sort=down, axis=alt.Axis(labelLimit=260)),
    )
    ink = alt.condition(alt.datum.cosine > 0.75, alt.value("white"), alt.value(theme.INK))
    colour = stepped(alt.Color, "cosine").legend(None)
    cells = base.mark_rect(stroke="#DDDDDD").encode(color=colour)
    texts = base.mark_text(fontSize=12).encode(text="text:N", color=ink)
    chart = alt.layer(cells, texts).properties(width=110 * len(across), height=24 * len(down))
    about = theme.listed(rows[rows["second"] == across[0]], "{first} {text}")
    return theme.styled(chart, f"Cosines of gradients with {across[0]}: {about}.")


def attention(rows: pd.DataFrame):
    """Attention on the picture before the answer, by layer: group, model, layer, picture (share);
    and low and high, where several seeds were measured.

    In three seconds: which model has stopped looking in the last layer.
    """
    models = list(rows["model"].unique())
    looks = dict(zip(models, theme.SEVEN_COLOURS, strict=False))
    base = alt.Chart(rows).encode(
        x=alt.X("layer:O", title="layer", axis=alt.Axis(labelAngle=0)),
        color=theme.encode_by(alt.Color, "model", models, looks),
    )
    lines = base.mark_line(strokeWidth=2).encode(
        y=theme.share_axis(alt.Y, "picture", "attention on the picture"),
        strokeDash=alt.StrokeDash("model:N", sort=models, legend=None),
    )
    points = base.mark_point(filled=True, size=60, opacity=1).encode(
        y=theme.share_axis(alt.Y, "picture", "attention on the picture"),
        shape=theme.encode_by(alt.Shape, "model", models, theme.SEVEN_SHAPES),
        tooltip=["model", "layer", *theme.percents("picture")],
    )
    layers = [lines, points]
    if "low" in rows:
        layers.insert(0, base.mark_rule(strokeWidth=1.5).encode(y="low:Q", y2="high:Q"))
    chart = alt.layer(*layers).properties(width=190, height=150)
    chart = theme.panels(chart, "group", list(rows["group"].unique()))
    last = rows[rows["layer"] == rows["layer"].max()]
    about = theme.listed(last, "{model}, {group} {picture:.0%}")
    table = rows.pivot_table("picture", ["group", "model"], "layer", sort=False).reset_index()
    description = f"Attention on the picture's tokens; in the last layer: {about}."
    return theme.styled(chart, description, table)


def state_plane(rows: pd.DataFrame, variance: list[float]):
    """Hidden states in the plane of their first two principal components: model, group, x, y; and
    the two shares of the variance.

    In three seconds: whether the two kinds of mark have moved together or parted.
    """
    models, groups = list(rows["model"].unique()), list(rows["group"].unique())
    axes = [f"component {n} ({share:.0%})" for n, share in enumerate(variance, 1)]
    points = alt.Chart(rows).mark_point(filled=True, size=45, opacity=1).encode(
        x=alt.X("x:Q", title=axes[0]),
        y=alt.Y("y:Q", title=axes[1]),
        color=theme.encode_by(alt.Color, "group", groups, theme.PALETTE),
        shape=theme.encode_by(alt.Shape, "group", groups, theme.SEVEN_SHAPES),
        tooltip=["model", "group"],
    )  # fmt: skip
    chart = theme.panels(points.properties(width=160, height=160), "model", models, columns=3)
    centres = rows.groupby(["model", "group"], sort=False)[["x", "y"]].mean().reset_index()
    about = theme.listed(centres, "{model}, {group} ({x:.0f}, {y:.0f})")
    return theme.styled(chart, f"Hidden states in a plane, centres: {about}.")


def logit_lens(rows: pd.DataFrame):
    """Token by token and layer by layer, how likely an answer's token is: model, token, text,
    layer, answer (its probability), refusal (of refusal words together).

    In three seconds: which tokens have gone white, the first alone or later ones too.
    """
    rows = rows.assign(word=rows["token"].map("{:02d} ".format) + rows["text"])
    reads = {"answer": "the plan", "refusal": "a refusal"}
    tidy = rows.melt(["model", "word", "layer"], list(reads), "which", "probability")
    tidy["panel"] = tidy["model"] + ": " + tidy["which"].map(reads)
    words = alt.Axis(labelExpr="substring(datum.label, 3)")
    cells = (
        alt.Chart(tidy)
        .mark_rect(stroke="#DDDDDD")
        .encode(
            x=alt.X("layer:O", title="layer", axis=alt.Axis(labelAngle=0)),
            y=alt.Y("word:N", title=None, sort=None, axis=words),
            color=stepped(alt.Color, "probability").legend(format=".0%"),
            tooltip=["model", "word", "layer", *theme.percents("probability")],
        )
        .properties(width=90, height=15 * rows["word"].nunique())
    )
    panels = [f"{model}: {which}" for model in rows["model"].unique() for which in reads.values()]
    chart = theme.panels(cells, "panel", panels, columns=2 * len(reads))
    last = rows[rows["layer"] == rows["layer"].max()]
    first = theme.listed(
        last[last["token"] == 0], "{model}: plan {answer:.0%}, refusal {refusal:.0%}"
    )
    description = (
        f"Logit lens over the tokens of a plan. Its first token at the last layer: {first}."
    )
    return theme.styled(chart, description)


def doses(rows: pd.DataFrame, measures: dict[str, str], *, title: str):
    """Shares of answers under each dose of an intervention.

    In three seconds: whether the solid lines cross while the dotted ones lie flat.

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
        x=alt.X("dose:Q", title=title, axis=alt.Axis(tickCount=4)),
        color=theme.encode_by(alt.Color, "line", lines, theme.SEVEN_COLOURS, "answers"),
        detail="direction:N",
    )
    dash = theme.encode_by(alt.StrokeDash, "direction", kinds, [[1, 0], [3, 4]], "direction")
    value = theme.share_axis(alt.Y, "value", "share of answers")
    layers = [
        base.mark_line(strokeWidth=2).encode(y=value, strokeDash=dash),
        base.mark_point(filled=True, size=45, opacity=1).encode(
            y=value,
            shape=theme.encode_by(alt.Shape, "line", lines, theme.SEVEN_SHAPES, "answers"),
            tooltip=["panel", "direction", "line", "dose", *theme.percents("value")],
        ),
    ]
    if "low" in rows:
        layers.insert(0, base.mark_rule(strokeWidth=1.5).encode(y="low:Q", y2="high:Q"))
    chart = alt.layer(*layers).properties(width=190, height=150)
    chart = theme.panels(chart, "panel", list(rows["panel"].unique()))
    most = rows[(rows["dose"] == rows["dose"].max()) & (rows["direction"] == "refusal")]
    about = theme.listed(most, "{panel}: {line} {value:.0%}")
    keys = ["panel", "direction", "dose"]
    table = rows.pivot_table("value", keys, "line", sort=False).reset_index()
    description = f"Shares of answers by dose; of the refusal direction, at the highest: {about}."
    return theme.styled(chart, description, table)
