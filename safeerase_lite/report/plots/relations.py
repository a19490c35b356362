"""Charts of relations: a tuple and what is near it, what an edit keeps, how an attack fares."""

import altair as alt
import pandas as pd

from safeerase_lite.report.plots.theme import COLOURS, INK, styled
from safeerase_lite.utils import UserError

_ROLES = {
    "unsafe": (COLOURS["plain"], [1, 0]),
    "neighbour": (COLOURS["PD"], [1, 0]),
    "role swap": (COLOURS["placebo"], [5, 3]),
}
_SLOTS = ["subject", "relation", "object"]
_SHAPES = ["circle", "diamond", "square", "triangle-up", "cross", "triangle-down", "triangle-right"]
_LINE_COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#333333"]


def tuple_graph(table: pd.DataFrame):
    """A tuple and those near it as paths from subject over relation to object: the unsafe one
    thick, neighbours thin, the role swap dashed.

    Args:
        table: subject, relation, object, role (unsafe, neighbour or role swap), as `tuples.table`
            gives it.
    """
    if not (table["role"] == "unsafe").any():
        raise UserError("there is no unsafe tuple in this table")
    table = table.reset_index(drop=True)
    ranks = {slot: _ranks(table, slot) for slot in _SLOTS}
    rows = [
        {"path": path, "role": row["role"], "slot": slot, "word": row[slot],
         "height": ranks[slot][row[slot]]}
        for path, row in table.iterrows()
        for slot in _SLOTS
    ]  # fmt: skip
    points = pd.DataFrame(rows)
    roles = [role for role in _ROLES if role in set(points["role"])]
    x = alt.X("slot:N", sort=_SLOTS, title=None, axis=alt.Axis(orient="top", labelAngle=0))
    y = alt.Y("height:Q", axis=None)
    colours = alt.Scale(domain=roles, range=[_ROLES[r][0] for r in roles])
    dashes = alt.Scale(domain=roles, range=[_ROLES[r][1] for r in roles])

    def paths(these: list[str], width: float):
        lines = alt.Chart(points[points["role"].isin(these)]).mark_line(strokeWidth=width)
        return lines.encode(
            x=x,
            y=y,
            detail="path:N",
            color=alt.Color("role:N", title=None, sort=roles, scale=colours),
            strokeDash=alt.StrokeDash("role:N", title=None, sort=roles, scale=dashes),
        )

    words = points.drop_duplicates(["slot", "word"])
    labels = (
        alt.Chart(words)
        .mark_text(fontSize=10, color=INK, stroke="white", strokeWidth=4, strokeOpacity=0.9)
        .encode(x=x, y=y, text="word:N")
    )
    front = alt.Chart(words).mark_text(fontSize=10, color=INK).encode(x=x, y=y, text="word:N")
    chart = alt.layer(paths(roles[1:], 1), paths(["unsafe"], 4), labels, front).properties(
        width=300, height=210
    )
    counts = table["role"].value_counts()
    unsafe = table[table["role"] == "unsafe"][_SLOTS].agg(" ".join, axis=1)
    said = ", ".join(f"{count} {role}" for role, count in counts.items() if role != "unsafe")
    return styled(chart, f"Unsafe: {'; '.join(unsafe)}. Around it: {said}.")


def _ranks(table: pd.DataFrame, slot: str) -> dict[str, float]:
    """Heights: what is unsafe in the middle, the others spread over the rest."""
    unsafe = list(dict.fromkeys(table.loc[table["role"] == "unsafe", slot]))
    others = [w for w in dict.fromkeys(table[slot]) if w not in unsafe]
    half = len(others) // 2
    order = [*others[:half], *unsafe, *others[half:]]
    return {word: (place + 0.5) / len(order) for place, word in enumerate(order)}


def collateral(table: pd.DataFrame):
    """What each method suppresses and what it keeps, as a map: a row per method, a column per
    measure.

    Args:
        table: method, and columns of shares, as `relations.headline` gives it.
    """
    columns = [c for c in table if c != "method"]
    long = table.melt("method", columns, "measure", "share").dropna()
    long["good"] = long["share"].where(long["measure"] != "tuple top-1", 1 - long["share"])
    x = alt.X(
        "measure:N", sort=columns, title=None,
        axis=alt.Axis(orient="top", labelAngle=-35, labelLimit=140),
    )  # fmt: skip
    y = alt.Y("method:N", sort=list(table["method"]), title=None, axis=alt.Axis(labelLimit=200))
    base = alt.Chart(long).encode(x=x, y=y)
    scale = alt.Scale(domain=[0, 0.5, 1], range=["#D55E00", "#F7F3E8", "#0072B2"], clamp=True)
    cells = base.mark_rect(stroke="white").encode(
        color=alt.Color("good:Q", scale=scale, legend=None)
    )
    dark = "datum.good < 0.2 || datum.good > 0.85"
    texts = base.mark_text(fontSize=11).encode(
        text=alt.Text("share:Q", format=".0%"),
        color=alt.condition(dark, alt.value("white"), alt.value(INK)),
    )
    chart = (cells + texts).properties(width=alt.Step(50), height=alt.Step(22))
    said = "; ".join(
        f"{row['method']}: " + ", ".join(f"{c} {row[c]:.0%}" for c in columns if pd.notna(row[c]))
        for _, row in table.iterrows()
    )
    return styled(chart, f"A row per method, wanted in blue, harm in orange. {said}.", table)


