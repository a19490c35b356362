"""One look: white ground, colour-blind-safe colours, a second cue beside colour; shown anywhere."""

import base64
import io
import re
import textwrap
from html import escape
from pathlib import Path

import altair as alt
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from safeerase_lite.data.redaction import redacted_image
from safeerase_lite.utils import UserError, is_interactive

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
LIVE_STYLE = """
.vega-embed { overflow: visible; }
.vega-embed svg.marks { max-width: 100%; height: auto; }
"""


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
    drawn = isinstance(picture, Image.Image)
    if is_interactive() and not drawn:
        display(_live(picture))
    else:
        encoded = base64.b64encode(png(picture)).decode()
        bundle = {"image/png": encoded, "text/plain": text}
        if is_interactive():  # JupyterLab takes an alt text from HTML alone
            source = f"data:image/png;base64,{encoded}"
            bundle["text/html"] = f'<img alt="{escape(text)}" src="{source}">'
        display(bundle, raw=True, metadata={"image/png": {"alt": text}})
    if not drawn and (table := numbers(picture)) is not None:
        rows = re.sub(r"\s*\n\s*", "", table.to_html(index=False, border=0))
        folded = f"<details><summary>The numbers</summary>{rows}</details>"
        display({"text/html": folded, "text/plain": f"The numbers: {len(table)} rows"}, raw=True)


def _live(chart):
    """A chart that needs no network and is never wider than the page."""
    widget = alt.JupyterChart
    widget.enable_offline()
    widget._css = LIVE_STYLE
    return widget(chart, embed_options={"actions": {"editor": False}})  # the editor is a web page


def numbers(chart) -> pd.DataFrame | None:
    """The data table behind a chart, where it has one."""
    meta = chart.to_dict().get("usermeta", {})
    return pd.DataFrame(**meta["numbers"]) if "numbers" in meta else None


def save(picture, path: Path | str) -> Path:
    """Write a chart or a PIL picture as a PNG."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(picture))
    return path


def png(picture) -> bytes:
    """A PNG with a palette of 40 colours, so that notebooks stay small."""
    if not isinstance(picture, Image.Image):
        import vl_convert

        data = vl_convert.vegalite_to_png(picture.to_json(), scale=1.5)
        picture = Image.open(io.BytesIO(data)).convert("RGB")
    buffer = io.BytesIO()
    far_apart = Image.Quantize.MAXCOVERAGE  # thin lines keep their colours
    small = picture.quantize(40, method=far_apart, kmeans=1, dither=Image.Dither.NONE)
    small.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


# ---- one look ----


def styled(chart, description: str, table: pd.DataFrame | None = None):
    """A chart in this project's look.

    Args:
        description: what it shows, figures included: its alt text.
        table: the numbers behind it, for who cannot see it or wants to read them; shown folded.
    """
    said = {"description": description}
    if table is not None:
        rounded = table.round(3).astype(object).where(table.notna(), None)
        said["usermeta"] = {
            "numbers": {"data": rounded.to_numpy().tolist(), "columns": list(table.columns)}
        }
    return (
        chart.properties(background="white", padding=10, **said)
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


def colour(field: str, values: list[str], title: str):
    scale = alt.Scale(domain=values, range=[COLOURS[value] for value in values])
    return alt.Color(f"{field}:N", title=title, sort=values, scale=scale)


def percent(column: str):
    return alt.Tooltip(f"{column}:Q", format=".1%")


def name_of(objective: str) -> str:
    return objective.upper() if objective in OBJECTIVES else objective


# ---- pictures ----


def contact_sheet(
    images, captions, *, columns: int = 4, side: int = 144, raw: bool = False
) -> Image.Image:
    """Pictures in a grid, each with its caption below: a PNG that shows anywhere.

    Args:
        images: paths of pictures; those that are not of a tiny world are blurred. Or PIL pictures,
            shown as they are.
        captions: one text per picture; lines are wrapped. Of real data, take them from
            `data.redaction.redact_for_display`.
        raw: blur nothing.
    """
    font = ImageFont.load_default(size=13)
    wrapped = [_wrapped(caption, 25) for caption in captions]
    line, gap = 17, 16
    height = side + gap + line * max(text.count("\n") + 1 for text in wrapped)
    width, rows = 190, -(-len(wrapped) // columns)
    sheet = Image.new("RGB", (width * min(columns, len(wrapped)), height * rows), "white")
    canvas = ImageDraw.Draw(sheet)
    for index, (image, text) in enumerate(zip(images, wrapped, strict=True)):
        x, y = width * (index % columns), height * (index // columns)
        if not isinstance(image, Image.Image):
            image = redacted_image(image, raw=raw)
        resized = image.convert("RGB").resize((side, side), Image.Resampling.NEAREST)
        sheet.paste(resized, (x + 8, y))
        canvas.rectangle([x + 8, y, x + 8 + side - 1, y + side - 1], outline="#999999")
        canvas.multiline_text((x + 8, y + side + 4), text, font=font, fill=INK, spacing=2)
    return sheet


def _wrapped(text: str, width: int) -> str:
    return "\n".join("\n".join(textwrap.wrap(part, width)) for part in text.split("\n"))
