"""Every picture, in one look: white ground, colour-blind-safe colours, a second cue beside colour.

A chart function takes a table and returns an Altair chart, which carries its own description.
`show` displays it: interactive when somebody watches, a small PNG with alt text when headless.
"""

import base64
import io
from pathlib import Path

import altair as alt
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from .errors import UserError
from .live import is_live

# Okabe and Ito's palette: told apart with any kind of colour vision.
INK = "#333333"
COLOURS = {
    "plain": "#D55E00",
    "PD": "#0072B2",
    "placebo": "#CC79A7",
    "model": "#666666",
    "right": "#009E73",
    "wrong": "#E69F00",
    "refused": "#D55E00",
    "gibberish": "#56B4E9",
    "unknown": "#999999",
    "harmful": "#000000",
}
SHAPES = {"plain": "circle", "PD": "diamond", "placebo": "square", "model": "cross"}
TRAININGS = {"none": "plain", "pd": "PD", "placebo": "placebo"}
OBJECTIVES = ["ga", "gd", "kl", "po", "npo"]


def over_forgetting(summary: pd.DataFrame, *, split: str = "test", world: str | None = None):
    """SARR with and without PD, for every objective, as the 2×2 of kinds and templates.

    Args:
        summary: tidy, with objective, decouple, split, kinds, templates, metric, value, low, high
            (the demo's `summary.csv`, or a ledger's metrics).
        split: which split to show.
        world: `default` or `fresh`, where the table has both.
    """
    rows = summary[(summary["metric"] == "sarr") & (summary["split"] == split)]
    if world is not None:
        rows = rows[rows["world"] == world]
    rows = rows[rows["kinds"].isin(["seen", "unseen"]) & rows["templates"].isin(["seen", "unseen"])]
    if rows.empty:
        raise UserError(f"there is no SARR on {split!r} in this table")
    rows = rows.assign(
        training=rows["decouple"].map(TRAININGS).where(rows["objective"].isin(OBJECTIVES), "model"),
        objective=rows["objective"].map(_name),
        panel=[
            f"{kinds} objects, {templates} questions"
            for kinds, templates in zip(rows["kinds"], rows["templates"], strict=True)
        ],
    )
    rows["slot"] = rows["training"].map({"plain": 0, "PD": 1, "placebo": 2, "model": 1})
    names = [_name(o) for o in ["vanilla", "gold", *OBJECTIVES]]
    trainings = [name for name in SHAPES if name in set(rows["training"])]
    x = alt.X(
        "value:Q",
        title="SARR",
        scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(format="%", values=[0, 0.5, 1]),
    )
    base = alt.Chart(rows).encode(
        y=alt.Y("objective:N", title=None, sort=[n for n in names if n in set(rows["objective"])]),
        yOffset=alt.YOffset("slot:N", sort=list(range(3)), scale=alt.Scale(domain=[0, 1, 2])),
        color=_colour("training", trainings, "trained"),
    )
    points = base.mark_point(filled=True, size=80, opacity=1).encode(
        x=x,
        shape=alt.Shape(
            "training:N",
            title="trained",
            sort=trainings,
            scale=alt.Scale(domain=trainings, range=[SHAPES[t] for t in trainings]),
        ),
        tooltip=["objective", "training", *(_percent(c) for c in ("value", "low", "high")), "n"],
    )
    intervals = base.mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q")
    panels = [f"{k} objects, {t} questions" for k in ("seen", "unseen") for t in ("seen", "unseen")]
    order = [panel for panel in panels if panel in set(rows["panel"])]
    chart = (
        alt.layer(intervals, points)
        .properties(width=230, height=32 * rows["objective"].nunique())
        .facet(alt.Facet("panel:N", title=None, sort=order), columns=2)
    )
    best = rows[rows["panel"] == order[0]]
    said = "; ".join(
        f"{objective} {training} {value:.0%}"
        for objective, training, value in best[["objective", "training", "value"]].to_numpy()
    )
    return _styled(chart, f"SARR with its 95% interval on {split}. {order[0]}: {said}.")


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
        color=_colour("verdict", order, "verdict"),
        tooltip=["run", "verdict", "answers", _percent("share")],
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
    return _styled(chart, f"Verdicts on harmless pictures. {said}.")