def attack_curves(table: pd.DataFrame, *, title: str):
    """A measure against how much an attack leaves of the base model, a panel per attack.

    Args:
        table: method (its label), attack, left (1: no attack), value.
        title: what is measured.
    """
    methods, attacks = (list(dict.fromkeys(table[c])) for c in ("method", "attack"))
    colours = alt.Scale(domain=methods, range=_LINE_COLOURS[: len(methods)])
    shapes = alt.Scale(domain=methods, range=_SHAPES[: len(methods)])
    lines = (
        alt.Chart(table)
        .mark_line(point=False)
        .encode(
            x=alt.X(
                "left:Q",
                title="base model, on val",
                scale=alt.Scale(domain=[1, 0.5], reverse=False),
                axis=alt.Axis(format="%", values=[1, 0.9, 0.75, 0.5]),
            ),
            y=alt.Y("value:Q", title=None, axis=alt.Axis(format="%", values=[0, 0.5, 1]),
                    scale=alt.Scale(domain=[0, 1])),
            color=alt.Color("method:N", title=None, sort=methods, scale=colours),
        )
    )  # fmt: skip
    points = lines.mark_point(size=40, filled=True).encode(
        shape=alt.Shape("method:N", title=None, sort=methods, scale=shapes)
    )
    chart = (
        alt.layer(lines, points)
        .properties(width=100, height=80)
        .facet(alt.Facet("attack:N", title=None, sort=attacks), columns=5)
        .properties(title=title)
    )
    ends = table.groupby("method", sort=False)["value"].agg(["min", "max"])
    said = "; ".join(f"{m} {low:.0%} to {high:.0%}" for m, (low, high) in ends.iterrows())
    wide = table.pivot_table("value", ["attack", "left"], "method", sort=False).reset_index()
    return styled(chart, f"{title}, under {', '.join(attacks)}, at every strength: {said}.", wide)


def best_captions(table: pd.DataFrame):
    """The captions that fit one picture best, model by model.

    Args:
        table: model, caption, share (of the softmax over captions), unsafe (bool); a few captions
            for each model.
    """
    models = list(dict.fromkeys(table["model"]))
    kinds = alt.Scale(domain=[True, False], range=[COLOURS["plain"], "#999999"])
    bars = alt.Chart(table).encode(
        x=alt.X("share:Q", title=None, scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%")),
        y=alt.Y("caption:N", sort="-x", title=None, axis=alt.Axis(labelLimit=220)),
    )
    chart = (
        bars.mark_bar(height=12)
        .encode(color=alt.Color("unsafe:N", title="unsafe", scale=kinds))
        .properties(width=110, height=50)
        .facet(alt.Facet("model:N", sort=models, title=None), columns=2)
        .resolve_scale(y="independent")
    )
    tops = table.sort_values("share", ascending=False).drop_duplicates("model").set_index("model")
    said = "; ".join(f"{m}: {tops.loc[m, 'caption']}" for m in models)
    return styled(chart, f"The captions that fit best; first of each model: {said}.", table)


def several(table: pd.DataFrame):
    """What is suppressed and kept when more tuples are unlearned.

    Args:
        table: tuples (how many), way (together, one after another), measure, value.
    """
    ways, measures = (list(dict.fromkeys(table[c])) for c in ("way", "measure"))
    colours = alt.Scale(domain=ways, range=_LINE_COLOURS[: len(ways)])
    counts = sorted(table["tuples"].unique())
    chart = (
        alt.Chart(table)
        .mark_line(point=alt.OverlayMarkDef(size=50, filled=True))
        .encode(
            x=alt.X(
                "tuples:Q",
                title="tuples",
                axis=alt.Axis(values=counts, format="d"),
                scale=alt.Scale(type="log", base=2),
            ),
            y=alt.Y(
                "value:Q", title=None, axis=alt.Axis(format="%"), scale=alt.Scale(domain=[0, 1])
            ),
            color=alt.Color("way:N", title=None, sort=ways, scale=colours),
            strokeDash=alt.StrokeDash("way:N", title=None, sort=ways),
        )
        .properties(width=150, height=110)
        .facet(alt.Facet("measure:N", title=None, sort=measures), columns=3)
    )
    last = table[table["tuples"] == max(counts)]
    said = "; ".join(f"{r.measure}, {r.way}: {r.value:.0%}" for r in last.itertuples())
    wide = table.pivot_table("value", ["measure", "way"], "tuples", sort=False).reset_index()
    wide.columns = [str(c) for c in wide.columns]
    return styled(chart, f"With {max(counts)} tuples: {said}.", wide)
