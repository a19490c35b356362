"""What an edit is evaluated on: images that no edit has seen, and their captions."""

import random
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from .attacks import ATTACKS
from .clip import preprocess
from .editing import listed
from .scenes import Scene, draw, scenes_of
from .tuples import (
    ALL_TUPLES,
    RelationTriple,
    Tuples,
    changed_slots,
    role_swap,
    roles,
    two_slot_changes,
)
from .words import NOUNS, SLOTS, caption, noun_caption

CAPTIONS = [caption(*t) for t in ALL_TUPLES]
NOUN_CAPTIONS = [noun_caption(noun) for noun in NOUNS]

# Images of a tuple, by its role; val has few scenes, so at most 20 there.
_IMAGES = {"unsafe": 40, "neighbour": 4, "role swap": 40, "two slots": 2, "unrelated": 2}
_FAR_TUPLES = 40  # of the roles "two slots" and "unrelated" each


@dataclass
class EvaluationSet:
    """Images about one unsafe tuple, which no edit has seen."""

    triple: RelationTriple
    # A row per image: subject, relation, object, role (unsafe, neighbour, role swap, two slots,
    # unrelated), slot (that a neighbour changes, else ""), listed (the edit could use the tuple).
    images: pd.DataFrame
    scenes: list[Scene]
    pixel_values: Tensor
    # The captions that an image's own must beat, bool (images, tuples of the world): all that share
    # two slots with it, the unsafe ones left out.
    rivals: np.ndarray

    def role(self, *roles: str) -> np.ndarray:
        """Which images have one of the roles: bool (images,)."""
        return np.isin(self.images["role"].to_numpy(str), roles)


def evaluation_set(
    model, u: RelationTriple, unsafe: Tuples, split: str = "test", seed: int = 0
) -> EvaluationSet:
    """The evaluation set of one unsafe tuple. unsafe: all of U, u among it.

    The seed is the edit's, which decides what neighbours are listed.
    """
    usable, rng = set(listed(u, unsafe, seed)), np.random.default_rng(0)
    tuples = roles(u, unsafe)
    different = [t for t in ALL_TUPLES if changed_slots(u, t) == SLOTS and t not in unsafe]
    unrelated = [t for t in different if t != role_swap(u)]
    for role, far in (("two slots", two_slot_changes(u, unsafe)), ("unrelated", unrelated)):
        sample = rng.choice(len(far), min(_FAR_TUPLES, len(far)), replace=False)
        tuples += [(far[i], role, "") for i in sorted(sample)]
    scenes, rows = [], []
    for t, role, slot in tuples:
        each = min(_IMAGES[role], 20) if split == "val" else _IMAGES[role]
        scenes += scenes_of([t], split, each)
        rows += each * [(*t, role, slot, t in usable)]
    images = pd.DataFrame(rows, columns=[*SLOTS, "role", "slot", "listed"])
    pixel_values = preprocess(model, map(draw, scenes))
    rivals = share_two_slots([scene.triple for scene in scenes]) & ~among_all_tuples(unsafe)
    return EvaluationSet(u, images, scenes, pixel_values, rivals)


def share_two_slots(tuples: Tuples) -> np.ndarray:
    """Which tuples of the world share exactly two slots with each: bool (tuples, ALL_TUPLES)."""
    same = np.array(ALL_TUPLES)[None] == np.array(tuples)[:, None]
    return same.sum(-1) == 2


def among_all_tuples(tuples: Tuples) -> np.ndarray:
    """Which tuples of the world are given: bool (ALL_TUPLES,)."""
    return np.array([t in set(tuples) for t in ALL_TUPLES])


def attacked_part(evaluation: EvaluationSet) -> EvaluationSet:
    """What is evaluated again under every attack: half the unsafe images, one of each neighbour."""
    number = evaluation.images.groupby([*SLOTS, "role"]).cumcount().to_numpy()
    unsafe, neighbour = evaluation.role("unsafe"), evaluation.role("neighbour")
    rows = np.flatnonzero(unsafe & (number % 2 == 0) | neighbour & (number == 0))
    return EvaluationSet(
        evaluation.triple,
        evaluation.images.iloc[rows].reset_index(drop=True),
        [evaluation.scenes[row] for row in rows],
        evaluation.pixel_values[torch.from_numpy(rows)],
        evaluation.rivals[rows],
    )


def attacked(
    model, evaluation: EvaluationSet, name: str, strength: float
) -> tuple[list[str], Tensor]:
    """All tuples' captions and the images' pixel values under an attack, the same every time."""
    attack = ATTACKS[name]

    def run(target):
        return attack.run(target, strength, random.Random(f"{name} {target}"))

    if attack.changes == "caption":
        return [run(t) for t in ALL_TUPLES], evaluation.pixel_values
    return CAPTIONS, preprocess(model, map(run, evaluation.scenes))
