"""The unlearning objectives, as formulas over losses.

L(x) is the mean negative log-likelihood over the answer tokens of a batch x. f is the forget batch,
r the retain batch, d the decouple batch, and idk the forget questions answered by a refusal.
Prompt Decouple (PD) adds one term, λ L(d), to any objective.

Sources: SafeEraser (arXiv 2502.12520) and its official code; NPO: arXiv 2404.05868.
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from safeerase_lite.utils import UserError, check_choice

UNTRAINED = ("vanilla", "gold")  # the model as it is, and one that never saw the harm


@dataclass(frozen=True)
class Answers:
    """A model's predictions for the answers of a batch.

    Attributes:
        logits: (batch, length, vocabulary); the prediction *for* the token at the same index.
        labels: (batch, length); the answer's tokens, -100 wherever there is no answer.
        step_tokens, step_rows: answer tokens and rows of the complete step, when this batch is one
            part of it (gradient accumulation, several processes). The mean of the parts' means is
            not the mean over all tokens, so every part is divided by the step's count.
    """

    logits: Tensor
    labels: Tensor
    step_tokens: int | None = None
    step_rows: int | None = None

    @property
    def mask(self) -> Tensor:
        return self.labels != -100

    @property
    def nll(self) -> Tensor:
        """(batch,) negative log-likelihood in nats, summed over each answer's tokens."""
        flat = F.cross_entropy(
            self.logits.float().flatten(0, 1),
            self.labels.flatten(),
            ignore_index=-100,
            reduction="none",
        )
        return flat.view(self.labels.shape).sum(-1)

    @property
    def tokens(self) -> int:
        """Answer tokens to average over."""
        return self.step_tokens or int(self.mask.sum())

    @property
    def rows(self) -> int:
        """Answers to average over."""
        return self.step_rows or len(self.labels)


_ABSENT: Any = None


@dataclass(frozen=True)
class Batch:
    """All that an objective may read. A group that it does not need is None.

    `reference` holds the frozen model's predictions: for the retain answers (KL) or for the forget
    answers (NPO).
    """

    forget: Answers = _ABSENT
    refuse: Answers = _ABSENT
    retain: Answers = _ABSENT
    decouple: Answers = _ABSENT
    reference: Answers = _ABSENT


@dataclass(frozen=True)
class LossWeights:
    """Factors of an objective's terms; beta is NPO's inverse temperature; cap, in nats per answer
    token, is where bounded ascent stops."""

    retain: float = 1.0
    decouple: float = 1.0
    beta: float = 0.1
    cap: float = math.inf


def nll(*groups: Answers) -> Tensor:
    """L(x): mean negative log-likelihood per answer token, over all groups together, in nats."""
    total = torch.as_tensor(sum(g.nll.sum() for g in groups))
    return total / sum(g.tokens for g in groups)


def bounded_nll(x: Answers, cap: float) -> Tensor:
    """L(x) with each answer's mean counted as `cap` nats per token at most: an answer that is so
    unlikely already is pushed no further."""
    return torch.minimum(x.nll, cap * x.mask.sum(-1)).sum() / x.tokens


def divergence(reference: Answers, model: Answers) -> Tensor:
    """KL(reference ‖ model), the mean over answer tokens, in nats.

    The official code averages over every position, prompt, picture and padding included. Here only
    the answer counts, as in L.
    """
    p = F.log_softmax(reference.logits[reference.mask].float(), dim=-1)
    q = F.log_softmax(model.logits[model.mask].float(), dim=-1)
    return F.kl_div(q, p, log_target=True, reduction="sum") / model.tokens


# ---- the formulas ----


def gradient_ascent(x: Batch, w: LossWeights) -> Tensor:
    """GA: −L(f)"""
    return -nll(x.forget)


def gradient_difference(x: Batch, w: LossWeights) -> Tensor:
    """GD: −L(f) + L(r)"""
    return -nll(x.forget) + w.retain * nll(x.retain)


def kl_minimisation(x: Batch, w: LossWeights) -> Tensor:
    """KL: −L(f) + KL(reference ‖ model) on r"""
    return -nll(x.forget) + w.retain * divergence(x.reference, x.retain)


