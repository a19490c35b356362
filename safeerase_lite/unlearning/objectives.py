"""The unlearning objectives, as formulas over losses.

L(x) is the mean negative log-likelihood over the answer tokens of a batch x, where f is the forget
batch, r the retain batch, d the decouple batch, and idk the forget questions answered by a refusal.
Prompt Decouple (PD) is one term, λ L(d), added to any of them.

Sources: SafeEraser (arXiv 2502.12520) and its official code; NPO: arXiv 2404.05868.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from safeerase_lite.models.forward import Answers
from safeerase_lite.utils import UserError


@dataclass(frozen=True)
class Batch:
    """What an objective may look at. A group it does not need is None.

    `reference` holds what the frozen model says: of the retain answers for KL, of the forget
    answers for NPO.
    """

    forget: Answers | None = None
    refuse: Answers | None = None
    retain: Answers | None = None
    decouple: Answers | None = None
    reference: Answers | None = None


def nll(*groups: Answers) -> Tensor:
    """L(x): mean negative log-likelihood per answer token, over all groups together."""
    return sum(g.nll.sum() for g in groups) / sum(g.tokens for g in groups)


def divergence(reference: Answers, model: Answers) -> Tensor:
    """KL(reference ‖ model), the mean over answer tokens, in nats.

    The official code runs over every position, prompt, picture and padding included; here only the
    answer counts, as in L.
    """
    p = F.log_softmax(reference.logits[reference.mask].float(), dim=-1)
    q = F.log_softmax(model.logits[model.mask].float(), dim=-1)
    return F.kl_div(q, p, log_target=True, reduction="sum") / model.tokens


@dataclass(frozen=True)
class Weights:
    """Factors of an objective's terms."""

    retain: float = 1.0
    decouple: float = 1.0
    beta: float = 0.1


def gradient_ascent(x: Batch, w: Weights) -> Tensor:
    """GA: −L(f)"""
    return -nll(x.forget)


def gradient_difference(x: Batch, w: Weights) -> Tensor:
    """GD: −L(f) + L(r)"""
    return -nll(x.forget) + w.retain * nll(x.retain)


def kl_minimisation(x: Batch, w: Weights) -> Tensor:
    """KL: −L(f) + KL(reference ‖ model) on r"""
    return -nll(x.forget) + w.retain * divergence(x.reference, x.retain)


def preference_optimisation(x: Batch, w: Weights) -> Tensor:
    """PO: L over the batch {idk, r}, weighted by tokens as in the official code"""
    return nll(x.refuse, x.retain)


def negative_preference_optimisation(x: Batch, w: Weights) -> Tensor:
    """NPO: −(2/β) E log σ(−β log(p / p_reference)), the bounded alternative to GA"""
    log_ratio = x.reference.nll - x.forget.nll
    return -2 / w.beta * F.logsigmoid(-w.beta * log_ratio).sum() / x.forget.rows


def decoupled(objective: Callable, x: Batch, w: Weights) -> Tensor:
    """objective + λ L(d): safe picture + the harmful question, unchanged → the helpful answer"""
    return objective(x, w) + w.decouple * nll(x.decouple)


@dataclass(frozen=True)
class Objective:
    """A formula, the groups of data it needs, the group the frozen reference answers, and the
    weights the preset `official` gives it together with PD."""

    formula: Callable[[Batch, Weights], Tensor]
    needs: tuple[str, ...]
    reference: str | None = None
    official: Weights = Weights()


# With PD the official code weighs L(d) by 0.5 for GA and GD and by 1 for KL and PO, and halves GD's
# retain term besides. `matched` is the plain objective + λ L(d), λ = 1, which isolates PD. The
# official code has no NPO: it takes GA's weights. An entry of your own joins with
# `OBJECTIVES["name"] = Objective(...)`.
OBJECTIVES = {
    "ga": Objective(gradient_ascent, ("forget",), official=Weights(decouple=0.5)),
    "gd": Objective(
        gradient_difference, ("forget", "retain"), official=Weights(retain=0.5, decouple=0.5)
    ),
    "kl": Objective(kl_minimisation, ("forget", "retain"), reference="retain"),
    "po": Objective(preference_optimisation, ("refuse", "retain")),
    "npo": Objective(
        negative_preference_optimisation,
        ("forget",),
        reference="forget",
        official=Weights(decouple=0.5),
    ),
}
_OURS = dict(OBJECTIVES)


def weights(objective: str, preset: str, decouple: str, beta: float = 0.1) -> Weights:
    """The weights of a run. Plain objectives have none to choose: both presets agree."""
    if preset == "official" and decouple != "none":
        official = OBJECTIVES[objective].official
        return Weights(official.retain, official.decouple, beta)
    return Weights(beta=beta)


def own_recipe(name: str) -> str:
    """What tells an objective of the user's own from another under the same name: the source of
    its formula, needs and weights. Empty for the package's, which the name tells.

    Raises:
        UserError: the formula has no source to be told by.
    """
    objective = OBJECTIVES[name]
    if _OURS.get(name) == objective:
        return ""
    try:
        source = inspect.getsource(objective.formula)
    except (OSError, TypeError):
        raise UserError(
            f"the formula of objective {name!r} has no source to tell it by: define it with `def` "
            "in a notebook cell or a file"
        ) from None
    return f"{source}{objective.needs} {objective.reference} {objective.official}"


def loss(objective: str, x: Batch, w: Weights) -> tuple[Tensor, dict[str, float]]:
    """The loss of a batch and its terms, by name, for the history.

    PD (or its placebo) is in the loss exactly when the batch has a decouple group.
    """
    formula = OBJECTIVES[objective].formula
    total = formula(x, w) if x.decouple is None else decoupled(formula, x, w)
    with torch.no_grad():
        groups = ("forget", "refuse", "retain", "decouple")
        terms = {g: nll(getattr(x, g)).item() for g in groups if getattr(x, g) is not None}
    return total, {"loss": total.item()} | terms
