"""The exercises of notebook b: GA, GD and KL written by hand, and why GA has no bottom.

The formulas are those of `objectives.py`: SafeEraser (arXiv 2502.12520) and its official code; NPO:
arXiv 2404.05868.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from safeerase_lite.exercises.a_the_loss_on_the_answer import (
    CUT_OFF,
    IGNORED,
    L,
    learnable,
    leaves,
    logits_and_labels,
    token_nll,
    trainable,
)
from safeerase_lite.exercises.exercise import Exercise, Mistake

TITLE = "Pushing away: GA, GD and KL"
Group = tuple[Tensor, Tensor]  # aligned logits and labels
WORDS = 5


# ---- what is drawn ----


def logits_and_token(rng: np.random.Generator) -> tuple[Tensor, int]:
    return torch.from_numpy(rng.normal(size=WORDS)).float(), int(rng.integers(WORDS))


def start_of_a_climb(rng: np.random.Generator) -> tuple[Tensor, int, float, int]:
    rate = round(float(rng.uniform(0.3, 0.9)), 1)
    return *logits_and_token(rng), rate, int(rng.integers(3, 6))


def groups_with_or_without_decouple(rng: np.random.Generator) -> tuple[Group, Group, Group | None]:
    forget, retain, decouple = (logits_and_labels(rng) for _ in range(3))
    return forget, retain, decouple if rng.integers(2) else None


def two_opinions(rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """On one answer token both agree: it counts all the same."""
    logits, labels = logits_and_labels(rng)
    reference = logits + torch.from_numpy(rng.normal(size=logits.shape)).float()
    row, place = (labels != IGNORED).nonzero()[0]
    reference[row, place] = logits[row, place]
    return reference, logits, labels


def groups_and_reference(rng: np.random.Generator) -> tuple[Group, Group, Tensor]:
    reference, logits, labels = two_opinions(rng)
    return logits_and_labels(rng), (logits, labels), reference


def nats_then_and_now(rng: np.random.Generator) -> tuple[Tensor, Tensor, float]:
    rows, beta = int(rng.integers(2, 5)), float(rng.choice([0.1, 0.2, 0.3]))
    before = rng.uniform(1, 9, size=rows)
    nats = before + rng.uniform(-1, 12, size=rows)
    return torch.from_numpy(nats).float(), torch.from_numpy(before).float(), beta


# ---- what is looked at ----


def of_logits(answer: Callable, reference: Tensor, logits: Tensor, labels: Tensor) -> Any:
    logits.requires_grad_()
    return learnable(answer(reference, logits, labels))


def of_nats(answer: Callable, nats: Tensor, before: Tensor, beta: float) -> Any:
    nats.requires_grad_()
    return learnable(answer(nats, before, beta))


def who_is_pulled(answer: Callable, *given) -> Any:
    """The loss, and whether a gradient flows into forget logits, retain logits and reference."""
    for leaf in leaves(given):
        leaf.requires_grad_()
    loss = answer(*given)
    told = learnable(loss)
    if not told or not told["its gradient"] or loss.ndim:
        return told
    loss.backward()
    names = ("the forget logits", "the retain logits", "the reference")
    pulled = (leaf.grad is not None for leaf in leaves(given))
    return told | {f"a gradient into {name}": one for name, one in zip(names, pulled, strict=True)}


# ---- b1: gradient ascent ----


def ga(logits: Tensor, labels: Tensor) -> Tensor:
    return -L(logits, labels)


# ---- b2: its pull on the logits ----


def pull(logits: Tensor, token: int) -> Tensor:
    return logits.softmax(-1) - _one(token, logits)


def _one(token: int, logits: Tensor) -> Tensor:
    return F.one_hot(torch.tensor(token), len(logits)).float()


def _of_the_probability(logits, token):
    return logits.softmax(-1)[token] * pull(logits, token)


def _of_log_p_by_p(logits, token):
    return -_one(token, logits) / logits.softmax(-1)[token]


# ---- b3: many steps ----


def ascend(logits: Tensor, token: int, rate: float, steps: int, of: Callable = pull) -> list[float]:
    nats = [-logits.log_softmax(-1)[token].item()]
    for _ in range(steps):
        logits = logits + rate * of(logits, token)
        nats.append(-logits.log_softmax(-1)[token].item())
    return nats


def _descend(logits, token, rate, steps):
    return ascend(logits, token, -rate, steps)


def _first_pull_for_ever(logits, token, rate, steps):
    first = pull(logits, token)
    return ascend(logits, token, rate, steps, of=lambda logits, token: first)


def _always_from_the_start(logits, token, rate, steps):
    nats = ascend(logits, token, rate, 1)
    return nats[:1] + nats[1:] * steps


def _in_place(logits, token, rate, steps):
    nats = ascend(logits, token, rate, steps)
    logits += rate * pull(logits, token)
    return nats


# ---- b4: gradient difference, with the official weights ----


def _weighted(f=-1.0, r=1.0, r_with=0.5, d=0.5) -> Callable:
    def weighted(forget: Group, retain: Group, decouple: Group | None) -> Tensor:
        if decouple is None:
            return f * L(*forget) + r * L(*retain)
        return f * L(*forget) + r_with * L(*retain) + d * L(*decouple)

    return weighted


gd = _weighted()


def _never_none(forget, retain, decouple):
    return -L(*forget) + 0.5 * L(*retain) + 0.5 * L(*decouple)


def _one_quotient(forget, retain, decouple):
    signs = zip((forget, retain, decouple), (-1.0, 1.0, 1.0), strict=True)
    given = [(group, sign) for group, sign in signs if group is not None]
    nats = sum(sign * token_nll(*group).sum() for group, sign in given)
    return nats / sum((group[1] != IGNORED).sum() for group, _ in given)


# ---- b5: KL ----


def divergence(reference: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    return _kl_of_each(reference, logits)[labels != IGNORED].mean()


def _kl_of_each(reference, logits):
    p, q = reference.log_softmax(-1), logits.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def _answers_over_all(reference, logits, labels):
    return (_kl_of_each(reference, logits) * (labels != IGNORED)).mean()


def _also_by_words(reference, logits, labels):
    return divergence(reference, logits, labels) / logits.shape[-1]


def _everything_over_rows(reference, logits, labels):
    return _kl_of_each(reference, logits).sum() / len(labels)


def _everything_over_answers(reference, logits, labels):
    return _kl_of_each(reference, logits).sum() / (labels != IGNORED).sum()


def _not_normalised(reference, logits, labels):
    return (reference.softmax(-1) * (reference - logits)).sum(-1)[labels != IGNORED].mean()


def _over_what_differs(reference, logits, labels):
    each = _kl_of_each(reference, logits) * (labels != IGNORED)
    return each.sum() / (each != 0).sum()


def _mean_of_rows(reference, logits, labels):
    answer = labels != IGNORED
    return ((_kl_of_each(reference, logits) * answer).sum(-1) / answer.sum(-1)).mean()


def _cross_entropy(reference, logits, labels):
    each = -(reference.softmax(-1) * logits.log_softmax(-1)).sum(-1)
    return each[labels != IGNORED].mean()


def _log_for_probabilities(reference, logits, labels):
    p, q = reference.log_softmax(-1), logits.log_softmax(-1)
    return F.kl_div(q, p, reduction="batchmean")


def _probabilities_for_log(reference, logits, labels):
    answer = labels != IGNORED
    p, q = reference[answer].softmax(-1), logits[answer].softmax(-1)
    return F.kl_div(q, p, reduction="batchmean")


# ---- b6: the whole KL objective ----


def kl(forget: Group, retain: Group, reference: Tensor) -> Tensor:
    return -L(*forget) + divergence(reference.detach(), *retain)


def _frozen_model(forget, retain, reference):
    return -L(*forget) + divergence(reference, retain[0].detach(), retain[1])


def _swapped(forget, retain, reference):
    return -L(*forget) + divergence(retain[0], reference.detach(), retain[1])


# ---- b7: NPO ----


def npo(nats: Tensor, before: Tensor, beta: float) -> Tensor:
    return -2 / beta * F.logsigmoid(-beta * (before - nats)).mean()


EXERCISES = (
    Exercise(
        id="b1",
        title="Gradient ascent",
        name="ga",
        difficulty=1,
        importance=5,
        minutes=4,
        outcome="one that guesses among all words",
        reference=ga,
        inputs=logits_and_labels,
        observe=trainable,
        mistakes=(
            Mistake(
                L,
                "the sign of ascent is missing: an optimiser makes a loss *smaller*, so this "
                "teaches the harmful answer.",
            ),
            Mistake(
                lambda logits, labels: -token_nll(logits, labels).mean(),
                "you averaged over prompt and padding too: divide by the answer's tokens, as L "
                "does.",
            ),
            Mistake(
                lambda logits, labels: -token_nll(logits, labels).sum(),
                "this is the sum over the tokens: L is their mean.",
            ),
            Mistake(
                lambda logits, labels: torch.exp(-L(logits, labels)),
                "this is a probability: it falls to 0 and ends there, its gradient with it. It "
                "would forget, too, but gradient ascent is −L.",
            ),
            Mistake(lambda logits, labels: ga(logits, labels).detach(), CUT_OFF, credit=0.5),
        ),
    ),
    Exercise(
        id="b2",
        title="Its pull on the logits",
        name="pull",
        difficulty=3,
        importance=4,
        minutes=8,
        outcome="p = 0.0001",
        reference=pull,
        inputs=logits_and_token,
        mistakes=(
            Mistake(
                lambda logits, token: -pull(logits, token),
                "the sign: so pulls ordinary training, which lifts the token. Ascent on the loss "
                "adds its gradient, p minus one-hot.",
                credit=0.5,
            ),
            Mistake(
                lambda logits, token: logits.softmax(-1),
                "the token itself lacks its −1: its own logit also stands in the numerator of p.",
            ),
            Mistake(
                lambda logits, token: -_one(token, logits),
                "only log p's numerator: every logit is in the softmax's denominator too, so what "
                "the token loses the others gain.",
            ),
            Mistake(
                lambda logits, token: pull(logits, token) * _one(token, logits),
                "right for the token, but the others move too: each logit rises by its own p.",
                credit=0.5,
            ),
            Mistake(
                _of_the_probability,
                "this is the gradient of −p, not of −log p: it fades as p falls. (It would have a "
                "bottom. GA has not.)",
            ),
            Mistake(
                _of_log_p_by_p,
                "this is the derivative by p, −1/p: go on to the logits by the chain rule, where "
                "the p cancels.",
            ),
            Mistake(
                lambda logits, token: logits + pull(logits, token),
                "these are the logits after the step: return only what was added.",
                credit=0.5,
            ),
        ),
    ),
    Exercise(
        id="b3",
        title="Many steps",
        name="ascend",
        difficulty=2,
        importance=5,
        minutes=7,
        outcome="as much, or more",
        reference=ascend,
        inputs=start_of_a_climb,
        mistakes=(
            Mistake(
                _descend,
                "the token becomes *likelier*: add the pull, do not take it away.",
            ),
            Mistake(
                _first_pull_for_ever,
                "the pull of the first step is used for ever: work it out anew from the new "
                "logits.",
            ),
            Mistake(
                _in_place,
                "right, but `logits +=` writes into the tensor you were given, and the next climb "
                "starts where this one ended: `logits = logits + …` makes a new one.",
                credit=0.5,
            ),
            Mistake(
                _always_from_the_start,
                "every step starts at the same logits: the new ones must take the old ones' place.",
            ),
            Mistake(
                lambda *given: ascend(*given)[1:],
                "the loss before the first step is missing: steps + 1 numbers.",
                credit=0.5,
            ),
            Mistake(
                lambda *given: ascend(*given)[:-1],
                "the loss after the last step is missing: steps + 1 numbers.",
                credit=0.5,
            ),
            Mistake(
                lambda *given: [-nats for nats in ascend(*given)],
                "these are log p, or GA's own loss: return −log p.",
                credit=0.5,
            ),
            Mistake(
                lambda logits, token, rate, steps: ascend(logits, token, 1.0, steps),
                "the rate is not used: each step adds rate times the pull.",
            ),
        ),
    ),
    Exercise(
        id="b4",
        title="Gradient difference, as in the official code",
        name="gd",
        difficulty=2,
        importance=4,
        minutes=6,
        outcome="no",
        reference=gd,
        inputs=groups_with_or_without_decouple,
        observe=trainable,
        mistakes=(
            Mistake(
                _weighted(r=0.5),
                "the retain weight is halved without PD: the official code halves it only together "
                "with L(decouple).",
                credit=0.5,
            ),
            Mistake(
                _weighted(r_with=1.0),
                "with PD the official code takes the retain weight down to 0.5; yours stays at 1.",
                credit=0.5,
            ),
            Mistake(
                _weighted(r_with=1.0, d=1.0),
                "these are the weights we call *matched*, plain + 1 · L(decouple). The official "
                "code has 0.5 for both.",
                credit=0.5,
            ),
            Mistake(
                _never_none,
                "right with a decouple group; but it may be None, and then GD is plain: "
                "−L(forget) + L(retain).",
                credit=0.5,
            ),
            Mistake(
                _weighted(d=0.0),
                "L(decouple) is missing when there is a decouple group.",
            ),
            Mistake(
                _weighted(f=1.0),
                "the sign of L(forget): so both are learned, the harmful answers too.",
            ),
            Mistake(
                _weighted(f=1.0, r=-1.0, r_with=-0.5, d=-0.5),
                "all signs are turned round: this unlearns what should stay and learns the harm.",
            ),
            Mistake(
                _weighted(r=-1.0, r_with=-0.5),
                "the sign of L(retain): so the retain answers are unlearned too.",
            ),
            Mistake(
                _one_quotient,
                "one quotient for all: each L is a mean over *its* tokens, and GD adds the means.",
            ),
            Mistake(lambda *groups: gd(*groups).detach(), CUT_OFF, credit=0.5),
        ),
    ),
    Exercise(
        id="b5",
        title="KL, word by word",
        name="divergence",
        difficulty=4,
        importance=4,
        minutes=9,
        outcome="more than ten times as large",
        reference=divergence,
        inputs=two_opinions,
        observe=of_logits,
        mistakes=(
            Mistake(
                lambda reference, logits, labels: divergence(logits, reference, labels),
                "the arguments are swapped: the reference is the p in Σ p (log p − log q), so that "
                "the model must cover all that the reference believes.",
                credit=0.5,
            ),
            Mistake(
                lambda reference, logits, labels: _kl_of_each(reference, logits).mean(),
                "prompt, picture and padding are in it too (so it is in the official code): take "
                "only positions whose label is not −100.",
                credit=0.5,
            ),
            Mistake(
                _answers_over_all,
                "summed over the answers but divided by every position: padding is in the mean.",
                credit=0.5,
            ),
            Mistake(
                _everything_over_answers,
                "divided by the answer tokens, but prompt, picture and padding are still in the "
                "sum: pick the answers first.",
                credit=0.5,
            ),
            Mistake(
                _everything_over_rows,
                "divided by the rows, as F.kl_div's batchmean does: pick the answer positions "
                "first, [labels != -100], and its mean is theirs.",
                credit=0.5,
            ),
            Mistake(
                _also_by_words,
                "divided by the number of words too: *sum* over the vocabulary, then average over "
                "the tokens. (F.kl_div's own mean does this.)",
                credit=0.5,
            ),
            Mistake(
                _over_what_differs,
                "you count the tokens whose KL is not 0: where the two agree it is 0, and that "
                "token counts all the same. Count labels that are not -100.",
                credit=0.5,
            ),
            Mistake(
                _mean_of_rows,
                "this is the mean of the answers' means, where a token of a short answer weighs "
                "more: average once, over all answer tokens.",
                credit=0.5,
            ),
            Mistake(
                _not_normalised,
                "these logs are not normalised: a logit is no log-probability before "
                ".log_softmax(-1).",
            ),
            Mistake(
                _cross_entropy,
                "this is the cross-entropy −Σ p log q: the gradient is KL's, but it is not 0 when "
                "the two agree. Take the reference's own Σ p log p along.",
                credit=0.5,
            ),
            Mistake(
                _probabilities_for_log,
                "F.kl_div wants the *log*-probabilities of the model as its first argument.",
            ),
            Mistake(
                _log_for_probabilities,
                "F.kl_div takes its second argument for probabilities, and log p is negative: say "
                "log_target=True.",
                credit=0.5,
            ),
            Mistake(
                lambda reference, logits, labels: -divergence(reference, logits, labels),
                "the sign: a KL divergence is never negative.",
                credit=0.5,
            ),
            Mistake(
                lambda reference, logits, labels: divergence(reference, logits, labels).detach(),
                CUT_OFF,
                credit=0.5,
            ),
        ),
    ),
    Exercise(
        id="b6",
        title="The KL objective, its reference frozen",
        name="kl",
        difficulty=2,
        importance=4,
        minutes=5,
        outcome="0",
        reference=kl,
        inputs=groups_and_reference,
        observe=who_is_pulled,
        mistakes=(
            Mistake(
                lambda forget, retain, reference: -L(*forget) + divergence(reference, *retain),
                "a gradient flows into the reference: it would come to meet the model half-way. "
                "`.detach()` it.",
                credit=0.5,
            ),
            Mistake(
                _frozen_model,
                "the wrong one is frozen: the model should learn, the reference should not.",
            ),
            Mistake(
                lambda forget, retain, reference: (
                    -L(*forget) + divergence(reference.detach(), retain[0].detach(), retain[1])
                ),
                "both sides of KL are detached, so it pulls at nothing: the reference is frozen, "
                "the model is not.",
            ),
            Mistake(
                _swapped,
                "divergence's arguments are swapped: first the reference, then the model.",
                credit=0.5,
            ),
            Mistake(
                lambda forget, retain, reference: (
                    L(*forget) + divergence(reference.detach(), *retain)
                ),
                "the sign of L(forget): so the harmful answers are learned.",
            ),
            Mistake(
                lambda forget, retain, reference: (
                    -L(*forget) - divergence(reference.detach(), *retain)
                ),
                "the sign of KL: so the model is driven *away* from the reference.",
            ),
            Mistake(
                lambda forget, retain, reference: divergence(reference.detach(), *retain),
                "−L(forget) is missing: so nothing is forgotten.",
            ),
            Mistake(lambda *groups: kl(*groups).detach(), CUT_OFF, credit=0.5),
            Mistake(
                lambda forget, retain, reference: (
                    -L(*forget) + 0.5 * divergence(reference.detach(), *retain)
                ),
                "the weight of KL is 1: the official code halves GD's retain term only.",
                credit=0.5,
            ),
        ),
    ),
    Exercise(
        id="b7",
        title="A brake: NPO",
        name="npo",
        difficulty=4,
        importance=2,
        minutes=6,
        outcome="hardly at all",
        reference=npo,
        inputs=nats_then_and_now,
        observe=of_nats,
        mistakes=(
            Mistake(
                lambda nats, before, beta: npo(before, nats, beta),
                "the ratio is upside down: log p is −nats, so log(p / p_ref) is before − nats. "
                "Yours pushes the answer *up*.",
            ),
            Mistake(
                lambda nats, before, beta: beta / 2 * npo(nats, before, beta),
                "the factor 2/β is missing: with it the first step is GA's, whatever β is.",
                credit=0.5,
            ),
            Mistake(
                lambda nats, before, beta: npo(nats, before, beta) / 2,
                "the factor is 2/β, not 1/β: at the start σ is one half, and the 2 makes up for "
                "it.",
                credit=0.5,
            ),
            Mistake(
                lambda nats, before, beta: -npo(nats, before, beta),
                "the sign: log σ is negative, the loss −(2/β) log σ is positive.",
                credit=0.5,
            ),
            Mistake(
                lambda nats, before, beta: npo(nats, before, beta) * len(nats),
                "this is the sum over the answers: E is their mean.",
                credit=0.5,
            ),
            Mistake(
                lambda nats, before, beta: npo(nats, torch.zeros_like(before), beta),
                "the reference is missing: NPO compares with what the frozen model said before.",
            ),
            Mistake(lambda *given: npo(*given).detach(), CUT_OFF, credit=0.5),
        ),
    ),
)
