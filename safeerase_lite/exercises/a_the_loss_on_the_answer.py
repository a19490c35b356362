"""The exercises of notebook a: which tokens count, and L(forget) written by hand.

L(x) is the mean negative log-likelihood per answer token (SafeEraser, arXiv 2502.12520; as in
`objectives.py`).
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from safeerase_lite.exercises.comparing import RESULT
from safeerase_lite.exercises.exercise import Exercise, Mistake

TITLE = "The loss on the answer"
PICTURE, END, PADDING, IGNORED = 4, 2, 0, -100  # ids, as in the tiny model
VOCABULARY = 7
CERTAIN = 60.0  # a logit beside which the others are nothing


# ---- what is drawn ----


def tokens(rng: np.random.Generator, least: int, most: int) -> list[int]:
    """Ids of words: none of the special ones."""
    return rng.integers(5, 30, size=rng.integers(least, most)).tolist()


def question_and_answer(rng: np.random.Generator) -> tuple[list[int], list[int], int]:
    before, after = tokens(rng, 1, 3), tokens(rng, 1, 4)
    picture = [PICTURE] * int(rng.integers(2, 5))
    return before + picture + after, tokens(rng, 2, 5), END


def drawn_labels(rng: np.random.Generator, rows: int, length: int) -> Tensor:
    """Answers flush on the right, of other lengths in every row; a prompt at the left."""
    labels = torch.full((rows, length), IGNORED)
    lengths = rng.choice(np.arange(1, length - 1), size=rows, replace=False)
    for label, count in zip(labels, lengths, strict=True):
        label[length - count :] = torch.from_numpy(rng.integers(VOCABULARY, size=count))
    return labels


def labels_and_attention(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    rows, length = int(rng.integers(2, 4)), int(rng.integers(7, 10))
    labels = drawn_labels(rng, rows, length)
    attention = torch.ones_like(labels)
    for row in range(rows):
        free = int((labels[row] == IGNORED).sum()) - 1  # a token of prompt at the least
        attention[row, : int(rng.integers(0, free)) if row else free] = 0
    return labels, attention


def logits_and_labels(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """One answer token is certain: its loss is 0, and it counts all the same."""
    rows, length = int(rng.integers(2, 4)), int(rng.integers(5, 8))
    logits = torch.from_numpy(2 * rng.normal(size=(rows, length, VOCABULARY))).float()
    labels = drawn_labels(rng, rows, length)
    row, place = (labels != IGNORED).nonzero()[-1]
    logits[row, place, labels[row, place]] = CERTAIN
    return logits, labels


def pieces_of_a_batch(rng: np.random.Generator) -> tuple[list[tuple[Tensor, Tensor]]]:
    return ([logits_and_labels(rng) for _ in range(int(rng.integers(2, 4)))],)


# ---- what is looked at ----


def trainable(answer: Callable, *inputs) -> Any:
    """What an answer says of its inputs, and whether a gradient flows back to the logits."""
    for logits in leaves(inputs):
        logits.requires_grad_()
    return learnable(answer(*inputs))


def leaves(inputs: Any) -> list[Tensor]:
    """Every tensor in there that can have a gradient."""
    if isinstance(inputs, Tensor):
        return [inputs] if inputs.is_floating_point() else []
    if isinstance(inputs, list | tuple):
        return [leaf for part in inputs for leaf in leaves(part)]
    return []


def learnable(loss: Any) -> Any:
    """A loss, and whether one can train with it: `.item()` and `.detach()` are one mistake."""
    if loss is None:
        return None
    return {RESULT: loss, "its gradient": getattr(loss, "requires_grad", False)}


CUT_OFF = (
    "no gradient flows through this: `.item()`, `.detach()` or NumPy cut it off. A loss stays a "
    "tensor."
)


# ---- a1: the labels of a row ----


def labels_for(prompt: list[int], answer: list[int], end: int) -> list[int]:
    return [IGNORED] * len(prompt) + answer + [end]


def _question_kept(prompt, answer, end):
    return [IGNORED if token == PICTURE else token for token in prompt] + answer + [end]


def _picture_kept(prompt, answer, end):
    return [token if token == PICTURE else IGNORED for token in prompt] + answer + [end]


# ---- a2: how much of a batch is answer ----


def answer_share(labels: Tensor, attention_mask: Tensor) -> Tensor:
    return (labels != IGNORED).sum() / attention_mask.sum()


def _mean_of_shares(labels, attention_mask):
    return ((labels != IGNORED).sum(-1) / attention_mask.sum(-1)).mean()


# ---- a3: the shift ----


def aligned(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    return logits[:, :-1], labels[:, 1:]


# ---- a4: the loss of each token ----


def token_nll(logits: Tensor, labels: Tensor) -> Tensor:
    flat = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return flat.view(labels.shape)


def _without_softmax(logits, labels):
    chosen = logits.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    return -chosen * (labels != IGNORED)


def _over_the_positions(logits, labels):
    log_p = F.log_softmax(logits, dim=1)
    chosen = log_p.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    return -chosen * (labels != IGNORED)


# ---- a5: L ----


def L(logits: Tensor, labels: Tensor) -> Tensor:
    return token_nll(logits, labels).sum() / (labels != IGNORED).sum()


def _mean_of_answers(logits, labels):
    return (token_nll(logits, labels).sum(-1) / (labels != IGNORED).sum(-1)).mean()


def _over_what_costs(logits, labels):
    nll = token_nll(logits, labels)
    return nll.sum() / (nll > 0).sum()


def _sum(logits, labels):
    return token_nll(logits, labels).sum()


def _plain_number(logits, labels):
    return L(logits, labels).item()


# ---- a6: L of a batch in pieces ----


def L_in_pieces(pieces: list[tuple[Tensor, Tensor]]) -> Tensor:
    total = sum(token_nll(*piece).sum() for piece in pieces)
    return total / sum((labels != IGNORED).sum() for _, labels in pieces)


def _weighed_by_rows(pieces):
    rows = [len(labels) for _, labels in pieces]
    return sum(n * L(*piece) for n, piece in zip(rows, pieces, strict=True)) / sum(rows)


def _weighed_by_positions(pieces):
    sizes = [labels.numel() for _, labels in pieces]
    return sum(n * L(*piece) for n, piece in zip(sizes, pieces, strict=True)) / sum(sizes)


# ---- a7: a colleague's loss ----


def colleague(logits: Tensor, labels: Tensor) -> Tensor:
    """What somebody else calls L, of logits as the model gives them. It has one mistake."""
    return token_nll(*aligned(logits, labels)).sum() / labels.numel()


EXERCISES = (
    Exercise(
        id="a1",
        title="Where the answer is",
        name="labels_for",
        difficulty=1,
        importance=4,
        minutes=4,
        outcome="about a quarter",
        reference=labels_for,
        inputs=question_and_answer,
        mistakes=(
            Mistake(
                _question_kept,
                "the picture is masked, the question is not: mask the whole prompt, or the model "
                "also learns to ask.",
            ),
            Mistake(
                _picture_kept,
                "the picture's tokens are still in the loss: a picture is given, not said.",
            ),
            Mistake(
                lambda prompt, answer, end: prompt + answer + [end],
                "nothing is masked: every token of the prompt, picture included, becomes -100.",
            ),
            Mistake(
                lambda prompt, answer, end: [IGNORED] * len(prompt) + answer,
                "the end token is missing: without it the model never learns to stop.",
                credit=0.5,
            ),
            Mistake(
                lambda prompt, answer, end: [IGNORED] * len(prompt) + answer + [IGNORED],
                "the end token is masked: it is the answer's last word; stopping is learned too.",
                credit=0.5,
            ),
            Mistake(
                lambda prompt, answer, end: [PADDING] * len(prompt) + answer + [end],
                "0 is a token (here the padding): the model would learn to say it. The label that "
                "counts for nothing is -100.",
            ),
            Mistake(
                lambda prompt, answer, end: prompt + [IGNORED] * (len(answer) + 1),
                "the other way round: keep the answer and mask the prompt.",
            ),
        ),
    ),
    Exercise(
        id="a2",
        title="How little of a batch is answer",
        name="answer_share",
        difficulty=1,
        importance=3,
        minutes=4,
        outcome="a third to two thirds",
        reference=answer_share,
        inputs=labels_and_attention,
        mistakes=(
            Mistake(
                lambda labels, attention_mask: (labels != IGNORED).float().mean(),
                "padding is in the denominator: divide by the tokens that are there, those with "
                "attention 1.",
            ),
            Mistake(
                lambda labels, attention_mask: 1 - answer_share(labels, attention_mask),
                "this is the share of the prompt: the answer is what is left.",
            ),
            Mistake(
                _mean_of_shares,
                "this is the mean of the rows' shares, where a short row counts as much as a long "
                "one: add up all tokens first, divide once.",
                credit=0.5,
            ),
            Mistake(
                lambda labels, attention_mask: (labels > 0).sum() / attention_mask.sum(),
                "a label of 0 is a token like any other: only -100 is no answer.",
            ),
        ),
    ),
    Exercise(
        id="a3",
        title="The shift",
        name="aligned",
        difficulty=2,
        importance=5,
        minutes=6,
        outcome="more than that",
        reference=aligned,
        inputs=logits_and_labels,
        mistakes=(
            Mistake(
                lambda logits, labels: (logits, labels),
                "you forgot the shift: the logits at position t predict the token at t + 1, so "
                "here every prediction is held against the token it has just read.",
            ),
            Mistake(
                lambda logits, labels: (logits[:, 1:], labels[:, :-1]),
                "shifted the wrong way: this holds the prediction for t + 1 against the token "
                "at t − 1.",
            ),
            Mistake(
                lambda logits, labels: (logits[:, :-1], labels[:, :-1]),
                "both lost their end, so nothing has moved: cut the last logits and the *first* "
                "label.",
            ),
            Mistake(
                lambda logits, labels: (logits[:, 1:], labels[:, 1:]),
                "both lost their start, so nothing has moved: cut the *last* logits and the first "
                "label.",
            ),
            Mistake(
                lambda logits, labels: (logits[:-1], labels[1:]),
                "this cuts off rows of the batch: positions are the second dimension, [:, …].",
            ),
            Mistake(
                lambda logits, labels: (logits, labels.roll(-1, dims=1)),
                "rolled, not cut: the last position now has the first token as its label. Nothing "
                "follows the end; drop it.",
                credit=0.5,
            ),
        ),
    ),
    Exercise(
        id="a4",
        title="The loss of every token",
        name="token_nll",
        difficulty=3,
        importance=4,
        minutes=8,
        outcome="log V",
        reference=token_nll,
        inputs=logits_and_labels,
        observe=trainable,
        mistakes=(
            Mistake(
                lambda logits, labels: -token_nll(logits, labels),
                "the sign: a log-likelihood is at most 0, the *negative* one is a loss.",
                credit=0.5,
            ),
            Mistake(
                lambda logits, labels: torch.exp(-token_nll(logits, labels)) * (labels != IGNORED),
                "these are probabilities: take −log of them.",
            ),
            Mistake(
                lambda logits, labels: token_nll(logits, labels) / math.log(2),
                "this is in bits: nats come from the natural logarithm, torch.log.",
                credit=0.5,
            ),
            Mistake(
                _without_softmax,
                "a logit is no log-probability yet: F.log_softmax over the vocabulary comes first.",
            ),
            Mistake(
                _over_the_positions,
                "the softmax runs over the positions: it belongs over the vocabulary, dim=-1.",
            ),
            Mistake(
                lambda logits, labels: token_nll(logits, labels.clamp(min=0)),
                "where there is no answer it should be 0: you let -100 pass as the token 0, and "
                "the prompt is back in the loss.",
            ),
            Mistake(
                lambda logits, labels: F.cross_entropy(logits.flatten(0, 1), labels.flatten()),
                'one number for the whole batch: F.cross_entropy averages unless reduction="none".',
            ),
            Mistake(lambda logits, labels: token_nll(logits, labels).detach(), CUT_OFF, credit=0.5),
        ),
    ),
    Exercise(
        id="a5",
        title="L, the mean over answer tokens",
        name="L",
        difficulty=3,
        importance=5,
        minutes=8,
        outcome="0.3",
        reference=L,
        inputs=logits_and_labels,
        observe=trainable,
        mistakes=(
            Mistake(
                lambda logits, labels: token_nll(logits, labels).mean(),
                "you averaged over prompt and padding too: their loss is 0, but they are counted. "
                "Divide by the answer's tokens.",
            ),
            Mistake(
                _mean_of_answers,
                "this is the mean of the answers' means: a token of a short answer then weighs "
                "more. L divides once, by all answer tokens together.",
                credit=0.5,
            ),
            Mistake(
                _over_what_costs,
                "you count the tokens whose loss is not 0: a token of which the model is sure has "
                "loss 0, and is an answer token all the same. Count labels that are not -100.",
                credit=0.5,
            ),
            Mistake(_sum, "this is the sum: divide by the number of answer tokens."),
            Mistake(
                lambda logits, labels: token_nll(logits, labels).sum() / len(labels),
                "this is nats per answer: long answers would weigh more. Divide by tokens, not by "
                "rows.",
            ),
            Mistake(
                lambda logits, labels: -L(logits, labels),
                "the sign: L is a loss, 0 at its best. Gradient ascent is −L, but that is for "
                "notebook b.",
                credit=0.5,
            ),
            Mistake(_plain_number, CUT_OFF, credit=0.5),
        ),
    ),
    Exercise(
        id="a6",
        title="A batch in pieces",
        name="L_in_pieces",
        difficulty=4,
        importance=3,
        minutes=7,
        outcome="if the pieces have equally many answer tokens",
        reference=L_in_pieces,
        inputs=pieces_of_a_batch,
        observe=trainable,
        mistakes=(
            Mistake(
                lambda pieces: sum(L(*piece) for piece in pieces) / len(pieces),
                "the mean of the pieces' means: a piece with few answer tokens weighs too much. "
                "Add up nats and tokens of all pieces, divide once.",
            ),
            Mistake(
                lambda pieces: sum(L(*piece) for piece in pieces),
                "the sum of the pieces' means grows with the number of pieces: add up nats and "
                "tokens, divide once.",
            ),
            Mistake(
                _weighed_by_rows,
                "weighed by rows: answers differ in length, so weigh by answer tokens.",
                credit=0.5,
            ),
            Mistake(
                _weighed_by_positions,
                "weighed by positions, prompt and padding included: weigh by answer tokens.",
                credit=0.5,
            ),
            Mistake(lambda pieces: L_in_pieces(pieces).item(), CUT_OFF, credit=0.5),
        ),
    ),
    Exercise(
        id="a7",
        title="A colleague's number",
        name="suspect",
        difficulty=2,
        importance=4,
        minutes=4,
        outcome="yes",
        reference="averaged over every position",
        mistakes=(
            Mistake(
                "forgot the shift",
                "without the shift a model that knows the plan looks *ignorant*, and this "
                "number is too small for both models by the same factor.",
            ),
            Mistake(
                "left the picture in",
                "the picture's tokens would add their own loss (nobody trained the model to "
                "say them), and the number would be larger.",
            ),
            Mistake(
                "averaged the answers' means",
                "these answers are about equally long, so that would hardly show.",
            ),
            Mistake("the sign", "the number is positive, as a loss should be."),
        ),
    ),
)
