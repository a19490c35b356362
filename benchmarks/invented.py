"""Data of the benchmark's shape, of noise and of random words of the tiny world."""

import random
from pathlib import Path

import pandas as pd
from PIL import Image

from safeerase_lite.data.dataset import Data
from safeerase_lite.tinyworld import facts

QUESTIONS, WORDS = 4, 140  # of each set about a picture, and of each answer


def invented_data(folder: Path, records: int) -> Data:
    """Pictures of noise, harmful and safe, with invented questions and answers; train alone."""
    rng, words = random.Random(0), sorted(facts.words())

    def sentence(length: int) -> str:
        return " ".join(rng.choice(words) for _ in range(length))

    def table(name: str) -> pd.DataFrame:
        rows = []
        for record in range(records):
            image = folder / f"{name}-{record}.png"
            Image.frombytes("RGB", (336, 336), rng.randbytes(336 * 336 * 3)).save(image)
            rows += [(record, str(image), sentence(14), sentence(WORDS)) for _ in range(QUESTIONS)]
        table = pd.DataFrame(rows, columns=["record", "image", "question", "answer"])
        return table.assign(split="train", category="none", kind=name)

    def others(questions: pd.Series) -> list[str]:
        return [sentence(len(question.split())) for question in questions]

    forget = table("harmful")
    retain = forget.assign(question=others(forget["question"]), answer=others(forget["answer"]))
    safe, empty = table("safe").assign(question=forget["question"]), forget.iloc[:0]
    return Data(folder, forget, retain, safe, empty, empty, [sentence(WORDS)], digest="made up")
