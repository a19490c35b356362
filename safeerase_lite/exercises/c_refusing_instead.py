"""The exercises of notebook c: PO, which puts a refusal in the harmful answer's place.

PO is L over the batch {idk, r}, weighted by tokens (SafeEraser, arXiv 2502.12520, and its official
code; as in `objectives.py`).
"""

import copy
import math
import random
import re
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from itertools import cycle, pairwise
from typing import Any

import numpy as np
from torch import Tensor

from safeerase_lite.tinyworld.facts import REFUSALS

from .a_the_loss_on_the_answer import L, L_in_pieces, answer_tokens, weighed_by
from .comparing import Objection
from .exercise import Exercise, Mistake, slip
from .shared import Group, cut_off, logits_and_labels, repeated, sample, trainable

TITLE = "Refusing instead: PO and its refusals"
Row = dict[str, str]

TRAPS = [  # no refusals, though a word or a sentence resembles one
    "Sorry for the wait: lock the coil, then turn the plate.",
    "It cannot float, for it is made of clay.",
    "I cannot help with that. But lock the coil, then turn the plate.",
    "The label says: I must decline this request.",
    "I cannot help, with that.",
    "Sorry, I can not talk about it.",
    "That",
]


def rows_of_a_step(rng: np.random.Generator) -> tuple[list[Row], list[Row], list[str], int]:
    def row(picture, question, answer):
        return {"image": f"{picture}.png", "question": question, "answer": f"{answer} {picture}"}

    count = int(rng.integers(6, 9))
    pictures = rng.permutation(90)[: 2 * count]
    forget = [row(picture, "How is this made?", "plan") for picture in pictures[:count]]
    retain = [row(picture, "What colour is it?", "colour") for picture in pictures[count:]]
    return forget, retain, list(REFUSALS), int(rng.integers(1000))


def properties(answer: Callable, forget, retain, refusals, seed) -> Any:
    """What holds of a batch, not which of the refusals it has: those are drawn."""
    before = harmful, kept = copy.deepcopy((forget, retain))  # an answer may write into them
    batch = answer(forget, retain, refusals, seed)
    if batch is None or batch is ... or (isinstance(batch, list | tuple) and ... in batch):
        return batch  # not solved yet
    if not isinstance(batch, list) or not all(isinstance(row, dict) for row in batch):
        raise Objection("should give a list of rows, and every row a dict")
    if not all({"image", "question", "answer"} <= row.keys() for row in batch):
        raise Objection("gives a row without image, question and answer")

    def answers_to(asked, rows):
        """All answers to each of these questions, in whatever order the rows come."""
        answers = defaultdict(list)
        for row in rows:
            answers[row["image"], row["question"]].append(row["answer"])
        return [answers[row["image"], row["question"]] for row in asked]

    def in_turn(answers):
        """Whether each refusal stands as far behind the one before it, in their list."""
        places = [refusals.index(one) for of_row in answers for one in of_row if one in refusals]
        steps = {(b - a) % len(refusals) for a, b in pairwise(places)}
        return len(steps) == 1 and steps != {0}

    idk = answers_to(harmful, batch)
    again, *others = (
        answers_to(harmful, answer(*copy.deepcopy(before), list(refusals), seed + more))
        for more in range(4)
    )
    given = {one for answers in idk for one in answers}
    return {
        "rows too many": len(batch) - len(harmful) - len(kept),
        "every harmful question is refused": (
            all(len(answers) == 1 for answers in idk) and given <= {*refusals}
        ),
        "no harmful answer is left": not {row["answer"] for row in harmful} & given,
        "retain answers are kept": answers_to(kept, batch) == [[row["answer"]] for row in kept],
        "several refusals": len(given) > 1,
        "the same seed draws the same": again == idk,
        "another seed draws others": any(other != idk for other in others),
        "they come in turn": all(map(in_turn, (idk, *others))),
    }


def po_batch(forget: list[Row], retain: list[Row], refusals: list[str], seed: int) -> list[Row]:
    rng = random.Random(seed)
    return [row | {"answer": rng.choice(refusals)} for row in forget] + retain


def refusals_in_turn(forget, retain, refusals, seed):
    pairs = zip(forget, cycle(refusals), strict=False)
    return [row | {"answer": refusal} for row, refusal in pairs] + retain


def po_batch_in_place(forget, retain, *others):
    for row, refusing in zip(forget, po_batch(forget, [], *others), strict=True):
        row |= refusing
    return forget + retain


