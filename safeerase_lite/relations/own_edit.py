"""The edit of a CLIP on a user's own pictures: the unsafe caption fits as if it were unknown.

    L = forget + λm · hold(nouns) + λn · hold(all other captions)

A score is the model's logit of a picture and a caption, frozen or edited. Our reading of
Relationship-Aware Safety Unlearning (arXiv 2603.14185), where we could read no formula.
"""

import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import pandas as pd
import torch
from torch import Tensor

from safeerase_lite.data.images import open_image

from . import clip
from .objectives import forget, hold
from .own_pictures import OwnPictures, near
from .tuples import RelationTriple

WORDINGS = ("a photo of {s} {r} {o}", "{s} {r} {o}", "a picture showing {s} {r} {o}")
HELD_OUT_WORDING = "in this photo there is {s} {r} {o}"  # no edit reads it
NOUN_WORDINGS = ("a photo of {s}", "{s}", "a picture showing {s}")
_PICTURES_IN_MEMORY = 512  # prepared for the model, 0.6 MB each
_REPORTS = 10  # lines of progress


# ---- what the loss aims at ----


def unknown_scores(safe: Tensor, elsewhere: Tensor) -> Tensor:
    """What an unknown caption would score on each unsafe picture: (n,).

    The mean of its safe neighbours' captions there, shifted by a constant so that its level is the
    one that the unsafe caption has on pictures which it nearly fits, and does not.

    Args:
        safe: frozen scores of unsafe pictures and safe neighbours' captions, (n, captions).
        elsewhere: frozen scores of neighbours' pictures and the unsafe caption, (pictures,).
    """
    level = safe.mean(-1)
    return level - level.mean() + elsewhere.mean()


# ---- every number of an edit ----


@dataclass(frozen=True)
class OwnSettings:
    """How a CLIP is edited on a user's own pictures.

    Guesses: no published checkpoint was at hand to tune them on. Look at the losses.
    """

    rank: int = 8  # of LoRA, as alpha, on both towers
    alpha: int = 16
    marginal_weight: float = 1.0  # λm
    neighbour_weight: float = 4.0  # λn
    learning_rate: float = 5e-4  # of AdamW, with a cosine schedule
    steps: int = 200
    batch_size: int = 8  # unsafe pictures in a step, and as many safe ones
    captions: int = 32  # of safe tuples in a step, half of them neighbours of the unsafe one
    nouns: int = 16  # in a step


# ---- captions ----


def own_caption(t: RelationTriple, wording: str = WORDINGS[0]) -> str:
    """A tuple's caption, its words as the user wrote them."""
    return wording.format(s=t.subject, r=t.relation, o=t.object)


def candidates(own: OwnPictures) -> list[RelationTriple]:
    """The tuples whose captions compete: the unsafe ones, what the pictures show, and each unsafe
    tuple with every other relation of the folder and with its roles exchanged."""
    relations = dict.fromkeys(own.table["relation"])
    tuples = dict.fromkeys((*own.unsafe, *own.shown))
    for u in own.unsafe:
        tuples |= dict.fromkeys(u._replace(relation=relation) for relation in relations)
        if u.subject != u.object:
            tuples[RelationTriple(u.object, u.relation, u.subject)] = None
    return list(tuples)


def nouns(own: OwnPictures) -> list[str]:
    """Every subject and object of the folder."""
    return sorted({*own.table["subject"], *own.table["object"]})


@lru_cache(maxsize=_PICTURES_IN_MEMORY)
def _pixels(processor, path: str) -> Tensor:
    return processor(images=[open_image(path)], return_tensors="pt")["pixel_values"]


def pixels(model, own: OwnPictures, rows: Sequence[int]) -> Tensor:
    """The pixel values of pictures: (pictures, 3, side, side)."""
    paths = [str(own.folder / own.table["file_name"].iloc[row]) for row in rows]
    processor = model.processor.image_processor
    return torch.cat([_pixels(processor, path) for path in paths])


# ---- the edit ----


_print_now = partial(print, flush=True)


