"""A folder in the SafeEraser layout, read as tables: forget, retain, decouple."""

import hashlib
import os
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from pandas import DataFrame, Series
from PIL import Image

from safeerase_lite.errors import UserError
from safeerase_lite.profiles import Profile
from safeerase_lite.records import (
    GIT_LFS_HEADER,
    SAFE_PICTURE_TABLES,
    Question,
    Record,
    present_splits,
    read_records,
    read_refusals,
)
from safeerase_lite.tinyworld.world import WORLD_FILE, World, write_world

COLUMNS = ["split", "record", "category", "kind", "image", "question", "answer"]
PICTURE_REMEDIES = {
    "missing or unreadable": "copy them there or correct their paths",
    "a Git-LFS pointer, not the picture": "run `git lfs pull` where they came from",
    "truncated or not a picture": "download them again",
}


@dataclass(frozen=True)
class Data:
    """The questions of a data set, a row each, in five tables.

    Every table has the columns split, record (index in its file, from 0), category, kind, image
    (absolute path), question and answer. `forget` and `decouple` add seen_kind (the kind occurs in
    the train split of that table) and seen_template (the question occurs in the train split of
    `forget`); `retain` adds level ("concept" or "image"); `specificity` adds family.
    `forget`, `retain` and `specificity` show the harmful picture, `decouple` and `placebo` the safe
    one. Two data sets with one `digest` hold the same records and the same pictures.
    """

    root: Path
    forget: DataFrame
    retain: DataFrame
    decouple: DataFrame
    placebo: DataFrame
    specificity: DataFrame
    refusals: list[str]
    digest: str

    @property
    def invented(self) -> bool:
        """Whether this is a tiny world: nothing in it is harmful."""
        return (self.root / WORLD_FILE).exists()


@dataclass(frozen=True)
class Picture:
    """A picture's sha256, and what is wrong with it (a key of `PICTURE_REMEDIES`, or "")."""

    digest: str = ""
    problem: str = ""


def load_data(profile: Profile, *, dedupe: str = "none") -> Data:
    """A profile's data: the folder it names, or the tiny world, written to a cache when first used.

    Raises UserError when the folder is not as the layout asks (see `read_data`).
    """
    if profile.data_dir:
        return read_data(profile.data_dir, dedupe=dedupe)
    world = World(seed=profile.world_seed, cue=profile.cue, side=profile.picture_size)
    return read_data(write_world(world, cache_dir() / world.name), dedupe=dedupe)


def cache_dir() -> Path:
    """Where tiny worlds are written: `$SAFEERASE_CACHE`, else the user's cache folder."""
    chosen = os.environ.get("SAFEERASE_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "safeerase-lite"


def read_data(root: Path | str, *, dedupe: str = "none") -> Data:
    """Read a folder in the SafeEraser layout.

    `dedupe="val"` drops from val and test every record that train has: the same content, or a
    picture (harmful or safe) with the same bytes as a picture of train.

    Raises UserError when a file, a record or a picture is not as the layout asks.
    """
    if dedupe not in ("none", "val"):
        raise UserError(f"dedupe={dedupe!r} is unknown; use 'none' or 'val'")
    root = Path(root).resolve()
    records = read_records(root)
    refusals = read_refusals(root)
    pictures = inspect_pictures(records)
    _require_whole_pictures(pictures, root)
    digest = _digest(root, pictures, dedupe)
    if dedupe == "val":
        records = _without_repeats_of_train(records, pictures)
    return Data(root=root, **_tables(records), refusals=refusals, digest=digest)


def require_decouple(data: Data, decouple: str) -> None:
    """Raise UserError when the data cannot serve `decouple` ("pd" or "placebo")."""
    if decouple == "pd" and data.decouple.empty:
        raise UserError(
            f"{data.root}: no record has both 'SDImage_path' and 'sd_response', so there is "
            "nothing to decouple; use a copy that has them, or decouple='none'"
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


def inspect_pictures(records: list[Record]) -> dict[Path, Picture]:
    """Hash and decode every picture the records name, once each."""
    paths = {path for record in records for path in record.pictures}
    return {path: _inspect(path) for path in sorted(paths)}


def _inspect(path: Path) -> Picture:
    try:
        content = path.read_bytes()
    except (OSError, ValueError):
        return Picture(problem="missing or unreadable")
    if content.startswith(GIT_LFS_HEADER):
        return Picture(problem="a Git-LFS pointer, not the picture")
    try:
        with Image.open(BytesIO(content)) as image:
            image.draft(None, (64, 64))  # a JPEG is read to its end, at an eighth of its size
            image.load()
    except Exception:  # Pillow raises many kinds for a damaged file
        return Picture(problem="truncated or not a picture")
    return Picture(digest=hashlib.sha256(content).hexdigest())


def _require_whole_pictures(pictures: dict[Path, Picture], root: Path) -> None:
    complaints = []
    for problem, remedy in PICTURE_REMEDIES.items():
        names = [
            path.relative_to(root).as_posix()
            for path, picture in pictures.items()
            if picture.problem == problem
        ]
        if names:
            shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
            complaints.append(f"{len(names)} {problem} ({shown}): {remedy}")
    if complaints:
        raise UserError(f"{root}: of {len(pictures)} pictures, " + "; ".join(complaints))


def _digest(root: Path, pictures: dict[Path, Picture], dedupe: str) -> str:
    """The first 16 hex digits of the sha256 of a sorted listing: each file's path and sha256."""
    digests = {path: picture.digest for path, picture in pictures.items()}
    for name in ["prompt.json", *(f"all_{split}.json" for split in present_splits(root))]:
        digests[root / name] = hashlib.sha256((root / name).read_bytes()).hexdigest()
    listing = sorted(f"{path.relative_to(root).as_posix()} {digests[path]}" for path in digests)
    return hashlib.sha256("\n".join([*listing, f"dedupe {dedupe}"]).encode()).hexdigest()[:16]