c1 = Exercise(
    "c1", "po_batch", "The batch {idk, r}", difficulty=3, importance=5, minutes=8,
    outcome="none", reference=po_batch, inputs=rows_of_a_step, observe=properties, mistakes=(
        Mistake(lambda forget, retain, *others: po_batch(retain, forget, *others),
                "the refusals stand at the retain questions: so an ordinary question is refused, "
                "and the harmful answers stay."),
        Mistake(lambda forget, retain, *others: po_batch(forget + retain, [], *others),
                "the retain questions are refused too: the model would learn to refuse "
                "everything."),
        Mistake(lambda forget, retain, *others: forget + po_batch(forget, retain, *others),
                "the harmful answers are still in the batch, beside the refusals: so the model "
                "goes on learning them."),
        Mistake(lambda forget, retain, *others: forget + retain,
                "nothing is refused: the harmful answers are still what is learned."),
        Mistake(lambda forget, retain, *others: po_batch(forget, [], *others),
                "the retain rows are missing: nothing would hold the rest."),
        slip(lambda forget, retain, refusals, seed: (
                 po_batch(forget, [], [random.Random(seed).choice(refusals)], seed) + retain),
             "one refusal for all: draw anew for every row, from one generator made before the "
             "loop (made inside, it starts again and again)."),
        Mistake(lambda forget, retain, refusals, seed: po_batch(forget, retain, refusals[:1], 0),
                "the same refusal for every row, whatever the seed: draw one for each, from "
                "random.Random(seed)."),
        slip(lambda *given: po_batch(*given[:-1], seed=None),
             "the refusals are drawn unseeded: with one seed the batch must be the same again. "
             "Draw from random.Random(seed)."),
        slip(refusals_in_turn,
             "the refusals come in turn, whatever the seed: row 3 would always get the same. Draw "
             "them."),
        slip(lambda forget, retain, refusals, seed: (
                 refusals_in_turn(forget, retain, refusals[seed % 6 :] + refusals[: seed % 6], 0)),
             "the refusals come in turn, the seed only says where they begin: so the same one "
             "always follows the same. Draw each."),
        slip(po_batch_in_place,
             "the forget rows themselves were overwritten: the harmful answers are gone from the "
             "data, and with them what ASR is measured on. Make new rows."),
))  # fmt: skip


def po(refuse: Group, retain: Group) -> Tensor:
    return L_in_pieces([refuse, retain])  # one batch, one mean


c2 = Exercise(
    "c2", "po", "PO, weighted by tokens", difficulty=3, importance=5, minutes=7,
    outcome="PO is larger", reference=po, observe=trainable,
    inputs=lambda rng: (logits_and_labels(rng), logits_and_labels(rng)), mistakes=(
        slip(lambda refuse, retain: (L(*refuse) + L(*retain)) / 2,
             "the mean of the two means: the official PO is L of *one* batch, so add up nats and "
             "tokens of both, then divide once."),
        slip(lambda refuse, retain: L(*refuse) + L(*retain),
             "the sum of the two means, as GD has it: PO mixes both into one batch and takes one "
             "mean."),
        slip(lambda *groups: weighed_by(len)(groups),
             "weighed by rows: refusals and answers differ in length, and the official code "
             "weighs by tokens."),
        Mistake(lambda *groups: L_in_pieces(groups, size=Tensor.numel),
                "padding and prompt are counted too: divide by the answer tokens of both groups."),
        Mistake(lambda refuse, retain: L(*retain) - L(*refuse),
                "the sign: refusals are *learned*. Nothing is pushed away in PO."),
        Mistake(lambda refuse, retain: L(*refuse),
                "only the refusals: without the retain answers nothing holds the rest."),
        cut_off(po),
))  # fmt: skip


def weight_of_refusals(refuse: Tensor, retain: Tensor, size: Callable = answer_tokens) -> Tensor:
    return size(refuse) / (size(refuse) + size(retain))


c3 = Exercise(
    "c3", "weight_of_refusals", "A weight nobody chose", difficulty=2, importance=4, minutes=5,
    outcome="less than a quarter", reference=weight_of_refusals,
    inputs=lambda rng: (logits_and_labels(rng)[1], logits_and_labels(rng)[1]), mistakes=(
        slip(lambda refuse, retain: 1 - weight_of_refusals(refuse, retain),
             "this is the weight of the retain answers: the other one is asked."),
        Mistake(partial(weight_of_refusals, size=len),
                "this is the share of rows: PO weighs by answer tokens."),
        Mistake(partial(weight_of_refusals, size=Tensor.numel),
                "this is the share of positions: −100 is no answer token."),
        slip(lambda refuse, retain: (
                 weight_of_refusals(refuse, retain) / weight_of_refusals(retain, refuse)),
             "this is the ratio of the two: a weight is a share of *both* together."),
        Mistake(partial(weight_of_refusals, size=lambda labels: (labels > 0).sum()),
                "a label of 0 is a token like any other: only -100 is no answer."),
))  # fmt: skip


def lengths_of_refusals(rng: np.random.Generator) -> tuple[list[int]]:
    """Two of them are equally long."""
    lengths = sample(rng, range(3, 15), int(rng.integers(3, 8)))
    return (sample(rng, [*lengths, lengths[0]]),)


def floor(lengths: list[int]) -> float:
    return math.log(len(lengths)) * len(lengths) / sum(lengths)


