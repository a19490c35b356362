"""What an edit is asked: pictures that no edit has seen, and the captions they are held against."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from safeerase_lite.relations.attacks import ATTACKS
from safeerase_lite.relations.clip import pixels
from safeerase_lite.relations.data import scenes_of
from safeerase_lite.relations.editing import NOUNS, TUPLES, listed
from safeerase_lite.relations.scenes import Scene, draw
from safeerase_lite.relations.tuples import ORO, neighbours, role_swap, two_slot_changes
from safeerase_lite.relations.words import SLOTS, SYNONYMS, caption, noun_caption, others

# Pictures of a tuple, by the role it has in the exam; val has few, so at most 20.
PICTURES = {"unsafe": 40, "neighbour": 4, "role swap": 40, "two slots": 2, "unrelated": 2}
_TWO_SLOTS, _UNRELATED = 40, 40  # tuples


@dataclass
class Exam:
    """Pictures about one unsafe tuple.

    pictures: a row per picture: subject, relation, object, role (unsafe, neighbour, role swap, two
        slots, unrelated), slot (that a neighbour changes, else ""), listed (whether the edit was
        told of it).
    scenes, pixels: the pictures.
    rivals: bool (pictures, tuples of the world): the captions that a picture's own must beat: all
        that share two slots with it, the unsafe ones left out.
    """

    shown: ORO
    pictures: pd.DataFrame
    scenes: list[Scene]
    pixels: Tensor
    rivals: np.ndarray

    @property
    def truth(self) -> np.ndarray:
        """For each picture the place of its tuple among those of the world."""
        return np.array([TUPLES.index(t) for t in _shown(self.pictures)])

    @property
    def asked(self) -> np.ndarray:
        """Which tuples' captions are asked about any picture: bool (tuples of the world,)."""
        asked = self.rivals.any(0)
        asked[self.truth] = True
        return asked

    def where(self, role: str) -> np.ndarray:
        return (self.pictures["role"] == role).to_numpy()

    def under_attack(self) -> "Exam":
        """The part that is asked again under every attack: half of the unsafe pictures, and one of
        every neighbour."""
        turn = self.pictures.groupby([*SLOTS, "role"]).cumcount()
        role = self.pictures["role"]
        here = (
            (role == "unsafe") & (turn % 2 == 0) | (role == "neighbour") & (turn == 0)
        ).to_numpy()
        return Exam(
            self.shown,
            self.pictures[here].reset_index(drop=True),
            [scene for scene, mine in zip(self.scenes, here, strict=True) if mine],
            self.pixels[torch.from_numpy(here.copy())],
            self.rivals[here],
        )


CAPTIONS = [caption(*t) for t in TUPLES]
NOUN_CAPTIONS = [noun_caption(noun) for noun in NOUNS]


def exam(model, u: ORO, unsafe: Sequence[ORO], split: str = "test", seed: int = 0) -> Exam:
    """The exam of one unsafe tuple.

    Args:
        unsafe: all of U, u among it.  seed: of the edit: it says which neighbours were listed.
    """
    told = set(listed(u, unsafe, seed))
    roles = [(u, "unsafe", "")]
    roles += [(t, "neighbour", slot) for slot in SLOTS for t in neighbours(u, unsafe, [slot])]
    swapped = role_swap(u)
    if swapped and swapped not in unsafe:
        roles.append((swapped, "role swap", ""))
    rng = np.random.default_rng(0)
    far = two_slot_changes(u, unsafe)
    unrelated = [t for t in TUPLES if not _shared(t, u) and t not in unsafe and t != swapped]
    for role, tuples, count in (
        ("two slots", far, _TWO_SLOTS),
        ("unrelated", unrelated, _UNRELATED),
    ):
        chosen = rng.choice(len(tuples), min(count, len(tuples)), replace=False)
        roles += [(tuples[i], role, "") for i in sorted(chosen)]
    scenes, rows = [], []
    for shown, role, slot in roles:
        each = min(PICTURES[role], 20) if split == "val" else PICTURES[role]
        for scene in scenes_of([shown], split, each):
            scenes.append(scene)
            rows.append((*shown, role, slot, shown in told))
    pictures = pd.DataFrame(rows, columns=[*SLOTS, "role", "slot", "listed"])
    shown = pixels(model, [draw(scene) for scene in scenes])
    return Exam(u, pictures, scenes, shown, _rivals(pictures, unsafe))


def _shared(a: ORO, b: ORO) -> int:
    return sum(x == y for x, y in zip(a, b, strict=True))


def _shown(pictures: pd.DataFrame) -> list[ORO]:
    return [ORO(*row) for row in pictures[list(SLOTS)].itertuples(index=False)]


def _rivals(pictures: pd.DataFrame, unsafe: Sequence[ORO]) -> np.ndarray:
    return share_two(_shown(pictures)) & ~np.array([t in set(unsafe) for t in TUPLES])


def share_two(shown: Sequence[ORO]) -> np.ndarray:
    """Whether a tuple of the world differs from a shown one in one slot: bool (shown, tuples)."""
    same = np.array(TUPLES)[None] == np.array(shown)[:, None]
    return same.sum(-1) == 2


def attacked(model, sheet: Exam, name: str, strength: float) -> tuple[list[str], Tensor]:
    """The captions of all tuples and the pixels of the exam's pictures under an attack; each
    caption and picture is attacked in its own way, the same every time."""
    attack = ATTACKS[name]
    if attack.changes == "caption":
        said = [attack.run(t, strength, random.Random(f"{name} {t}")) for t in TUPLES]
        return said, sheet.pixels
    seen = [attack.run(s, strength, random.Random(f"{name} {s}")) for s in sheet.scenes]
    return CAPTIONS, pixels(model, seen)


def unlisted(u: ORO) -> list[tuple[str, str, tuple[str, str, str]]]:
    """Other captions of the same tuple, one word of each another word: (synonym or hypernym, slot,
    words)."""
    found = []
    for place, slot in enumerate(SLOTS):
        for word in others(u[place], slot):
            kind = "synonym" if word in SYNONYMS else "hypernym"
            found.append((kind, slot, (*u[:place], word, *u[place + 1 :])))
    return found
