"""The unlearning objectives, as formulas over losses: SafeEraser's here, others' in
`further_objectives`; and the registry of all.

L(x), f, r, d and idk: see `losses`. Prompt Decouple (PD) adds one term, λ L(d), to any objective.

Sources: SafeEraser (arXiv 2502.12520) and its official code; NPO: arXiv 2404.05868.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from safeerase_lite.utils import UserError, check_choice

from . import further_objectives as further
from .losses import Answers, Batch, LossWeights, bounded_nll, divergence, nll

__all__ = [
    "OBJECTIVES", "UNTRAINED", "Answers", "Batch", "LossWeights", "Objective", "bounded_nll",
    "decoupled", "divergence", "label_of", "loss", "loss_weights", "nll",
]  # fmt: skip

UNTRAINED = ("vanilla", "gold")  # the model as it is, and one that never saw the harm


# ---- the formulas ----


def gradient_ascent(x: Batch, w: LossWeights) -> Tensor:
    """GA: −L(f)"""
    return -nll(x.forget)


def gradient_difference(x: Batch, w: LossWeights) -> Tensor:
    """GD: −L(f) + L(r)"""
    return -nll(x.forget) + w.retain * nll(x.retain)


def kl_minimisation(x: Batch, w: LossWeights) -> Tensor:
    """KL: −L(f) + KL(reference ‖ model) on r"""
    return -nll(x.forget) + w.retain * divergence(x.reference.retain, x.retain)


def bounded_gradient_difference(x: Batch, w: LossWeights) -> Tensor:
    """GD, bounded: −min(L(f), cap) + L(r), answer by answer. Ours: ascent without a bound goes on
    long after the answer is forgotten"""
    return -bounded_nll(x.forget, w.cap) + w.retain * nll(x.retain)


def bounded_kl_minimisation(x: Batch, w: LossWeights) -> Tensor:
    """KL, bounded: −min(L(f), cap) + KL(reference ‖ model) on r, answer by answer. Ours"""
    return -bounded_nll(x.forget, w.cap) + w.retain * divergence(x.reference.retain, x.retain)


def preference_optimisation(x: Batch, w: LossWeights) -> Tensor:
    """PO: L over the batch {idk, r}, weighted by tokens as in the official code"""
    return nll(x.refuse, x.retain)


def negative_preference_optimisation(x: Batch, w: LossWeights) -> Tensor:
    """NPO: −(2/β) E log σ(−β log(p / p_reference)), the bounded alternative to GA"""
    log_ratio = x.reference.forget.nll - x.forget.nll
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
        reference: the groups whose answers the frozen model predicts too.
        label: its name in tables and charts; None: the key in OBJECTIVES.
        description: its formula and its meaning, in a line.
        strength: a constant of its own, which its formula reads as `w.strength`.
        depth: where the layer is whose states it reads, as a share of the layers; None: it reads
            none.
        pictures: False: no picture is shown with the groups it needs, and questions name the object
            instead.
        negated: the trained change is subtracted from the model at the end instead of added. PD is
            refused: what it teaches would be negated too.
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
    reference: tuple[str, ...] = ()
    strength: float = 1.0
    depth: float | None = None
    pictures: bool = True
    negated: bool = False
    label: str | None = None
    description: str = "an objective of the user's own"
    ascends: bool = True  # unless it is known not to
    official: LossWeights = LossWeights()
    learning_rates: dict[str, float] = field(default_factory=dict)

    def __post_init__(self):
        if isinstance(self.needs, str) or not self.needs:
            raise UserError(f"needs is {self.needs!r}: name groups, such as needs=('forget',)")
        if isinstance(self.reference, str) or self.reference is None:
            raise UserError(
                f"reference is {self.reference!r}: name groups, such as reference=('retain',)"
            )
        for group in self.needs:
            check_choice(group, ("forget", "refuse", "retain"), "group in needs")
        for group in self.reference:
            check_choice(group, self.needs, f"group in reference (needs is {self.needs})")


# With PD the official code weighs L(d) by 0.5 for GA and GD and by 1 for KL and PO, and halves GD's
# retain term besides. The others are not in it: they take the weights of the objective that they
# stand beside, and where there is none, 1. The order is that of tables and charts. Your own joins
# with `OBJECTIVES["name"] = Objective(...)`.
#
# Tuned learning rates: on val, by one rule (`report.tuning`), among the candidates of
# `sweeps/learning_rate.yaml`, plain rows, three seeds; where none qualifies (UNDIAL, text alone,
# negation), the one with the least ASR. Test pictures and other worlds were never used.
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
        reference=("retain",),
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
        reference=("retain",),
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
        reference=("forget",),
        label="NPO",
        description="−(2/β) E log σ(−β log(p / p_reference)) on f: the forget answers become less "
        "likely than before, with a bound (negative preference optimisation)",
        official=LossWeights(decouple=0.5),
        learning_rates={"tiny": 5e-4},
    ),
    "npo_rt": Objective(
        npo_with_retain,
        ("forget", "retain"),
        reference=("forget",),
        label="NPO+RT",
        description="NPO + w·L(r): the forget answers become less likely than before, with a "
        "bound, and the retain answers stay",
        official=LossWeights(decouple=0.5),
        learning_rates={"tiny": 5e-4},
    ),
    "simnpo": Objective(
        further.simple_negative_preference_optimisation,
        ("forget", "retain"),
        strength=2.5,
        label="SimNPO",
        description="−(2/β) E log σ(−(β/|y|) log p) on f + w·L(r): as NPO+RT, by the mean per "
        "token and without a reference",
        official=LossWeights(decouple=0.5),
        learning_rates={"tiny": 2e-3},
    ),
    "dpo": Objective(
        further.direct_preference_optimisation,
        ("forget", "refuse", "retain"),
        reference=("forget", "refuse"),
        label="DPO",
        description="−(2/β) E log σ(β log(p / p_reference)(idk) − β log(p / p_reference)(f)) + "
        "w·L(r): a refusal is preferred to the harmful answer (direct preference optimisation)",
        ascends=True,
        learning_rates={"tiny": 5e-4},
    ),
    "undial": Objective(
        further.self_distillation,
        ("forget",),
        reference=("forget",),
        strength=10.0,
        label="UNDIAL",
        description="cross-entropy to softmax(z_reference − γ·1[token]) on f: the frozen model's "
        "own predictions, the answer's token made less likely (self-distillation)",
        learning_rates={"tiny": 5e-4},
    ),
    "rmu": Objective(
        further.representation_misdirection,
        ("forget", "retain"),
        reference=("forget", "retain"),
        depth=0.5,
        label="RMU",
        description="E ‖h(f) − c‖h₀‖u‖² / ‖h₀‖² + w·E ‖h(r) − h₀(r)‖² / ‖h₀‖²: an inner layer's "
        "states are turned to a random direction on f, and kept on r (representation misdirection)",
        learning_rates={"tiny": 1e-3},
    ),
    "text": Objective(
        further.text_alone,
        ("refuse", "retain"),
        reference=("retain",),
        pictures=False,
        label="Text alone",
        description="L(idk) + w·KL(reference ‖ model) on r, without pictures: the question names "
        "the object and is answered by a refusal",
        ascends=False,
        learning_rates={"tiny": 1e-3},
    ),
    "negation": Objective(
        further.task_vector,
        ("forget",),
        negated=True,
        label="Negation",
        description="θ₀ − (θ − θ₀), θ trained on L(f): what learning the forget answers changes is "
        "subtracted (task-vector negation)",
        learning_rates={"tiny": 2e-3},
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
    objective = OBJECTIVES[config.objective]
    given = LossWeights(beta=config.npo_beta, cap=config.forget_cap, strength=objective.strength)
    if config.weights == "official" and config.decouple != "none":
        official = objective.official
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
    """The text that identifies an objective of the user's own: the source of its formula, and
    the rest that decides a result. Empty for the package's objectives, which their names identify.

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
    own = {f.name: getattr(objective, f.name) for f in fields(objective)}
    hidden = ("formula", "label", "description", "ascends", "learning_rates")
    return source + str({name: own[name] for name in own if name not in hidden})
