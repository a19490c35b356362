"""Which questions are put to a model to look inside it."""

import random
from collections.abc import Sequence

import pandas as pd

from safeerase_lite.data.dataset import Data
from safeerase_lite.utils import UserError

PICTURES, QUESTIONS = ("hazard", "safe"), ("template", "ordinary")


def crossed(data: Data, size: int, seed: int) -> dict[str, pd.DataFrame]:
    """The 2×2 of training: `size` hazards' and as many safe pictures, each asked `size` templates
    and as many ordinary questions, in four tables of image, question and answer.

    The cells of a row share their pictures and those of a column their questions, so two cells
    differ in nothing else. "hazard, template" holds forget questions with their answers; of the
    other three cells replace the answers (`refusing`).

    Raises:
        UserError: train has no decouple pairs, so no safe pictures.
    """
    tables = {"hazard": data.forget, "safe": data.decouple, "ordinary": data.retain}
    tables = {name: table[table["split"] == "train"] for name, table in tables.items()}
    if empty := [name for name, table in tables.items() if table.empty]:
        raise UserError(f"{data.root.name}: train has no {empty[0]} questions: the 2×2 needs them")
    drawn = {
        name: table.sample(size, random_state=seed, replace=len(table) < size, ignore_index=True)
        for name, table in tables.items()
    }
    asked = {"template": drawn["hazard"], "ordinary": drawn["ordinary"]}
    return {
        f"{picture}, {question}": pd.DataFrame(
            {"image": drawn[picture]["image"], "question": asked[question]["question"],
             "answer": asked[question]["answer"]}
        )
        for picture in PICTURES for question in QUESTIONS
    }  # fmt: skip


def of_other_pictures(table: pd.DataFrame, pool: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The same questions and answers about pictures of a pool that the table does not show."""
    others = pool.loc[~pool["image"].isin(table["image"]), "image"].drop_duplicates()
    if others.empty:
        raise UserError("every picture of the pool is in the table: draw fewer questions")
    drawn = others.sample(len(table), random_state=seed, replace=len(others) < len(table))
    return table.assign(image=drawn.to_numpy())


def refusing(table: pd.DataFrame, refusals: Sequence[str], seed: int = 0) -> pd.DataFrame:
    """The same questions, answered by refusals drawn at random (*idk*); tables of one length get
    the same refusals, row by row."""
    rng = random.Random(f"refusing {seed}")
    return table.assign(answer=[rng.choice(refusals) for _ in range(len(table))])


def shuffled_words(table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """The same questions, the words of each answer in a random order: a control."""
    rng = random.Random(f"shuffled words {seed}")
    texts = [answer.split() for answer in table["answer"]]
    return table.assign(answer=[" ".join(rng.sample(words, len(words))) for words in texts])


def probes(
    data: Data, split: str, *, pictures: int = 1, kinds: int = 32
) -> dict[str, pd.DataFrame]:
    """A question for each picture of the first so many pictures of the first so many kinds.

    Returns:
        group → a table with the column `set`: "hazard" (requested ones, a template), "safe" (kinds
        that PD has seen, a template) and "ordinary" (an ordinary question about a hazard).
    """
    tables = {
        "hazard": data.forget.assign(set="forget"),
        "safe": data.decouple.assign(set="decouple"),
        "ordinary": data.retain.assign(set="retain"),
    }
    groups = {}
    for name, table in tables.items():
        table = table[table["split"] == split]
        if "seen_kind" in table:
            table = table[table["seen_kind"] & table["seen_template"]]
        # Another question for each picture, so that none stands for all of them.
        numbers = table.groupby("image", sort=False).ngroup()
        places = table.groupby("image").cumcount()
        table = table[places == numbers % table.groupby("image")["image"].transform("size")]
        of_kind = table.groupby("kind", dropna=False)
        groups[name] = table[(of_kind.cumcount() < pictures) & (of_kind.ngroup() < kinds)]
    return {name: table.reset_index(drop=True) for name, table in groups.items()}
