"""The exercises of notebook a: which tokens count, and L(forget) written by hand.

L(x) is the mean negative log-likelihood per answer token (SafeEraser, arXiv 2502.12520; as in
`objectives.py`).
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .exercise import Exercise, Mistake, slip
from .shared import IGNORED, Group, cut_off, logits_and_labels, trainable

TITLE = "The loss on the answer"
PICTURE, END, PADDING = 4, 2, 0  # token ids, as in the tiny model


def question_and_answer(rng: np.random.Generator) -> tuple[list[int], list[int], int]:
    sizes = rng.integers(1, 5, size=3)
    before, after, answer = (rng.integers(5, 30, size=size).tolist() for size in sizes)
    return before + [PICTURE] * int(rng.integers(2, 5)) + after, answer, END


def labels_for(prompt: list[int], answer: list[int], end: int) -> list[int]:
    return [IGNORED] * len(prompt) + answer + [end]


a1 = Exercise(
    "a1", "labels_for", "Where the answer is", difficulty=1, importance=4, minutes=4,
    outcome="about a quarter", reference=labels_for, inputs=question_and_answer, mistakes=(
        Mistake(lambda prompt, answer, end: (
                    [IGNORED if id == PICTURE else id for id in prompt] + answer + [end]),
                "the picture is masked, the question is not: mask the whole prompt, or the model "
                "also learns to ask."),
        Mistake(lambda prompt, answer, end: (
                    [id if id == PICTURE else IGNORED for id in prompt] + answer + [end]),
                "the picture's tokens are still in the loss: a picture is given, not said."),
        Mistake(lambda prompt, answer, end: prompt + answer + [end],
                "nothing is masked: every token of the prompt, picture included, becomes -100."),
        slip(lambda prompt, answer, end: [IGNORED] * len(prompt) + answer,
             "the end token is missing: without it the model never learns to stop."),
        slip(lambda prompt, answer, end: [IGNORED] * len(prompt) + answer + [IGNORED],
             "the end token is masked: it is the answer's last word; stopping is learned too."),
        Mistake(lambda prompt, answer, end: [PADDING] * len(prompt) + answer + [end],
                "0 is a token (here the padding): the model would learn to say it. The label that "
                "counts for nothing is -100."),
        Mistake(lambda prompt, answer, end: prompt + [IGNORED] * (len(answer) + 1),
                "the other way round: keep the answer and mask the prompt."),
))  # fmt: skip


def labels_and_attention(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Before an answer there is prompt, one token at the least, and before that padding."""
    labels = logits_and_labels(rng)[1]
    padding = rng.integers((labels == IGNORED).sum(-1, keepdim=True).numpy())
    return labels, (torch.arange(labels.shape[1]) >= torch.from_numpy(padding)).long()


def answer_share(labels: Tensor, attention_mask: Tensor) -> Tensor:
    return (labels != IGNORED).sum() / attention_mask.sum()


a2 = Exercise(
    "a2", "answer_share", "How little of a batch is answer", difficulty=1, importance=3, minutes=4,
    outcome="a third to two thirds", reference=answer_share, inputs=labels_and_attention, mistakes=(
        Mistake(lambda labels, attention_mask: (labels != IGNORED).float().mean(),
                "padding is in the denominator: divide by the tokens that are there, those with "
                "attention 1."),
        Mistake(lambda labels, attention_mask: 1 - answer_share(labels, attention_mask),
                "this is the share of the prompt: the answer is what is left."),
        slip(lambda labels, attention_mask: (
                 (labels != IGNORED).sum(-1) / attention_mask.sum(-1)).mean(),
             "this is the mean of the rows' shares, where a short row counts as much as a long "
             "one: add up all tokens first, divide once."),
        Mistake(lambda labels, attention_mask: (labels > 0).sum() / attention_mask.sum(),
                "a label of 0 is a token like any other: only -100 is no answer."),
))  # fmt: skip


def aligned(logits: Tensor, labels: Tensor) -> Group:
    return logits[:, :-1], labels[:, 1:]


a3 = Exercise(
    "a3", "aligned", "The shift", difficulty=2, importance=5, minutes=6,
    outcome="more than that", reference=aligned, inputs=logits_and_labels, mistakes=(
        Mistake(lambda logits, labels: (logits, labels),
                "you forgot the shift: the logits at position t predict the token at t + 1, so "
                "here every prediction is held against the token it has just read."),
        Mistake(lambda logits, labels: (logits[:, 1:], labels[:, :-1]),
                "shifted the wrong way: this holds the prediction for t + 1 against the token at "
                "t − 1."),
        Mistake(lambda logits, labels: (logits[:, :-1], labels[:, :-1]),
                "both lost their end, so nothing has moved: cut the last logits and the *first* "
                "label."),
        Mistake(lambda logits, labels: (logits[:, 1:], labels[:, 1:]),
                "both lost their start, so nothing has moved: cut the *last* logits and the first "
                "label."),
        Mistake(lambda logits, labels: (logits[:-1], labels[1:]),
                "this cuts off rows of the batch: positions are the second dimension, [:, …]."),
        slip(lambda logits, labels: (logits, labels.roll(-1, dims=1)),
             "rolled, not cut: the last position now has the first token as its label. Nothing "
             "follows the end; drop it."),
))  # fmt: skip


def token_nll(logits: Tensor, labels: Tensor) -> Tensor:
    flat = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return flat.view(labels.shape)


def minus_chosen(log_p, labels):
    """Minus the value at each label, and 0 where there is no answer."""
    chosen = log_p.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    return -chosen * (labels != IGNORED)


