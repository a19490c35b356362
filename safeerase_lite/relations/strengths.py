"""How strong an attack is: so strong that the base model still reads 90, 75 or 50% of the tuples.

So attacks can be compared: each takes as much from a model that was never edited. They are set on
val pictures; nothing is ever set on test.
"""

import random
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from safeerase_lite.relations.attacks import ATTACKS
from safeerase_lite.relations.clip import load_clip, pixels
from safeerase_lite.relations.data import scenes_of
from safeerase_lite.relations.editing import Edited
from safeerase_lite.relations.exam import CAPTIONS, TUPLES, share_two
from safeerase_lite.relations.measures import wins
from safeerase_lite.relations.scenes import draw
from safeerase_lite.tinyworld import ASSETS
from safeerase_lite.utils import UserError

LEFT = (0.9, 0.75, 0.5)
FILE = ASSETS / "tiny-clip" / "strengths.csv"
_PICTURES = 300
_HALVINGS = 8


def table(path: Path = FILE) -> pd.DataFrame:
    """attack, left (the share of tuples the base model should still read), strength, read (what it
    does read, on val). An attack that never takes so much has its full strength, 1."""
    return pd.read_csv(path)


def attacks(left: Iterable[float] = LEFT) -> list[tuple[str, float]]:
    """(attack, strength) for every attack that leaves the base model one of these shares.

    Raises:
        UserError: strengths were not set for such a share.
    """
    left, chosen = list(left), table()
    for share in left:
        if share not in LEFT:
            raise UserError(f"no strengths leave {share}: choose among {', '.join(map(str, LEFT))}")
    chosen = chosen[chosen["left"].isin(left)]
    return list(chosen[["attack", "strength"]].itertuples(index=False, name=None))


def calibrate(model: str = "tiny-clip") -> pd.DataFrame:
    """The table, by halving strength until the base model reads what it should. A minute or two."""
    clip = load_clip(model)
    rows = []
    for name in ATTACKS:
        for left in LEFT:
            strength = _strength(clip, name, left)
            rows.append((name, left, strength, base_accuracy(clip, name, strength)))
    found = pd.DataFrame(rows, columns=["attack", "left", "strength", "read"])
    return found.drop_duplicates(["attack", "strength"], ignore_index=True)


def _strength(clip, name: str, left: float) -> float:
    if base_accuracy(clip, name, 1.0) > left:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if base_accuracy(clip, name, middle) > left else (low, middle)
    return round(high, 3)


def base_accuracy(clip, name: str, strength: float, split: str = "val") -> float:
    """The share of pictures whose own caption beats all that share two slots with it, under an
    attack. A picture of each of 300 tuples of the world."""
    attack, edited = ATTACKS[name], Edited(clip)
    chosen = random.Random(0).sample(range(len(TUPLES)), _PICTURES)
    scenes = scenes_of([TUPLES[i] for i in chosen], split, 1)
    captions, pictures = CAPTIONS, [draw(scene) for scene in scenes]
    if attack.changes == "caption":
        captions = [attack.run(t, strength, random.Random(f"{name} {t}")) for t in TUPLES]
    else:
        pictures = [attack.run(s, strength, random.Random(f"{name} {s}")) for s in scenes]
    scores = edited.scores(edited.look(pixels(clip, pictures)), edited.read(captions)).numpy()
    return float(np.mean(wins(scores, np.array(chosen), share_two([TUPLES[i] for i in chosen]))))
