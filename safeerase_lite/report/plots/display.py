"""Pictures on a screen and on disk: interactive in a browser, a small PNG when headless."""

import base64
import io
import math
import re
from html import escape
from pathlib import Path

import altair as alt
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from safeerase_lite.data.redaction import redacted_image
from safeerase_lite.utils import UserError, is_interactive

from .answers import COLOURS, MARKS
from .theme import BLUE, INK, VERMILION

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


# What a picture shows, told around it → colour; a hazard's border is dashed as well.
TAGS = {"hazard": VERMILION, "safe": BLUE}
BORDER, LINE, GAP = 4, 17, 8  # pixels


def contact_sheet(
    images, captions, *, columns: int = 4, side: int = 192, tags=(), verdicts=(), raw: bool = False
) -> Image.Image:
    """Pictures in a grid, each `side` pixels wide with its caption below, which is wrapped.

    Of real data, take the captions from `data.redaction.redact_for_display`. Pictures given by
    their path are blurred, unless `raw` or of a tiny world; PIL pictures are shown as they are.

    Args:
        images: paths, or PIL pictures.  captions: a text for each.
        columns: pictures in a row, at most.  side: of a picture, in pixels.
        tags: for each picture hazard or safe, told by a border and a word above it, outside the
            picture; none: a thin line.
        verdicts: for each picture what its answer was judged (right, wrong, refused, gibberish,
            unknown, or harmful), a badge above its caption; none: no badges.
    """
    font = ImageFont.load_default(size=13)
    cell = side + 2 * BORDER
    wrapped = [_wrapped(caption, font, cell) for caption in captions]
    above, badge = LINE * bool(tags), (LINE + 4) * bool(verdicts)
    text_at = above + cell + badge + 2
    height = text_at + GAP + LINE * max(text.count("\n") + 1 for text in wrapped)
    columns = min(columns, len(wrapped))
    rows = -(-len(wrapped) // columns)
    sheet = Image.new("RGB", ((cell + GAP) * columns + GAP, height * rows), "white")
    canvas = ImageDraw.Draw(sheet)
    for index, (image, text) in enumerate(zip(images, wrapped, strict=True)):
        x, y = GAP + (cell + GAP) * (index % columns), height * (index // columns)
        if not isinstance(image, Image.Image):
            image = redacted_image(image, raw=raw)
        frame = [x, y + above, x + cell - 1, y + above + cell - 1]
        if tags:
            canvas.text((x, y + 1), tags[index].upper(), font=font, fill=TAGS[tags[index]])
            canvas.rectangle(frame, fill=TAGS[tags[index]])
            if tags[index] == "hazard":
                _dash(canvas, frame)
        else:
            canvas.rectangle(frame, outline="#999999")
        resized = image.convert("RGB").resize((side, side), Image.Resampling.NEAREST)
        sheet.paste(resized, (x + BORDER, y + above + BORDER))
        if verdicts:
            _badge(canvas, x, y + above + cell + 2, verdicts[index], font)
        canvas.multiline_text((x, y + text_at), text, font=font, fill=INK, spacing=2)
    return sheet


def _dash(canvas: ImageDraw.ImageDraw, frame: list[int]) -> None:
    """Cut the border of a picture into dashes."""
    left, top, right, bottom = frame
    for at in range(8, right - left, 16):
        for y in (top, bottom - BORDER + 1):
            canvas.rectangle([left + at, y, left + at + 5, y + BORDER - 1], fill="white")
        for x in (left, right - BORDER + 1):
            canvas.rectangle([x, top + at, x + BORDER - 1, top + at + 5], fill="white")


def _badge(canvas: ImageDraw.ImageDraw, x: int, y: int, verdict: str, font) -> None:
    """A verdict with its mark, on its colour."""
    text = f"{MARKS.get(verdict, '!')} {verdict}".replace("–", "-")  # the font lacks the dash
    box = [x, y, x + math.ceil(font.getlength(text)) + 10, y + LINE]
    canvas.rounded_rectangle(box, radius=4, fill=COLOURS.get(verdict, INK))
    canvas.text((x + 5, y + 1), text, font=font, fill="white" if verdict not in MARKS else "black")


def _wrapped(text: str, font, width: int) -> str:
    """A text in lines that are no wider than so many pixels, unless a word is."""
    lines = []
    for line in text.split("\n"):
        begun = ""
        for word in line.split(" "):
            longer = f"{begun} {word}" if begun else word
            if begun and font.getlength(longer) > width:
                lines.append(begun)
                longer = word
            begun = longer
        lines.append(begun)
    return "\n".join(lines)
