"""The exercises of notebook d: the Prompt Decouple term, and what it does to SARR.

Weights as in the official code of SafeEraser (arXiv 2502.12520; here `objectives.py`). The placebo
and the two-by-two are this project's.
"""

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from itertools import product

import numpy as np
from torch import Tensor

from .a_the_loss_on_the_answer import L_in_pieces
from .exercise import Exercise, Mistake, slip
from .shared import Group, logits_and_labels, sample, with_gradients

TITLE = "Prompt Decouple, and what it does to SARR"
VERDICTS = ["gibberish", "refused", "wrong", "right"]


def records_and_place(rng: np.random.Generator) -> tuple[list[dict], int, int]:
    """Records of a training set, and of one of them a forget question's place; never equal."""
    places = range(rng.integers(2, 4))
    records = [
        {
            "hazard": f"hazard-{n}.png",
            "safe": f"safe-{n}.png",
            "forget": [(f"How {n}{place}?", f"harm {n}{place}") for place in places],
            "helpful": [f"help {n}{place}" for place in places],
            "ordinary": [(f"Which {n}{place}?", f"fact {n}{place}") for place in places],
            "refusal": "Sorry.",
        }
        for n in sample(rng, range(10, 100), int(rng.integers(4, 6)))
    ]
    place = int(rng.integers(1, len(places)))
    return records, int(rng.choice([n for n in range(len(records)) if n != place])), place


def pd_pair(records: list[dict], record: int, place: int) -> tuple[str, str, str]:
    of = records[record]
    return of["safe"], of["forget"][place][0], of["helpful"][place]


def of_record(pick: Callable[[dict, int], tuple]) -> Callable:
    return lambda records, record, place: pick(records[record], place)


d1 = Exercise(
    "d1", "pd_pair", "The pair", difficulty=1, importance=5, minutes=5,
    outcome="none", reference=pd_pair, inputs=records_and_place, mistakes=(
        Mistake(of_record(lambda of, n: (of["hazard"], of["forget"][n][0], of["helpful"][n])),
                "the hazard's picture: this would teach the model to be helpful about the hazard. "
                "PD shows a safe picture."),
        Mistake(of_record(lambda of, n: (of["safe"], *of["ordinary"][n])),
                "another question: a safe picture with an ordinary question is the *placebo*. PD "
                "asks the forget question, unchanged."),
        Mistake(of_record(lambda of, n: (of["safe"], of["forget"][n][0], of["refusal"])),
                "a refusal for an answer: this *teaches* over-forgetting. The picture is safe, so "
                "the answer helps."),
        Mistake(of_record(lambda of, n: (of["safe"], *of["forget"][n])),
                "the hazard's answer: this says the harm again, about a safe picture. The safe "
                "picture has an answer of its own."),
        slip(lambda records, record, place: pd_pair(records, place, place),
             "another record's pair: the question's place was taken for the record's. The "
             "official code overwrites an index in just this way."),
        slip(of_record(lambda of, n: (of["safe"], of["forget"][n][0], of["helpful"][0])),
             "the answer to the record's first question, whatever is asked: mind the place."),
        slip(of_record(lambda of, n: (of["safe"], of["forget"][0][0], of["helpful"][0])),
             "the record's first question, whatever the place: each forget question has a partner "
             "of its own."),
))  # fmt: skip


def weighted(ga=0.5, gd=0.5, kl=1.0, po=1.0, *, of_r=0.5, of_kl=1.0) -> Callable:
    """The losses with these weights of L(d) in each objective, of L(r) in GD and of the KL."""
    of_d = {"ga": ga, "gd": gd, "kl": kl, "po": po}

    def losses(f: float, r: float, kl: float, po: float, d: float) -> dict[str, float]:
        plain = {"ga": -f, "gd": -f + of_r * r, "kl": -f + of_kl * kl, "po": po}
        return {name: plain[name] + of_d[name] * d for name in plain}

    return losses


official = weighted()


