"""Objectives from beyond SafeEraser, as formulas over losses; `objectives.OBJECTIVES` names them.

They were written for language models, and here read a picture's questions as all others do. Where a
paper leaves a choice or could not be read in full, the docstring says what is ours.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from .losses import Answers, Batch, LossWeights, divergence, nll


def simple_negative_preference_optimisation(x: Batch, w: LossWeights) -> Tensor:
    """SimNPO: −(2/β) E log σ(−(β/|y|) log p) + L(r), |y| the answer's length, β the strength.

    NPO without a reference: an answer counts by its mean log-likelihood per token, so a long one is
    not taken for a forgotten one (arXiv 2410.07163). Its margin γ is 0 here.
    """
    per_token = x.forget.nll / x.forget.mask.sum(-1)
    forgotten = F.logsigmoid(w.strength * per_token).sum() / x.forget.rows
    return -2 / w.strength * forgotten + w.retain * nll(x.retain)


def direct_preference_optimisation(x: Batch, w: LossWeights) -> Tensor:
    """DPO: −(2/β) E log σ(β log(p / p_reference)(idk) − β log(p / p_reference)(f)) + L(r).

    A refusal is preferred to the harmful answer (DPO: arXiv 2305.18290; for unlearning, with an
    "I don't know" as the preferred answer, in the NPO paper, 2404.05868). The factor is NPO's: take
    the refusal away and this is NPO+RT.
    """
    refusal = x.reference.refuse.nll - x.refuse.nll
    harmful = x.reference.forget.nll - x.forget.nll
    preferred = F.logsigmoid(w.beta * (refusal - harmful)).sum() / x.forget.rows
    return -2 / w.beta * preferred + w.retain * nll(x.retain)


def self_distillation(x: Batch, w: LossWeights) -> Tensor:
    """UNDIAL: the cross-entropy, per answer token of f, from softmax(z_reference − γ·1[token]) to
    the model. 1[token] marks the answer's token, and γ is the strength.

    The model learns to say what it would have said, had the answer's own token been less likely
    (arXiv 2402.10052). The reference does not move, so the loss has a minimum. No retain term, as
    in the paper.
    """
    answered = x.forget.mask
    lowered = F.one_hot(x.forget.labels[answered], x.forget.logits.shape[-1]) * w.strength
    target = F.softmax(x.reference.forget.logits[answered].float() - lowered, dim=-1)
    total = F.cross_entropy(x.forget.logits[answered].float(), target, reduction="sum")
    return total / x.forget.tokens


def representation_misdirection(x: Batch, w: LossWeights) -> Tensor:
    """RMU: E ‖h(f) − c‖h₀(f)‖u‖² / ‖h₀(f)‖² + E ‖h(r) − h₀(r)‖² / ‖h₀(r)‖².

    h is a state of one inner layer, h₀ the frozen model's, u a random unit vector with entries from
    0 to 1, and c the strength. What the layer says of a forget answer is replaced by noise, and
    what it says of a retain answer is kept.

    Source: arXiv 2403.03218. There the target is c·u with one c for all tokens; here, as in
    adaptive RMU (arXiv 2408.06223), it is as long as the frozen state, times c. Both terms are
    divided by the frozen state's square, so that c and the weights mean the same in any model; so
    the retain term weighs 1, where the paper, which divides by nothing, gives it 100 and more.
    The paper steers all tokens of a text and trains three layers; here it is the places that
    predict the answer, and LoRA on every layer.
    """
    forget, retain = x.reference.forget, x.reference.retain
    length = forget.hidden.float().norm(dim=-1, keepdim=True)
    misdirected = _distance(x.forget, w.strength * length * x.direction, forget)
    return misdirected + w.retain * _distance(x.retain, retain.hidden.float(), retain)


def _distance(x: Answers, target: Tensor, reference: Answers) -> Tensor:
    """The mean over answer tokens of ‖h − target‖² / ‖h₀‖²."""
    distances = (x.hidden.float() - target).square().sum(-1)
    units = reference.hidden.float().square().sum(-1)
    return torch.where(x.mask, distances / units.where(x.mask, 1), 0).sum() / x.tokens


def text_alone(x: Batch, w: LossWeights) -> Tensor:
    """L(idk) + KL(reference ‖ model) on r, with no picture: the object is named in the question.

    That unlearning in words alone carries over to pictures is arXiv 2406.02575's finding. Its own
    loss could not be read; this one puts a refusal in place, and keeps what the model says without
    pictures.
    """
    return nll(x.refuse) + w.retain * divergence(x.reference.retain, x.retain)


def task_vector(x: Batch, w: LossWeights) -> Tensor:
    """L(f), and at the end the trained change is subtracted instead of added: θ₀ − (θ − θ₀).

    Negation of a task vector (arXiv 2212.04089), of LoRA as in arXiv 2306.14870. Both scale the
    vector by a factor chosen on val; here the learning rate plays that part.
    """
    return nll(x.forget)
