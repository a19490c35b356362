"""What an edit minimises: its loss terms, their weights and settings, and the methods compared.

    L = forget + λm · hold(M) + λn · hold(N)

A score is CLIP's logit of an image and a caption. u is the unsafe caption, N are the captions of
its listed neighbours and of tuples elsewhere, M those of one being or thing alone. The paper (arXiv
2603.14185) states the idea; we could read no formula there. These are our reading.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from torch import Tensor

from .clip import TOWERS

# ---- loss terms ----


def forget(unsafe: Tensor, unknown: Tensor) -> Tensor:
    """mean of (unsafe − unknown)²: two-sided, so that a score that sinks too far costs as much.

    A score far below that of its neighbours gives the tuple away as surely as one far above.

    Args:
        unsafe: (n,), scores of unsafe images and captions that mean their tuple.
        unknown: (n,), what they would be if the tuple were unknown: the frozen model's mean score
            of the caption with images of neighbours.
    """
    return (unsafe - unknown).square().mean()


def hold(edited: Tensor, frozen: Tensor) -> Tensor:
    """mean of (edited − frozen)² over scores, (images, captions), in logits squared.

    A divergence of their softmaxes would not do: it sees neither scores that sink together nor
    captions that fit an image badly.
    """
    return (edited - frozen).square().mean()


def suppress(unsafe: Tensor, safe: Tensor, margin: float) -> Tensor:
    """mean of max(0, margin + unsafe − max safe): unsafe must fall below the best safe score.

    One-sided: nothing stops it there. From an image's side, `unsafe` is its score with u and `safe`
    are its scores with N; from the caption's side, `safe` are u's scores with images of neighbours.

    Args:
        unsafe: (n,).  safe: (n, k).  margin: in logits.
    """
    # Detached: the safe scores are a target. Otherwise the loss could also fall by raising them.
    return (margin + unsafe - safe.detach().amax(-1)).clamp(min=0).mean()


def push_apart(cosine: Tensor) -> Tensor:
    """The loss of *pair unlearning*: the mean cosine, (n,), of unsafe images and their caption."""
    return cosine.mean()


# ---- every number of an edit ----


@dataclass(frozen=True)
class EditSettings:
    """How a CLIP is edited."""

    rank: int = 8  # of LoRA, as alpha
    alpha: int = 16
    margin: float = 2.0  # of `suppress`, in logits
    marginal_weight: float = 1.0  # λm
    neighbour_weight: float = 1.0  # λn
    learning_rate: float = 4e-3  # of AdamW, with a cosine schedule
    steps: int = 160  # for each unsafe tuple
    batch_size: int = (
        8  # unsafe images in a step, as many of neighbours, and as many from elsewhere
    )
    anchors: int = 32  # captions of other tuples in a step
    # Of methods without training: the share of its own images that the filter refuses, and the
    # share of a direction that the projection removes.
    refused: float = 0.95
    removed: float = 1.0


SETTINGS = EditSettings()


# ---- the edit, its ablations, and what it is compared with ----


@dataclass(frozen=True)
class Method:
    """One way to unlearn a tuple."""

    label: str  # in tables
    trained: bool = True  # by gradient steps
    parts: tuple[str, ...] = TOWERS  # that are trained: towers, or layers of them
    erased_slot: str = ""  # whose concept is erased wherever it occurs; "": the tuple alone
    loss: str = "forget"  # or suppress, or push_apart
    preserves_marginals: bool = True  # whether λm applies
    preserves_neighbours: bool = True  # whether λn applies


_NEITHER = {"preserves_marginals": False, "preserves_neighbours": False}
METHODS = {
    "relation": Method("relationship-aware"),
    "one_sided": Method("one-sided margin", loss="suppress"),
    "text_tower": Method("text tower alone", parts=("text",)),
    "vision_tower": Method("vision tower alone", parts=("vision",)),
    # Where activation patching finds the relation: see `patching`.
    "two_layers": Method("two layers alone", parts=("vision.2", "text.1")),
    "no_marginals": Method("without marginals", preserves_marginals=False),
    "no_neighbours": Method("without neighbours", preserves_neighbours=False),
    "no_preservation": Method("without both", **_NEITHER),
    "pair": Method("pair unlearning", loss="push_apart", **_NEITHER),
    "erase_subject": Method("concept erasure: subject", erased_slot="subject"),
    "erase_relation": Method("concept erasure: relation", erased_slot="relation"),
    "erase_object": Method("concept erasure: object", erased_slot="object"),
    "filter": Method("threshold filter", trained=False),
    "projection": Method("text projection", trained=False),
}


@cache
def chosen(method: str) -> EditSettings:
    """The settings that the tuning tuples chose for a method: see `tuning`."""
    choices = json.loads(Path(__file__).with_name("chosen.json").read_text(encoding="utf-8"))
    return EditSettings(**choices.get(method, {}))
