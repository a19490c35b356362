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
    thick, neighbours thin, the role swap dashed.

    In three seconds: every thin path shares two stations with the thick one.
    """
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
    text = {"fontSize": 12, "color": theme.INK}
    # A thick halo, so that the thick path does not run through its own words.
    halo = words.mark_text(stroke="white", strokeWidth=7, strokeJoin="round", **text)
    texts = words.mark_text(**text)
    chart = alt.layer(paths(roles[1:], 1), paths(["unsafe"], 4), halo, texts)
    counts = table["role"].value_counts().drop("unsafe")
    around = ", ".join(f"{count} {role}" for role, count in counts.items())
    named = "; ".join(unsafe[SLOTS].agg(" ".join, axis=1))
    description = f"Unsafe: {named}. Around it: {around}."
    return theme.styled(chart.properties(width=380, height=300), description)


FORGOTTEN = ("tuple top-1", "leakage")  # columns of the headline that should be low


def collateral(table: pd.DataFrame):
    """What each method forgets and what it keeps: a row per method, a column per measure, of the
    table that `relations.headline` gives. What should be low is on the left, what should be high on
    the right, each in colours of its own; pale is wanted on both sides.

    In three seconds: which row is pale throughout.
    """
    rows = table.melt("method", var_name="measure", value_name="share").dropna()
    rows = rows[~rows["measure"].isin(["suppression", "margin"])]
    low = rows["measure"].isin(FORGOTTEN)
    panels = [
        _cells(rows[low], table["method"], "should be low", ["#FFFFFF", theme.VERMILION], True),
        _cells(rows[~low], table["method"], "should be high", [theme.BLUE, "#FFFFFF"], False),
    ]
    chart = alt.hconcat(*panels, spacing=12).resolve_scale(color="independent")
    shares = theme.listed_by(rows, ["method"], "{measure} {share:.0%}")
    description = f"What was lost is dark, a row per method. {shares}."
    return theme.styled(chart, description, table)


def _cells(rows: pd.DataFrame, methods: pd.Series, title: str, colours: list[str], first: bool):
    columns = list(rows["measure"].unique())
    headings = alt.Axis(orient="top", labelAngle=-35, labelLimit=140)
    names = alt.Axis(labelLimit=200) if first else None
    base = alt.Chart(rows).encode(
        x=alt.X("measure:N", sort=columns, title=title, axis=headings),
        y=alt.Y("method:N", sort=list(methods), title=None, axis=names),
    )
    # Leakage is at most a half.
    strength = alt.datum.share * alt.expr.if_(alt.datum.measure == "leakage", 2, 1)
    scale = alt.Scale(domain=[0, 1], range=colours, clamp=True, interpolate="rgb")
    base = base.transform_calculate(strength=strength)
    cells = base.mark_rect(stroke="#DDDDDD").encode(
        color=alt.Color("strength:Q", legend=None, scale=scale)
    )
    dark = "datum.strength > 0.6" if first else "datum.strength < 0.4"
    texts = base.transform_calculate(
        text="datum.measure == 'leakage' ? format(datum.share, '.2f') : format(datum.share, '.0%')"
    )
    texts = texts.mark_text(fontSize=11).encode(
        text="text:N", color=alt.condition(dark, alt.value("white"), alt.value(theme.INK))
    )
    return (cells + texts).properties(width=alt.Step(50), height=alt.Step(22))


CROWDED = 0.8  # of held-out neighbours kept: above it many methods lie close together


def trade_off(table: pd.DataFrame):
    """What forgetting costs: leakage against what is kept of a method (`kept`, a share), a mark for
    each row of method, leakage, kept; the corner at the top left is wanted.

    In three seconds: which methods reach the green corner, and which come near.
    """
    # Many methods keep nearly all: their labels rise aslant. No label stands on another.
    looks = {"aslant": {"angle": 325, "dx": 8, "dy": -6}, "level": {"dx": 8, "dy": -6}}
    label = (table["kept"] > CROWDED).map({True: "aslant", False: "level"})
    aslant, alike = label == "aslant", table.groupby(label)
    rows = table.assign(
        label=label,
        x=table["leakage"].mask(aslant, alike["leakage"].transform(theme.spread, 0.026)),
        y=table["kept"].where(aslant, alike["kept"].transform(theme.spread, 0.05)),
    )
    x = alt.X("leakage:Q", title="leakage, |AUROC − 0.5|", scale=alt.Scale(domain=[0, 0.5]))
    y = theme.share_axis(alt.Y, "kept", "held-out neighbours kept", [0, 0.25, 0.5, 0.75, 1])
    base = alt.Chart(rows)
    points = base.mark_point(size=70, filled=True, opacity=1, color=theme.BLUE).encode(x=x, y=y)
    texts = [
        base.transform_filter(alt.datum.label == name)
        .mark_text(align="left", color=theme.INK, fontSize=11, **look)
        .encode(x="x:Q", y="y:Q", text="method:N")
        for name, look in looks.items()
    ]
    wanted = pd.DataFrame({"x": [0.0], "x2": [0.1], "y": [0.95], "y2": [1.0]})
    corner = alt.Chart(wanted).mark_rect(color=theme.GREEN, opacity=0.35)
    corner = corner.encode(x="x:Q", x2="x2:Q", y="y:Q", y2="y2:Q")
    chart = alt.layer(corner, points, *texts).properties(width=460, height=200)
    values = theme.listed(table, "{method}: leakage {leakage:.2f}, kept {kept:.0%}")
    description = f"Wanted: the green corner, no leakage and all neighbours kept. {values}."
    return theme.styled(chart, description, table)


def attacks_compared(table: pd.DataFrame, *, title: str):
    """What comes back under each attack: attack, method, value, and low and high or blank. A row
    per attack, the one that brings back most on top; a mark per method.

    In three seconds: which attack brings the tuple back.
    """
    methods = list(table["method"].unique())
    order = list(table.groupby("attack")["value"].max().sort_values(ascending=False).index)
    y = alt.Y("attack:N", sort=order, title=None)
    base = alt.Chart(table).encode(
        y=y,
        yOffset=alt.YOffset("method:N", sort=methods),
        color=theme.encode_by(alt.Color, "method", methods, theme.SEVEN_COLOURS),
    )
    rules = base.mark_rule().encode(x=theme.share_axis(alt.X, "low", title), x2="high:Q")
    points = base.mark_point(size=55, filled=True).encode(
        x=theme.share_axis(alt.X, "value", title),
        shape=theme.encode_by(alt.Shape, "method", methods, theme.SEVEN_SHAPES),
    )
    chart = alt.layer(rules, points).properties(width=380, height=alt.Step(9))
    values = theme.listed_by(table, ["method"], "{attack} {value:.0%}")
    return theme.styled(chart, f"{title}: {values}.")


def best_captions(table: pd.DataFrame):
    """The captions that fit one picture best, model by model: model, caption, share (of the softmax
    over captions), unsafe (bool).

    In three seconds: whether the unsafe caption comes first.
    """
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
    (together, one after another), measure, value.

    In three seconds: what falls as rules are added, and in which way of adding them.
    """
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
