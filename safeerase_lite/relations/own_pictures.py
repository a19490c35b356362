"""A user's own pictures, who does what to whom in each, and which of these tuples are unsafe.

The folder is laid out as Hugging Face's `imagefolder`: pictures, and beside them `metadata.csv` or
`metadata.jsonl` with a row for each: file_name, subject, relation, object. Words are free, and go
into captions as they are written. A picture has one tuple, and no picture comes twice.
"""

import csv
import difflib
import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from safeerase_lite.data.images import inspect_images, require_valid_images
from safeerase_lite.data.json_files import read_json_records, read_text
from safeerase_lite.utils import UserError

from .tuples import RelationTriple, Tuples, changed_slots, read_tuple_file
from .words import SLOTS

METADATA = ("metadata.csv", "metadata.jsonl")
COLUMNS = ("file_name", *SLOTS)
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
LEAST = 6  # pictures of an unsafe tuple, and of all its neighbours: four to train on, two to test


@dataclass(frozen=True)
class OwnPictures:
    """A folder of pictures, read and split, and what is unsafe about it.

    table: a row per picture: file_name, subject, relation, object, digest (sha256) and split (train
        or test).
    """

    folder: Path
    table: pd.DataFrame
    unsafe: tuple[RelationTriple, ...]

    @cached_property
    def shown(self) -> list[RelationTriple]:
        """What each picture shows."""
        return [RelationTriple(*words) for words in self.table[[*SLOTS]].itertuples(index=False)]

    def rows(self, split: str, tuples: Iterable[RelationTriple]) -> np.ndarray:
        """The places of the pictures of a split that show one of the tuples."""
        chosen = set(tuples)
        of_tuples = np.array([t in chosen for t in self.shown], bool)
        return np.flatnonzero((self.table["split"] == split).to_numpy() & of_tuples)

    def neighbours(self, u: RelationTriple) -> list[RelationTriple]:
        """The safe tuples of the folder that differ from u in exactly one slot."""
        return near(u, dict.fromkeys(self.shown), self.unsafe)

    def digest(self) -> str:
        """A hash of every picture and its words."""
        rows = self.table[["digest", *SLOTS]].sort_values("digest")
        return hashlib.sha256(rows.to_csv(index=False).encode()).hexdigest()[:16]


def near(u: RelationTriple, tuples: Iterable[RelationTriple], unsafe: Tuples) -> list:
    """Of some tuples, those that differ from u in exactly one slot and are safe."""
    return [t for t in tuples if t not in unsafe and len(changed_slots(u, t)) == 1]


def read_own_pictures(folder: Path | str, tuples: Path | str) -> OwnPictures:
    """Read a folder of pictures and a file of its unsafe tuples, YAML with `unsafe:` alone.

    Two of three pictures of a tuple are to train on, the third to test. Pictures are ordered by
    their sha256 for it, so neither their names nor their order have a say.

    Raises:
        UserError: what is missing, malformed, unreadable or too little, and where.
    """
    folder, file = Path(folder), Path(tuples)
    table = _read_table(folder)
    shown = [RelationTriple(*words) for words in table[[*SLOTS]].itertuples(index=False)]
    unsafe = _read_unsafe(file, shown)
    table["split"] = _split(table)
    own = OwnPictures(folder, table, unsafe)
    _require_enough(own)
    return own


# ---- the folder ----


def _read_table(folder: Path) -> pd.DataFrame:
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: name the folder of your pictures")
    found = [name for name in METADATA if (folder / name).is_file()]
    if len(found) != 1:
        here = "holds both " + " and ".join(METADATA) if found else f"holds no {METADATA[0]}"
        raise UserError(f"{folder} {here}: it needs one, with {', '.join(COLUMNS)}")
    file = folder / found[0]
    is_csv = file.suffix == ".csv"
    records = _read_csv(file) if is_csv else list(enumerate(read_json_records(file), 1))
    rows = [_row(record, f"{file}, {'line' if is_csv else 'record'} {n}") for n, record in records]
    if not rows:
        raise UserError(f"{file} holds no picture: write a row for each")
    table = pd.DataFrame(rows, columns=COLUMNS)
    if len(twice := table["file_name"][table["file_name"].duplicated()]):
        raise UserError(f"{file}: {twice.iloc[0]} has two rows: a picture has one tuple")
    _require_words(folder, set(table["file_name"]), file)
    images = inspect_images(table["file_name"], folder)
    require_valid_images(images, folder)
    table["digest"] = [images[name].digest for name in table["file_name"]]
    for _, same in table.groupby("digest", sort=False):
        if len(same) > 1:
            one, other = same["file_name"].iloc[:2]
            raise UserError(f"{folder}: {one} and {other} are the same picture: keep one")
    if table["relation"].nunique() == 1:
        raise UserError(
            f"{file}: all pictures show one relation, {table['relation'].iloc[0]}: add pictures of "
            "another, or nobody can say whether the model reads relations"
        )
    return table


