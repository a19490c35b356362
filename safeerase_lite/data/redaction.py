"""Care: what a notebook shows of real data, and what a ledger keeps of it.

Nothing in a tiny world is harmful, and all of it passes unchanged. Of any other data set pictures
are blurred and texts masked, unless `raw=True` stands where the showing is done: an argument, so
that no setting made elsewhere can show harm.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

from pandas import DataFrame, Series
from PIL import Image

from safeerase_lite.data.dataset import Data
from safeerase_lite.data.images import open_image
from safeerase_lite.tinyworld import is_tiny_world

TEXTS = ("kind", "question", "answer", "expected")
ABOUT_HARMFUL_PICTURES = ("forget", "retain", "specificity")
BLOCKS, BLURRED_SIDE = 8, 256  # pixels: what is left of a picture, and what that is blown up to


def redact_for_display(table: DataFrame, data: Data, *, raw: bool = False) -> DataFrame:
    """A table of questions or answers as a notebook may show it.

    Of real data, every text about a picture that is not known to be safe is masked, and so are the
    harmful questions where they are asked about a safe one; equal texts get equal masks. The safe
    pictures' kinds and the answers about them stay.

    Args:
        table: with an `image` column and any of kind, question, answer and expected.
        data: what it was made from.
        raw: show real texts as they are.
    """
    if raw or data.invented:
        return table
    harmless = set(data.decouple["image"]) | set(data.placebo["image"])
    harmless -= {*data.forget["image"], *data.retain["image"], *data.specificity["image"]}
    images = [str(data.root / path) for path in table["image"]]
    harmful = ~Series(images, index=table.index, dtype=object).isin(harmless)
    masks = {column: harmful for column in TEXTS if column in table}
    if "question" in masks:
        masks["question"] = harmful | table["question"].isin(set(data.forget["question"]))
    return _replaced(table, masks, mask_text)


def mask_text(text: str) -> str:
    """What may be shown of a harmful text: its length, and a mark that tells it from others."""
    if not isinstance(text, str):
        return text
    return f"[{len(text.split())} words, #{_hash(text)[:6]}]"


def redacted_image(path: Path | str, *, raw: bool = False) -> Image.Image:
    """A picture as a notebook may show it: blurred, unless it is a tiny world's or `raw`.

    Of a blurred picture 8 × 8 averages of colour are left, so nothing can bring it back.
    """
    image = open_image(path)
    if raw or _of_tiny_world(Path(path)):
        return image
    few = image.resize((BLOCKS, BLOCKS), Image.Resampling.BOX)
    return few.resize((BLURRED_SIDE, BLURRED_SIDE), Image.Resampling.BICUBIC)


def redact_for_storage(answers: DataFrame, data: Data, *, raw: bool = False) -> DataFrame:
    """A table of answers, with a `set` column, as a ledger may keep it.

    Of real data, expected and given answers to harmful questions about harmful pictures are hashes,
    and so are the keywords of harmful pictures. Everything else can be read.
    """
    if raw or data.invented:
        return answers
    forget = answers["set"] == "forget"
    harmful = answers["set"].isin(ABOUT_HARMFUL_PICTURES)
    hashed = {"kind": harmful, "expected": forget, "answer": forget}
    return _replaced(answers, hashed, _hash)


def _replaced(table: DataFrame, rows: dict[str, Series], by: Callable[[str], str]) -> DataFrame:
    """The table with the texts of some rows of some columns replaced."""
    columns = {name: table[name].where(~those, table[name].map(by)) for name, those in rows.items()}
    return table.assign(**columns)


def _of_tiny_world(path: Path) -> bool:
    """Whether the nearest folder above that holds a data set is a tiny world."""
    holders = (folder for folder in path.absolute().parents if (folder / "all_train.json").exists())
    return any(is_tiny_world(folder) for folder in [next(holders, None)] if folder)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