d2 = Exercise(
    "d2", "official", "The weights of the official code", difficulty=2, importance=4, minutes=6,
    outcome="two", reference=official,
    inputs=lambda rng: tuple(rng.uniform(0.3, 4, size=5).round(2).tolist()), mistakes=(
        slip(weighted(ga=1, gd=1, of_r=1),
             "these are the `matched` weights, plain + 1 · L(d): cleaner, but not official. There "
             "GA and GD take half of L(d), and GD half of L(r)."),
        slip(weighted(of_r=1),
             "GD's retain weight is not halved: with PD the official code takes 0.5 L(r) + 0.5 "
             "L(d)."),
        slip(weighted(kl=0.5, po=0.5), "L(d) is halved for KL and PO too: there its weight is 1."),
        slip(weighted(kl=0.5), "L(d) is halved for KL too: there, as for PO, its weight is 1."),
        slip(weighted(of_kl=0.5),
             "KL's retain term is halved: of all the retain terms only GD's is."),
        slip(weighted(ga=1, gd=1), "L(d) has the weight 1 in GA and GD: there it is 0.5."),
        slip(weighted(ga=1), "L(d) has the weight 1 in GA: there, as in GD, it is 0.5."),
        Mistake(weighted(-0.5, -0.5, -1, -1),
                "the sign of L(d): the safe answer is to become *likelier*, so its loss is added."),
        Mistake(lambda f, r, kl, po, d: official(-f, r, kl, po, d),
                "the sign of L(f): GA, GD and KL go *up* it. This would teach the harm."),
        Mistake(weighted(0, 0, 0, 0), "L(d) is missing: with weight 0 nothing is decoupled."),
        Mistake(weighted(0, 0, 0, 0, of_r=1),
                "these are the four *plain* losses: with PD, L(d) comes into each."),
))  # fmt: skip


def L(*groups: Group) -> Tensor:
    """Mean negative log-likelihood per answer token, over all the groups together (notebook a)."""
    return L_in_pieces(groups)


def po_with_pd(idk: Group, r: Group, d: Group, weight: float) -> Tensor:
    return L(idk, r) + weight * L(d)


d3 = Exercise(
    "d3", "po_with_pd", "A term of its own", difficulty=3, importance=4, minutes=8,
    outcome="hardly at all", reference=po_with_pd, inputs=lambda rng: (
        *(logits_and_labels(rng) for _ in range(3)), float(rng.choice([0.25, 0.5, 2, 3]))
    ), observe=with_gradients(
        "the pull on idk", "the pull on r", "the pull on d",
        of=lambda pull: 0.0 if pull is None else float(pull.abs().sum()),
    ), mistakes=(
        Mistake(lambda idk, r, d, weight: L(idk, r, d),
                "one batch of three: now L(d)'s weight is whatever its share of the tokens is, "
                "and `weight` does nothing. PD is a term of its own."),
        slip(lambda idk, r, d, weight: L(idk) + L(r) + weight * L(d),
             "PO was taken apart: it is *one* mean over the tokens of both, L({idk, r}), not a "
             "sum of two means."),
        slip(lambda idk, r, d, weight: (L(idk) + L(r)) / 2 + weight * L(d),
             "PO was taken apart: it is the mean over the tokens of both, L({idk, r}), not the "
             "mean of the two means."),
        slip(lambda idk, r, d, weight: weight * (L(idk, r) + L(d)),
             "the weight is on everything, which is only another learning rate: it belongs to "
             "L(d) alone."),
        Mistake(lambda idk, r, d, weight: (1 - weight) * L(idk, r) + weight * L(d),
                "a mixture: the weight takes from PO what it gives to PD, so two things change at "
                "once. PD is added."),
        slip(lambda idk, r, d, weight: L(idk, r) + L(d),
             "`weight` is not used: multiply L(d) by it."),
        Mistake(lambda idk, r, d, weight: L(idk, r) - weight * L(d),
                "the sign: this *unlearns* the safe answers. PD's loss is added."),
        slip(lambda idk, r, d, weight: L(idk, r) + weight * L(d).detach(),
             "the number is right and PD is dead: no gradient flows through L(d); `.item()`, "
             "`.detach()` or `no_grad` cut it off."),
        slip(lambda idk, r, d, weight: po_with_pd(idk, r, d, weight).detach(),
             "no gradient flows through this: a loss stays a tensor, without `.item()` or "
             "`.detach()`."),
))  # fmt: skip


