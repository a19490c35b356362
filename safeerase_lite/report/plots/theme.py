"""One look: a white background, colours that every kind of colour vision tells apart, and a second
cue (shape, dash or text) beside each colour."""

import altair as alt
import pandas as pd

from safeerase_lite.unlearning.objectives import UNTRAINED, label_of

from ..texts import TRAININGS

# The palette of Okabe and Ito.
VERMILION, BLUE, GREEN, PINK = PALETTE = ["#D55E00", "#0072B2", "#009E73", "#CC79A7"]
ORANGE, SKY, GREY, INK = "#E69F00", "#56B4E9", "#999999", "#333333"
SEVEN_COLOURS = [BLUE, VERMILION, GREEN, PINK, ORANGE, SKY, INK]
SEVEN_SHAPES = ["circle", "diamond", "square", "triangle-up", "cross", "triangle-down",
                "triangle-right"]  # fmt: skip

TEXT = {"labelFontSize": 12, "titleFontSize": 12, "labelColor": INK, "titleColor": INK}
TRAINING_COLOURS = {"plain": VERMILION, "PD": BLUE, "placebo": PINK, "model": "#666666"}
TRAINING_SHAPES = {"plain": "circle", "PD": "diamond", "placebo": "square", "model": "cross"}


def styled(chart, description: str, table: pd.DataFrame | None = None):
    """A chart in this project's look, with its alt text and the numbers to be folded below it."""
    about = {"description": description}
    if table is not None:
        rounded = table.round(3).astype(object).where(table.notna(), None)
        data = {"data": rounded.to_numpy().tolist(), "columns": list(table.columns)}
        about["usermeta"] = {"numbers": data}
    return (
        chart.properties(background="white", padding=10, **about)
        .configure(font="sans-serif")
        .configure_view(stroke="#DDDDDD")
        .configure_axis(titleFontWeight="normal", gridColor="#EEEEEE", **TEXT)
        .configure_header(labelFontSize=13, labelColor=INK)
        .configure_legend(orient="bottom", **TEXT)
    )


# ---- encodings ----


def encode_by(channel, field: str, values: list, looks: list | dict, title=None, **options):
    """Tell the values of a field apart by a colour, shape or dash each, in order or by value."""
    looks = [looks[v] for v in values] if isinstance(looks, dict) else looks[: len(values)]
    scale = alt.Scale(domain=values, range=looks)
    return channel(f"{field}:N", title=title, sort=values, scale=scale, **options)


def by_training(rows: pd.DataFrame, **options) -> tuple[alt.Color, alt.Shape]:
    """How the column `training` shows in a chart of these rows: its colour and its shape."""
    present = in_order(rows["training"], TRAINING_COLOURS)
    looks = ((alt.Color, TRAINING_COLOURS), (alt.Shape, TRAINING_SHAPES))
    return tuple(
        encode_by(channel, "training", present, by, "trained", **options) for channel, by in looks
    )


def share_axis(channel, field: str, title: str | None = None, ticks=alt.Undefined):
    """A share on an axis from 0 to 100%, whatever its range."""
    axis, scale = alt.Axis(format="%", values=ticks), alt.Scale(domain=[0, 1])
    return channel(f"{field}:Q", title=title, axis=axis, scale=scale)


def percents(*columns: str) -> list[alt.Tooltip]:
    return [alt.Tooltip(f"{column}:Q", format=".1%") for column in columns]


def spread(values: pd.Series, gap: float) -> pd.Series:
    """The values from below, each raised to lie a gap above the one before, so that labels have
    room."""
    at, lowest = values.copy(), float("-inf")
    for index in values.sort_values(kind="stable").index:
        at[index] = lowest = max(at[index], lowest + gap)
    return at


def panels(chart, field: str, order: list, columns: int = 2):
    """A panel for each value of a field, in that order."""
    return chart.facet(alt.Facet(f"{field}:N", title=None, sort=order), columns=columns)


# ---- rows, and rows in words ----


def labelled(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with `objective` as its label and `training`: plain, PD, placebo, or model for what
    was not trained here."""
    training = rows["decouple"].map(TRAININGS).fillna("model")
    return rows.assign(
        training=training.mask(rows["objective"].isin(UNTRAINED), "model"),
        objective=rows["objective"].map(label_of),
    )


def listed(rows: pd.DataFrame, template: str, separator: str = "; ") -> str:
    """The rows in words, for a description: the template filled with the columns of each."""
    return separator.join(template.format_map(row) for row in rows.to_dict("records"))


def with_intervals(rows: pd.DataFrame) -> list[str]:
    """Each row's share and its interval, if it has one, in words."""
    return [
        f"{row.value:.0%}" + ("" if pd.isna(row.low) else f" [{row.low:.0%}, {row.high:.0%}]")
        for row in rows.itertuples()
    ]


def listed_by(rows: pd.DataFrame, by: list[str], template: str) -> str:
    """The rows in words, those of one group after its name."""
    groups = rows.groupby(by, sort=False)
    return "; ".join(f"{', '.join(key)}: {listed(part, template, ', ')}" for key, part in groups)


def listed_ends(rows: pd.DataFrame, by: list[str], value: str, template: str) -> str:
    """Of each group in words: the first, last, min and max of a column."""
    ends = rows.groupby(by, sort=False)[value].agg(["first", "last", "min", "max"])
    return listed(ends.reset_index(), template)


def in_order(values: pd.Series, order) -> list[str]:
    """The values that are present, each once, in the given order."""
    return [value for value in order if value in set(values)]
