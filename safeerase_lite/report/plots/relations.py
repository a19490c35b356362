"""Charts of relations: a tuple and its neighbours, what an edit preserves, how an attack fares."""

import altair as alt
import pandas as pd

from safeerase_lite.utils import UserError

from . import theme

ROLE_COLOURS = {"unsafe": theme.VERMILION, "neighbour": theme.BLUE, "role swap": theme.PINK}
ROLE_DASHES = {"unsafe": [1, 0], "neighbour": [1, 0], "role swap": [5, 3]}
SLOTS = ["subject", "relation", "object"]


def tuple_graph(table: pd.DataFrame):
    """The tuples of `tuples.table` as paths from subject over relation to object: the unsafe one
    thick, neighbours thin, the role swap dashed."""
    unsafe = table[table["role"] == "unsafe"]
    if unsafe.empty:
        raise UserError("there is no unsafe tuple in this table")
    points = table.reset_index(names="path").melt(["path", "role"], SLOTS, "slot", "word")
    heights = {}
    for slot in SLOTS:  # unsafe words in the middle, the others above and below
        middle = list(unsafe[slot].unique())
        others = [word for word in table[slot].unique() if word not in middle]
        half = len(others) // 2
        words = [*others[:half], *middle, *others[half:]]
        heights |= {(slot, word): (n + 0.5) / len(words) for n, word in enumerate(words)}
    points["height"] = [heights[key] for key in zip(points["slot"], points["word"], strict=True)]
    roles = theme.in_order(points["role"], ROLE_COLOURS)
    x = alt.X("slot:N", sort=SLOTS, title=None, axis=alt.Axis(orient="top", labelAngle=0))
    y = alt.Y("height:Q", axis=None)

    def paths(shown: list[str], width: float):
        lines = alt.Chart(points[points["role"].isin(shown)]).mark_line(strokeWidth=width)
        return lines.encode(
            x=x,
            y=y,
            detail="path:N",
            color=theme.encode_by(alt.Color, "role", roles, ROLE_COLOURS),
            strokeDash=theme.encode_by(alt.StrokeDash, "role", roles, ROLE_DASHES),
        )

    words = alt.Chart(points.drop_duplicates(["slot", "word"])).encode(x=x, y=y, text="word:N")
    text = {"fontSize": 10, "color": theme.INK}
    halo = words.mark_text(stroke="white", strokeWidth=4, strokeOpacity=0.9, **text)
    texts = words.mark_text(**text)
    chart = alt.layer(paths(roles[1:], 1), paths(["unsafe"], 4), halo, texts)
    counts = table["role"].value_counts().drop("unsafe")
    around = ", ".join(f"{count} {role}" for role, count in counts.items())
    named = "; ".join(unsafe[SLOTS].agg(" ".join, axis=1))
    description = f"Unsafe: {named}. Around it: {around}."
    return theme.styled(chart.properties(width=300, height=210), description)


def collateral(table: pd.DataFrame):
    """What each method suppresses and preserves: a row per method, a column per measure, of the
    table of shares that `relations.headline` gives."""
    columns = [column for column in table if column != "method"]
    rows = table.melt("method", columns, "measure", "share").dropna()
    rows["good"] = rows["share"].where(rows["measure"] != "tuple top-1", 1 - rows["share"])
    headings = alt.Axis(orient="top", labelAngle=-35, labelLimit=140)
    base = alt.Chart(rows).encode(
        x=alt.X("measure:N", sort=columns, title=None, axis=headings),
        y=alt.Y("method:N", sort=list(table["method"]), title=None, axis=alt.Axis(labelLimit=200)),
    )
    colours = [theme.VERMILION, "#F7F3E8", theme.BLUE]
    good = alt.Color("good:Q", legend=None)
    good = good.scale(domain=[0, 0.5, 1], range=colours, clamp=True)
    cells = base.mark_rect(stroke="white").encode(color=good)
    dark = "datum.good < 0.2 || datum.good > 0.85"
    texts = base.mark_text(fontSize=11).encode(
        text=alt.Text("share:Q", format=".0%"),
        color=alt.condition(dark, alt.value("white"), alt.value(theme.INK)),
    )
    chart = (cells + texts).properties(width=alt.Step(50), height=alt.Step(22))
    shares = theme.listed_by(rows, ["method"], "{measure} {share:.0%}")
    description = f"A row per method, wanted in blue, harm in orange. {shares}."
    return theme.styled(chart, description, table)


