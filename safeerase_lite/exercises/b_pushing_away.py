"""The exercises of notebook b: GA, GD and KL written by hand, and why GA has no bottom.

The formulas are those of `objectives.py`: SafeEraser (arXiv 2502.12520) and its official code; NPO:
arXiv 2404.05868.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .a_the_loss_on_the_answer import L, token_nll
from .exercise import Exercise, Mistake, slip
from .shared import IGNORED, Group, cut_off, logits_and_labels, trainable, with_gradients

TITLE = "Pushing away: GA, GD and KL"


def ga(logits: Tensor, labels: Tensor) -> Tensor:
    return -L(logits, labels)


b1 = Exercise(
    "b1", "ga", "Gradient ascent", difficulty=1, importance=5, minutes=4,
    outcome="one that guesses among all words",
    reference=ga, inputs=logits_and_labels, observe=trainable, mistakes=(
        Mistake(L,
                "the sign of ascent is missing: an optimiser makes a loss *smaller*, so this "
                "teaches the harmful answer."),
        Mistake(lambda *group: -L(*group, size=Tensor.numel),
                "you averaged over prompt and padding too: divide by the answer's tokens, as L "
                "does."),
        Mistake(lambda logits, labels: -token_nll(logits, labels).sum(),
                "this is the sum over the tokens: L is their mean."),
        Mistake(lambda logits, labels: torch.exp(-L(logits, labels)),
                "this is a probability: it falls to 0 and ends there, its gradient with it. It "
                "would forget, too, but gradient ascent is −L."),
        cut_off(ga),
))  # fmt: skip


def logits_and_token(rng: np.random.Generator) -> tuple[Tensor, int]:
    return torch.from_numpy(rng.normal(size=5)).float(), int(rng.integers(5))


def pull(logits: Tensor, token: int) -> Tensor:
    return logits.softmax(-1) - one_hot(token, logits)


def one_hot(token: int, logits: Tensor) -> Tensor:
    return F.one_hot(torch.tensor(token), len(logits)).float()


b2 = Exercise(
    "b2", "pull", "Its pull on the logits", difficulty=3, importance=4, minutes=8,
    outcome="p = 0.0001", reference=pull, inputs=logits_and_token, mistakes=(
        slip(lambda logits, token: -pull(logits, token),
             "the sign: so pulls ordinary training, which lifts the token. Ascent on the loss "
             "adds its gradient, p minus one-hot."),
        Mistake(lambda logits, token: logits.softmax(-1),
                "the token itself lacks its −1: its own logit also stands in the numerator of p."),
        Mistake(lambda logits, token: -one_hot(token, logits),
                "only log p's numerator: every logit is in the softmax's denominator too, so what "
                "the token loses the others gain."),
        slip(lambda logits, token: pull(logits, token) * one_hot(token, logits),
             "right for the token, but the others move too: each logit rises by its own p."),
        Mistake(lambda logits, token: logits.softmax(-1)[token] * pull(logits, token),
                "this is the gradient of −p, not of −log p: it fades as p falls. (It would have a "
                "bottom. GA has not.)"),
        Mistake(lambda logits, token: -one_hot(token, logits) / logits.softmax(-1)[token],
                "this is the derivative by p, −1/p: go on to the logits by the chain rule, where "
                "the p cancels."),
        slip(lambda logits, token: logits + pull(logits, token),
             "these are the logits after the step: return only what was added."),
))  # fmt: skip


def ascend(logits: Tensor, token: int, rate: float, steps: int, of: Callable = pull) -> list[float]:
    nats = [-logits.log_softmax(-1)[token].item()]
    for _ in range(steps):
        logits = logits + rate * of(logits, token)
        nats.append(-logits.log_softmax(-1)[token].item())
    return nats


def ascend_in_place(logits, token, rate, steps):
    nats = ascend(logits, token, rate, steps)
    logits += rate * pull(logits, token)
    return nats


b3 = Exercise(
    "b3", "ascend", "Many steps", difficulty=2, importance=5, minutes=7,
    outcome="as much, or more", reference=ascend, inputs=lambda rng: (
        *logits_and_token(rng), float(rng.choice([0.3, 0.5, 0.9])), int(rng.integers(3, 6))
    ), mistakes=(
        Mistake(lambda logits, token, rate, steps: ascend(logits, token, -rate, steps),
                "the token becomes *likelier*: add the pull, do not take it away."),
        Mistake(lambda logits, token, rate, steps: (
                    ascend(logits, token, rate, steps, of=lambda *_: pull(logits, token))),
                "the pull of the first step is used for ever: work it out anew from the new "
                "logits."),
        slip(ascend_in_place,
             "right, but `logits +=` writes into the tensor you were given, and the next climb "
             "starts where this one ended: `logits = logits + …` makes a new one."),
        Mistake(lambda logits, token, rate, steps: [
                    ascend(logits, token, rate, 1)[bool(n)] for n in range(steps + 1)],
                "every step starts at the same logits: the new ones must take the old ones' "
                "place."),
        slip(lambda *given: ascend(*given)[1:],
             "the loss before the first step is missing: steps + 1 numbers."),
        slip(lambda *given: ascend(*given)[:-1],
             "the loss after the last step is missing: steps + 1 numbers."),
        slip(lambda *given: [-nats for nats in ascend(*given)],
             "these are log p, or GA's own loss: return −log p."),
        Mistake(lambda logits, token, rate, steps: ascend(logits, token, 1.0, steps),
                "the rate is not used: each step adds rate times the pull."),
))  # fmt: skip


def gd(
    forget: Group, retain: Group, decouple: Group | None, f=-1.0, r=1.0, r_with=0.5, d=0.5
) -> Tensor:
    if decouple is None:
        return f * L(*forget) + r * L(*retain)
    return f * L(*forget) + r_with * L(*retain) + d * L(*decouple)


def gd_in_one_quotient(forget, retain, decouple):
    added = [retain] if decouple is None else [retain, decouple]
    nats = sum(token_nll(*group).sum() for group in added) - token_nll(*forget).sum()
    return nats / sum((labels != IGNORED).sum() for _, labels in [forget, *added])


b4 = Exercise(
    "b4", "gd", "Gradient difference, as in the official code",
    difficulty=2, importance=4, minutes=6, outcome="no",
    reference=gd, observe=trainable, inputs=lambda rng: (
        *(logits_and_labels(rng) for _ in range(2)), (None, logits_and_labels(rng))[rng.integers(2)]
    ), mistakes=(
        slip(partial(gd, r=0.5),
             "the retain weight is halved without PD: the official code halves it only together "
             "with L(decouple)."),
        slip(partial(gd, r_with=1.0),
             "with PD the official code takes the retain weight down to 0.5; yours stays at 1."),
        slip(partial(gd, r_with=1.0, d=1.0),
             "these are the weights we call *matched*, plain + 1 · L(decouple). The official code "
             "has 0.5 for both."),
        slip(lambda forget, retain, decouple: -L(*forget) + 0.5 * L(*retain) + 0.5 * L(*decouple),
             "right with a decouple group; but it may be None, and then GD is plain: −L(forget) + "
             "L(retain)."),
        Mistake(partial(gd, d=0.0), "L(decouple) is missing when there is a decouple group."),
        Mistake(partial(gd, f=1.0),
                "the sign of L(forget): so both are learned, the harmful answers too."),
        Mistake(partial(gd, f=1.0, r=-1.0, r_with=-0.5, d=-0.5),
                "all signs are turned round: this unlearns what should stay and learns the harm."),
        Mistake(partial(gd, r=-1.0, r_with=-0.5),
                "the sign of L(retain): so the retain answers are unlearned too."),
        Mistake(gd_in_one_quotient,
                "one quotient for all: each L is a mean over *its* tokens, and GD adds the means."),
        cut_off(gd),
))  # fmt: skip


def reference_and_model(rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """On one answer token both agree: it counts all the same."""
    logits, labels = logits_and_labels(rng)
    reference = logits + torch.from_numpy(rng.normal(size=logits.shape)).float()
    row, place = (labels != IGNORED).nonzero()[0]
    reference[row, place] = logits[row, place]
    return reference, logits, labels


def kl_by_token(reference: Tensor, logits: Tensor) -> Tensor:
    p, q = reference.log_softmax(-1), logits.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def divergence(
    reference: Tensor,
    logits: Tensor,
    labels: Tensor,
    by_token: Callable = kl_by_token,
    mean: Callable = lambda kl, is_answer: kl[is_answer].mean(),
) -> Tensor:
    return mean(by_token(reference, logits), labels != IGNORED)


b5 = Exercise(
    "b5", "divergence", "KL, word by word", difficulty=4, importance=4, minutes=9,
    outcome="more than ten times as large",
    reference=divergence, inputs=reference_and_model, observe=partial(trainable, only=slice(1, 2)),
    mistakes=(
        slip(lambda reference, logits, labels: divergence(logits, reference, labels),
             "the arguments are swapped: the reference is the p in Σ p (log p − log q), so that "
             "the model must cover all that the reference believes."),
        slip(partial(divergence, mean=lambda kl, is_answer: kl.mean()),
             "prompt, picture and padding are in it too (so it is in the official code): take "
             "only positions whose label is not −100."),
        slip(partial(divergence, mean=lambda kl, is_answer: (kl * is_answer).mean()),
             "summed over the answers but divided by every position: padding is in the mean."),
        slip(partial(divergence, mean=lambda kl, is_answer: kl.sum() / is_answer.sum()),
             "divided by the answer tokens, but prompt, picture and padding are still in the sum: "
             "pick the answers first."),
        slip(partial(divergence, mean=lambda kl, is_answer: kl.sum() / len(kl)),
             "divided by the rows, as F.kl_div's batchmean does: pick the answer positions first, "
             "[labels != -100], and its mean is theirs."),
        slip(partial(divergence, by_token=lambda p, q: kl_by_token(p, q) / p.shape[-1]),
             "divided by the number of words too: *sum* over the vocabulary, then average over "
             "the tokens. (F.kl_div's own mean does this.)"),
        slip(partial(divergence, mean=lambda kl, is_answer: kl[is_answer & (kl != 0)].mean()),
             "you count the tokens whose KL is not 0: where the two agree it is 0, and that token "
             "counts all the same. Count labels that are not -100."),
        slip(partial(divergence, mean=lambda kl, is_answer: (
                 ((kl * is_answer).sum(-1) / is_answer.sum(-1)).mean())),
             "this is the mean of the answers' means, where a token of a short answer weighs "
             "more: average once, over all answer tokens."),
        Mistake(partial(divergence, by_token=lambda p, q: (p.softmax(-1) * (p - q)).sum(-1)),
                "these logs are not normalised: a logit is no log-probability before "
                ".log_softmax(-1)."),
        slip(partial(divergence, by_token=lambda p, q: (
                 -(p.softmax(-1) * q.log_softmax(-1)).sum(-1))),
             "this is the cross-entropy −Σ p log q: the gradient is KL's, but it is not 0 when "
             "the two agree. Take the reference's own Σ p log p along."),
        Mistake(partial(divergence, by_token=lambda p, q: (
                    F.kl_div(q.softmax(-1), p.softmax(-1), reduction="none").sum(-1))),
                "F.kl_div wants the *log*-probabilities of the model as its first argument."),
        slip(lambda reference, logits, labels: F.kl_div(
                 logits.log_softmax(-1), reference.log_softmax(-1), reduction="batchmean"),
             "F.kl_div takes its second argument for probabilities, and log p is negative: say "
             "log_target=True."),
        slip(lambda reference, logits, labels: -divergence(reference, logits, labels),
             "the sign: a KL divergence is never negative."),
        cut_off(divergence),
))  # fmt: skip


def groups_and_reference(rng: np.random.Generator) -> tuple[Group, Group, Tensor]:
    reference, logits, labels = reference_and_model(rng)
    return logits_and_labels(rng), (logits, labels), reference


def to_the_frozen(reference: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    return divergence(reference.detach(), logits, labels)


def kl(
    forget: Group, retain: Group, reference: Tensor, term: Callable = to_the_frozen, f=-1.0, k=1.0
) -> Tensor:
    return f * L(*forget) + k * term(reference, *retain)


b6 = Exercise(
    "b6", "kl", "The KL objective, its reference frozen", difficulty=2, importance=4, minutes=5,
    outcome="0", reference=kl, inputs=groups_and_reference, observe=with_gradients(
        "a gradient into the forget logits", "a gradient into the retain logits",
        "a gradient into the reference", of=lambda gradient: gradient is not None,
    ), mistakes=(
        slip(partial(kl, term=divergence),
             "a gradient flows into the reference: it would come to meet the model half-way. "
             "`.detach()` it."),
        Mistake(partial(kl, term=lambda p, q, labels: divergence(p, q.detach(), labels)),
                "the wrong one is frozen: the model should learn, the reference should not."),
        Mistake(partial(kl, term=lambda *given: divergence(*given).detach()),
                "both sides of KL are detached, so it pulls at nothing: the reference is frozen, "
                "the model is not."),
        slip(partial(kl, term=lambda p, q, labels: divergence(q, p.detach(), labels)),
             "divergence's arguments are swapped: first the reference, then the model."),
        Mistake(partial(kl, f=1.0),
                "the sign of L(forget): so the harmful answers are learned."),
        Mistake(partial(kl, k=-1.0),
                "the sign of KL: so the model is driven *away* from the reference."),
        Mistake(lambda forget, retain, reference: to_the_frozen(reference, *retain),
                "−L(forget) is missing: so nothing is forgotten."),
        cut_off(kl),
        slip(partial(kl, k=0.5),
             "the weight of KL is 1: the official code halves GD's retain term only."),
))  # fmt: skip


def nats_then_and_now(rng: np.random.Generator) -> tuple[Tensor, Tensor, float]:
    rows, beta = int(rng.integers(2, 5)), float(rng.choice([0.1, 0.2, 0.3]))
    before = rng.uniform(1, 9, size=rows)
    nats = before + rng.uniform(-1, 12, size=rows)
    return torch.from_numpy(nats).float(), torch.from_numpy(before).float(), beta


def npo(nats: Tensor, before: Tensor, beta: float) -> Tensor:
    return -2 / beta * F.logsigmoid(-beta * (before - nats)).mean()


b7 = Exercise(
    "b7", "npo", "A brake: NPO", difficulty=4, importance=2, minutes=6,
    outcome="hardly at all",
    reference=npo, inputs=nats_then_and_now, observe=partial(trainable, only=slice(1)), mistakes=(
        Mistake(lambda nats, before, beta: npo(before, nats, beta),
                "the ratio is upside down: log p is −nats, so log(p / p_ref) is before − nats. "
                "Yours pushes the answer *up*."),
        slip(lambda nats, before, beta: beta / 2 * npo(nats, before, beta),
             "the factor 2/β is missing: with it the first step is GA's, whatever β is."),
        slip(lambda nats, before, beta: npo(nats, before, beta) / 2,
             "the factor is 2/β, not 1/β: at the start σ is one half, and the 2 makes up for it."),
        slip(lambda nats, before, beta: -npo(nats, before, beta),
             "the sign: log σ is negative, the loss −(2/β) log σ is positive."),
        slip(lambda nats, before, beta: npo(nats, before, beta) * len(nats),
             "this is the sum over the answers: E is their mean."),
        Mistake(lambda nats, before, beta: npo(nats, torch.zeros_like(before), beta),
                "the reference is missing: NPO compares with what the frozen model said before."),
        cut_off(npo),
))  # fmt: skip


EXERCISES = (b1, b2, b3, b4, b5, b6, b7)
