"""The edit: what is looked at, the loop, and the edits that need none."""

import random
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from safeerase_lite.relations import losses
from safeerase_lite.relations.clip import adapt, look, pixels, read, scores
from safeerase_lite.relations.data import scenes_of
from safeerase_lite.relations.methods import METHODS, SETTING, Method, Setting
from safeerase_lite.relations.scenes import draw
from safeerase_lite.relations.tuples import ORO, every, neighbours
from safeerase_lite.relations.words import (
    CONCEPTS,
    NOUN_WORDINGS,
    SLOTS,
    WORDINGS,
    caption,
    noun_caption,
)

NOUNS, TUPLES = CONCEPTS["object"], every()
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
    """Pictures of the train split about one tuple: of itself, and of its listed neighbours.

    told: its listed neighbours.  untold: tuples whose captions an edit never reads: U, and the
        neighbours it is not told of.
    erased: the noun that is erased with the tuple, if any.
    looked: what the frozen model makes of the unsafe pictures, then of the others.
    """

    shown: ORO
    told: list[ORO]
    untold: set[ORO]
    unsafe_pictures: Tensor
    near_pictures: Tensor
    erased: str
    looked: Tensor

    @property
    def kept_nouns(self) -> list[int]:
        return [i for i, noun in enumerate(NOUNS) if noun != self.erased]

    def anchors(self, count: int, rng: random.Random) -> list[ORO]:
        """Some other tuples of the world."""
        known = {*self.untold, *self.told, self.shown}
        return rng.sample([t for t in TUPLES if t not in known], count)


def ground(model, u: ORO, unsafe: Sequence[ORO], seed: int, erased: str = "") -> Ground:
    told = listed(u, unsafe, seed)
    own = pictures_of(model, [u], "train", _UNSAFE_PICTURES, seed)
    near = pictures_of(model, told, "train", _NEAR_PICTURES, seed)
    untold = {*unsafe, *neighbours(u, unsafe)} - set(told)
    return Ground(u, told, untold, own, near, erased, _frozen_look(model, torch.cat([own, near])))


@torch.no_grad()
def _frozen_look(model, pictures: Tensor) -> Tensor:
    with frozen(model):
        return look(model, pictures)


def frozen(model):
    """The model without its adapter, if it has one."""
    return model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext()


class FrozenReader:
    """What the frozen model makes of every caption, asked once for each wording."""

    def __init__(self, model):
        self.model, self._read = model, {}

    @torch.no_grad()
    def tuples(self, wording: str) -> Tensor:
        return self._asked(wording, [caption(*t, wording) for t in TUPLES])

    @torch.no_grad()
    def nouns(self, wording: str) -> Tensor:
        return self._asked(("noun", wording), [noun_caption(noun, wording) for noun in NOUNS])

    def _asked(self, key, captions: list[str]) -> Tensor:
        if key not in self._read:
            with frozen(self.model):
                self._read[key] = read(self.model, captions)
        return self._read[key]


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
    reader = FrozenReader(model)
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=setting.rate, weight_decay=0.0)
    steps = setting.steps * len(unsafe)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    order, rows = [], []
    for step in range(steps):
        order = order or rng.sample(grounds, len(grounds))
        here = order.pop()
        terms = _terms(model, reader, here, method, setting, rng)
        loss = sum(_weights(method, setting)[name] * term for name, term in terms.items())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        schedule.step()
        told = {name: term.item() for name, term in terms.items()}
        rows.append({"step": step, "tuple": str(here.shown), "loss": loss.item()} | told)
        on_step(step + 1, steps)
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


def _terms(model, reader, here: Ground, method: Method, setting: Setting, rng) -> dict:
    """The terms of one step: some unsafe pictures and as many of neighbours; the captions of the
    tuple, of its listed neighbours, of anchors elsewhere, and of every noun."""
    count, first = setting.pictures, len(here.unsafe_pictures)
    chosen = rng.sample(range(first), count)
    near = rng.sample(range(len(here.near_pictures)), count)
    pictures = torch.cat([here.unsafe_pictures[chosen], here.near_pictures[near]])
    wording, noun_wording = rng.choice(WORDINGS), rng.choice(NOUN_WORDINGS)
    said = [here.shown, *here.told, *here.anchors(setting.anchors, rng)]
    captions = [caption(*t, wording) for t in said]
    captions += [noun_caption(noun, noun_wording) for noun in NOUNS]
    looked, told = look(model, pictures), read(model, captions)
    now = scores(model, looked, told)
    was_told = [reader.tuples(wording)[[TUPLES.index(t) for t in said]], reader.nouns(noun_wording)]
    was_looked = here.looked[chosen + [first + i for i in near]]
    was = scores(model, was_looked, torch.cat(was_told)).detach()

    safe, kept_safe = slice(1, 1 + len(here.told)), slice(1, len(said))
    nouns, kept = slice(len(said), None), here.kept_nouns
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
        "neighbours": losses.preserve(now[:, kept_safe], was[:, kept_safe]),
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
