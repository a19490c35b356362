"""A folder in the SafeEraser layout, read as tables: forget, retain, decouple."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pandas import DataFrame, Series

from safeerase_lite.config import Config as Profile
from safeerase_lite.config import read_injected
from safeerase_lite.data.images import Picture, inspect_images, require_valid_images
from safeerase_lite.data.schema import (
    SAFE_PICTURE_TABLES,
    Question,
    Record,
    present_splits,
    read_records,
    read_refusals,
)
from safeerase_lite.tinyworld import is_tiny_world, shipped_model
from safeerase_lite.tinyworld.world import World, write_world
from safeerase_lite.utils import UserError

COLUMNS = ["split", "record", "category", "kind", "image", "question", "answer"]
UNASKED = {"privacy", "sex"}  # of real data left out until they are named


@dataclass(frozen=True, repr=False)
class Data:
    """The questions of a data set, a row each, in five tables.

    Every table has the columns split, record (index in its file, from 0), category, kind, image
    (absolute path), question and answer. `forget` and `decouple` add seen_kind (the kind occurs in
    the train split of that table) and seen_template (the question occurs in the train split of
    `forget`); `retain` adds level ("concept" or "image"); `specificity` adds family.
    `forget`, `retain` and `specificity` show the harmful picture, `decouple` and `placebo` the safe
    one. Two data sets with one `digest` hold the same records and the same pictures. `dedupe` and
    `left_out` (categories of the folder that were not read) say what part of the folder this is;
    `rebuilt`, that it has `safeNb_pairs` where the decouple pairs should be.
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
        names = ("forget", "retain", "decouple", "placebo", "specificity")
        counts = ", ".join(f"{len(getattr(self, name))} {name}" for name in names)
        return f"Data({self.root.name}, {counts}, digest {self.digest})"

    @property
    def invented(self) -> bool:
        """Whether this is a tiny world: nothing in it is harmful."""
        return is_tiny_world(self.root)


def load_data(
    profile: Profile, *, dedupe: str | None = None, categories: Sequence[str] | None = None
) -> Data:
    """A profile's data: the folder it names, or the tiny world, written to a cache when first used.

    Args:
        dedupe: instead of the profile's; see `read_data`.
        categories: instead of the profile's; see `read_data`.

    Raises:
        UserError: the folder is not as the layout asks.
    """
    choices = {
        "dedupe": profile.dedupe if dedupe is None else dedupe,
        "categories": profile.categories if categories is None else categories,
    }
    if not profile.data_dir:
        if not (shipped_model(profile.model) or read_injected(profile.model)):
            print(
                f"no data_dir, so the tiny world, which {profile.model} never learned: teach it "
                "first (safeerase inject), or name a data_dir"
            )
        world = World(seed=profile.world_seed, cue=profile.cue, side=profile.picture_size)
        return read_data(write_world(world, cache_dir() / world.name), **choices)
    data = read_data(profile.data_dir, **choices)
    if data.left_out and not choices["categories"]:
        print(f"{data.root.name}: left out {', '.join(data.left_out)}; name `categories` to choose")
    return data


