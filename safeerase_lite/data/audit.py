"""Is this a SafeEraser data set? What it holds, what is broken, and what its splits share.

In a mirror of the benchmark 74 of 100 Violence validation records repeat a training record, and 28
of 150 validation safe pictures are byte-identical to training ones: "generality" is then partly
measured on training data.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from pandas import DataFrame

from safeerase_lite.data.dataset import chosen
from safeerase_lite.data.images import Picture, inspect_images, printable
from safeerase_lite.data.schema import Record, read_records, read_refusals

TABLES = ["forget", "retain", "decouple", "placebo", "specificity"]


@dataclass(frozen=True)
class DataReport:
    """What `check_data` found.

    left_out: categories of the folder that are not read unless they are named; nothing below
    speaks of them.
    counts: split, category, records, then the questions of each table.
    broken: image (path within the folder), problem.
    leaks: split, also_in, category, what ("record", "picture" or "safe picture"), repeated, total:
    of `total` things in `split`, `repeated` occur in `also_in` too.
    undecoupled: records with a forget question that no safe picture with an answer goes with;
    rebuilt: those of them that carry `safeNb_pairs` instead.
    """

    root: Path
    left_out: tuple[str, ...]
    counts: DataFrame
    broken: DataFrame
    leaks: DataFrame
    undecoupled: int
    rebuilt: int

    def to_text(self) -> str:
        sections = [str(self.root), self.counts.to_string(index=False)]
        if self.left_out:
            names = ", ".join(self.left_out)
            sections.append(
                f"Left out: {names}. To read them, name all you want in `categories` (here "
                "--category)."
            )
        if self.undecoupled:
            sections.append(self._about_decoupling())
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

    def _about_decoupling(self) -> str:
        if self.counts["decouple"].any():
            said = (
                f"{self.undecoupled} of {self.counts['records'].sum()} records lack decouple "
                "questions, some or all; PD draws theirs from the others."
            )
        else:
            said = "No decouple questions: runs with decouple='pd' will be refused."
        if self.rebuilt:
            said += (
                f" {self.rebuilt} records are of a rebuilt copy: their `safeNb_pairs` ask another "
                "question about the same picture, where PD asks the same question about a safe one."
            )
        return said


def check_data(root: Path | str, *, categories: Sequence[str] = ()) -> DataReport:
    """Report on a folder in the SafeEraser layout; broken pictures are listed, not raised.

    categories: which to look at; as in `read_data`, by default not Privacy and Sex of real data.
    Raises UserError when a file or a record is not as the layout asks, or a category is not there.
    """
    root = Path(root).resolve()
    records, left_out = chosen(read_records(root), categories, root)
    read_refusals(root)
    pictures = inspect_images(records)
    broken = [
        (printable(path, root), picture.problem)
        for path, picture in pictures.items()
        if picture.problem
    ]
    undecoupled = [record for record in records if _lacks_decouple(record)]
    return DataReport(
        root=root,
        left_out=left_out,
        counts=_counts(records),
        broken=DataFrame(broken, columns=["image", "problem"]),
        leaks=_leaks(records, pictures),
        undecoupled=len(undecoupled),
        rebuilt=sum(record.rebuilt for record in undecoupled),
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


def _lacks_decouple(record: Record) -> bool:
    of = [question.table for question in record.questions]
    return of.count("decouple") < of.count("forget")
