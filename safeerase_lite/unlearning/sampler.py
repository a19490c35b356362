"""Which pictures and questions a step trains on: a function of the seed and the step alone.

So a resumed run samples the same batches, and two processes agree without communication.
"""

import math
import random
from collections.abc import Iterable
from functools import lru_cache
from itertools import cycle

import pandas as pd

from safeerase_lite.config import Config
from safeerase_lite.data.dataset import Data

from .objectives import OBJECTIVES


class BatchSampler:
    """The batches of a run.

    Pictures come in shuffled epochs, each with every forget question and every retain question
    about it. With PD or its placebo, a forget question brings its partner: the question at the same
    place of the same record, about the record's safe picture (the official code takes a random
    record's). An objective without pictures asks in words about the same objects.
    """

    def __init__(self, data: Data, config: Config):
        objective = OBJECTIVES[config.objective]
        self.needs, self.in_words = objective.needs, not objective.pictures
        self.seed, self.pictures = config.seed, config.pictures
        self.refusals = data.refusals
        self.forget = _train(data.forget)
        self.retain = _train(data.retain)
        self.partners = None
        if config.decouple != "none":
            table = {"pd": data.decouple, "placebo": data.placebo}[config.decouple]
            table = _share_of_records(_train(table), config.decouple_share)
            table = _some_kinds(table, config.decouple_kinds, config.seed)
            self.partners = _partners(self.forget, table)
        only_retain = self.needs == ("retain",) and self.partners is None
        self.shown = (self.retain if only_retain else self.forget)["image"].unique()
        self.questions = {
            "forget": self.forget.groupby("image").indices,
            "retain": _with_spares(self.retain.groupby("image").indices, self.shown),
        }

    def batch_at(self, step: int) -> dict[str, pd.DataFrame]:
        """group (forget, refuse, retain, decouple) → a table of image, question, answer and `turn`,
        the number of the picture in the step that brings the question."""
        images = self._epoch(step)
        groups, (forget, turns) = {}, self._about(images, "forget")
        groups["forget"] = self.forget.iloc[forget].assign(turn=turns)
        if "refuse" in self.needs:
            rng = random.Random(f"refuse {self.seed} {step}")
            answers = [rng.choice(self.refusals) for _ in forget]
            groups["refuse"] = groups["forget"].assign(answer=answers)
        if "retain" in self.needs:
            retain, of_retain = self._about(images, "retain")
            groups["retain"] = self.retain.iloc[retain].assign(turn=of_retain)
        if self.partners is not None:
            groups["decouple"] = self.partners.iloc[forget].assign(turn=turns)
        if self.in_words:
            groups |= {name: _in_words(groups[name]) for name in self.needs}
        return {name: table for name, table in groups.items() if name in (*self.needs, "decouple")}

    def answers_to_come(self, group: str, steps: int) -> pd.DataFrame:
        """Every question and answer of a group that these steps may train on."""
        if group == "refuse":  # whose answers are drawn step by step
            return pd.concat([self.batch_at(step)[group] for step in range(steps)])
        table = {"forget": self.forget, "retain": self.retain}[group]
        return _in_words(table) if self.in_words else table

    def _epoch(self, step: int) -> list[str]:
        """The pictures of a step, each epoch in an order of its own."""
        chosen = []
        for position in range(step * self.pictures, (step + 1) * self.pictures):
            epoch, index = divmod(position, len(self.shown))
            order = _shuffled(f"pictures {self.seed} {epoch}", len(self.shown))
            chosen.append(self.shown[order[index]])
        return chosen

    def _about(self, images: list[str], group: str) -> tuple[list[int], list[int]]:
        """The places of a group's questions about pictures, and each question's turn."""
        asked = [
            (place, turn)
            for turn, image in enumerate(images)
            for place in self.questions[group].get(image, ())
        ]
        return [place for place, _ in asked], [turn for _, turn in asked]


def _in_words(table: pd.DataFrame) -> pd.DataFrame:
    """The questions without their picture. They name the object, which their words alone do not
    tell."""
    return table.assign(image="", question=table["kind"] + ": " + table["question"])


def _with_spares(questions: dict, wanted: Iterable) -> dict:
    """The places of questions by what is wanted (pictures, records); one without has another's."""
    spare = cycle(questions.values())
    return {one: questions[one] if one in questions else next(spare, ()) for one in wanted}


@lru_cache(maxsize=8)
def _shuffled(seed: str, size: int) -> tuple[int, ...]:
    order = list(range(size))
    random.Random(seed).shuffle(order)
    return tuple(order)


def _train(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["split"] == "train"].reset_index(drop=True)


def _share_of_records(table: pd.DataFrame, share: float) -> pd.DataFrame:
    """That share of each kind's records, at least one. A larger share contains a smaller one."""
    records = table.groupby("kind")["record"]
    return table[records.rank("dense") <= (share * records.transform("nunique")).map(math.ceil)]


def _some_kinds(table: pd.DataFrame, number: int | None, seed: int) -> pd.DataFrame:
    """The questions of so many kinds (None: of all). A larger number contains a smaller one."""
    kinds = sorted(table["kind"].unique())
    order = _shuffled(f"kinds {seed}", len(kinds))
    return table[table["kind"].isin([kinds[i] for i in order[:number]])]


def _partners(forget: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """For each forget question its partner; a record without any has another record's."""
    partners = _with_spares(table.groupby("record").indices, forget["record"].unique())
    numbers = forget.groupby("record").cumcount()
    places = [
        partners[record][number % len(partners[record])]
        for record, number in zip(forget["record"], numbers, strict=True)
    ]
    return table.iloc[places]