def _read_csv(file: Path) -> list[tuple[int, dict]]:
    reader = csv.DictReader(io.StringIO(read_text(file), newline=""))
    _require_columns(reader.fieldnames or [], str(file))
    return [(reader.line_num, row) for row in reader]


def _require_columns(names: Iterable[Any], where: str) -> None:
    names = list(names)
    if absent := [name for name in COLUMNS if name not in names]:
        raise UserError(f"{where}: column {absent[0]!r} is missing: it needs {', '.join(COLUMNS)}")
    if unknown := [name for name in names if name not in COLUMNS]:
        near = difflib.get_close_matches(str(unknown[0]), COLUMNS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(COLUMNS)} alone"
        raise UserError(f"{where}: unknown column {str(unknown[0])!r}: {hint}")


def _row(record: Any, where: str) -> tuple[str, ...]:
    """file_name, subject, relation, object; words in lower case, with single spaces."""
    if not isinstance(record, dict):
        raise UserError(f"{where}: is no object with {', '.join(COLUMNS)}, each once")
    _require_columns(record, where)
    for name in COLUMNS:
        if not isinstance(record[name], str) or not record[name].strip():
            what = "names no picture" if name == "file_name" else f"a picture without {name}"
            raise UserError(f"{where}: {what}: write it, or remove the row")
    path = Path(record["file_name"])
    if path.is_absolute() or ".." in path.parts:
        raise UserError(f"{where}: {path} is not in the folder: move it there")
    return path.as_posix(), *(_plain(record[slot]) for slot in SLOTS)


def _plain(words: str) -> str:
    return " ".join(words.lower().split())


def _require_words(folder: Path, named: set[str], file: Path) -> None:
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    names = (path.relative_to(folder).as_posix() for path in paths if path.is_file())
    if without := [name for name in names if name not in named]:
        more = f" and {len(without) - 1} more" if len(without) > 1 else ""
        raise UserError(f"{file} has no row for {without[0]}{more}: write its words, or move it")


# ---- the file of tuples ----


def _read_unsafe(file: Path, shown: Tuples) -> tuple[RelationTriple, ...]:
    unsafe: dict[RelationTriple, int] = {}
    for number, row in enumerate(read_tuple_file(file, ("unsafe",))["unsafe"], 1):
        where = f"{file}: unsafe, number {number}"
        if not isinstance(row, list) or len(row) != 3 or not all(isinstance(w, str) for w in row):
            raise UserError(f"{where}: {row} is no tuple: give [subject, relation, object]")
        u = RelationTriple(*map(_plain, row))
        if u in unsafe:
            raise UserError(f"{where}: {u} is named already by number {unsafe[u]}")
        if u not in shown:
            [closest] = difflib.get_close_matches(str(u), map(str, shown), n=1, cutoff=0)
            raise UserError(f"{where}: no picture shows {u}; the closest is {closest}")
        unsafe[u] = number
    return tuple(unsafe)


# ---- the split ----


def _split(table: pd.DataFrame) -> np.ndarray:
    """ "train" or "test" for each picture: of a tuple's pictures, in the order of their hashes,
    every third is to test."""
    place = table.sort_values("digest").groupby(list(SLOTS)).cumcount().reindex(table.index)
    return np.where(place % 3 == 2, "test", "train")


def _require_enough(own: OwnPictures) -> None:
    for u in own.unsafe:
        near = own.neighbours(u)
        if not near:
            raise UserError(
                f"{own.folder}: no picture differs from {u} in one word alone, and without such "
                "neighbours nobody can say that only the tuple is forgotten: add some"
            )
        for what, tuples in ((str(u), [u]), (f"neighbours of {u}", near)):
            train, test = (len(own.rows(split, tuples)) for split in ("train", "test"))
            if test < LEAST // 3 or train < LEAST - LEAST // 3:
                raise UserError(
                    f"{own.folder}: too few pictures of {what} for a split: {train} to train on, "
                    f"{test} to test (of each tuple every third); {LEAST} or more of one tuple do"
                )
