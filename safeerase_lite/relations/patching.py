"""Where in a CLIP a relation is read: activation patching, layer by layer.

Source: Meng et al. 2022, "Locating and Editing Factual Associations in GPT", on a CLIP's towers.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from . import clip
from .editing import EditedClip
from .scenes import draw, scenes_of
from .tuples import ALL_TUPLES, RelationTriple, Tuples
from .words import RELATIONS, caption


def patching(model, tuples: Tuples, split: str = "val") -> pd.DataFrame:
    """How far the output of one layer, at the token that is pooled, carries the relation.

    A tuple and the same with the next relation of the world: while the first is encoded, the output
    of one layer is replaced by that of the second.

    Returns:
        tower, layer (counted from 0), carried: of the change of the score's difference between the
        two that a whole exchange makes, the share that this layer's makes; mean over tuples.
    """
    pairs = [(u, _with_next_relation(u)) for u in tuples]
    encoded = [_encodings(model, *pair, split) for pair in pairs]
    rows = []
    for tower, layers in _layers(model).items():
        for number, layer in enumerate(layers):
            carried = [_carried(model, tower, layer, inputs) for inputs in encoded]
            rows.append((tower, number, float(np.mean(carried))))
    return pd.DataFrame(rows, columns=["tower", "layer", "carried"])


def _with_next_relation(u: RelationTriple) -> RelationTriple:
    place = RELATIONS.index(u.relation)
    other = u._replace(relation=RELATIONS[(place + 1) % len(RELATIONS)])
    assert other in ALL_TUPLES
    return other


def _layers(model) -> dict[str, nn.ModuleList]:
    return {t: getattr(model, f"{t}_model").encoder.layers for t in clip.TOWERS}


def _encodings(model, u, other, split: str) -> dict[str, tuple]:
    """For each tower: what it is given for the two, and the other tower's features of the two."""
    images = clip.preprocess(model, map(draw, scenes_of([u, other], split, 1)))
    texts = [caption(*u), caption(*other)]
    base = EditedClip(model)
    features = {"vision": base.encode_texts(texts), "text": base.encode_images(images)}
    return {"vision": (images, features["vision"]), "text": (texts, features["text"])}


@torch.no_grad()
def _carried(model, tower: str, layer: nn.Module, inputs: dict[str, tuple]) -> float:
    given, features = inputs[tower]
    base = EditedClip(model)
    encode = base.encode_images if tower == "vision" else base.encode_texts
    # What is pooled: the class token of a picture, its first; the end token of a text.
    places = [0, 0] if tower == "vision" else _ends(model, given)

    def difference() -> Tensor:
        return encode(given) @ (features[0] - features[1])

    plain = difference()
    with _exchanged(layer, *places):
        patched = difference()
    return ((plain[0] - patched[0]) / (plain[0] - plain[1])).item()


def _ends(model, texts: list[str]) -> list[int]:
    ids = model.processor.tokenizer(texts).input_ids
    return [len(row) - 1 for row in ids]


@contextmanager
def _exchanged(layer: nn.Module, first: int, second: int) -> Iterator[None]:
    """The first row's output at a token is the second row's, at its token."""

    def leave(_, __, output):
        states = (output[0] if isinstance(output, tuple) else output).clone()
        states[0, first] = states[1, second]
        return (states, *output[1:]) if isinstance(output, tuple) else states

    handle = layer.register_forward_hook(leave)
    try:
        yield
    finally:
        handle.remove()
