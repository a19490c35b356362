"""Splits of one heap of records, what train and val then share; and two intervals for a share."""

import random
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from scipy.stats import binomtest

from safeerase_lite.data.audit import check_data
from safeerase_lite.data.dataset import Data, read_data
from safeerase_lite.evaluation.statistics import bounded_interval, resample
from safeerase_lite.tinyworld.facts import kinds
from safeerase_lite.tinyworld.world import World, scene, write_world

from .leaks import write_folder

Split = dict[str, list[dict]]


def safe_kind(record: dict) -> str:
    """What the safe picture shows; without a name for it, the picture itself."""
    return record.get("SDkeyword") or record.get("SDImage_path")


def at_random(records: list[dict], seed: int = 0) -> Split:
    """A fifth of the records to val, by chance."""
    shuffled = random.Random(seed).sample(records, len(records))
    return {"train": shuffled[len(records) // 5 :], "val": shuffled[: len(records) // 5]}


def by_safe_kind(records: list[dict], seed: int = 0) -> Split:
    """A fifth of the safe kinds to val, with all their records."""
    named = sorted({safe_kind(record) for record in records})
    held = set(random.Random(seed).sample(named, max(1, len(named) // 5)))
    return {
        "train": [record for record in records if safe_kind(record) not in held],
        "val": [record for record in records if safe_kind(record) in held],
    }


def in_common(data: Data, splits: Split) -> dict[str, str]:
    """What train and val share: repeats by the package's check; categories, kinds and templates."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = write_folder(data, Path(temporary) / "mine", **splits)
        leaks, those = check_data(folder).leaks["repeated"].sum(), read_data(folder)
    shared = {"leaks found": leaks}
    for name, table, column in (
        ("categories", those.forget, "category"),
        ("safe kinds", those.decouple, "kind"),
        ("hazards", those.forget, "kind"),
        ("templates", those.forget, "question"),
    ):
        train, val = (set(table.loc[table["split"] == split, column]) for split in splits)
        shared[name] = f"{len(train & val)} of {len(train | val)}"
    return shared


def a_part_of_every_category(records: list[dict], seed: int = 0) -> tuple[set[str], set[str]]:
    """A quarter of the hazards and of the safe kinds of every category, to be held out."""
    rng, held = random.Random(seed), (set(), set())
    for category in sorted({record["category"] for record in records}):
        here = [record for record in records if record["category"] == category]
        named = {record["keyword"] for record in here}, {safe_kind(record) for record in here}
        for names, all_of_them in zip(held, named, strict=True):
            names |= set(rng.sample(sorted(all_of_them), max(1, len(all_of_them) // 4)))
    return held


def sides(records: list[dict], hazards: Iterable[str], safe: Iterable[str]) -> dict[str, int]:
    """How many records fit in train, in val or in neither when these kinds are held out: a record
    has a hazard and a safe kind, and one may be held out while the other is not."""
    hazards, safe = set(hazards), set(safe)
    held = [(record["keyword"] in hazards, safe_kind(record) in safe) for record in records]
    return {
        "train": held.count((False, False)),
        "val": held.count((True, True)),
        "neither": held.count((True, False)) + held.count((False, True)),
    }


# ---- intervals ----


def by_answer(rows: pd.DataFrame) -> tuple[float, float]:
    """Wilson's 95% interval, which takes every answer for an independent witness."""
    found = binomtest(int(rows["right"].sum()), len(rows)).proportion_ci(method="wilson")
    return found.low, found.high


def by_kind(rows: pd.DataFrame, seed: int = 0) -> tuple[float, float]:
    """A 95% interval that resamples kinds and templates, with pictures inside their kind."""
    return bounded_interval(rows["right"].to_numpy(float), resample(rows, seed=seed))


def many_pictures(config, pictures: int, folder: Path) -> pd.DataFrame:
    """The decouple questions of val about new safe kinds, in a world with so many pictures of each,
    numbered within their kind."""
    many = World(config.world_seed, config.cue, train_pictures=1, eval_pictures=pictures,
                 side=config.picture_size)  # fmt: skip
    rows = read_data(write_world(many, folder)).decouple
    rows = rows[(rows["split"] == "val") & ~rows["seen_kind"]]
    number = rows.groupby("kind")["image"].transform(lambda image: pd.factorize(image)[0])
    return rows.assign(number=number)


def halves_held(answers: pd.DataFrame, intervals: dict, halves: int, seed: int = 0) -> pd.Series:
    """In how many random halves of the kinds each interval holds the other half's share."""
    names, within = sorted(answers["kind"].unique()), dict.fromkeys(intervals, 0)
    rng = random.Random(seed)
    for _ in range(halves):
        half = answers["kind"].isin(rng.sample(names, len(names) // 2))
        for name, interval in intervals.items():
            low, high = interval(answers[half])
            within[name] += low <= answers.loc[~half, "right"].mean() <= high
    return pd.Series(within)


def interval_widths(answers: pd.DataFrame, intervals: dict, counts=(1, 2, 4, 8)) -> pd.DataFrame:
    """Each interval of the share right, from so many pictures of every kind (column `number`)."""
    rows = []
    for count in counts:
        some = answers[answers["number"] < count]
        for name, interval in intervals.items():
            ends = dict(zip(("low", "high"), interval(some), strict=True))
            value = some["right"].mean()
            rows.append({"pictures per kind": str(count), "interval": name, "value": value, **ends})
    return pd.DataFrame(rows)


# ---- what is held out ----


def seen_and_new(data: Data) -> pd.DataFrame:
    """How many kinds and templates train shows, and how many are in val alone; of an invented world
    the first eight by name."""

    def listed(names: set[str]) -> str:
        shown = ", ".join(sorted(names)[:8]) if data.invented else ""
        more = ", …" if shown and len(names) > 8 else ""
        return f"{len(names)}: {shown}{more}" if shown else str(len(names))

    columns = {}
    for title, table, column in (
        ("hazards (forget)", data.forget, "kind"),
        ("safe objects (decouple)", data.decouple, "kind"),
        ("templates", data.forget, "question"),
    ):
        known, val = (set(table.loc[table["split"] == s, column]) for s in ("train", "val"))
        columns[title] = {"in train": listed(known), "new in val": listed(val - known)}
    return pd.DataFrame(columns)


def dealt_twice(splits: Iterable[str], scenes: int = 200, seed: int = 0) -> tuple[int, int, int]:
    """Of so many scenes of every kind for every split: how many were drawn, how many combinations
    of kind, colour, place and background they have, and how many of these are in two splits."""
    rng = random.Random(seed)
    drawn = [
        (scene(kind, split, 1.0, rng).combination, split)
        for kind in kinds()
        for split in splits
        for _ in range(scenes)
    ]
    different, dealt = {combination for combination, _ in drawn}, set(drawn)
    return len(drawn), len(different), len(dealt) - len(different)