def history(steps: pd.DataFrame):
    """The terms of the loss, step by step, in nats per answer token."""
    terms = [t for t in ("forget", "refuse", "retain", "decouple") if t in steps]
    rows = steps.melt("step", terms, "term", "nats")
    colours = dict(zip(terms, ["#D55E00", "#CC79A7", "#009E73", "#0072B2"], strict=False))
    chart = (
        alt.Chart(rows)
        .mark_line(strokeWidth=2)
        .encode(
            x=alt.X("step:Q", title="step"),
            y=alt.Y("nats:Q", title="negative log-likelihood, nats per token"),
            color=alt.Color(
                "term:N",
                sort=terms,
                title="answers to",
                scale=alt.Scale(domain=terms, range=[colours[t] for t in terms]),
            ),
            strokeDash=alt.StrokeDash(
                "term:N", sort=terms, title="answers to", scale=alt.Scale(domain=terms)
            ),
            tooltip=["step", "term", alt.Tooltip("nats:Q", format=".3f")],
        )
        .properties(width=480, height=220)
    )
    ends = ", ".join(f"{t} {steps[t].iloc[0]:.2f} to {steps[t].iloc[-1]:.2f}" for t in terms)
    return _styled(chart, f"Loss terms over {len(steps)} steps, in nats per token: {ends}.")


def contact_sheet(images, captions, *, columns: int = 4, side: int = 144) -> Image.Image:
    """Pictures in a grid, each with its caption below: a PNG that shows anywhere.

    Args:
        images: paths of pictures.
        captions: one text per picture; lines are wrapped.
    """
    font = ImageFont.load_default(size=13)
    wrapped = [_wrapped(caption, 25) for caption in captions]
    line, gap = 17, 16
    height = side + gap + line * max(text.count("\n") + 1 for text in wrapped)
    width, rows = 190, -(-len(wrapped) // columns)
    sheet = Image.new("RGB", (width * min(columns, len(wrapped)), height * rows), "white")
    canvas = ImageDraw.Draw(sheet)
    for index, (path, text) in enumerate(zip(images, wrapped, strict=True)):
        x, y = width * (index % columns), height * (index // columns)
        with Image.open(path) as image:
            resized = image.convert("RGB").resize((side, side), Image.Resampling.NEAREST)
        sheet.paste(resized, (x + 8, y))
        canvas.rectangle([x + 8, y, x + 8 + side - 1, y + side - 1], outline="#999999")
        canvas.multiline_text((x + 8, y + side + 4), text, font=font, fill=INK, spacing=2)
    return sheet


# ---- showing and saving ----


def show(picture, alt_text: str | None = None) -> None:
    """Display a chart or a PIL picture: live as an interactive chart, headless as a PNG.

    Args:
        picture: from a function of this module.
        alt_text: what the picture shows; charts bring their own.
    """
    from IPython.display import display

    text = alt_text or getattr(picture, "description", None)
    if not isinstance(text, str):
        raise UserError("a picture needs an alt_text: say what it shows")
    if is_live() and not isinstance(picture, Image.Image):
        alt.JupyterChart.enable_offline()
        display(alt.JupyterChart(picture))
        return
    encoded = base64.b64encode(png(picture)).decode()
    display(
        {"image/png": encoded, "text/plain": text}, raw=True, metadata={"image/png": {"alt": text}}
    )


def save(picture, path: Path | str) -> Path:
    """Write a chart or a PIL picture as a PNG."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(picture))
    return path


def png(picture) -> bytes:
    """A picture as a PNG with a palette of 64 colours, so that notebooks stay small."""
    if not isinstance(picture, Image.Image):
        import vl_convert

        data = vl_convert.vegalite_to_png(picture.to_json(), scale=2)
        picture = Image.open(io.BytesIO(data)).convert("RGB")
    buffer = io.BytesIO()
    picture.quantize(64, dither=Image.Dither.NONE).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


# ---- one look ----


def _styled(chart, description: str):
    return (
        chart.properties(description=description, background="white", padding=10)
        .configure(font="sans-serif")
        .configure_view(stroke="#DDDDDD")
        .configure_axis(
            labelFontSize=12,
            titleFontSize=12,
            titleFontWeight="normal",
            labelColor=INK,
            titleColor=INK,
            gridColor="#EEEEEE",
        )
        .configure_header(labelFontSize=13, labelColor=INK)
        .configure_legend(
            labelFontSize=12, titleFontSize=12, orient="bottom", labelColor=INK, titleColor=INK
        )
    )


def _colour(field: str, values: list[str], title: str):
    scale = alt.Scale(domain=values, range=[COLOURS[value] for value in values])
    return alt.Color(f"{field}:N", title=title, sort=values, scale=scale)


def _percent(column: str):
    return alt.Tooltip(f"{column}:Q", format=".1%")


def _name(objective: str) -> str:
    return objective.upper() if objective in OBJECTIVES else objective


def _wrapped(text: str, width: int) -> str:
    import textwrap

    return "\n".join("\n".join(textwrap.wrap(part, width)) for part in text.split("\n"))