d4 = Exercise(
    "d4", "isolated", "Which comparison isolates PD?", difficulty=2, importance=4, minutes=4,
    outcome="matched", reference={"ga", "kl", "po"}, mistakes=(
        Mistake({"ga", "gd", "kl", "po"},
                "all four? Write GD out, plain and with PD, one under the other: a second term "
                "changes."),
        Mistake({"kl", "po"},
                "GA is in as well: half a PD is still PD alone. Nothing else changes."),
        Mistake({"gd"}, "the other way round: GD is the one in which two things change."),
        Mistake({"gd", "kl", "po"},
                "GA changes by 0.5 L(d) and nothing else; GD changes in two places."),
        Mistake({"ga", "gd"},
                "the weight 0.5 is not the trouble: what matters is whether *another* term moved."),
        Mistake(set(),
                "not one? Subtract plain from official, term by term: for some only λ L(d) is "
                "left."),
))  # fmt: skip


def judged_answers(rng: np.random.Generator) -> tuple[list[tuple[bool, bool, str]]]:
    """Two to four answers of every cell, shuffled."""
    answers = [
        (kind, template, str(rng.choice(VERDICTS)))
        for kind, template in product((True, False), repeat=2)
        for _ in range(rng.integers(2, 5))
    ]
    return (sample(rng, answers),)


def sarr_by_cell(
    answers: list[tuple[bool, bool, str]],
    counted: tuple[str, ...] = ("refused", "gibberish"),
    size: Callable = len,
) -> dict[tuple[str, str], float]:
    words = {True: "seen", False: "unseen"}
    cells = defaultdict(list)
    for kind, template, verdict in answers:
        cells[words[kind], words[template]].append(verdict in counted)
    return {cell: sum(hits) / size(hits) for cell, hits in cells.items()}


d5 = Exercise(
    "d5", "sarr_by_cell", "SARR is a table", difficulty=3, importance=5, minutes=8,
    outcome="new objects", reference=sarr_by_cell, inputs=judged_answers, mistakes=(
        slip(partial(sarr_by_cell, counted=("refused",)),
             "refusals alone: gibberish helps nobody either. SARR = refused or gibberish."),
        slip(partial(sarr_by_cell, counted=("refused", "gibberish", "wrong")),
             "`wrong` is counted as well: that is the safe error. SARR leaves fluent wrong "
             "answers out, and they are reported beside it."),
        Mistake(partial(sarr_by_cell, counted=("right",)),
                "this is the share of right answers: count those that are refused or gibberish."),
        Mistake(partial(sarr_by_cell, counted=("wrong", "right")),
                "this is the share that is *not* refused or gibberish: 1 minus SARR."),
        slip(lambda answers: sarr_by_cell([(k, t, v) for t, k, v in answers]),
             "the table is turned: the first word of a key is the kind, the second the template."),
        Mistake(lambda answers: sarr_by_cell(answers, size=lambda _: len(answers)),
                "divided by all answers: every cell is a share of its *own* answers."),
))  # fmt: skip


def before_and_after(rng: np.random.Generator) -> tuple[list[float], list[float]]:
    """SARR in per cent of several objectives, plain and with PD."""
    plain = rng.integers(50, 101, size=int(rng.integers(3, 5)))
    left = rng.uniform(0.05, 0.7, size=len(plain))
    return plain.astype(float).tolist(), np.round(plain * left, 1).tolist()