def bounded_gradient_difference(x: Batch, w: LossWeights) -> Tensor:
    """GD, bounded: −min(L(f), cap) + L(r), answer by answer. Ours: ascent without a bound goes on
    long after the answer is forgotten"""
    return -bounded_nll(x.forget, w.cap) + w.retain * nll(x.retain)


def bounded_kl_minimisation(x: Batch, w: LossWeights) -> Tensor:
    """KL, bounded: −min(L(f), cap) + KL(reference ‖ model) on r, answer by answer. Ours"""
    return -bounded_nll(x.forget, w.cap) + w.retain * divergence(x.reference, x.retain)


def preference_optimisation(x: Batch, w: LossWeights) -> Tensor:
    """PO: L over the batch {idk, r}, weighted by tokens as in the official code"""
    return nll(x.refuse, x.retain)


def negative_preference_optimisation(x: Batch, w: LossWeights) -> Tensor:
    """NPO: −(2/β) E log σ(−β log(p / p_reference)), the bounded alternative to GA"""
    log_ratio = x.reference.nll - x.forget.nll
    return -2 / w.beta * F.logsigmoid(-w.beta * log_ratio).sum() / x.forget.rows


def npo_with_retain(x: Batch, w: LossWeights) -> Tensor:
    """NPO + L(r): NPO+RT in its paper"""
    return negative_preference_optimisation(x, w) + w.retain * nll(x.retain)


def decoupled(objective: Callable, x: Batch, w: LossWeights) -> Tensor:
    """objective + λ L(d): safe picture + the harmful question, unchanged → the helpful answer"""
    return objective(x, w) + w.decouple * nll(x.decouple)


# ---- the registry ----


@dataclass(frozen=True)
class Objective:
    """Everything that the package knows about one objective.

    Attributes:
        formula: from a Batch and LossWeights to a scalar loss.
        needs: the groups of data that it reads.
        reference: the group whose answers the frozen model predicts too; None: none.
        label: its name in tables and charts; None: the key in OBJECTIVES.
        description: its formula and its meaning, in a line.
        ascends: whether it raises the loss of harmful answers. Negated, the adapter of such a run
            may bring the harm back.
        official: the weights of the official code together with PD.
        learning_rates: by profile, the rate tuned without PD; with PD it is the same, so that
            nothing but the PD term differs.

    Raises:
        UserError: needs or reference names no such group.
    """

    formula: Callable[[Batch, LossWeights], Tensor]
    needs: tuple[str, ...]
    reference: str | None = None
    label: str | None = None
    description: str = "an objective of the user's own"
    ascends: bool = True  # unless it is known not to
    official: LossWeights = LossWeights()
    learning_rates: dict[str, float] = field(default_factory=dict)

    def __post_init__(self):
        if isinstance(self.needs, str) or not self.needs:
            raise UserError(f"needs is {self.needs!r}: name groups, such as needs=('forget',)")
        for group in self.needs:
            check_choice(group, ("forget", "refuse", "retain"), "group in needs")
        if self.reference is not None:  # it has the answers of the data, and refusals are none
            read = tuple(group for group in self.needs if group != "refuse")
            check_choice(self.reference, read, f"reference (needs is {self.needs})")