def edit_own(
    model,
    own: OwnPictures,
    features: Tensor,
    settings: OwnSettings,
    *,
    seed: int = 0,
    echo: Callable[[str], None] = _print_now,
) -> tuple[torch.nn.Module, pd.DataFrame]:
    """Edit a CLIP on the pictures to train on.

    Args:
        features: of every picture, by the frozen model, (pictures, width).

    Returns:
        The CLIP with its adapter, and a row per step: step, tuple, loss, and the unweighted terms
        forget, nouns, captions.
    """
    rng = random.Random(f"own edit {seed}")
    texts = _FrozenTexts.of(model, own)
    model = clip.adapt(model, rank=settings.rank, alpha=settings.alpha, seed=seed)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    weights = {
        "forget": 1.0,
        "nouns": settings.marginal_weight,
        "captions": settings.neighbour_weight,
    }
    history, begin = [], time.perf_counter()
    for step in range(settings.steps):
        u = own.unsafe[step % len(own.unsafe)]
        terms = _loss_terms(model, own, features, texts, u, settings, rng)
        loss = sum(weights[name] * term for name, term in terms.items())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        values = {name: term.item() for name, term in terms.items()}
        history.append({"step": step, "tuple": str(u), "loss": loss.item()} | values)
        done = step + 1
        if done in (1, settings.steps) or done % max(1, settings.steps // _REPORTS) == 0:
            left = (time.perf_counter() - begin) / done * (settings.steps - done)
            shown = ", ".join(f"{name} {value:.3g}" for name, value in values.items())
            echo(f"  step {done} of {settings.steps}: {shown}; about {left:.0f} s left")
    return model, pd.DataFrame(history)


@dataclass
class _FrozenTexts:
    """Captions that compete and the nouns, with their frozen features for each wording."""

    tuples: list[RelationTriple]
    nouns: list[str]
    features: list[tuple[Tensor, Tensor]]  # captions', (captions, width), and nouns'

    @classmethod
    @torch.no_grad()
    def of(cls, model, own: OwnPictures) -> "_FrozenTexts":
        tuples, words = candidates(own), nouns(own)
        features = []
        for wording, of_noun in zip(WORDINGS, NOUN_WORDINGS, strict=True):
            captions = clip.encode_texts(model, [own_caption(t, wording) for t in tuples])
            features.append(
                (captions, clip.encode_texts(model, [of_noun.format(s=w) for w in words]))
            )
        return cls(tuples, words, features)

    def of_captions(self, tuples: Sequence[RelationTriple], number: int) -> Tensor:
        """Frozen features of the tuples' captions in a wording: (tuples, width)."""
        return self.features[number][0][[self.tuples.index(t) for t in tuples]]

    def of_nouns(self, words: Sequence[str], number: int) -> Tensor:
        """Frozen features of the nouns in a wording: (words, width)."""
        return self.features[number][1][[self.nouns.index(word) for word in words]]


def _loss_terms(
    model, own: OwnPictures, features: Tensor, texts: _FrozenTexts, u: RelationTriple,
    settings: OwnSettings, rng: random.Random,
) -> dict[str, Tensor]:  # fmt: skip
    """The terms of one step about one unsafe tuple: some of its pictures and as many safe ones,
    against all unsafe captions, some safe ones, and some nouns, all in one wording."""
    n, number = settings.batch_size, rng.randrange(len(WORDINGS))
    neighbours = own.neighbours(u)
    unsafe_rows = _some(own.rows("train", [u]), n, rng)
    far_rows = _some(own.rows("train", set(own.shown) - {*own.unsafe, *neighbours}), n // 2, rng)
    near_rows = _some(own.rows("train", neighbours), n - len(far_rows), rng)
    rows = [*unsafe_rows, *near_rows, *far_rows]

    close = near(u, texts.tuples, own.unsafe)
    far = set(texts.tuples) - {*own.unsafe, *close}
    safe = [*_some(close, settings.captions // 2, rng), *_some(far, settings.captions // 2, rng)]
    captions = [u, *(t for t in own.unsafe if t != u), *safe]
    pair = dict.fromkeys([u.subject, u.object])
    words = [*pair, *_some(set(texts.nouns) - set(pair), settings.nouns - len(pair), rng)]

    written = [own_caption(t, WORDINGS[number]) for t in captions]
    written += [NOUN_WORDINGS[number].format(s=word) for word in words]
    image_features = clip.encode_images(model, pixels(model, own, rows))
    edited = clip.scores(model, image_features, clip.encode_texts(model, written))
    with torch.no_grad():
        of_texts = texts.of_captions(captions, number), texts.of_nouns(words, number)
        frozen = clip.scores(model, features[rows], torch.cat(of_texts))
        unknown = _unknown(model, own, features, texts, u, number)[unsafe_rows]

    of_captions, of_nouns = slice(len(captions)), slice(len(captions), None)
    held = torch.ones_like(edited[:, of_captions], dtype=torch.bool)
    held[: len(unsafe_rows), 0] = False  # what is forgotten
    return {
        "forget": forget(edited[: len(unsafe_rows), 0], unknown),
        "nouns": hold(edited[:, of_nouns], frozen[:, of_nouns]),
        "captions": hold(edited[:, of_captions][held], frozen[:, of_captions][held]),
    }


def _unknown(model, own: OwnPictures, features, texts, u: RelationTriple, number: int) -> Tensor:
    """`unknown_scores` of every picture of u to train on, at its place among all: (pictures,)."""
    unsafe, near_rows = own.rows("train", [u]), own.rows("train", own.neighbours(u))
    close = texts.of_captions(near(u, texts.tuples, own.unsafe), number)
    safe = clip.scores(model, features[unsafe], close)
    elsewhere = clip.scores(model, features[near_rows], texts.of_captions([u], number))[:, 0]
    unknown = features.new_full((len(features),), float("nan"))
    unknown[unsafe] = unknown_scores(safe, elsewhere)
    return unknown


def _some(items: Iterable, most: int, rng: random.Random) -> list:
    """At most so many of the items, drawn without replacement."""
    items = sorted(items)
    return rng.sample(items, min(max(most, 0), len(items)))
