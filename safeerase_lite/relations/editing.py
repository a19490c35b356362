"""The edit: train a CLIP until unsafe captions no longer fit, or change it in closed form."""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from . import clip
from .objectives import (
    METHODS,
    SETTINGS,
    EditSettings,
    Method,
    forget,
    hold,
    push_apart,
    suppress,
)
from .scenes import draw, scenes_of
from .tuples import ALL_TUPLES, RelationTriple, Tuples, containing, neighbours, other_words
from .words import NOUN_WORDINGS, NOUNS, SLOTS, WORDINGS, caption, noun_caption

HELD_OUT_SHARE = 0.3  # of each slot's neighbours: no edit sees their images or reads their captions
# For training: of a tuple, of each of its neighbours, and of tuples elsewhere in all.
UNSAFE_IMAGES, NEIGHBOUR_IMAGES, FAR_IMAGES = 160, 8, 256
_ERASED_TUPLES = 24  # of all tuples with an erased concept, so many are trained on
_PLACES = {t: place for place, t in enumerate(ALL_TUPLES)}
_FEWER = 8  # so many times fewer images of each of them


@dataclass
class EditedClip:
    """A CLIP after an edit: images and captions in, scores out."""

    model: torch.nn.Module
    # Orthogonal directions (width, k) that are removed from all text features, as far as their
    # squared length says.
    projection: Tensor | None = None
    # Text features (k, width) and thresholds (k,): an image that reaches one fits no caption.
    filter: tuple[Tensor, Tensor] | None = None

    @torch.no_grad()
    def encode_images(self, pixel_values: Tensor) -> Tensor:
        """Image features: (images, width)."""
        return clip.encode_images(self.model, pixel_values)

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Text features: (texts, width)."""
        return self.project(clip.encode_texts(self.model, texts))

    def project(self, text_features: Tensor) -> Tensor:
        """Text features without what the projection removes, of length one again."""
        if self.projection is None:
            return text_features
        removed = text_features @ self.projection @ self.projection.T
        return functional.normalize(text_features - removed, dim=-1)

    @torch.no_grad()
    def scores(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        """Logits: (images, texts); -inf for a refused image."""
        logits = clip.scores(self.model, image_features, text_features)
        if self.filter is not None:
            unsafe_features, thresholds = self.filter
            unsafe_logits = clip.scores(self.model, image_features, unsafe_features)
            refused = (unsafe_logits >= thresholds).any(-1)
            logits = logits.masked_fill(refused[:, None], float("-inf"))
        return logits


def edit(
    model,
    unsafe: Tuples,
    method: Method,
    settings: EditSettings = SETTINGS,
    *,
    known: Tuples = (),
    seed: int = 0,
) -> tuple[EditedClip, pd.DataFrame]:
    """Edit a CLIP so that unsafe captions no longer fit. known: the rest of U, if there is more.

    Returns:
        The edited CLIP, its adapter on top of the frozen one; and a row per step: step, tuple,
        loss, and the terms forget, marginals, neighbours, unweighted.
    """
    known = tuple(dict.fromkeys((*unsafe, *known)))
    if not method.trained:
        return _CLOSED_FORM[method](model, unsafe, known, settings, seed), pd.DataFrame()
    rng = random.Random(f"edit {seed}")
    digest = _digest(model)
    model = clip.adapt(model, method.parts, rank=settings.rank, alpha=settings.alpha, seed=seed)
    frozen = FrozenClip(digest, model)
    examples = _training_set(frozen, unsafe, known, method, seed, rng)
    weights = {
        "forget": 1.0,
        "marginals": settings.marginal_weight * method.preserves_marginals,
        "neighbours": settings.neighbour_weight * method.preserves_neighbours,
    }
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.0)
    steps = settings.steps * len(unsafe)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    order, history = [], []
    for step in range(steps):
        order = order or rng.sample(examples, len(examples))
        batch = order.pop()
        terms = _loss_terms(model, frozen, batch, method, settings, rng)
        loss = sum(weights[name] * term for name, term in terms.items())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        values = {name: term.item() for name, term in terms.items()}
        history.append({"step": step, "tuple": str(batch.triple), "loss": loss.item()} | values)
    return EditedClip(model), pd.DataFrame(history)


@dataclass(frozen=True)
class FrozenClip:
    """The model before the edit. It equals any other of the same weights, so that what it says of
    the same examples is computed once in a process, for all methods."""

    weights: str  # their sha256
    model: torch.nn.Module = field(compare=False)


def _digest(model: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for weights in model.state_dict().values():
        digest.update(weights.cpu().numpy().tobytes())
    return digest.hexdigest()


@lru_cache(maxsize=64)
@torch.no_grad()
def _frozen_texts(frozen: FrozenClip, texts: tuple[str, ...]) -> Tensor:
    with clip.frozen(frozen.model):
        return clip.encode_texts(frozen.model, texts)


@cache
def _all_captions(wording: str) -> tuple[str, ...]:
    return tuple(caption(*t, wording) for t in ALL_TUPLES)


# ---- what an edit is trained on ----


def listed(u: RelationTriple, unsafe: Tuples, seed: int = 0) -> list[RelationTriple]:
    """The neighbours of u that an edit may use: seven of ten in every slot."""
    usable = []
    for slot in SLOTS:
        near = neighbours(u, unsafe, [slot])
        random.Random(f"listed {seed} {u} {slot}").shuffle(near)
        usable += near[round(HELD_OUT_SHARE * len(near)) :]
    return usable


def train_images(model, tuples: Tuples, each: int, seed: int) -> Tensor:
    """Pixel values of `each` images of every tuple, from the train split."""
    return clip.preprocess(model, map(draw, scenes_of(tuples, "train", each, seed)))


@cache
def _held_out(unsafe: tuple[RelationTriple, ...], seed: int) -> set[RelationTriple]:
    """What is held out for one tuple of U trains no other."""
    return {t for u in unsafe for t in set(neighbours(u, unsafe)) - set(listed(u, unsafe, seed))}


def _usable(u: RelationTriple, unsafe: Tuples, seed: int) -> list[RelationTriple]:
    """The listed neighbours of u that are not held out for another tuple of U."""
    held_out = _held_out(unsafe, seed)
    return [t for t in listed(u, unsafe, seed) if t not in held_out]


@dataclass
class TrainingExamples:
    """What one step may use about one tuple."""

    triple: RelationTriple
    listed: list[RelationTriple]  # its neighbours that the edit may use
    other_tuples: list[RelationTriple]  # neither unsafe nor neighbours, listed or held out
    # Pixel values of unsafe images, of listed neighbours, and of other tuples; and their features
    # by the frozen model.
    images: tuple[Tensor, Tensor, Tensor]
    frozen_features: tuple[Tensor, ...]
    erased_noun: str  # the noun that is erased with the tuple, or ""


@lru_cache(maxsize=32)
def training_examples(
    frozen: FrozenClip,
    u: RelationTriple,
    unsafe: tuple[RelationTriple, ...],
    seed: int,
    erased_noun: str = "",
    fewer: int = 1,
) -> TrainingExamples:
    """The examples of one tuple. unsafe: all of U. fewer: divides the numbers of images."""
    model, held_out = frozen.model, _held_out(unsafe, seed)
    usable = _usable(u, unsafe, seed)
    excluded = {u, *unsafe, *neighbours(u, unsafe), *held_out}
    others = [t for t in ALL_TUPLES if t not in excluded]
    far = random.Random(f"far {seed} {u}").sample(others, min(FAR_IMAGES // fewer, len(others)))
    images = (
        train_images(model, [u], UNSAFE_IMAGES // fewer, seed),
        train_images(model, usable, NEIGHBOUR_IMAGES // fewer, seed),
        train_images(model, far, 1, seed),
    )
    with torch.no_grad(), clip.frozen(model):
        features = clip.encode_images(model, torch.cat(images)).split([len(i) for i in images])
    return TrainingExamples(u, usable, others, images, features, erased_noun)


def _training_set(
    frozen: FrozenClip, unsafe, known, method: Method, seed: int, rng
) -> list[TrainingExamples]:
    if not (slot := method.erased_slot):
        return [training_examples(frozen, u, known, seed) for u in unsafe]
    examples = []
    for u in unsafe:
        concept = getattr(u, slot)
        erased = containing(concept, slot)
        sample = rng.sample([t for t in erased if t != u], _ERASED_TUPLES - 1)
        noun = "" if slot == "relation" else concept
        all_unsafe = tuple(dict.fromkeys((*known, *erased)))
        # A tuple whose neighbours are all held out for others shows nothing that must stay.
        erasable = [t for t in (u, *sample) if _usable(t, all_unsafe, seed)]
        examples += [training_examples(frozen, t, all_unsafe, seed, noun, _FEWER) for t in erasable]
    return examples


def _loss_terms(
    model, before: FrozenClip, batch: TrainingExamples, method: Method, settings: EditSettings, rng
) -> dict[str, Tensor]:
    """The terms of one step: unsafe images, as many of neighbours and as many from elsewhere,
    against the unsafe caption, those of listed neighbours and of others, and of every noun."""
    n = settings.batch_size
    chosen = [rng.choices(range(len(images)), k=n) for images in batch.images]
    pixels = torch.cat([images[i] for images, i in zip(batch.images, chosen, strict=True)])
    wording, noun_wording = rng.choice(WORDINGS), rng.choice(NOUN_WORDINGS)
    # U is closed under other words: half the time the tuple is called by them.
    words = rng.choice([batch.triple, rng.choice(other_words(batch.triple) or [batch.triple])])
    safe = [*batch.listed, *rng.sample(batch.other_tuples, settings.anchors)]
    nouns = tuple(noun_caption(noun, noun_wording) for noun in NOUNS)
    unsafe_captions = caption(*words, wording), caption(*batch.triple, wording)
    texts = [unsafe_captions[0], *(caption(*t, wording) for t in safe), *nouns]
    image_features = clip.encode_images(model, pixels)
    text_features = clip.encode_texts(model, texts)
    edited = clip.scores(model, image_features, text_features)

    # All tuples' captions at once: they are encoded once for each wording, not once a step.
    all_captions = _frozen_texts(before, _all_captions(wording))
    frozen_text_features = torch.cat([
        _frozen_texts(before, unsafe_captions),
        all_captions[[_PLACES[t] for t in safe]],
        _frozen_texts(before, nouns),
    ])  # fmt: skip
    frozen_image_features = torch.cat(
        [features[i] for features, i in zip(batch.frozen_features, chosen, strict=True)]
    )
    frozen = clip.scores(model, frozen_image_features, frozen_text_features).detach()
    # What the unsafe score would be if the tuple were unknown: that of its listed neighbours.
    near_features, own_words = batch.frozen_features[1], frozen_text_features[1:2]
    unknown = clip.scores(model, near_features, own_words).detach().mean().expand(n)
    frozen = torch.cat([frozen[:, :1], frozen[:, 2:]], dim=1)

    unsafe, near, far = edited.split(n)
    near_columns, safe_columns = slice(1, 1 + len(batch.listed)), slice(1, 1 + len(safe))
    noun_columns = [1 + len(safe) + i for i, noun in enumerate(NOUNS) if noun != batch.erased_noun]
    if method.loss == "push_apart":
        forgotten = push_apart((image_features[:n] @ text_features[:1].T).flatten())
    elif method.loss == "suppress":
        of_neighbours = near[:, 0].expand(n, -1)
        forgotten = suppress(unsafe[:, 0], unsafe[:, near_columns], settings.margin)
        forgotten = forgotten + suppress(unsafe[:, 0], of_neighbours, settings.margin)
    else:
        forgotten = forget(unsafe[:, 0], unknown)
        if batch.erased_noun:
            place = 1 + len(safe) + NOUNS.index(batch.erased_noun)
            other_nouns = frozen[:n, noun_columns].mean(-1)
            forgotten = forgotten + forget(unsafe[:, place], other_nouns)
    changed, was = edited[: 2 * n, near_columns], frozen[: 2 * n, near_columns]
    neighbours_held = hold(changed, was) + hold(edited[n:, 0], frozen[n:, 0])
    return {
        "forget": forgotten,
        "marginals": hold(edited[:, noun_columns], frozen[:, noun_columns]),
        "neighbours": neighbours_held + hold(edited[:, safe_columns], frozen[:, safe_columns]),
    }


# ---- edits without training ----


def _filtered(model, unsafe, known, settings: EditSettings, seed: int) -> EditedClip:
    """Refuse an image that scores with an unsafe caption as high as most of its train images do."""
    base, thresholds = EditedClip(model), []
    unsafe_features = base.encode_texts([caption(*u) for u in unsafe])
    for u, features in zip(unsafe, unsafe_features, strict=True):
        images = base.encode_images(train_images(model, [u], UNSAFE_IMAGES, seed))
        thresholds.append(base.scores(images, features[None]).quantile(1 - settings.refused))
    return EditedClip(model, filter=(unsafe_features, torch.stack(thresholds)))


def _projected(model, unsafe, known, settings: EditSettings, seed: int) -> EditedClip:
    """Remove from every caption the direction in which an unsafe caption differs from the mean of
    its listed neighbours, or a share of it: g ← g − removed D Dᵀ g.

    Source: Chuang et al. 2023, "Debiasing Vision-Language Models via Biased Prompts", uncalibrated.
    """
    base = EditedClip(model)

    def difference(u, wording):
        near = [caption(*t, wording) for t in listed(u, known, seed)]
        return base.encode_texts([caption(*u, wording)])[0] - base.encode_texts(near).mean(0)

    directions = [torch.stack([difference(u, w) for w in WORDINGS]).mean(0) for u in unsafe]
    return EditedClip(
        model, projection=torch.linalg.qr(torch.stack(directions).T).Q * settings.removed**0.5
    )


_CLOSED_FORM = {METHODS["filter"]: _filtered, METHODS["projection"]: _projected}
