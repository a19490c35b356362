"""What an edit is evaluated on: images that no edit has seen, and their captions."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from .attacks import ATTACKS
from .clip import preprocess
from .editing import NEIGHBOUR_IMAGES, UNSAFE_IMAGES, listed, train_images
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

CAPTIONS = tuple(caption(*t) for t in ALL_TUPLES)
NOUN_CAPTIONS = tuple(noun_caption(noun) for noun in NOUNS)

# Images of a tuple, by its role; val has few scenes, so at most 20 there.
_IMAGES = {"unsafe": 40, "neighbour": 4, "role swap": 40, "two slots": 2, "unrelated": 2}
_FAR_TUPLES = 40  # of the roles "two slots" and "unrelated" each


@dataclass
class EvaluationSet:
    """Images about one unsafe tuple, which no edit has seen."""

    model: torch.nn.Module  # the base model, whose processor made the pixel values
    triple: RelationTriple
    # A row per image: subject, relation, object, role (unsafe, neighbour, role swap, two slots,
    # unrelated), slot (that a neighbour changes, else ""), listed (the edit could use the tuple).
    images: pd.DataFrame
    scenes: list[Scene]
    pixel_values: Tensor
    # The captions that an image's own must beat, bool (images, tuples of the world): all that share
    # two slots with it, the unsafe ones left out.
    rivals: np.ndarray
    # Pixel values from the train split: of the unsafe tuple, and of its listed neighbours.
    train_images: tuple[Tensor, Tensor]
    captions: Sequence[str] = CAPTIONS  # of every tuple of the world
    attack: str = ""

    def role(self, *roles: str) -> np.ndarray:
        """Which images have one of the roles: bool (images,)."""
        return np.isin(self.images["role"].to_numpy(str), roles)


def evaluation_set(
    model, u: RelationTriple, unsafe: Tuples, split: str = "test", seed: int = 0
) -> EvaluationSet:
    """The evaluation set of one unsafe tuple. unsafe: all of U, u among it.

    The seed is the edit's, which decides what neighbours are listed.
    """
    usable, rng = listed(u, unsafe, seed), np.random.default_rng(0)
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
    of_unsafe = train_images(model, [u], UNSAFE_IMAGES, seed)
    of_listed = train_images(model, usable, NEIGHBOUR_IMAGES, seed)
    return EvaluationSet(model, u, images, scenes, pixel_values, rivals, (of_unsafe, of_listed))


def share_two_slots(tuples: Tuples) -> np.ndarray:
    """Which tuples of the world share exactly two slots with each: bool (tuples, ALL_TUPLES)."""
    same = np.array(ALL_TUPLES)[None] == np.array(tuples)[:, None]
    return same.sum(-1) == 2


def among_all_tuples(tuples: Tuples) -> np.ndarray:
    """Which tuples of the world are given: bool (ALL_TUPLES,)."""
    return np.array([t in set(tuples) for t in ALL_TUPLES])


def attacked(evaluation: EvaluationSet, name: str, strength: float) -> EvaluationSet:
    """A part of an evaluation set under an attack, the same every time: half the unsafe images and
    one of each neighbour."""
    attack, images = ATTACKS[name], evaluation.images
    number = images.groupby([*SLOTS, "role"]).cumcount()
    unsafe, neighbour = images["role"] == "unsafe", images["role"] == "neighbour"
    rows = np.flatnonzero(unsafe & (number % 2 == 0) | neighbour & (number == 0))
    scenes = [evaluation.scenes[row] for row in rows]
    captions, pixel_values = CAPTIONS, evaluation.pixel_values[torch.from_numpy(rows)]

    def run(target):
        return attack.run(target, strength, random.Random(f"{name} {target}"))

    if attack.changes == "caption":
        captions = [run(t) for t in ALL_TUPLES]
    else:
        pixel_values = preprocess(evaluation.model, map(run, scenes))
    return replace(
        evaluation,
        images=images.iloc[rows],
        scenes=scenes,
        pixel_values=pixel_values,
        rivals=evaluation.rivals[rows],
        captions=captions,
        attack=name,
    )
