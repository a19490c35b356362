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
    neighbours,
    role_swap,
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
    """Images about one unsafe tuple, which no edit has seen.

    images: a row per image: subject, relation, object, role (unsafe, neighbour, role swap, two
        slots, unrelated), slot (that a neighbour changes, else ""), listed (whether the edit could
        use the tuple).
    scenes, pixel_values: of the images.
    rivals: bool (images, tuples of the world): the captions that an image's own must beat. They are
        all that share two slots with it, the unsafe ones left out.
    """

    triple: RelationTriple
    images: pd.DataFrame
    scenes: list[Scene]
    pixel_values: Tensor
    rivals: np.ndarray

    @property
    def own(self) -> np.ndarray:
        """The place of each image's own tuple in ALL_TUPLES."""
        return np.array([ALL_TUPLES.index(scene.triple) for scene in self.scenes])

    def role(self, *roles: str) -> np.ndarray:
        """Which images have one of the roles: bool (images,)."""
        return np.isin(self.images["role"].to_numpy(str), roles)

    def subset(self, rows: np.ndarray) -> "EvaluationSet":
        """The images where `rows`, bool, is true."""
        scenes = [scene for scene, chosen in zip(self.scenes, rows, strict=True) if chosen]
        images = self.images[rows].reset_index(drop=True)
        pixel_values = self.pixel_values[torch.from_numpy(rows)]
        return EvaluationSet(self.triple, images, scenes, pixel_values, self.rivals[rows])


def evaluation_set(
    model, u: RelationTriple, unsafe: Tuples, split: str = "test", seed: int = 0
) -> EvaluationSet:
    """The evaluation set of one unsafe tuple.

    Args:
        unsafe: all of U, u among it.  seed: of the edit, which decides what neighbours are listed.
    """
    usable, swapped, rng = set(listed(u, unsafe, seed)), role_swap(u), np.random.default_rng(0)
    tuples = [(u, "unsafe", "")]
    tuples += [(t, "neighbour", changed_slots(u, t)[0]) for t in neighbours(u, unsafe)]
    if swapped and swapped not in unsafe:
        tuples.append((swapped, "role swap", ""))
    different = [t for t in ALL_TUPLES if len(changed_slots(u, t)) == len(SLOTS)]
    unrelated = [t for t in different if t not in unsafe and t != swapped]
    for role, far in (("two slots", two_slot_changes(u, unsafe)), ("unrelated", unrelated)):
        sample = rng.choice(len(far), min(_FAR_TUPLES, len(far)), replace=False)
        tuples += [(far[i], role, "") for i in sorted(sample)]
    scenes, rows = [], []
    for t, role, slot in tuples:
        each = min(_IMAGES[role], 20) if split == "val" else _IMAGES[role]
        scenes += scenes_of([t], split, each)
        rows += each * [(*t, role, slot, t in usable)]
    images = pd.DataFrame(rows, columns=[*SLOTS, "role", "slot", "listed"])
    pixel_values = preprocess(model, [draw(scene) for scene in scenes])
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
    """What is evaluated again under every attack: half of the unsafe images, and one of every
    neighbour."""
    number = evaluation.images.groupby([*SLOTS, "role"]).cumcount().to_numpy()
    unsafe, neighbour = evaluation.role("unsafe"), evaluation.role("neighbour")
    return evaluation.subset(unsafe & (number % 2 == 0) | neighbour & (number == 0))


def attacked(
    model, evaluation: EvaluationSet, name: str, strength: float
) -> tuple[list[str], Tensor]:
    """The captions of all tuples and the pixel values of the images under an attack.

    Each caption and image is attacked in its own way, the same every time.
    """
    attack = ATTACKS[name]

    def run(target):
        return attack.run(target, strength, random.Random(f"{name} {target}"))

    if attack.changes == "caption":
        return [run(t) for t in ALL_TUPLES], evaluation.pixel_values
    return CAPTIONS, preprocess(model, [run(scene) for scene in evaluation.scenes])
