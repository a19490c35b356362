"""What a CLIP makes of published tests of relations, and what an edit does to that."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from safeerase_lite.data.images import open_image
from safeerase_lite.utils import track

from . import clip
from .compositional import Example, read_examples
from .own_demo import load_on_device, load_own_edit
from .own_measures import share

_BATCH = 32  # records in one forward pass


@torch.no_grad()
def example_scores(model, examples: list[Example], folder: Path, label: str) -> np.ndarray:
    """Logits of each example's pictures and captions: (examples, pictures, 2)."""
    found = []
    starts = range(0, len(examples), _BATCH)
    for start in track(starts, label, len(starts)):
        batch = examples[start : start + _BATCH]
        images = [_open(folder / p, e.crop) for e in batch for p in e.pictures]
        of_images = clip.encode_images(model, clip.preprocess(model, images))
        of_texts = clip.encode_texts(model, [c for e in batch for c in e.captions])
        of_images = of_images.view(len(batch), -1, of_images.shape[-1])
        of_texts = of_texts.view(len(batch), 2, of_texts.shape[-1])
        pairs = zip(of_images, of_texts, strict=True)
        found.append(torch.stack([clip.scores(model, *pair) for pair in pairs]).double().cpu())
    return torch.cat(found).numpy()


def _open(path: Path, crop: tuple[float, float, float, float] | None) -> Image.Image:
    image = open_image(path)
    return image.crop(crop) if crop else image


def accuracies(scores: np.ndarray) -> dict[str, np.ndarray]:
    """Which examples are right, by measure, each (examples,) of bool; a tie is wrong.

    accuracy, with one picture: its caption beats the false one. With two (Thrush et al. 2022,
    section 3.2): *text score*, each picture's own caption beats the other; *image score*, each
    caption's own picture beats the other; *group score*, both.

    Args:
        scores: (examples, pictures, 2).
    """
    if scores.shape[1] == 1:
        return {"accuracy": scores[:, 0, 0] > scores[:, 0, 1]}
    first, second = scores[:, 0], scores[:, 1]
    text = (first[:, 0] > first[:, 1]) & (second[:, 1] > second[:, 0])
    image = (first[:, 0] > second[:, 0]) & (second[:, 1] > first[:, 1])
    return {"text score": text, "image score": image, "group score": text & image}


def read_test(name: str, folder: Path, model: str, edited: Path | None = None) -> pd.DataFrame:
    """What a CLIP makes of a published test, and what an edit of it does to that.

    Args:
        edited: the folder that `relations demo --pictures` made; None: the model alone.

    Returns:
        part (the file), measure, when (before, after), value, low, high (exact, 95%), n.
    """
    examples = read_examples(name, folder)
    loaded = load_own_edit(model, edited) if edited else load_on_device(model)
    score = partial(example_scores, examples=examples, folder=Path(folder))
    with clip.frozen(loaded):
        found = {"before": score(loaded, label=f"{name} read")}
    if edited:
        found["after"] = score(loaded, label=f"{name} read by the edit")
    parts, rows = np.array([example.part for example in examples]), []
    for when, scores in found.items():
        for measure, right in accuracies(scores).items():
            rows += [(p, measure, when, *share(right[parts == p])) for p in dict.fromkeys(parts)]
    return pd.DataFrame(rows, columns=["part", "measure", "when", "value", "low", "high", "n"])
