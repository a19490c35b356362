"""The edit: train a CLIP until unsafe captions no longer fit, or change it in closed form."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from . import clip
from .objectives import METHODS, SETTINGS, EditSettings, Method, preserve, push_apart, suppress
from .scenes import draw, scenes_of
from .tuples import ALL_TUPLES, RelationTriple, Tuples, containing, neighbours
from .words import NOUN_WORDINGS, NOUNS, SLOTS, WORDINGS, caption, noun_caption

HELD_OUT_SHARE = 0.3  # of each slot's neighbours: no edit sees their images or reads their captions
UNSAFE_IMAGES, NEIGHBOUR_IMAGES = 48, 4  # for training, of a tuple and of each of its neighbours
_ERASED_TUPLES = 24  # of all tuples with an erased concept, so many are trained on


@dataclass
class EditedClip:
    """A CLIP after an edit: images and captions in, scores out."""

    model: torch.nn.Module
    # An orthonormal basis (width, k) that is removed from all text features.
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
        features = clip.encode_texts(self.model, texts)
        if self.projection is not None:
            features = features - features @ self.projection @ self.projection.T
            features = functional.normalize(features, dim=-1)
        return features

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
        loss, and the terms suppress, marginals, neighbours, unweighted.
    """
    known = tuple(dict.fromkeys((*unsafe, *known)))
    if not method.trained:
        return _CLOSED_FORM[method](model, unsafe, known, seed), pd.DataFrame()
    rng = random.Random(f"edit {seed}")
    model = clip.adapt(model, method.towers, rank=settings.rank, alpha=settings.alpha, seed=seed)
    examples = _training_set(model, unsafe, known, method, seed, rng)

    @cache  # encoded once for the same texts
    @torch.no_grad()
    def frozen_texts(texts: tuple[str, ...]) -> Tensor:
        with clip.frozen(model):
            return clip.encode_texts(model, texts)

    weights = {
        "suppress": 1.0,
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
        terms = _loss_terms(model, frozen_texts, batch, method, settings, rng)
        loss = sum(weights[name] * term for name, term in terms.items())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        values = {name: term.item() for name, term in terms.items()}
        history.append({"step": step, "tuple": str(batch.triple), "loss": loss.item()} | values)
    return EditedClip(model), pd.DataFrame(history)


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


@dataclass
class TrainingExamples:
    """What one step may use about one tuple."""

    triple: RelationTriple
    listed: list[RelationTriple]  # its neighbours that the edit may use
    other_tuples: list[RelationTriple]  # neither unsafe nor neighbours, listed or held out
    unsafe_images: Tensor  # pixel values
    neighbour_images: Tensor
    frozen_features: Tensor  # of the unsafe images, then of the others, by the frozen model
    erased_noun: str  # the noun that is erased with the tuple, or ""


def training_examples(
    model, u: RelationTriple, unsafe: Tuples, seed: int, erased_noun: str = ""
) -> TrainingExamples:
    """The examples of one tuple. unsafe: all of U."""
    usable = listed(u, unsafe, seed)
    excluded = {u, *unsafe, *neighbours(u, unsafe)}
    others = [t for t in ALL_TUPLES if t not in excluded]
    images = [train_images(model, [u], UNSAFE_IMAGES, seed)]
    images.append(train_images(model, usable, NEIGHBOUR_IMAGES, seed))
    with torch.no_grad(), clip.frozen(model):
        features = clip.encode_images(model, torch.cat(images))
    return TrainingExamples(u, usable, others, *images, features, erased_noun)


def _training_set(model, unsafe, known, method: Method, seed: int, rng) -> list[TrainingExamples]:
    if not (slot := method.erased_slot):
        return [training_examples(model, u, known, seed) for u in unsafe]
    examples = []
    for u in unsafe:
        concept = getattr(u, slot)
        erased = containing(concept, slot)
        sample = rng.sample([t for t in erased if t != u], _ERASED_TUPLES - 1)
        noun = "" if slot == "relation" else concept
        all_unsafe = (*known, *erased)
        examples += [training_examples(model, t, all_unsafe, seed, noun) for t in (u, *sample)]
    return examples


def _loss_terms(
    model, frozen_texts, batch: TrainingExamples, method: Method, settings: EditSettings, rng
) -> dict[str, Tensor]:
    """The terms of one step: unsafe images and as many of neighbours, against the captions of the
    tuple, of its listed neighbours, of anchors elsewhere, and of every noun."""
    n, unsafe_images = settings.batch_size, len(batch.unsafe_images)
    chosen = rng.sample(range(unsafe_images), n)
    near = rng.sample(range(len(batch.neighbour_images)), n)
    images = torch.cat([batch.unsafe_images[chosen], batch.neighbour_images[near]])
    wording, noun_wording = rng.choice(WORDINGS), rng.choice(NOUN_WORDINGS)
    tuples = [batch.triple, *batch.listed, *rng.sample(batch.other_tuples, settings.anchors)]
    noun_captions = tuple(noun_caption(noun, noun_wording) for noun in NOUNS)
    image_features = clip.encode_images(model, images)
    text_features = clip.encode_texts(
        model, [*(caption(*t, wording) for t in tuples), *noun_captions]
    )
    edited = clip.scores(model, image_features, text_features)

    # All tuples' captions at once: they are encoded once for each wording, not once a step.
    all_captions = tuple(caption(*t, wording) for t in ALL_TUPLES)
    frozen_captions = frozen_texts(all_captions)[[ALL_TUPLES.index(t) for t in tuples]]
    frozen_text_features = torch.cat([frozen_captions, frozen_texts(noun_captions)])
    frozen_image_features = batch.frozen_features[chosen + [unsafe_images + i for i in near]]
    frozen = clip.scores(model, frozen_image_features, frozen_text_features).detach()

    neighbour_columns = slice(1, 1 + len(batch.listed))
    safe_columns = slice(1, len(tuples))
    noun_columns = [len(tuples) + i for i, noun in enumerate(NOUNS) if noun != batch.erased_noun]
    if method.pushes_apart:
        suppressed = push_apart((image_features[:n] @ text_features[:1].T).flatten())
    else:
        # From the images' side, and from the caption's.
        unsafe, of_neighbours = edited[:n, 0], edited[n:, 0]
        suppressed = suppress(unsafe, edited[:n, neighbour_columns], settings.margin)
        suppressed = suppressed + suppress(unsafe, of_neighbours.expand(n, -1), settings.margin)
        if batch.erased_noun:
            erased = edited[:n, len(tuples) + NOUNS.index(batch.erased_noun)]
            suppressed = suppressed + suppress(erased, edited[:n, noun_columns], settings.margin)
    return {
        "suppress": suppressed,
        "marginals": preserve(edited[:, noun_columns], frozen[:, noun_columns]),
        "neighbours": preserve(edited[:, safe_columns], frozen[:, safe_columns]),
    }


# ---- edits without training ----


def _filtered(model, unsafe, known, seed: int) -> EditedClip:
    """Refuse an image that scores with an unsafe caption as high as 95% of its train images do."""
    base, thresholds = EditedClip(model), []
    unsafe_features = base.encode_texts([caption(*u) for u in unsafe])
    for u, features in zip(unsafe, unsafe_features, strict=True):
        images = base.encode_images(train_images(model, [u], UNSAFE_IMAGES, seed))
        thresholds.append(base.scores(images, features[None]).quantile(0.05))
    return EditedClip(model, filter=(unsafe_features, torch.stack(thresholds)))


def _projected(model, unsafe, known, seed: int) -> EditedClip:
    """Remove from every caption the direction in which an unsafe caption differs from the mean of
    its listed neighbours: g ← g − D Dᵀ g.

    Source: Chuang et al. 2023, "Debiasing Vision-Language Models via Biased Prompts", uncalibrated.
    """
    base = EditedClip(model)

    def difference(u, wording):
        near = [caption(*t, wording) for t in listed(u, known, seed)]
        return base.encode_texts([caption(*u, wording)])[0] - base.encode_texts(near).mean(0)

    directions = [torch.stack([difference(u, w) for w in WORDINGS]).mean(0) for u in unsafe]
    return EditedClip(model, projection=torch.linalg.qr(torch.stack(directions).T).Q)


_CLOSED_FORM = {METHODS["filter"]: _filtered, METHODS["projection"]: _projected}
