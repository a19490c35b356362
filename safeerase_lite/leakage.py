"""Is this a SafeEraser data set? What it holds, what is broken, and what its splits share.

In a mirror of the benchmark 74 of 100 Violence validation records repeat a training record, and 28
of 150 validation safe pictures are byte-identical to training ones: "generality" is then partly
measured on training data.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from pandas import DataFrame

from safeerase_lite.data import Picture, inspect_pictures
from safeerase_lite.records import Record, read_records, read_refusals

TABLES = ["forget", "retain", "decouple", "placebo", "specificity"]


@dataclass(frozen=True)
class DataReport:
    """What `check_data` found.

    counts: split, category, records, then the questions of each table.
    broken: image (path within the folder), problem.
    leaks: split, also_in, category, what ("record", "picture" or "safe picture"), repeated, total:
    of `total` things in `split`, `repeated` occur in `also_in` too.
    """

    root: Path
    counts: DataFrame
    broken: DataFrame
    leaks: DataFrame

    def to_text(self) -> str:
        sections = [str(self.root), self.counts.to_string(index=False)]
        if not self.counts["decouple"].any():
            sections.append("No decouple questions: runs with decouple='pd' will be refused.")
        if self.broken.empty:
            sections.append("Pictures: all there and whole.")
        else:
            problems = self.broken["problem"].value_counts()
            counts = "; ".join(f"{count} {problem}" for problem, count in problems.items())
            sections.append(f"Pictures: {counts}.\n{self.broken.to_string(index=False)}")
        if self.leaks.empty:
            sections.append("Leakage: the splits share no record and no picture.")
        else:
            sections.append(
                "Leakage: the splits overlap; dedupe='val' drops from val and test what train "
                f"has.\n{self.leaks.to_string(index=False)}"
            )
        return "\n\n".join(sections)


def check_data(root: Path | str) -> DataReport:
    """Report on a folder in the SafeEraser layout; broken pictures are listed, not raised.

    Raises UserError when a file or a record is not as the layout asks.
    """
    root = Path(root).resolve()
    records = read_records(root)
    read_refusals(root)
    pictures = inspect_pictures(records)
    broken = [
        (path.relative_to(root).as_posix(), picture.problem)
        for path, picture in pictures.items()
        if picture.problem
    ]
    return DataReport(
        root=root,
        counts=_counts(records),
        broken=DataFrame(broken, columns=["image", "problem"]),
        leaks=_leaks(records, pictures),
    )


def _counts(records: list[Record]) -> DataFrame:
    rows = [
        {"split": record.split, "category": record.category, "records": 1}
        | {name: sum(q.table == name for q in record.questions) for name in TABLES}
        for record in records
    ]
    return DataFrame(rows).groupby(["split", "category"], sort=False, as_index=False).sum()


def _leaks(records: list[Record], pictures: dict[Path, Picture]) -> DataFrame:
    splits = list(dict.fromkeys(record.split for record in records))
    rows = []
    for earlier, later in combinations(splits, 2):
        known = _fingerprints([r for r in records if r.split == earlier], pictures)
        for category in dict.fromkeys(r.category for r in records if r.split == later):
            group = [r for r in records if (r.split, r.category) == (later, category)]
            for what, fingerprints in _fingerprints(group, pictures).items():
                elsewhere = set(known[what].values())
                repeated = sum(value in elsewhere for value in fingerprints.values())
                if repeated:
                    rows.append((later, earlier, category, what, repeated, len(fingerprints)))
    columns = ["split", "also_in", "category", "what", "repeated", "total"]
    return DataFrame(rows, columns=columns)


def _fingerprints(
    records: list[Record], pictures: dict[Path, Picture]
) -> dict[str, dict[Hashable, Hashable]]:
    """What identifies each record by its content, and each whole picture by its bytes."""

    def whole(paths: list[Path | None]) -> dict[Path, str]:
        return {path: pictures[path].digest for path in paths if path and pictures[path].digest}

    return {
        "record": {record.index: record.content for record in records},
        "picture": whole([record.picture for record in records]),
        "safe picture": whole([record.safe_picture for record in records]),
    }
