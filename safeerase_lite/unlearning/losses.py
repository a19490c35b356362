"""What an objective reads, and the losses it is made of.

L(x) is the mean negative log-likelihood over the answer tokens of a batch x. f is the forget batch,
r the retain batch, d the decouple batch, and idk the forget questions answered by a refusal.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_ABSENT: Any = None


@dataclass(frozen=True)
class Answers:
    """A model's predictions for the answers of a batch.

    Attributes:
        logits: (batch, length, vocabulary); the prediction *for* the token at the same index.
        labels: (batch, length); the answer's tokens, -100 wherever there is no answer.
        step_tokens, step_rows: answer tokens and rows of the complete step, when this batch is one
            part of it (gradient accumulation, several processes). The mean of the parts' means is
            not the mean over all tokens, so every part is divided by the step's count.
        hidden: (batch, length, width); the states of an inner layer at the same places, for an
            objective that reads them (`Objective.depth`).
    """

    logits: Tensor
    labels: Tensor
    step_tokens: int | None = None
    step_rows: int | None = None
    hidden: Tensor = _ABSENT

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


@dataclass(frozen=True)
class Batch:
    """All that an objective may read. A group that it does not need is None.

    Attributes:
        reference: the frozen model's predictions for the groups that the objective compares with
            them: `x.reference.retain` (KL), `x.reference.forget` (NPO).
        direction: (width,), a random unit vector, the same throughout a run (RMU).
    """

    forget: Answers = _ABSENT
    refuse: Answers = _ABSENT
    retain: Answers = _ABSENT
    decouple: Answers = _ABSENT
    reference: "Batch" = _ABSENT
    direction: Tensor = _ABSENT


@dataclass(frozen=True)
class LossWeights:
    """Factors of an objective's terms.

    Attributes:
        beta: the inverse temperature of NPO and DPO.
        cap: where bounded ascent stops, in nats per answer token.
        strength: an objective's own constant, as `Objective.strength` has it.
    """

    retain: float = 1.0
    decouple: float = 1.0
    beta: float = 0.1
    cap: float = math.inf
    strength: float = 1.0


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
