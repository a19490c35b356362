"""Is this a SafeEraser data set? What it holds, what is broken, and what its splits share.

In a mirror of the benchmark 74 of 100 Violence validation records repeat a training record, and 28
of 150 validation safe images are byte-identical to training ones: "generality" is then partly
measured on training data.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from pandas import DataFrame

from .dataset import TABLES, select_categories
from .images import InspectedImage, display_path, inspect_images
from .schema import Record, read_records, read_refusals


@dataclass(frozen=True)
class DataReport:
    """What `check_data` saw.

    Attributes:
        root: the folder.
        left_out: categories of the folder that are not read unless they are named; nothing below
            counts them.
        counts: split, category, records, then the questions of each table.
        broken: image (path within the folder), problem.
        leaks: split, also_in, category, what ("record", "picture" or "safe picture"), repeated,
            total: of `total` things in `split`, `repeated` occur in `also_in` too.
        undecoupled: records with a forget question that no safe image with an answer goes with.
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
        """The report for a terminal. It quotes no text of a record."""
        sections = [str(self.root), self.counts.to_string(index=False)]
        if self.left_out:
            sections.append(
                f"Left out: {', '.join(self.left_out)}. To read them, name all you want in "
                "`categories` (here --category)."
            )
        if self.undecoupled and not self.counts["decouple"].any():
            sections.append("No decouple questions: runs with decouple='pd' will be refused.")
        elif self.undecoupled:
            sections.append(
                f"{self.undecoupled} of {self.counts['records'].sum()} records lack decouple "
                "questions, some or all; PD draws theirs from the others."
            )
        if self.rebuilt:
            sections[-1] += (
                f" {self.rebuilt} records are of a rebuilt copy: their `safeNb_pairs` ask another "
                "question about the same picture, where PD asks the same question about a safe one."
            )
        if self.broken.empty:
            sections.append("Pictures: all there and complete.")
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


def check_data(root: Path | str, *, categories: Sequence[str] = ()) -> DataReport:
    """Report on a folder in the SafeEraser layout; broken images are listed, not raised.

    Arguments and other errors as of `read_data`.
    """
    root = Path(root).resolve()
    records, left_out = select_categories(read_records(root), categories, root)
    read_refusals(root)
    images = inspect_images((i for record in records for i in record.images), root)
    broken = [(display_path(path), i.problem) for path, i in images.items() if i.problem]
    undecoupled = [record for record in records if record.lacks_decouple]
    return DataReport(
        root=root,
        left_out=left_out,
        counts=_counts(records),
        broken=DataFrame(broken, columns=["image", "problem"]),
        leaks=_leaks(records, images),
        undecoupled=len(undecoupled),
        rebuilt=sum(record.rebuilt for record in undecoupled),
    )


def _counts(records: list[Record]) -> DataFrame:
    rows = []
    for record in records:
        tables = Counter(question.table for question in record.questions)
        row = {"split": record.split, "category": record.category, "records": 1}
        rows.append(row | {name: tables[name] for name in TABLES})
    return DataFrame(rows).groupby(["split", "category"], sort=False, as_index=False).sum()


def _leaks(records: list[Record], images: dict[str, InspectedImage]) -> DataFrame:
    things: list[tuple] = []
    for record in records:
        place = record.split, record.category
        # What identifies a record is its content; an intact image, its bytes.
        things.append((*place, "record", record.index, record.content))
        for what, path in (("picture", record.image), ("safe picture", record.safe_image)):
            if path and images[path].digest:
                things.append((*place, what, path, images[path].digest))
    columns = ["split", "category", "what", "name", "fingerprint"]
    table = DataFrame(things, columns=columns).drop_duplicates(columns[:-1])
    rows = []
    for earlier, later in combinations(table["split"].unique(), 2):
        known = table[table["split"] == earlier].groupby("what")["fingerprint"].agg(set)
        groups = table[table["split"] == later].groupby(["category", "what"], sort=False)
        for (category, what), fingerprints in groups["fingerprint"]:
            repeated = sum(value in known.get(what, ()) for value in fingerprints)
            if repeated:
                rows.append((later, earlier, category, what, repeated, len(fingerprints)))
    return DataFrame(rows, columns=["split", "also_in", "category", "what", "repeated", "total"])