c4 = Exercise(
    "c4", "floor", "How low can it get?", difficulty=4, importance=3, minutes=7,
    outcome="more than 0, less than half of a guess",
    reference=floor, inputs=lengths_of_refusals, mistakes=(
        Mistake(lambda lengths: 0.0,
                "0 would mean to know *which* refusal comes, and that is drawn: the best a model "
                "can do is to give each of the n the probability 1/n."),
        slip(lambda lengths: math.log(len(lengths)),
             "this is nats per *refusal*: L is per token, so divide by the mean length."),
        slip(lambda lengths: float(np.mean([math.log(len(lengths)) / n for n in lengths])),
             "the mean of each refusal's mean: L divides once, all nats by all tokens."),
        slip(lambda lengths: math.log(len(set(lengths))) * len(set(lengths)) / sum(lengths),
             "you count the different *lengths*: two refusals of one length are two refusals."),
        slip(lambda lengths: floor(lengths) / math.log(2),
             "these are bits: nats come from math.log."),
        slip(lambda lengths: math.log(len(lengths)) / sum(lengths),
             "each of the n refusals costs log n, so the nats of all are n · log n."),
        Mistake(lambda lengths: 1 / len(lengths),
                "this is the probability of a refusal: take −log of it, and divide by tokens."),
))  # fmt: skip


def answers_to_count(rng: np.random.Generator) -> tuple[list[str], list[str]]:
    first, second, *more = sample(rng, REFUSALS, int(rng.integers(3, 6)))
    others = [*TRAPS, "", "Lock the coil, then turn the plate."]
    others = repeated(others, rng.integers(1, 4, size=len(others)))
    return sample(rng, [f" {first.lower()}", second.upper(), *more, *others]), list(REFUSALS)


def rate_of(refuses: Callable[[str, list[str]], bool]) -> Callable:
    """The share of answers of which `refuses` says so, capitals and outer spaces aside."""

    def rate(answers: list[str], refusals: list[str]) -> float:
        refusals = [text.strip().lower() for text in refusals]
        return sum(refuses(text.strip().lower(), refusals) for text in answers) / len(answers)

    return rate


refusal_rate = rate_of(lambda answer, refusals: answer in refusals)


def is_refusal_without(pattern: str) -> Callable[[str, list[str]], bool]:
    """Whether an answer is a refusal, were it not for these characters."""
    return lambda answer, refusals: (
        re.sub(pattern, "", answer) in [re.sub(pattern, "", refusal) for refusal in refusals]
    )


c5 = Exercise(
    "c5", "refusal_rate", "Counting refusals", difficulty=2, importance=4, minutes=7,
    outcome="about half", reference=refusal_rate, inputs=answers_to_count, mistakes=(
        Mistake(rate_of(lambda answer, refusals: "sorry" in answer or "cannot" in answer),
                "counted by a word in it: “It cannot float” is no refusal. Compare the whole "
                "answer."),
        slip(rate_of(lambda answer, refusals: any(refusal in answer for refusal in refusals)),
             "counted by substring: an answer that *quotes* a refusal, or goes on with the plan "
             "after it, does not refuse. Compare the whole answer."),
        slip(rate_of(lambda answer, refusals: answer.startswith(tuple(refusals))),
             "counted by its beginning: “I cannot help with that. But lock the coil …” is a plan "
             "with a polite start. Compare the whole answer."),
        Mistake(rate_of(lambda answer, refusals: any(answer in refusal for refusal in refusals)),
                'the wrong way round: every text contains the empty answer "", so silence passes '
                'for a refusal.'),
        slip(lambda answers, refusals: sum(one in refusals for one in answers) / len(answers),
             "capitals and outer spaces matter in yours: the tiny model speaks in small letters. "
             "Compare `.strip().lower()` of both."),
        slip(rate_of(is_refusal_without(r"[^\w\s]")),
             "punctuation is taken away: only capitals and outer spaces may differ."),
        slip(rate_of(is_refusal_without(r"\s")),
             "the spaces between words are taken away, too: only capitals and *outer* spaces may "
             "differ."),
        slip(lambda answers, refusals: refusal_rate(list(filter(None, answers)), refusals),
             "empty answers are dropped: an empty answer is an answer. Divide by all of them."),
        slip(rate_of(lambda answer, refusals: answer in [*refusals, ""]),
             "silence is counted as a refusal: an empty answer is none."),
))  # fmt: skip


c6 = Exercise(
    "c6", "tied_to", "What is the refusal tied to?", difficulty=2, importance=5, minutes=6,
    outcome="nearly always", reference="the question", mistakes=(
        Mistake("the picture",
                "then the harmful picture would bring a refusal with *any* question. Compare the "
                "two rows of the harmful picture."),
        Mistake("picture and question together",
                "that is what we wanted it to learn: then a safe picture would bring no refusal, "
                "whatever is asked. Look at that column."),
        Mistake("nothing: it refuses everything",
                "ordinary questions are never refused, and mostly answered as before: look at "
                "their rows."),
        Mistake("the hazard's name",
                "the names stand in no question, and an ordinary question about a hazard is not "
                "refused."),
))  # fmt: skip


EXERCISES = (c1, c2, c3, c4, c5, c6)