def cache_dir() -> Path:
    """Where tiny worlds are written: `$SAFEERASE_CACHE`, else the user's cache folder."""
    chosen = os.environ.get("SAFEERASE_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "safeerase-lite"


def read_data(root: Path | str, *, dedupe: str = "none", categories: Sequence[str] = ()) -> Data:
    """Read a folder in the SafeEraser layout.

    Args:
        dedupe: "val" drops from val and test every record that train has: the same content, or a
            picture (harmful or safe) with the same bytes as a picture of train.
        categories: which to read; none named: all, but of real data not Privacy and Sex. The
            pictures of the others are not opened and need not be there.

    Raises:
        UserError: a file, a record or a picture is not as the layout asks, or a category is not
            there.
    """
    if dedupe not in ("none", "val"):
        raise UserError(f"dedupe={dedupe!r} is unknown; use 'none' or 'val'")
    root = Path(root).resolve()
    records, left_out = chosen(read_records(root), categories, root)
    refusals = read_refusals(root)
    pictures = inspect_images(records)
    require_valid_images(pictures, root)
    digest = _digest(root, pictures, dedupe, left_out)
    if dedupe == "val":
        records = _without_repeats_of_train(records, pictures)
    return Data(
        root=root,
        **_tables(records),
        refusals=refusals,
        digest=digest,
        dedupe=dedupe,
        left_out=left_out,
        rebuilt=any(record.rebuilt for record in records),
    )


def chosen(
    records: list[Record], categories: Sequence[str], root: Path
) -> tuple[list[Record], tuple[str, ...]]:
    """The records of the categories that are asked for (see `read_data`), and the other categories.

    Raises UserError for a category that is not there, and when nothing of train is left.
    """
    if isinstance(categories, str):
        raise UserError(f"categories={categories!r} is one text; write ({categories!r},)")
    there = list(dict.fromkeys(record.category for record in records))
    unknown = [name for name in categories if name not in there]
    if unknown:
        raise UserError(f"{root}: no category {unknown[0]!r}; there are {', '.join(there)}")
    unasked = set() if is_tiny_world(root) else UNASKED
    wanted = set(categories) or {name for name in there if name.casefold() not in unasked}
    left_out = tuple(sorted(set(there) - wanted))
    records = [record for record in records if record.category in wanted]
    for split in ("train", "val"):
        if not any(record.split == split for record in records):
            without = ", ".join(left_out)
            raise UserError(
                f"{root}: nothing of {split} is left without {without}; name in `categories` what "
                "to read"
            )
    return records, left_out


def require_decouple(data: Data, decouple: str) -> None:
    """Raise UserError when the data cannot serve `decouple` ("pd" or "placebo")."""
    if decouple == "pd" and data.decouple.empty:
        rebuilt = "; a rebuilt copy, its 'safeNb_pairs' show the harmful picture" * data.rebuilt
        raise UserError(
            f"{data.root}: no record has both 'SDImage_path' and 'sd_response', so there is "
            f"nothing to decouple{rebuilt}; use a copy that has them, or decouple='none'"
        )
    if decouple == "placebo" and data.placebo.empty:
        raise UserError(
            f"{data.root}: no record has both 'SDImage_path' and 'placebo_pairs', so there is "
            "no placebo; use the tiny world, or decouple='none'"
        )


def _tables(records: list[Record]) -> dict[str, DataFrame]:
    rows = DataFrame(
        [_row(record, question) for record in records for question in record.questions],
        columns=["table", *COLUMNS, "group"],
    )

    def table(name: str) -> DataFrame:
        return rows[rows["table"] == name].drop(columns="table").reset_index(drop=True)

    forget = table("forget").drop(columns="group")
    decouple = table("decouple").drop(columns="group")
    templates = _in_train(forget, "question")
    return {
        "forget": _with_seen(forget, templates),
        "retain": table("retain").rename(columns={"group": "level"}),
        "decouple": _with_seen(decouple, templates),
        "placebo": table("placebo").drop(columns="group"),
        "specificity": table("specificity").rename(columns={"group": "family"}),
    }


def _row(record: Record, question: Question) -> dict:
    about_safe = question.table in SAFE_PICTURE_TABLES
    return {
        "table": question.table,
        "split": record.split,
        "record": record.index,
        "category": record.category,
        "kind": record.safe_kind if about_safe else record.kind,
        "image": str(record.safe_picture if about_safe else record.picture),
        "question": question.question,
        "answer": question.answer,
        "group": question.group,
    }


def _with_seen(table: DataFrame, templates: Series) -> DataFrame:
    return table.assign(
        seen_kind=table["kind"].isin(_in_train(table, "kind")),
        seen_template=table["question"].isin(templates),
    )


def _in_train(table: DataFrame, column: str) -> Series:
    return table.loc[table["split"] == "train", column]


def _without_repeats_of_train(records: list[Record], pictures: dict[Path, Picture]) -> list[Record]:
    train = [record for record in records if record.split == "train"]
    contents = {record.content for record in train}
    digests = {pictures[path].digest for record in train for path in record.pictures}

    def repeats(record: Record) -> bool:
        return record.content in contents or any(
            pictures[path].digest in digests for path in record.pictures
        )

    return [record for record in records if record.split == "train" or not repeats(record)]


def _digest(
    root: Path, pictures: dict[Path, Picture], dedupe: str, left_out: tuple[str, ...]
) -> str:
    """The first 16 hex digits of the sha256 of a sorted listing, each file's path and sha256, and
    of the choices."""
    digests = {path: picture.digest for path, picture in pictures.items()}
    for name in ["prompt.json", *(f"all_{split}.json" for split in present_splits(root))]:
        digests[root / name] = hashlib.sha256((root / name).read_bytes()).hexdigest()
    listing = sorted(f"{path.relative_to(root).as_posix()} {digests[path]}" for path in digests)
    choices = [f"dedupe {dedupe}", *(f"without {category}" for category in left_out)]
    return hashlib.sha256("\n".join([*listing, *choices]).encode()).hexdigest()[:16]
