"""Pictures on a screen and on disk: interactive in a browser, a small PNG when headless."""

import base64
import io
import math
import re
import textwrap
from html import escape
from pathlib import Path

import altair as alt
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from safeerase_lite.data.redaction import redacted_image
from safeerase_lite.utils import UserError, is_interactive

from .theme import INK

NEVER_WIDER_THAN_THE_PAGE = (
    ".vega-embed { overflow: visible; } .vega-embed svg.marks { max-width: 100%; height: auto; }"
)


def show(picture, alt_text: str | None = None) -> None:
    """Display a chart, below it its numbers folded; or a PIL picture, which needs an alt text."""
    from IPython.display import display

    text = alt_text or getattr(picture, "description", None)
    if not isinstance(text, str):
        raise UserError("a picture needs an alt_text: say what it shows")
    is_chart = not isinstance(picture, Image.Image)
    if is_interactive() and is_chart:
        alt.JupyterChart.enable_offline()
        alt.JupyterChart._css = NEVER_WIDER_THAN_THE_PAGE
        actions = {"editor": False}  # the editor is a web page, and this needs no network
        display(alt.JupyterChart(picture, embed_options={"actions": actions}))
    else:
        encoded = base64.b64encode(png(picture)).decode()
        bundle = {"image/png": encoded, "text/plain": text}
        if is_interactive():  # JupyterLab takes an alt text from HTML alone
            source = f"data:image/png;base64,{encoded}"
            bundle["text/html"] = f'<img alt="{escape(text)}" src="{source}">'
        display(bundle, raw=True, metadata={"image/png": {"alt": text}})
    if is_chart and (folded := folded_numbers(picture)):
        plain = f"The numbers: {len(numbers(picture))} rows"
        display({"text/html": folded, "text/plain": plain}, raw=True)


def numbers(chart) -> pd.DataFrame | None:
    """The data table behind a chart, where it has one."""
    meta = chart.to_dict().get("usermeta", {})
    return pd.DataFrame(**meta["numbers"]) if "numbers" in meta else None


def folded_numbers(chart) -> str:
    """The numbers behind a chart as a folded table in HTML; empty where it has none."""
    table = numbers(chart)
    if table is None:
        return ""
    texts = table.astype(object).where(table.notna(), "–").map(str)
    rows = re.sub(r"\s*\n\s*", "", texts.to_html(index=False, border=0))
    return f"<details><summary>The numbers</summary>{rows}</details>"


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
    # Maximum coverage: thin lines keep their colours.
    method, no_dither = Image.Quantize.MAXCOVERAGE, Image.Dither.NONE
    small = picture.quantize(40, method=method, kmeans=1, dither=no_dither)
    small.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def contact_sheet(
    images, captions, *, columns: int = 4, side: int = 144, raw: bool = False
) -> Image.Image:
    """Pictures in a grid, each `side` pixels wide with its caption below, which is wrapped.

    Of real data, take the captions from `data.redaction.redact_for_display`. Pictures given by
    their path are blurred, unless `raw` or of a tiny world; PIL pictures are shown as they are.
    """
    font = ImageFont.load_default(size=13)
    wrapped = [
        "\n".join("\n".join(textwrap.wrap(line, 25)) for line in caption.split("\n"))
        for caption in captions
    ]
    height = side + 16 + 17 * max(text.count("\n") + 1 for text in wrapped)
    lines = [line for text in wrapped for line in text.split("\n")]
    width = 16 + max(side, *(math.ceil(font.getlength(line)) for line in lines))
    rows = -(-len(wrapped) // columns)
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