def attack_curves(table: pd.DataFrame, *, title: str):
    """A measure (`value`) of each method against how much an attack leaves of the base model
    (`left`, 1: no attack), a panel per attack."""
    methods, attacks = (list(table[column].unique()) for column in ("method", "attack"))
    ticks = alt.Axis(format="%", values=[1, 0.9, 0.75, 0.5])
    backwards = alt.Scale(domain=[1, 0.5], reverse=False)
    lines = alt.Chart(table).mark_line(point=False).encode(
        x=alt.X("left:Q", title="base model, on val", scale=backwards, axis=ticks),
        y=theme.share_axis(alt.Y, "value", ticks=[0, 0.5, 1]),
        color=theme.encode_by(alt.Color, "method", methods, theme.SEVEN_COLOURS),
    )  # fmt: skip
    points = lines.mark_point(size=40, filled=True).encode(
        shape=theme.encode_by(alt.Shape, "method", methods, theme.SEVEN_SHAPES)
    )
    layers = alt.layer(lines, points).properties(width=100, height=80)
    chart = theme.panels(layers, "attack", attacks, columns=5).properties(title=title)
    ranges = theme.listed_ends(table, ["method"], "value", "{method} {min:.0%} to {max:.0%}")
    wide = table.pivot_table("value", ["attack", "left"], "method", sort=False).reset_index()
    description = f"{title}, under {', '.join(attacks)}, at every strength: {ranges}."
    return theme.styled(chart, description, wide)


def best_captions(table: pd.DataFrame):
    """The captions that fit one picture best, model by model: model, caption, share (of the softmax
    over captions), unsafe (bool)."""
    models = list(table["model"].unique())
    unsafe = alt.Scale(domain=[True, False], range=[theme.VERMILION, theme.GREY])
    bars = alt.Chart(table).mark_bar(height=12).encode(
        x=theme.share_axis(alt.X, "share"),
        y=alt.Y("caption:N", sort="-x", title=None, axis=alt.Axis(labelLimit=220)),
        color=alt.Color("unsafe:N", title="unsafe", scale=unsafe),
    )  # fmt: skip
    chart = theme.panels(bars.properties(width=110, height=50), "model", models).resolve_scale(
        y="independent"
    )
    best = table.sort_values("share", ascending=False).drop_duplicates("model").set_index("model")
    captions = theme.listed(best.loc[models].reset_index(), "{model}: {caption}")
    description = f"The captions that fit best; first of each model: {captions}."
    return theme.styled(chart, description, table)


def several(table: pd.DataFrame):
    """What is suppressed and preserved when more tuples are unlearned: tuples (how many), way
    (together, one after another), measure, value."""
    ways, measures = (list(table[column].unique()) for column in ("way", "measure"))
    counts = sorted(table["tuples"].unique())
    ticks, doubling = alt.Axis(values=counts, format="d"), alt.Scale(type="log", base=2)
    lines = alt.Chart(table).mark_line(point=alt.OverlayMarkDef(size=50, filled=True)).encode(
        x=alt.X("tuples:Q", title="tuples", axis=ticks, scale=doubling),
        y=theme.share_axis(alt.Y, "value"),
        color=theme.encode_by(alt.Color, "way", ways, theme.SEVEN_COLOURS),
        strokeDash=alt.StrokeDash("way:N", title=None, sort=ways),
    )  # fmt: skip
    chart = theme.panels(lines.properties(width=150, height=110), "measure", measures, columns=3)
    last = table[table["tuples"] == counts[-1]]
    values = theme.listed(last, "{measure}, {way}: {value:.0%}")
    wide = table.pivot_table("value", ["measure", "way"], "tuples", sort=False).reset_index()
    return theme.styled(chart, f"With {counts[-1]} tuples: {values}.", wide.rename(columns=str))
