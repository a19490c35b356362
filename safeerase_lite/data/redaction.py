"""What a notebook shows of real data, and what a ledger stores of it.

Nothing in a tiny world is harmful, and all of it passes unchanged. Of any other data set images are
blurred and texts are masked. The only way out is `raw=True`, an argument of the call that shows or
stores, so no setting made elsewhere can show harm.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

from pandas import DataFrame, Series
from PIL import Image

from safeerase_lite.tinyworld import is_tiny_world

from .dataset import Data
from .images import open_image

TEXT_COLUMNS = ("kind", "question", "answer", "expected")
HARMFUL_IMAGE_TABLES = ("forget", "retain", "specificity")
BLOCKS, BLURRED_SIDE = 8, 256  # pixels: what is left of an image, and what that is enlarged to


def redact_for_display(table: DataFrame, data: Data, *, raw: bool = False) -> DataFrame:
    """A table of questions or answers as a notebook may show it.

    Of real data, every text about an image that is not known to be safe is masked, and so are the
    harmful questions where they are asked about a safe one. Equal texts get equal masks. The safe
    images' kinds and the answers about them stay.

    Args:
        table: with an `image` column and any of kind, question, answer and expected.
        data: what it was made from.
        raw: show real texts as they are.
    """
    if raw or data.invented:
        return table
    safe = set(data.decouple["image"]) | set(data.placebo["image"])
    safe -= {*data.forget["image"], *data.retain["image"], *data.specificity["image"]}
    images = [str(data.root / path) for path in table["image"]]
    harmful = ~Series(images, index=table.index, dtype=object).isin(safe)
    rows = {column: harmful for column in TEXT_COLUMNS if column in table}
    if "question" in rows:
        rows["question"] = harmful | table["question"].isin(set(data.forget["question"]))
    return _replace(table, rows, mask_text)


def redact_for_storage(answers: DataFrame, data: Data, *, raw: bool = False) -> DataFrame:
    """A table of answers, with a `set` column, as a ledger may store it.

    Of real data, expected and given answers to harmful questions about harmful images are hashed,
    and so are the keywords of harmful images. Everything else can be read.
    """
    if raw or data.invented:
        return answers
    forget = answers["set"] == "forget"
    harmful = answers["set"].isin(HARMFUL_IMAGE_TABLES)
    return _replace(answers, {"kind": harmful, "expected": forget, "answer": forget}, hash_text)


def mask_text(text: str) -> str:
    """What may be shown of a harmful text: its number of words, and six digits of its hash."""
    if not isinstance(text, str):
        return text
    return f"[{len(text.split())} words, #{hash_text(text)[:6]}]"


def redacted_image(path: Path | str, *, raw: bool = False) -> Image.Image:
    """An image as a notebook may show it: blurred, unless it is a tiny world's or `raw`.

    Of a blurred image 8 × 8 averages of colour are left, so nothing can bring it back.
    """
    image = open_image(path)
    parents = Path(path).absolute().parents
    # A tiny world may hold real data in a folder of its own: the nearest data set counts.
    nearest = next((folder for folder in parents if (folder / "all_train.json").exists()), None)
    if raw or (nearest and is_tiny_world(nearest)):
        return image
    averages = image.resize((BLOCKS, BLOCKS), Image.Resampling.BOX)
    return averages.resize((BLURRED_SIDE, BLURRED_SIDE), Image.Resampling.BICUBIC)


def _replace(table: DataFrame, rows: dict[str, Series], by: Callable[[str], str]) -> DataFrame:
    """The table with the texts of the given rows of each column replaced."""
    columns = {name: table[name].where(~mask, table[name].map(by)) for name, mask in rows.items()}
    return table.assign(**columns)


def hash_text(text: str) -> str:
    """What may be stored of a harmful text: 16 hex digits of its sha256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
