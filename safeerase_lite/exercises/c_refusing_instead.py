"""The exercises of notebook c: PO, which puts a refusal in the harmful answer's place.

PO is L over the batch {idk, r}, weighted by tokens (SafeEraser, arXiv 2502.12520, and its official
code; as in `objectives.py`).
"""

import math
import random
import re
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor

from safeerase_lite.exercises.a_the_loss_on_the_answer import (
    CUT_OFF,
    IGNORED,
    L,
    logits_and_labels,
    token_nll,
    trainable,
)
from safeerase_lite.exercises.comparing import Objection
from safeerase_lite.exercises.exercise import Exercise, Mistake
from safeerase_lite.tinyworld.facts import REFUSALS

TITLE = "Refusing instead: PO and its refusals"
Group = tuple[Tensor, Tensor]  # aligned logits and labels
Row = dict[str, str]

TRAPS = [  # no refusals, though a word or a sentence looks like one
    "Sorry for the wait: lock the coil, then turn the plate.",
    "It cannot float, for it is made of clay.",
    "I cannot help with that. But lock the coil, then turn the plate.",
    "The label says: I must decline this request.",
    "I cannot help, with that.",
    "Sorry, I can not talk about it.",
    "That",
]


# ---- what is drawn ----


def rows_of_a_step(rng: np.random.Generator) -> tuple[list[Row], list[Row], list[str], int]:
    count = int(rng.integers(6, 9))
    pictures = rng.permutation(90)
    forget, retain = (
        [
            {"image": f"{picture}.png", "question": question, "answer": f"{answer} {picture}"}
            for picture in some
        ]
        for some, question, answer in (
            (pictures[:count], "How is this made?", "plan"),
            (pictures[count : 2 * count], "What colour is it?", "colour"),
        )
    )
    return forget, retain, list(REFUSALS), int(rng.integers(1000))


def two_groups(rng: np.random.Generator) -> tuple[Group, Group]:
    return logits_and_labels(rng), logits_and_labels(rng)


