"""Which questions a step trains on: a function of the seed and the step alone.

So a resumed run samples the same batches, and two processes agree without communication.
"""

import math
import random
from functools import lru_cache
from itertools import cycle

import pandas as pd

from safeerase_lite.config import Config
from safeerase_lite.data.dataset import Data

from .objectives import OBJECTIVES


class BatchSampler:
    """The batches of a run.

    Forget and retain questions come in shuffled epochs. With PD or its placebo, each forget
    question brings its partner: the question at the same place of the same record, about the
    record's safe picture (the official code takes a random record's).
    """

    def __init__(self, data: Data, config: Config):
        self.needs = OBJECTIVES[config.objective].needs
        self.seed, self.batch = config.seed, config.batch
        self.refusals = data.refusals
        self.forget = _train(data.forget)
        self.retain = _train(data.retain)
        self.partners = None
        if config.decouple != "none":
            table = {"pd": data.decouple, "placebo": data.placebo}[config.decouple]
            table = _share_of_records(_train(table), config.decouple_share)
            table = _some_kinds(table, config.decouple_kinds, config.seed)
            self.partners = _partners(self.forget, table)

    def batch_at(self, step: int) -> dict[str, pd.DataFrame]:
        """group (forget, refuse, retain, decouple) → a table of image, question and answer."""
        chosen = self._epoch("forget", len(self.forget), step)
        groups = {"forget": self.forget.iloc[chosen]}
        if "refuse" in self.needs:
            rng = random.Random(f"refuse {self.seed} {step}")
            answers = [rng.choice(self.refusals) for _ in chosen]
            groups["refuse"] = groups["forget"].assign(answer=answers)
        if "retain" in self.needs:
            groups["retain"] = self.retain.iloc[self._epoch("retain", len(self.retain), step)]
        if self.partners is not None:
            groups["decouple"] = self.partners.iloc[chosen]
        return {name: table for name, table in groups.items() if name in (*self.needs, "decouple")}

    def _epoch(self, name: str, size: int, step: int) -> list[int]:
        """The places of a step's questions, each epoch in an order of its own."""
        chosen = []
        for position in range(step * self.batch, (step + 1) * self.batch):
            epoch, index = divmod(position, size)
            chosen.append(_shuffled(f"{name} {self.seed} {epoch}", size)[index])
        return chosen


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
    """For each forget question its partner; where its record has none, any other's."""

    def places(questions):
        return pd.MultiIndex.from_arrays(
            [questions["record"], questions.groupby("record").cumcount()]
        )

    matches = places(table).get_indexer(places(forget))
    spare = cycle(_shuffled("spare", len(table)))
    return table.iloc[[match if match >= 0 else next(spare) for match in matches]]