# With PD the official code weighs L(d) by 0.5 for GA and GD and by 1 for KL and PO, and halves GD's
# retain term besides. It has no NPO and no bounded ascent: they take the weights of the objective
# they stand beside. The order is that of tables and charts. Your own joins with
# `OBJECTIVES["name"] = Objective(...)`.
#
# Tuned learning rates: on val, by one rule (`report.tuning`), among the candidates of
# `sweeps/learning_rate.yaml`, plain rows, three seeds. Test pictures and other worlds were never
# used.
OBJECTIVES = {
    "ga": Objective(
        gradient_ascent,
        ("forget",),
        label="GA",
        description="−L(f): the loss of the forget answers is raised (gradient ascent)",
        official=LossWeights(decouple=0.5),
        learning_rates={"tiny": 5e-4},
    ),
    "gd": Objective(
        gradient_difference,
        ("forget", "retain"),
        label="GD",
        description="−L(f) + w·L(r): the loss of the forget answers is raised, that of the retain "
        "answers lowered (gradient difference)",
        official=LossWeights(retain=0.5, decouple=0.5),
        learning_rates={"tiny": 2e-3},
    ),
    "kl": Objective(
        kl_minimisation,
        ("forget", "retain"),
        reference="retain",
        label="KL",
        description="−L(f) + w·KL(reference ‖ model) on r: the loss of the forget answers is "
        "raised, the retain answers stay as likely as before (KL minimisation)",
        learning_rates={"tiny": 2e-3},
    ),
    "gd_bounded": Objective(
        bounded_gradient_difference,
        ("forget", "retain"),
        label="GD bounded",
        description="−min(L(f), cap) + w·L(r): as GD, until an answer is as unlikely as to a model "
        "that never learned it (ours)",
        official=LossWeights(retain=0.5, decouple=0.5),
        learning_rates={"tiny": 2e-3},
    ),
    "kl_bounded": Objective(
        bounded_kl_minimisation,
        ("forget", "retain"),
        reference="retain",
        label="KL bounded",
        description="−min(L(f), cap) + w·KL(reference ‖ model) on r: as KL, until an answer is as "
        "unlikely as to a model that never learned it (ours)",
        learning_rates={"tiny": 2e-3},
    ),
    "po": Objective(
        preference_optimisation,
        ("refuse", "retain"),
        label="PO",
        description="L over {idk, r}: forget questions are answered by a refusal, retain questions "
        "as before (preference optimisation)",
        ascends=False,
        learning_rates={"tiny": 1e-3},
    ),
    "npo": Objective(
        negative_preference_optimisation,
        ("forget",),
        reference="forget",
        label="NPO",
        description="−(2/β) E log σ(−β log(p / p_reference)) on f: the forget answers become less "
        "likely than before, with a bound (negative preference optimisation)",
        official=LossWeights(decouple=0.5),
        learning_rates={"tiny": 5e-4},
    ),
    "npo_rt": Objective(
        npo_with_retain,
        ("forget", "retain"),
        reference="forget",
        label="NPO+RT",
        description="NPO + w·L(r): the forget answers become less likely than before, with a "
        "bound, and the retain answers stay",
        official=LossWeights(decouple=0.5),
        learning_rates={"tiny": 5e-4},
    ),
}
_SHIPPED = dict(OBJECTIVES)


def label_of(objective: str) -> str:
    """An objective's name in tables and charts."""
    known = OBJECTIVES.get(objective)
    return (known.label if known else None) or objective


def loss_weights(config) -> LossWeights:
    """The weights of a run.

    `official` are those of the paper's code. `matched` is the plain objective + λ L(d) with λ = 1,
    which isolates PD. Without PD there is nothing to choose, and both presets agree.

    Args:
        config: from `config`; its objective, decouple, weights, npo_beta and forget_cap.
    """
    given = LossWeights(beta=config.npo_beta, cap=config.forget_cap)
    if config.weights == "official" and config.decouple != "none":
        official = OBJECTIVES[config.objective].official
        return replace(given, retain=official.retain, decouple=official.decouple)
    return given


def loss(objective: str, x: Batch, w: LossWeights) -> tuple[Tensor, dict[str, float]]:
    """The loss of a batch, and its terms by name for the history.

    PD (or its placebo) is part of the loss exactly when the batch has a decouple group.
    """
    formula = OBJECTIVES[objective].formula
    total = formula(x, w) if x.decouple is None else decoupled(formula, x, w)
    with torch.no_grad():
        groups = {name: getattr(x, name) for name in ("forget", "refuse", "retain", "decouple")}
        terms = {name: nll(group).item() for name, group in groups.items() if group is not None}
    return total, {"loss": total.item()} | terms


def own_recipe(name: str) -> str:
    """The text that identifies an objective of the user's own: the source of its formula, its needs
    and its weights. Empty for the package's objectives, which their names identify.

    Raises:
        UserError: the formula has no source.
    """
    objective = OBJECTIVES[name]
    if _SHIPPED.get(name) == objective:
        return ""
    try:
        source = inspect.getsource(objective.formula)
    except (OSError, TypeError):
        raise UserError(
            f"the formula of objective {name!r} has no source that could identify it: define it "
            "with `def` in a notebook cell or a file"
        ) from None
    return f"{source}{objective.needs} {objective.reference} {objective.official}"
