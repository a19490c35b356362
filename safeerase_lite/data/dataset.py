"""A folder in the SafeEraser layout, read as tables: forget, retain, decouple."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pandas import DataFrame

from safeerase_lite.config import Config, read_injected
from safeerase_lite.tinyworld import is_tiny_world, shipped_model
from safeerase_lite.tinyworld.world import World, write_world
from safeerase_lite.utils import UserError, cached, expects

from .images import InspectedImage, inspect_images, require_valid_images
from .schema import SAFE_IMAGE_TABLES, Record, present_splits, read_records, read_refusals

COLUMNS = ["split", "record", "category", "kind", "image", "question", "answer"]
TABLES = ("forget", "retain", "decouple", "placebo", "specificity")
GROUPS = {"retain": "level", "specificity": "family"}  # the column of a question's `group`
OPT_IN_CATEGORIES = {"privacy", "sex"}  # of real data left out until they are named


@dataclass(frozen=True, repr=False)
class Data:
    """The questions of a data set, a row each, in five tables.

    Every table has the columns split, record (index in its file, from 0), category, kind, image
    (absolute path), question and answer. `forget`, `retain` and `specificity` show the harmful
    image, `decouple` and `placebo` the safe one.

    Attributes:
        root: the folder.
        forget: with seen_kind (the kind occurs in the train split of this table) and seen_template
            (the question occurs in the train split of `forget`).
        retain: with level, "concept" or "image".
        decouple: with seen_kind and seen_template, as in `forget`.
        specificity: with family.
        refusals: texts that decline to answer.
        digest: two data sets with one digest hold the same records and the same images.
        dedupe: as given to `read_data`.
        left_out: categories of the folder that were not read.
        rebuilt: whether `safeNb_pairs` are there where decouple pairs should be.
    """

    root: Path
    forget: DataFrame
    retain: DataFrame
    decouple: DataFrame
    placebo: DataFrame
    specificity: DataFrame
    refusals: list[str]
    digest: str
    dedupe: str = "none"
    left_out: tuple[str, ...] = ()
    rebuilt: bool = False

    def __repr__(self) -> str:
        """Counts alone: the tables of real data hold harmful text."""
        counts = ", ".join(f"{len(getattr(self, name))} {name}" for name in TABLES)
        return f"Data({self.root.name}, {counts}, digest {self.digest})"

    @property
    def invented(self) -> bool:
        """Whether this is a tiny world: nothing in it is harmful."""
        return is_tiny_world(self.root)


@expects
def load_data(
    config: Config, *, dedupe: str | None = None, categories: Sequence[str] | None = None
) -> Data:
    """The data of a config: the folder it names, or the tiny world, which is written to a cache.

    Args:
        config: from `config`.
        dedupe, categories: as in `read_data`; None takes the config's.

    Returns:
        Five tables of questions, see `Data`.

    Raises:
        UserError: see `read_data`.
    """
    dedupe = config.dedupe if dedupe is None else dedupe
    categories = config.categories if categories is None else categories
    if config.data_dir:
        data = read_data(config.data_dir, dedupe=dedupe, categories=categories)
        if data.left_out and not categories:
            names = ", ".join(data.left_out)
            print(f"{data.root.name}: left out {names}; name `categories` to choose")
        return data
    if not (shipped_model(config.model) or read_injected(config.model)):
        print(
            f"no data_dir, so the tiny world, which {config.model} never learned: teach it "
            "first (safeerase inject), or name a data_dir"
        )
    world = World(seed=config.world_seed, cue=config.cue, side=config.picture_size)
    root = write_world(world, cached(world.name))
    return read_data(root, dedupe=dedupe, categories=categories)


def read_data(root: Path | str, *, dedupe: str = "none", categories: Sequence[str] = ()) -> Data:
    """Read a folder in the SafeEraser layout.

    Args:
        dedupe: "val" drops from val and test every record that train has: the same content, or an
            image (harmful or safe) with the same bytes as an image of train.
        categories: which to read; none named: all, but of real data not Privacy and Sex. The
            images of the others are not opened and need not be there.

    Raises:
        UserError: a file, a record or an image is not as the layout asks, or a category is not
            there.
    """
    if dedupe not in ("none", "val"):
        raise UserError(f"dedupe={dedupe!r} is unknown; use 'none' or 'val'")
    root = Path(root).resolve()
    records, left_out = select_categories(read_records(root), categories, root)
    refusals = read_refusals(root)
    images = inspect_images((i for record in records for i in record.images), root)
    require_valid_images(images, root)
    digest = _digest(root, images, dedupe, left_out)
    if dedupe == "val":
        records = _without_repeats_of_train(records, images)
    return Data(
        root=root,
        **_tables(records, root),
        refusals=refusals,
        digest=digest,
        dedupe=dedupe,
        left_out=left_out,
        rebuilt=any(record.rebuilt for record in records),
    )


def select_categories(
    records: list[Record], categories: Sequence[str], root: Path
) -> tuple[list[Record], tuple[str, ...]]:
    """The records of the given categories (see `read_data`), and the names of the other ones.

    Raises a UserError: a category is not there, or nothing of train or val is left.
    """
    if isinstance(categories, str):
        raise UserError(f"categories={categories!r} is one text; write ({categories!r},)")
    present = list(dict.fromkeys(record.category for record in records))
    unknown = [name for name in categories if name not in present]
    if unknown:
        raise UserError(f"{root}: no category {unknown[0]!r}; there are {', '.join(present)}")
    opt_in = set() if is_tiny_world(root) else OPT_IN_CATEGORIES
    selected = set(categories) or {name for name in present if name.casefold() not in opt_in}
    left_out = tuple(sorted(set(present) - selected))
    records = [record for record in records if record.category in selected]
    for split in ("train", "val"):
        if not any(record.split == split for record in records):
            raise UserError(
                f"{root}: nothing of {split} is left without {', '.join(left_out)}; name in "
                "`categories` what to read"
            )
    return records, left_out


def require_decouple(data: Data, decouple: str, kinds: int | None = None) -> None:
    """Raise UserError when the data cannot serve `decouple` ("pd" or "placebo"), or have not so
    many safe kinds."""
    if decouple == "pd" and data.decouple.empty:
        rebuilt = "; a rebuilt copy, its 'safeNb_pairs' show the harmful picture" * data.rebuilt
        raise UserError(
            f"{data.root}: no record has both 'SDImage_path' and 'sd_response', so there is "
            f"nothing to decouple{rebuilt}; use a copy that has them (only a run of lesson 03 "
            "with decouple='none' does without)"
        )
    if decouple == "placebo" and data.placebo.empty:
        raise UserError(
            f"{data.root}: no record has both 'SDImage_path' and 'placebo_pairs', so there is "
            "no placebo; use the tiny world, or decouple='none'"
        )
    if kinds and decouple != "none":
        table = data.decouple if decouple == "pd" else data.placebo
        known = table[table["split"] == "train"]["kind"].nunique()
        if kinds > known:
            raise UserError(f"decouple_kinds is {kinds}, and train shows {known} safe kinds")


def _tables(records: list[Record], root: Path) -> dict[str, DataFrame]:
    rows = []
    for record in records:
        for name, question, answer, group in record.questions:
            about_safe = name in SAFE_IMAGE_TABLES
            kind = record.safe_kind if about_safe else record.kind
            image = str(root / str(record.safe_image if about_safe else record.image))
            place = name, record.split, record.index, record.category
            rows.append((*place, kind, image, question, answer, group))
    questions = DataFrame(rows, columns=["table", *COLUMNS, "group"])
    tables = {}
    for name in TABLES:
        table = questions[questions["table"] == name].drop(columns="table").reset_index(drop=True)
        columns = {"group": GROUPS[name]} if name in GROUPS else {}
        tables[name] = table.rename(columns=columns).drop(columns="group", errors="ignore")

    in_train = {name: table[table["split"] == "train"] for name, table in tables.items()}
    for name in ("forget", "decouple"):
        tables[name] = tables[name].assign(
            seen_kind=tables[name]["kind"].isin(in_train[name]["kind"]),
            seen_template=tables[name]["question"].isin(in_train["forget"]["question"]),
        )
    return tables


def _without_repeats_of_train(
    records: list[Record], images: dict[str, InspectedImage]
) -> list[Record]:
    train = [record for record in records if record.split == "train"]
    contents = {record.content for record in train}
    digests = {images[path].digest for record in train for path in record.images}
    others = [
        record
        for record in records
        if record.split != "train"
        and record.content not in contents
        and digests.isdisjoint(images[path].digest for path in record.images)
    ]
    return train + others


def _digest(
    root: Path, images: dict[str, InspectedImage], dedupe: str, left_out: tuple[str, ...]
) -> str:
    """The first 16 hex digits of the sha256 of a sorted listing (each file's path and sha256) and
    of the choices."""
    digests = {path: image.digest for path, image in images.items()}
    for name in ["prompt.json", *(f"all_{split}.json" for split in present_splits(root))]:
        digests[name] = hashlib.sha256((root / name).read_bytes()).hexdigest()
    listing = sorted(f"{path} {digest}" for path, digest in digests.items())
    choices = [f"dedupe {dedupe}", *(f"without {category}" for category in left_out)]
    return hashlib.sha256("\n".join([*listing, *choices]).encode()).hexdigest()[:16]
