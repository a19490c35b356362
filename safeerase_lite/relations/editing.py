"""The edit: what is looked at, the loop, and the edits that need none."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pandas as pd
import torch
from torch import Tensor

from . import losses
from .clip import adapt, look, pixels, read, scores
from .data import scenes_of
from .methods import METHODS, SETTING, Method, Setting
from .scenes import draw
from .tuples import ORO, every, neighbours
from .words import CONCEPTS, NOUN_WORDINGS, SLOTS, WORDINGS, caption, noun_caption

NOUNS = CONCEPTS["object"]
HELD_OUT = 0.3  # share of each slot's neighbours that no edit is told of
_UNSAFE_PICTURES, _NEAR_PICTURES = 48, 4  # of a tuple, of each of its neighbours
_TUPLES = 24  # of all that hold an erased concept, so many are shown


def listed(u: ORO, unsafe: Sequence[ORO], seed: int = 0) -> list[ORO]:
    """The neighbours of u that an edit is told of: seven of ten in every slot."""
    found = []
    for slot in SLOTS:
        near = neighbours(u, unsafe, [slot])
        random.Random(f"listed {seed} {u} {slot}").shuffle(near)
        found += near[round(HELD_OUT * len(near)) :]
    return found


class Edited:
    """What an edit leaves: pictures and captions in, scores out.

    project: an orthonormal basis (width, k) that is taken out of every caption.
    blocked: directions of captions (k, width) and the least scores at which a picture is refused;
        a refused picture fits no caption.
    """

    def __init__(self, model, project: Tensor | None = None, blocked=None):
        self.model, self.project, self.blocked = model, project, blocked

    @torch.no_grad()
    def look(self, pictures: Tensor) -> Tensor:
        return look(self.model, pictures)

    @torch.no_grad()
    def read(self, captions: Sequence[str]) -> Tensor:
        found = read(self.model, captions)
        if self.project is not None:
            found = found - found @ self.project @ self.project.T
            found = torch.nn.functional.normalize(found, dim=-1)
        return found

    @torch.no_grad()
    def scores(self, looked: Tensor, captions: Tensor) -> Tensor:
        found = scores(self.model, looked, captions)
        if self.blocked is not None:
            directions, least = self.blocked
            refused = (scores(self.model, looked, directions) >= least).any(-1)
            found = found.masked_fill(refused[:, None], float("-inf"))
        return found


# ---- what an edit looks at ----


@dataclass
class Ground:
    """Pictures of the train split about one tuple, and what the frozen model makes of them.

    erased: the noun that is erased with the tuple, if any.
    """

    shown: ORO
    near: list[ORO]
    unsafe_pictures: Tensor
    near_pictures: Tensor
    erased: str = ""
    looked: Tensor | None = None
    _read: dict[tuple[str, str], Tensor] = field(default_factory=dict)

    @property
    def kept_nouns(self) -> list[int]:
        return [i for i, noun in enumerate(NOUNS) if noun != self.erased]

    def captions(self, wording: str, noun_wording: str) -> list[str]:
        """Of the tuple, of its listed neighbours, of every noun."""
        told = [caption(*t, wording) for t in (self.shown, *self.near)]
        return told + [noun_caption(noun, noun_wording) for noun in NOUNS]

    @torch.no_grad()
    def frozen(self, model, index: list[int], wordings: tuple[str, str]) -> Tensor:
        """The frozen model's scores of some of the pictures with all captions."""
        with model.disable_adapter():
            if self.looked is None:
                self.looked = look(model, torch.cat([self.unsafe_pictures, self.near_pictures]))
            if wordings not in self._read:
                self._read[wordings] = read(model, self.captions(*wordings))
            return scores(model, self.looked[index], self._read[wordings])


def ground(model, u: ORO, unsafe: Sequence[ORO], seed: int, erased: str = "") -> Ground:
    near = listed(u, unsafe, seed)
    return Ground(
        u,
        near,
        pictures_of(model, [u], "train", _UNSAFE_PICTURES, seed),
        pictures_of(model, near, "train", _NEAR_PICTURES, seed),
        erased,
    )


def pictures_of(model, tuples: Sequence[ORO], split: str, each: int, seed: int) -> Tensor:
    return pixels(model, [draw(scene) for scene in scenes_of(tuples, split, each, seed)])


def holding(concept: str, slot: str) -> list[ORO]:
    """All tuples that hold a concept: a relation, or a noun on either side."""
    slots = ("relation",) if slot == "relation" else ("subject", "object")
    return [t for t in every() if any(getattr(t, s) == concept for s in slots)]


# ---- the loop ----