def falls(before: list[float], after: list[float]) -> tuple[float, float]:
    pairs = list(zip(before, after, strict=True))
    points = sum(b - a for b, a in pairs) / len(pairs)
    relative = sum(100 * (b - a) / b for b, a in pairs) / len(pairs)
    return points, relative


d6 = Exercise(
    "d6", "falls", "Points or per cent?", difficulty=2, importance=3, minutes=5,
    outcome="10 to 30 points less", reference=falls, inputs=before_and_after, mistakes=(
        slip(lambda before, after: tuple(-fall for fall in falls(before, after)),
             "the sign: a fall is before minus after."),
        Mistake(lambda before, after: (falls(before, after)[0], -falls(after, before)[1]),
                "the second number is relative to what was left: a fall is a share of what was "
                "there *before*."),
        slip(lambda before, after: (
                 falls(before, after)[0], 100 * (sum(before) - sum(after)) / sum(before)),
             "the second number is the fall of the mean: wanted is the mean of each objective's "
             "own relative fall."),
        Mistake(lambda before, after: (falls(before, after)[0],) * 2,
                "points twice: the relative fall divides by what was there before."),
        slip(lambda before, after: falls(before, after)[::-1],
             "the right two numbers in the wrong order: points first."),
        slip(lambda before, after: (falls(before, after)[0], falls(before, after)[1] / 100),
             "the second number is a share of 1: give it in per cent, like SARR itself."),
))  # fmt: skip


def three_rows_of_seeds(rng: np.random.Generator) -> tuple[dict, dict, dict]:
    """SARR by seed, plain, placebo and PD; of each row one seed is missing, and not the same."""
    seeds = sample(rng, range(10), 6)
    return tuple(
        {seed: float(rng.integers(low, high)) for seed in sorted({*seeds} - {missing})}
        for missing, (low, high) in zip(seeds, ((80, 100), (55, 80), (5, 50)), strict=False)
    )


Seeds = dict[int, float]  # a value by seed


def split_fall(plain: Seeds, placebo: Seeds, with_pd: Seeds) -> tuple[float, float]:
    shared = plain.keys() & placebo.keys() & with_pd.keys()
    pictures = sum(plain[seed] - placebo[seed] for seed in shared) / len(shared)
    return pictures, sum(placebo[seed] - with_pd[seed] for seed in shared) / len(shared)


def split_fall_unpaired(*rows):
    means = [sum(row.values()) / len(row) for row in rows]
    return means[0] - means[1], means[1] - means[2]


d7 = Exercise(
    "d7", "split_fall", "What the placebo takes off", difficulty=3, importance=5, minutes=7,
    outcome="near plain PO's", reference=split_fall, inputs=three_rows_of_seeds, mistakes=(
        slip(split_fall_unpaired,
             "means over different seeds: keep to the seeds that all three rows have, and what is "
             "left differs in the method alone."),
        slip(lambda plain, placebo, with_pd: (
                 split_fall(plain, placebo, placebo)[0], split_fall(placebo, placebo, with_pd)[1]),
             "each difference has other seeds: take those that *all three* rows have, or the two "
             "parts do not add up to the whole fall."),
        Mistake(lambda *rows: (split_fall(*rows)[0], sum(split_fall(*rows))),
                "the second number is PD's whole fall: what the placebo does, PD's pictures do as "
                "well. Take it off."),
        slip(lambda *rows: tuple(-x for x in split_fall(*rows)),
             "the sign: a fall is what was before, minus what is left."),
        Mistake(lambda *rows: split_fall(*rows)[::-1],
                "the right two numbers in the wrong order: the placebo has the pictures, and not "
                "the question."),
        slip(lambda *rows: tuple(100 * x / sum(split_fall(*rows)) for x in split_fall(*rows)),
             "these are shares of the whole fall: give points, the shares are easily got from "
             "them (and mean little where the whole fall is small)."),
))  # fmt: skip


EXERCISES = (d1, d2, d3, d4, d5, d6, d7)