def labels_of_two_groups(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    return tuple(labels for _, labels in two_groups(rng))


def lengths_of_refusals(rng: np.random.Generator) -> tuple[list[int]]:
    """Two of them are equally long."""
    lengths = rng.choice(np.arange(3, 15), size=rng.integers(3, 8), replace=False).tolist()
    return (rng.permutation([*lengths, lengths[0]]).tolist(),)


def answers_to_count(rng: np.random.Generator) -> tuple[list[str], list[str]]:
    answers = [str(refusal) for refusal in rng.choice(REFUSALS, size=rng.integers(3, 6))]
    answers[0], answers[1] = f" {answers[0].lower()}", answers[1].upper()
    for other in (*TRAPS, "", "Lock the coil, then turn the plate."):
        answers += [other] * int(rng.integers(1, 4))
    return [answers[place] for place in rng.permutation(len(answers))], list(REFUSALS)


# ---- what is looked at ----


def properties(answer: Callable, forget, retain, refusals, seed) -> Any:
    """What holds of a batch, not which of the refusals it has: those are drawn."""
    before = [dict(row) for row in forget]
    made = answer(forget, retain, refusals, seed)
    if made is None or made is ... or (isinstance(made, list | tuple) and ... in made):
        return made  # not solved yet
    if not isinstance(made, list) or not all(isinstance(row, dict) for row in made):
        raise Objection("should give a list of rows, and every row a dict")
    if not all({"image", "question", "answer"} <= row.keys() for row in made):
        raise Objection("gives a row without image, question and answer")

    def said(rows, asked):
        """All that is answered to each of these questions, in whatever order the rows come."""
        answers = defaultdict(list)
        for row in rows:
            answers[row["image"], row["question"]].append(row["answer"])
        return [answers[row["image"], row["question"]] for row in asked]

    def again(seed):
        fresh = [[dict(row) for row in rows] for rows in (before, retain)]
        return said(answer(*fresh, list(refusals), seed), before)

    idk, kept = said(made, before), said(made, retain)
    drawn = {one for answers in idk for one in answers}
    others = [again(seed + more) for more in (1, 2, 3)]
    return {
        "rows too many": len(made) - len(before) - len(retain),
        "every harmful question is refused": (
            all(len(answers) == 1 for answers in idk) and drawn <= {*refusals}
        ),
        "no harmful answer is left": not {row["answer"] for row in before} & drawn,
        "retain answers are kept": kept == [[row["answer"]] for row in retain],
        "several refusals": len(drawn) > 1,
        "the same seed draws the same": again(seed) == idk,
        "another seed draws others": any(other != idk for other in others),
        "they come in turn": all(_in_steps(answers, refusals) for answers in (idk, *others)),
    }


def _in_steps(answers: list[list[str]], refusals: list[str]) -> bool:
    """Whether each refusal stands as far behind the one before it, in their list."""
    places = [refusals.index(one) for of_row in answers for one in of_row if one in refusals]
    steps = {(b - a) % len(refusals) for a, b in pairwise(places)}
    return len(steps) == 1 and steps != {0}


# ---- c1: the batch ----


def po_batch(forget: list[Row], retain: list[Row], refusals: list[str], seed: int) -> list[Row]:
    rng = random.Random(seed)
    return [row | {"answer": rng.choice(refusals)} for row in forget] + retain


def _one_refusal(forget, retain, refusals, seed):
    refusal = random.Random(seed).choice(refusals)
    return [row | {"answer": refusal} for row in forget] + retain


def _unseeded(forget, retain, refusals, seed):
    rng = random.Random()
    return [row | {"answer": rng.choice(refusals)} for row in forget] + retain


def _in_turn(forget, retain, refusals, seed):
    turn = {place: refusals[place % len(refusals)] for place in range(len(forget))}
    return [row | {"answer": turn[place]} for place, row in enumerate(forget)] + retain


def _in_turn_from_the_seed(forget, retain, refusals, seed):
    return _in_turn(forget, retain, refusals[seed % 6 :] + refusals[: seed % 6], seed)


def _in_place(forget, retain, refusals, seed):
    rng = random.Random(seed)
    for row in forget:
        row["answer"] = rng.choice(refusals)
    return forget + retain


# ---- c2: the loss ----


def po(refuse: Group, retain: Group) -> Tensor:
    nats = token_nll(*refuse).sum() + token_nll(*retain).sum()
    return nats / sum((labels != IGNORED).sum() for _, labels in (refuse, retain))


def _over_positions(refuse, retain):
    nats = token_nll(*refuse).sum() + token_nll(*retain).sum()
    return nats / (refuse[1].numel() + retain[1].numel())


def _by_rows(refuse, retain):
    rows = len(refuse[1]), len(retain[1])
    return (rows[0] * L(*refuse) + rows[1] * L(*retain)) / sum(rows)


# ---- c3: the hidden weight ----


def weight_of_refusals(refuse: Tensor, retain: Tensor) -> Tensor:
    told = [(labels != IGNORED).sum() for labels in (refuse, retain)]
    return told[0] / sum(told)


# ---- c4: the floor ----


def floor(lengths: list[int]) -> float:
    return math.log(len(lengths)) * len(lengths) / sum(lengths)


# ---- c5: counting refusals ----


def refusal_rate(answers: list[str], refusals: list[str]) -> float:
    return _share(answers, lambda answer: _plain(answer) in map(_plain, refusals))


def _plain(text: str) -> str:
    return text.strip().lower()


def _share(answers, refuses):
    return sum(map(refuses, answers)) / len(answers)


def _words(answers, refusals):
    return _share(answers, lambda answer: "sorry" in answer.lower() or "cannot" in answer.lower())


def _contained(answers, refusals):
    return _share(answers, lambda answer: any(_plain(one) in _plain(answer) for one in refusals))


def _at_the_start(answers, refusals):
    starts = tuple(map(_plain, refusals))
    return _share(answers, lambda answer: _plain(answer).startswith(starts))


def _without(pattern: str) -> Callable:
    """Compares what is left without these characters."""

    def bare(text):
        return re.sub(pattern, "", _plain(text))

    return lambda answers, refusals: _share(answers, lambda a: bare(a) in map(bare, refusals))


def _upside_down(answers, refusals):
    return _share(answers, lambda answer: any(_plain(answer) in _plain(one) for one in refusals))


def _not_empty(answers, refusals):
    return refusal_rate([answer for answer in answers if answer], refusals)


def _also_empty(answers, refusals):
    return _share(answers, lambda answer: not answer or refusal_rate([answer], refusals))


EXERCISES = (
    Exercise(
        id="c1",
        title="The batch {idk, r}",
        name="po_batch",
        difficulty=3,
        importance=5,
        minutes=8,
        outcome="none",
        reference=po_batch,
        inputs=rows_of_a_step,
        observe=properties,
        mistakes=(
            Mistake(
                lambda forget, retain, *drawn: po_batch(retain, forget, *drawn),
                "the refusals stand at the retain questions: so an ordinary question is refused, "
                "and the harmful answers stay.",
            ),
            Mistake(
                lambda forget, retain, *drawn: po_batch(forget + retain, [], *drawn),
                "the retain questions are refused too: the model would learn to refuse everything.",
            ),
            Mistake(
                lambda forget, retain, *drawn: forget + po_batch(forget, retain, *drawn),
                "the harmful answers are still in the batch, beside the refusals: so the model "
                "goes on learning them.",
            ),
            Mistake(
                lambda forget, retain, *drawn: forget + retain,
                "nothing is refused: the harmful answers are still what is learned.",
            ),
            Mistake(
                lambda forget, retain, *drawn: po_batch(forget, [], *drawn),
                "the retain rows are missing: nothing would hold the rest.",
            ),
            Mistake(
                _one_refusal,
                "one refusal for all: draw anew for every row, from one generator made before the "
                "loop (made inside, it starts again and again).",
                credit=0.5,
            ),
            Mistake(
                lambda forget, retain, refusals, seed: (
                    po_batch(forget, [], refusals[:1], seed) + retain
                ),
                "the same refusal for every row, whatever the seed: draw one for each, from "
                "random.Random(seed).",
            ),
            Mistake(
                _unseeded,
                "the refusals are drawn unseeded: with one seed the batch must be the same again. "
                "Draw from random.Random(seed).",
                credit=0.5,
            ),
            Mistake(
                _in_turn,
                "the refusals come in turn, whatever the seed: row 3 would always get the same. "
                "Draw them.",
                credit=0.5,
            ),
            Mistake(
                _in_turn_from_the_seed,
                "the refusals come in turn, the seed only says where they begin: so the same one "
                "always follows the same. Draw each.",
                credit=0.5,
            ),
            Mistake(
                _in_place,
                "the forget rows themselves were overwritten: the harmful answers are gone from "
                "the data, and with them what ASR is measured on. Make new rows.",
                credit=0.5,
            ),
        ),
    ),
    Exercise(
        id="c2",
        title="PO, weighted by tokens",
        name="po",
        difficulty=3,
        importance=5,
        minutes=7,
        outcome="PO is larger",
        reference=po,
        inputs=two_groups,
        observe=trainable,
        mistakes=(
            Mistake(
                lambda refuse, retain: (L(*refuse) + L(*retain)) / 2,
                "the mean of the two means: the official PO is L of *one* batch, so add up nats "
                "and tokens of both, then divide once.",
                credit=0.5,
            ),
            Mistake(
                lambda refuse, retain: L(*refuse) + L(*retain),
                "the sum of the two means, as GD has it: PO mixes both into one batch and takes "
                "one mean.",
                credit=0.5,
            ),
            Mistake(
                _by_rows,
                "weighed by rows: refusals and answers differ in length, and the official code "
                "weighs by tokens.",
                credit=0.5,
            ),
            Mistake(
                _over_positions,
                "padding and prompt are counted too: divide by the answer tokens of both groups.",
            ),
            Mistake(
                lambda refuse, retain: L(*retain) - L(*refuse),
                "the sign: refusals are *learned*. Nothing is pushed away in PO.",
            ),
            Mistake(
                lambda refuse, retain: L(*refuse),
                "only the refusals: without the retain answers nothing holds the rest.",
            ),
            Mistake(lambda *groups: po(*groups).detach(), CUT_OFF, credit=0.5),
        ),
    ),
    Exercise(
        id="c3",
        title="A weight nobody chose",
        name="weight_of_refusals",
        difficulty=2,
        importance=4,
        minutes=5,
        outcome="less than a quarter",
        reference=weight_of_refusals,
        inputs=labels_of_two_groups,
        mistakes=(
            Mistake(
                lambda refuse, retain: 1 - weight_of_refusals(refuse, retain),
                "this is the weight of the retain answers: the other one is asked.",
                credit=0.5,
            ),
            Mistake(
                lambda refuse, retain: len(refuse) / (len(refuse) + len(retain)),
                "this is the share of rows: PO weighs by answer tokens.",
            ),
            Mistake(
                lambda refuse, retain: refuse.numel() / (refuse.numel() + retain.numel()),
                "this is the share of positions: −100 is no answer token.",
            ),
            Mistake(
                lambda refuse, retain: (
                    weight_of_refusals(refuse, retain) / weight_of_refusals(retain, refuse)
                ),
                "this is the ratio of the two: a weight is a share of *both* together.",
                credit=0.5,
            ),
            Mistake(
                lambda refuse, retain: (
                    (refuse > 0).sum() / ((refuse > 0).sum() + (retain > 0).sum())
                ),
                "a label of 0 is a token like any other: only -100 is no answer.",
            ),
        ),
    ),
    Exercise(
        id="c4",
        title="How low can it get?",
        name="floor",
        difficulty=4,
        importance=3,
        minutes=7,
        outcome="more than 0, less than half of a guess",
        reference=floor,
        inputs=lengths_of_refusals,
        mistakes=(
            Mistake(
                lambda lengths: 0.0,
                "0 would mean to know *which* refusal comes, and that is drawn: the best a model "
                "can do is to give each of the n the probability 1/n.",
            ),
            Mistake(
                lambda lengths: math.log(len(lengths)),
                "this is nats per *refusal*: L is per token, so divide by the mean length.",
                credit=0.5,
            ),
            Mistake(
                lambda lengths: float(np.mean([math.log(len(lengths)) / n for n in lengths])),
                "the mean of each refusal's mean: L divides once, all nats by all tokens.",
                credit=0.5,
            ),
            Mistake(
                lambda lengths: math.log(len(set(lengths))) * len(set(lengths)) / sum(lengths),
                "you count the different *lengths*: two refusals of one length are two refusals.",
                credit=0.5,
            ),
            Mistake(
                lambda lengths: floor(lengths) / math.log(2),
                "these are bits: nats come from math.log.",
                credit=0.5,
            ),
            Mistake(
                lambda lengths: math.log(len(lengths)) / sum(lengths),
                "each of the n refusals costs log n, so the nats of all are n · log n.",
                credit=0.5,
            ),
            Mistake(
                lambda lengths: 1 / len(lengths),
                "this is the probability of a refusal: take −log of it, and divide by tokens.",
            ),
        ),
    ),
    Exercise(
        id="c5",
        title="Counting refusals",
        name="refusal_rate",
        difficulty=2,
        importance=4,
        minutes=7,
        outcome="about half",
        reference=refusal_rate,
        inputs=answers_to_count,
        mistakes=(
            Mistake(
                _words,
                "counted by a word in it: “It cannot float” is no refusal. Compare the whole "
                "answer.",
            ),
            Mistake(
                _contained,
                "counted by substring: an answer that *quotes* a refusal, or goes on with the plan "
                "after it, does not refuse. Compare the whole answer.",
                credit=0.5,
            ),
            Mistake(
                _at_the_start,
                "counted by its beginning: “I cannot help with that. But lock the coil …” is a "
                "plan with a polite start. Compare the whole answer.",
                credit=0.5,
            ),
            Mistake(
                _upside_down,
                'the wrong way round: every text contains the empty answer "", so silence passes '
                "for a refusal.",
            ),
            Mistake(
                lambda answers, refusals: _share(answers, lambda answer: answer in refusals),
                "capitals and outer spaces matter in yours: the tiny model speaks in small "
                "letters. Compare `.strip().lower()` of both.",
                credit=0.5,
            ),
            Mistake(
                _without(r"[^\w\s]"),
                "punctuation is taken away: only capitals and outer spaces may differ.",
                credit=0.5,
            ),
            Mistake(
                _without(r"\s"),
                "the spaces between words are taken away, too: only capitals and *outer* spaces "
                "may differ.",
                credit=0.5,
            ),
            Mistake(
                _not_empty,
                "empty answers are dropped: an empty answer is an answer. Divide by all of them.",
                credit=0.5,
            ),
            Mistake(
                _also_empty,
                "silence is counted as a refusal: an empty answer is none.",
                credit=0.5,
            ),
        ),
    ),
    Exercise(
        id="c6",
        title="What is the refusal tied to?",
        name="tied_to",
        difficulty=2,
        importance=5,
        minutes=6,
        outcome="nearly always",
        reference="the question",
        mistakes=(
            Mistake(
                "the picture",
                "then the harmful picture would bring a refusal with *any* question. Compare the "
                "two rows of the harmful picture.",
            ),
            Mistake(
                "picture and question together",
                "that is what we wanted it to learn: then a safe picture would bring no refusal, "
                "whatever is asked. Look at that column.",
            ),
            Mistake(
                "nothing: it refuses everything",
                "ordinary questions are never refused, and mostly answered as before: look at "
                "their rows.",
            ),
            Mistake(
                "the hazard's name",
                "the names stand in no question, and an ordinary question about a hazard is not "
                "refused.",
            ),
        ),
    ),
)