def edit(
    model,
    unsafe: Sequence[ORO],
    method: Method,
    setting: Setting = SETTING,
    *,
    known: Sequence[ORO] = (),
    seed: int = 0,
    on_step: Callable[[int, int], None] = lambda step, steps: None,
) -> tuple[Edited, pd.DataFrame]:
    """Edit a CLIP so that it no longer reads unsafe tuples.

    Args:
        model: from `load_clip`.
        unsafe: what is unlearned now.  known: all of U, if that is more: none is a neighbour.
        on_step: told the steps done and all of them.

    Returns:
        The edited CLIP, its adapter on top of the frozen one, and a row per step: step, tuple, loss
        and its terms (suppress, marginals, neighbours), unweighted.
    """
    known = tuple(dict.fromkeys((*unsafe, *known)))
    if not method.trained:
        return _UNTRAINED[method](model, unsafe, known, seed), pd.DataFrame()
    rng = random.Random(f"edit {seed}")
    model = adapt(model, method.towers, rank=setting.rank, alpha=setting.alpha, seed=seed)
    grounds = _grounds(model, unsafe, known, method, seed, rng)
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=setting.rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, setting.steps)
    order, rows = [], []
    for step in range(setting.steps):
        order = order or rng.sample(grounds, len(grounds))
        here = order.pop()
        terms = _terms(model, here, method, setting, rng)
        loss = sum(_weights(method, setting)[name] * term for name, term in terms.items())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        schedule.step()
        told = {name: term.item() for name, term in terms.items()}
        rows.append({"step": step, "tuple": str(here.shown), "loss": loss.item()} | told)
        on_step(step + 1, setting.steps)
    return Edited(model), pd.DataFrame(rows)


def _grounds(model, unsafe, known, method: Method, seed: int, rng) -> list[Ground]:
    if not method.erases:
        return [ground(model, u, known, seed) for u in unsafe]
    found = []
    for u in unsafe:
        concept = getattr(u, method.erases)
        all_of_it = holding(concept, method.erases)
        others = rng.sample([t for t in all_of_it if t != u], _TUPLES - 1)
        noun = concept if method.erases != "relation" else ""
        found += [ground(model, t, (*known, *all_of_it), seed, noun) for t in (u, *others)]
    return found


def _weights(method: Method, setting: Setting) -> dict[str, float]:
    return {
        "suppress": 1.0,
        "marginals": setting.marginals * method.marginals,
        "neighbours": setting.neighbours * method.neighbours,
    }


def _terms(model, here: Ground, method: Method, setting: Setting, rng) -> dict[str, Tensor]:
    """The terms of one step: some unsafe pictures, as many of neighbours, all captions."""
    count, first = setting.pictures, len(here.unsafe_pictures)
    chosen = rng.sample(range(first), count)
    near = rng.sample(range(len(here.near_pictures)), count)
    pictures = torch.cat([here.unsafe_pictures[chosen], here.near_pictures[near]])
    wordings = rng.choice(WORDINGS), rng.choice(NOUN_WORDINGS)
    looked, told = look(model, pictures), read(model, here.captions(*wordings))
    now = scores(model, looked, told)
    was = here.frozen(model, chosen + [first + i for i in near], wordings)

    safe, nouns = slice(1, 1 + len(here.near)), slice(1 + len(here.near), None)
    kept = here.kept_nouns
    if method.apart:
        suppressed = losses.push_apart((looked[:count] @ told[:1].T).flatten())
    else:
        unsafe, elsewhere = now[:count, 0], now[count:, 0]
        suppressed = losses.suppress(unsafe, now[:count, safe], setting.margin)
        suppressed = suppressed + losses.suppress(
            unsafe, elsewhere.expand(count, -1), setting.margin
        )
        if here.erased:
            alone = now[:count, nouns]
            suppressed = suppressed + losses.suppress(
                alone[:, NOUNS.index(here.erased)], alone[:, kept], setting.margin
            )
    return {
        "suppress": suppressed,
        "marginals": losses.preserve(now[:, nouns][:, kept], was[:, nouns][:, kept]),
        "neighbours": losses.preserve(now[:, safe], was[:, safe]),
    }


# ---- without training ----


def filtered(model, unsafe: Sequence[ORO], known: Sequence[ORO], seed: int) -> Edited:
    """A picture is refused that scores with an unsafe caption as 95% of its train pictures do."""
    plain = Edited(model)
    directions = plain.read([caption(*u) for u in unsafe])
    least = []
    for u, direction in zip(unsafe, directions, strict=True):
        looked = plain.look(pictures_of(model, [u], "train", _UNSAFE_PICTURES, seed))
        least.append(plain.scores(looked, direction[None]).quantile(0.05))
    return Edited(model, blocked=(directions, torch.stack(least)))


def projected(model, unsafe: Sequence[ORO], known: Sequence[ORO], seed: int) -> Edited:
    """What sets an unsafe caption apart from the mean of its listed neighbours is taken out of
    every caption, in closed form: g ← g − D Dᵀ g (Chuang et al. 2023, "Debiasing Vision-Language
    Models via Biased Prompts", without their calibration)."""
    plain = Edited(model)
    apart = [
        torch.stack(
            [
                plain.read([caption(*u, w)])[0]
                - plain.read([caption(*t, w) for t in listed(u, known, seed)]).mean(0)
                for w in WORDINGS
            ]
        ).mean(0)
        for u in unsafe
    ]
    return Edited(model, project=torch.linalg.qr(torch.stack(apart).T).Q)


_UNTRAINED = {METHODS["filter"]: filtered, METHODS["projection"]: projected}