a4 = Exercise(
    "a4", "token_nll", "The loss of every token", difficulty=3, importance=4, minutes=8,
    outcome="log V", reference=token_nll, inputs=logits_and_labels, observe=trainable, mistakes=(
        slip(lambda logits, labels: -token_nll(logits, labels),
             "the sign: a log-likelihood is at most 0, the *negative* one is a loss."),
        Mistake(lambda logits, labels: torch.exp(-token_nll(logits, labels)) * (labels != IGNORED),
                "these are probabilities: take −log of them."),
        slip(lambda logits, labels: token_nll(logits, labels) / math.log(2),
             "this is in bits: nats come from the natural logarithm, torch.log."),
        Mistake(minus_chosen,
                "a logit is no log-probability yet: F.log_softmax over the vocabulary comes "
                "first."),
        Mistake(lambda logits, labels: minus_chosen(F.log_softmax(logits, dim=1), labels),
                "the softmax runs over the positions: it belongs over the vocabulary, dim=-1."),
        Mistake(lambda logits, labels: token_nll(logits, labels.clamp(min=0)),
                "where there is no answer it should be 0: you let -100 pass as the token 0, and "
                "the prompt is back in the loss."),
        Mistake(lambda logits, labels: F.cross_entropy(logits.flatten(0, 1), labels.flatten()),
                'one number for the whole batch: F.cross_entropy averages unless '
                'reduction="none".'),
        cut_off(token_nll),
))  # fmt: skip


def answer_tokens(labels: Tensor) -> Tensor:
    return (labels != IGNORED).sum()


def L(logits: Tensor, labels: Tensor, size: Callable = answer_tokens) -> Tensor:
    return token_nll(logits, labels).sum() / size(labels)


a5 = Exercise(
    "a5", "L", "L, the mean over answer tokens", difficulty=3, importance=5, minutes=8,
    outcome="0.3", reference=L, inputs=logits_and_labels, observe=trainable, mistakes=(
        Mistake(partial(L, size=Tensor.numel),
                "you averaged over prompt and padding too: their loss is 0, but they are counted. "
                "Divide by the answer's tokens."),
        slip(lambda logits, labels: (
                 token_nll(logits, labels).sum(-1) / (labels != IGNORED).sum(-1)).mean(),
             "this is the mean of the answers' means: a token of a short answer then weighs more. "
             "L divides once, by all answer tokens together."),
        slip(lambda logits, labels: (
                 token_nll(logits, labels).sum() / (token_nll(logits, labels) > 0).sum()),
             "you count the tokens whose loss is not 0: a token of which the model is sure has "
             "loss 0, and is an answer token all the same. Count labels that are not -100."),
        Mistake(partial(L, size=lambda labels: 1),
                "this is the sum: divide by the number of answer tokens."),
        Mistake(partial(L, size=len),
                "this is nats per answer: long answers would weigh more. Divide by tokens, not by "
                "rows."),
        slip(lambda logits, labels: -L(logits, labels),
             "the sign: L is a loss, 0 at its best. Gradient ascent is −L, but that is for "
             "notebook b."),
        cut_off(L),
))  # fmt: skip


def L_in_pieces(pieces: Sequence[Group], size: Callable = answer_tokens) -> Tensor:
    nats = sum(token_nll(*piece).sum() for piece in pieces)
    return nats / sum(size(labels) for _, labels in pieces)


def weighed_by(size: Callable) -> Callable:
    """The mean of the pieces' means, weighed by the size of their labels."""
    return lambda pieces: (
        sum(size(labels) * L(logits, labels) for logits, labels in pieces)
        / sum(size(labels) for _, labels in pieces)
    )


a6 = Exercise(
    "a6", "L_in_pieces", "A batch in pieces", difficulty=4, importance=3, minutes=7,
    outcome="if the pieces have equally many answer tokens",
    reference=L_in_pieces, observe=trainable,
    inputs=lambda rng: ([logits_and_labels(rng) for _ in range(rng.integers(2, 4))],), mistakes=(
        Mistake(lambda pieces: sum(L(*piece) for piece in pieces) / len(pieces),
                "the mean of the pieces' means: a piece with few answer tokens weighs too much. "
                "Add up nats and tokens of all pieces, divide once."),
        Mistake(lambda pieces: sum(L(*piece) for piece in pieces),
                "the sum of the pieces' means grows with the number of pieces: add up nats and "
                "tokens, divide once."),
        slip(weighed_by(len),
             "weighed by rows: answers differ in length, so weigh by answer tokens."),
        slip(weighed_by(Tensor.numel),
             "weighed by positions, prompt and padding included: weigh by answer tokens."),
        cut_off(L_in_pieces),
))  # fmt: skip


def colleague(logits: Tensor, labels: Tensor) -> Tensor:
    """What somebody else calls L, of logits as the model gives them. It has one mistake."""
    return L(*aligned(logits, labels), size=lambda _: labels.numel())


a7 = Exercise(
    "a7", "suspect", "A colleague's number", difficulty=2, importance=4, minutes=4,
    outcome="yes", reference="averaged over every position", mistakes=(
        Mistake("forgot the shift",
                "without the shift a model that knows the plan looks *ignorant*, and this number "
                "is too small for both models by the same factor."),
        Mistake("left the picture in",
                "the picture's tokens would add their own loss (nobody trained the model to say "
                "them), and the number would be larger."),
        Mistake("averaged the answers' means",
                "these answers are about equally long, so that would hardly show."),
        Mistake("the sign", "the number is positive, as a loss should be."),
))  # fmt: skip


EXERCISES = (a1, a2, a3, a4, a5, a6, a7)
