"""The exercises of notebook d: the Prompt Decouple term, and what it does to SARR.

Weights as in the official code of SafeEraser (arXiv 2502.12520; here `objectives.py`). The placebo
and the two-by-two are this project's.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from safeerase_lite.exercises.a_the_loss_on_the_answer import learnable
from safeerase_lite.exercises.exercise import Exercise, Mistake

TITLE = "Prompt Decouple, and what it does to SARR"
IGNORED, VOCABULARY = -100, 7
CELLS = [(kind, template) for kind in ("seen", "unseen") for template in ("seen", "unseen")]
VERDICTS = ["gibberish", "refused", "wrong", "right"]

Pair = tuple[Tensor, Tensor]  # logits and labels, aligned


# ---- what is drawn ----


def records_and_place(rng: np.random.Generator) -> tuple[list[dict], int, int]:
    """Records of a training set, and of one of them a forget question's place; never equal."""
    questions = int(rng.integers(2, 4))
    names = iter(rng.permutation(90)[: 5 * (2 + 4 * questions)] + 10)
    records = [
        {
            "hazard": f"hazard-{next(names)}.png",
            "safe": f"safe-{next(names)}.png",
            "forget": [(f"How {next(names)}?", f"harm {next(names)}") for _ in range(questions)],
            "helpful": [f"help {n}" for n in rng.permutation(90)[:questions] + 10],
            "ordinary": [
                (f"Which {a}?", f"fact {b}")
                for a, b in zip(*(rng.permutation(90)[:questions] + 10 for _ in "ab"), strict=True)
            ],
            "refusal": "Sorry.",
        }
        for _ in range(int(rng.integers(4, 6)))
    ]
    place = int(rng.integers(1, questions))
    others = [record for record in range(len(records)) if record != place]
    return records, int(rng.choice(others)), place


def losses(rng: np.random.Generator) -> tuple[float, ...]:
    """L(f), L(r), the KL of r, PO's L and L(d)."""
    return tuple(float(round(x, 2)) for x in rng.uniform(0.3, 4, size=5))


def answers_of(rng: np.random.Generator) -> Pair:
    """Aligned logits and labels, answers of other lengths in every row."""
    rows, length = int(rng.integers(2, 4)), int(rng.integers(4, 7))
    labels = torch.full((rows, length), IGNORED)
    lengths = rng.choice(np.arange(1, length + 1), size=rows, replace=False)
    for label, count in zip(labels, lengths, strict=True):
        label[length - count :] = torch.from_numpy(rng.integers(VOCABULARY, size=count))
    logits = torch.from_numpy(2 * rng.normal(size=(rows, length, VOCABULARY))).float()
    return logits, labels


def groups_and_weight(rng: np.random.Generator) -> tuple[Pair, Pair, Pair, float]:
    weight = float(rng.choice([0.25, 0.5, 2.0, 3.0]))
    return answers_of(rng), answers_of(rng), answers_of(rng), weight


def judged_answers(rng: np.random.Generator) -> tuple[list[tuple[bool, bool, str]]]:
    """Two to four answers of every cell, shuffled; not one cell as many as its mirror."""
    counts = rng.permutation([2, 3, 4, 2])
    counts[2] += counts[1] == counts[2]
    rows = [
        (kind == "seen", template == "seen", str(rng.choice(VERDICTS)))
        for (kind, template), count in zip(CELLS, counts, strict=True)
        for _ in range(count)
    ]
    return ([rows[place] for place in rng.permutation(len(rows))],)


def before_and_after(rng: np.random.Generator) -> tuple[list[float], list[float]]:
    """SARR in per cent of several objectives, plain and with PD."""
    plain = rng.integers(50, 101, size=int(rng.integers(3, 5)))
    left = rng.uniform(0.05, 0.7, size=len(plain))
    return plain.astype(float).tolist(), np.round(plain * left, 1).tolist()


def three_rows_of_seeds(rng: np.random.Generator) -> tuple[dict, dict, dict]:
    """SARR by seed, plain, placebo and PD; of each row one seed is missing, and not the same."""
    seeds = rng.permutation(10)[:6]
    ranges = ((80, 100), (55, 80), (5, 50))
    rows = []
    for missing, (low, high) in enumerate(ranges):
        kept = [seed for n, seed in enumerate(seeds) if n != missing]
        rows.append({int(seed): float(rng.integers(low, high)) for seed in sorted(kept)})
    return tuple(rows)


# ---- what is looked at ----


def loss_and_pulls(answer: Callable, idk: Pair, r: Pair, d: Pair, weight: float) -> Any:
    """The loss, and how hard its gradient pulls at the logits of each group."""
    logits = [group[0].requires_grad_() for group in (idk, r, d)]
    loss = answer(idk, r, d, weight)
    told = learnable(loss)
    if not told or not told["its gradient"] or loss.ndim:
        return told
    pulls = torch.autograd.grad(loss, logits, allow_unused=True)
    hard = [0.0 if pull is None else float(pull.abs().sum()) for pull in pulls]
    named = (f"the pull on {name}" for name in ("idk", "r", "d"))
    return told | dict(zip(named, hard, strict=True))


# ---- d1: the pair ----


def pd_pair(records: list[dict], record: int, place: int) -> tuple[str, str, str]:
    of = records[record]
    return of["safe"], of["forget"][place][0], of["helpful"][place]


def _own(pick: Callable[[dict, int], tuple]) -> Callable:
    return lambda records, record, place: pick(records[record], place)


# ---- d2: the official weights ----


def official(f: float, r: float, kl: float, po: float, d: float) -> dict[str, float]:
    return {
        "ga": -f + 0.5 * d,
        "gd": -f + 0.5 * r + 0.5 * d,
        "kl": -f + kl + 1.0 * d,
        "po": po + 1.0 * d,
    }


def _weighed(
    ga: float = 0.5, gd: float = 0.5, kl: float = 1, po: float = 1, r: float = 0.5, k: float = 1
) -> Callable:
    """The weights of L(d) in each objective, of L(r) in GD and of the KL."""
    return lambda lf, lr, lkl, lpo, ld: {
        "ga": -lf + ga * ld,
        "gd": -lf + r * lr + gd * ld,
        "kl": -lf + k * lkl + kl * ld,
        "po": lpo + po * ld,
    }


def _not_ascending(f, r, kl, po, d):
    return official(-f, r, kl, po, d)


# ---- d3: a term of its own ----


def L(*groups: Pair) -> Tensor:
    """Mean negative log-likelihood per answer token, over all the groups together (notebook a)."""
    nats = sum(
        F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
        for logits, labels in groups
    )
    return nats / sum((labels != IGNORED).sum() for _, labels in groups)


def po_with_pd(idk: Pair, r: Pair, d: Pair, weight: float) -> Tensor:
    return L(idk, r) + weight * L(d)


# ---- d5: SARR, cell by cell ----


def sarr_by_cell(answers: list[tuple[bool, bool, str]]) -> dict[tuple[str, str], float]:
    return _by_cell(answers, ("refused", "gibberish"))


def _by_cell(answers, counted, flip=False, divide_by_all=False):
    table = {}
    for kind, template in CELLS:
        place = (template, kind) if flip else (kind, template)
        here = [v for k, t, v in answers if (k, t) == tuple(word == "seen" for word in place)]
        whole = len(answers) if divide_by_all else len(here)
        table[kind, template] = sum(verdict in counted for verdict in here) / whole
    return table


# ---- d6: points and per cent ----


def falls(before: list[float], after: list[float]) -> tuple[float, float]:
    pairs = list(zip(before, after, strict=True))
    points = sum(b - a for b, a in pairs) / len(pairs)
    relative = sum(100 * (b - a) / b for b, a in pairs) / len(pairs)
    return points, relative


def _relative_to_after(before, after):
    pairs = list(zip(before, after, strict=True))
    return falls(before, after)[0], sum(100 * (b - a) / a for b, a in pairs) / len(pairs)


def _of_the_means(before, after):
    return falls(before, after)[0], 100 * (sum(before) - sum(after)) / sum(before)


# ---- d7: what the placebo takes off ----


def split_fall(
    plain: dict[int, float], placebo: dict[int, float], with_pd: dict[int, float]
) -> tuple[float, float]:
    shared = plain.keys() & placebo.keys() & with_pd.keys()
    pictures = sum(plain[seed] - placebo[seed] for seed in shared) / len(shared)
    return pictures, sum(placebo[seed] - with_pd[seed] for seed in shared) / len(shared)


def _by_two(plain, placebo, with_pd):
    def fall(a, b):
        shared = a.keys() & b.keys()
        return sum(a[seed] - b[seed] for seed in shared) / len(shared)

    return fall(plain, placebo), fall(placebo, with_pd)


def _unpaired(plain, placebo, with_pd):
    means = [sum(row.values()) / len(row) for row in (plain, placebo, with_pd)]
    return means[0] - means[1], means[1] - means[2]


def _all_of_it(plain, placebo, with_pd):
    pictures, question = split_fall(plain, placebo, with_pd)
    return pictures, pictures + question


def _in_shares(plain, placebo, with_pd):
    pictures, question = split_fall(plain, placebo, with_pd)
    return tuple(100 * part / (pictures + question) for part in (pictures, question))


EXERCISES = (
    Exercise(
        id="d1",
        title="The pair",
        name="pd_pair",
        difficulty=1,
        importance=5,
        minutes=5,
        outcome="none",
        reference=pd_pair,
        inputs=records_and_place,
        mistakes=(
            Mistake(
                _own(lambda of, n: (of["hazard"], of["forget"][n][0], of["helpful"][n])),
                "the hazard's picture: this would teach the model to be helpful about the hazard. "
                "PD shows a safe picture.",
            ),
            Mistake(
                _own(lambda of, n: (of["safe"], *of["ordinary"][n])),
                "another question: a safe picture with an ordinary question is the *placebo*. PD "
                "asks the forget question, unchanged.",
            ),
            Mistake(
                _own(lambda of, n: (of["safe"], of["forget"][n][0], of["refusal"])),
                "a refusal for an answer: this *teaches* over-forgetting. The picture is safe, so "
                "the answer helps.",
            ),
            Mistake(
                _own(lambda of, n: (of["safe"], *of["forget"][n])),
                "the hazard's answer: this says the harm again, about a safe picture. The safe "
                "picture has an answer of its own.",
            ),
            Mistake(
                lambda records, record, place: pd_pair(records, place, place),
                "another record's pair: the question's place was taken for the record's. The "
                "official code overwrites an index in just this way.",
                credit=0.5,
            ),
            Mistake(
                _own(lambda of, n: (of["safe"], of["forget"][n][0], of["helpful"][0])),
                "the answer to the record's first question, whatever is asked: mind the place.",
                credit=0.5,
            ),
            Mistake(
                _own(lambda of, n: (of["safe"], of["forget"][0][0], of["helpful"][0])),
                "the record's first question, whatever the place: each forget question has a "
                "partner of its own.",
                credit=0.5,
            ),
        ),
    ),
    Exercise(
        id="d2",
        title="The weights of the official code",
        name="official",
        difficulty=2,
        importance=4,
        minutes=6,
        outcome="two",
        reference=official,
        inputs=losses,
        mistakes=(
            Mistake(
                _weighed(ga=1, gd=1, r=1),
                "these are the `matched` weights, plain + 1 · L(d): cleaner, but not official. "
                "There GA and GD take half of L(d), and GD half of L(r).",
                credit=0.5,
            ),
            Mistake(
                _weighed(r=1),
                "GD's retain weight is not halved: with PD the official code takes 0.5 L(r) "
                "+ 0.5 L(d).",
                credit=0.5,
            ),
            Mistake(
                _weighed(kl=0.5, po=0.5),
                "L(d) is halved for KL and PO too: there its weight is 1.",
                credit=0.5,
            ),
            Mistake(
                _weighed(kl=0.5),
                "L(d) is halved for KL too: there, as for PO, its weight is 1.",
                credit=0.5,
            ),
            Mistake(
                _weighed(k=0.5),
                "KL's retain term is halved: of all the retain terms only GD's is.",
                credit=0.5,
            ),
            Mistake(
                _weighed(ga=1, gd=1),
                "L(d) has the weight 1 in GA and GD: there it is 0.5.",
                credit=0.5,
            ),
            Mistake(
                _weighed(ga=1),
                "L(d) has the weight 1 in GA: there, as in GD, it is 0.5.",
                credit=0.5,
            ),
            Mistake(
                _weighed(-0.5, -0.5, -1, -1),
                "the sign of L(d): the safe answer is to become *likelier*, so its loss is added.",
            ),
            Mistake(
                _not_ascending,
                "the sign of L(f): GA, GD and KL go *up* it. This would teach the harm.",
            ),
            Mistake(
                _weighed(0, 0, 0, 0),
                "L(d) is missing: with weight 0 nothing is decoupled.",
            ),
            Mistake(
                _weighed(0, 0, 0, 0, r=1),
                "these are the four *plain* losses: with PD, L(d) comes into each.",
            ),
        ),
    ),
    Exercise(
        id="d3",
        title="A term of its own",
        name="po_with_pd",
        difficulty=3,
        importance=4,
        minutes=8,
        outcome="hardly at all",
        reference=po_with_pd,
        inputs=groups_and_weight,
        observe=loss_and_pulls,
        mistakes=(
            Mistake(
                lambda idk, r, d, weight: L(idk, r, d),
                "one batch of three: now L(d)'s weight is whatever its share of the tokens is, and "
                "`weight` does nothing. PD is a term of its own.",
            ),
            Mistake(
                lambda idk, r, d, weight: L(idk) + L(r) + weight * L(d),
                "PO was taken apart: it is *one* mean over the tokens of both, L({idk, r}), not a "
                "sum of two means.",
                credit=0.5,
            ),
            Mistake(
                lambda idk, r, d, weight: (L(idk) + L(r)) / 2 + weight * L(d),
                "PO was taken apart: it is the mean over the tokens of both, L({idk, r}), not the "
                "mean of the two means.",
                credit=0.5,
            ),
            Mistake(
                lambda idk, r, d, weight: weight * (L(idk, r) + L(d)),
                "the weight is on everything, which is only another learning rate: it belongs to "
                "L(d) alone.",
                credit=0.5,
            ),
            Mistake(
                lambda idk, r, d, weight: (1 - weight) * L(idk, r) + weight * L(d),
                "a mixture: the weight takes from PO what it gives to PD, so two things change at "
                "once. PD is added.",
            ),
            Mistake(
                lambda idk, r, d, weight: L(idk, r) + L(d),
                "`weight` is not used: multiply L(d) by it.",
                credit=0.5,
            ),
            Mistake(
                lambda idk, r, d, weight: L(idk, r) - weight * L(d),
                "the sign: this *unlearns* the safe answers. PD's loss is added.",
            ),
            Mistake(
                lambda idk, r, d, weight: L(idk, r) + weight * L(d).detach(),
                "the number is right and PD is dead: no gradient flows through L(d); `.item()`, "
                "`.detach()` or `no_grad` cut it off.",
                credit=0.5,
            ),
            Mistake(
                lambda idk, r, d, weight: po_with_pd(idk, r, d, weight).detach(),
                "no gradient flows through this: a loss stays a tensor, without `.item()` or "
                "`.detach()`.",
                credit=0.5,
            ),
        ),
    ),
    Exercise(
        id="d4",
        title="Which comparison isolates PD?",
        name="isolated",
        difficulty=2,
        importance=4,
        minutes=4,
        outcome="matched",
        reference={"ga", "kl", "po"},
        mistakes=(
            Mistake(
                {"ga", "gd", "kl", "po"},
                "all four? Write GD out, plain and with PD, one under the other: a second term "
                "changes.",
            ),
            Mistake(
                {"kl", "po"},
                "GA is in as well: half a PD is still PD alone. Nothing else changes.",
            ),
            Mistake({"gd"}, "the other way round: GD is the one in which two things change."),
            Mistake(
                {"gd", "kl", "po"},
                "GA changes by 0.5 L(d) and nothing else; GD changes in two places.",
            ),
            Mistake(
                {"ga", "gd"},
                "the weight 0.5 is not the trouble: what matters is whether *another* term moved.",
            ),
            Mistake(
                set(),
                "not one? Subtract plain from official, term by term: for some only λ L(d) is "
                "left.",
            ),
        ),
    ),
    Exercise(
        id="d5",
        title="SARR is a table",
        name="sarr_by_cell",
        difficulty=3,
        importance=5,
        minutes=8,
        outcome="new objects",
        reference=sarr_by_cell,
        inputs=judged_answers,
        mistakes=(
            Mistake(
                lambda answers: _by_cell(answers, ("refused",)),
                "refusals alone: gibberish helps nobody either. SARR = refused or gibberish.",
                credit=0.5,
            ),
            Mistake(
                lambda answers: _by_cell(answers, ("refused", "gibberish", "wrong")),
                "`wrong` is counted as well: that is the safe error. SARR leaves fluent wrong "
                "answers out, and they are reported beside it.",
                credit=0.5,
            ),
            Mistake(
                lambda answers: _by_cell(answers, ("right",)),
                "this is the share of right answers: count those that are refused or gibberish.",
            ),
            Mistake(
                lambda answers: _by_cell(answers, ("wrong", "right")),
                "this is the share that is *not* refused or gibberish: 1 minus SARR.",
            ),
            Mistake(
                lambda answers: _by_cell(answers, ("refused", "gibberish"), flip=True),
                "the table is turned: the first word of a key is the kind, the second the "
                "template.",
                credit=0.5,
            ),
            Mistake(
                lambda answers: _by_cell(answers, ("refused", "gibberish"), divide_by_all=True),
                "divided by all answers: every cell is a share of its *own* answers.",
            ),
        ),
    ),
    Exercise(
        id="d6",
        title="Points or per cent?",
        name="falls",
        difficulty=2,
        importance=3,
        minutes=5,
        outcome="10 to 30 points less",
        reference=falls,
        inputs=before_and_after,
        mistakes=(
            Mistake(
                lambda before, after: tuple(-fall for fall in falls(before, after)),
                "the sign: a fall is before minus after.",
                credit=0.5,
            ),
            Mistake(
                _relative_to_after,
                "the second number is relative to what was left: a fall is a share of what was "
                "there *before*.",
            ),
            Mistake(
                _of_the_means,
                "the second number is the fall of the mean: wanted is the mean of each "
                "objective's own relative fall.",
                credit=0.5,
            ),
            Mistake(
                lambda before, after: (falls(before, after)[0],) * 2,
                "points twice: the relative fall divides by what was there before.",
            ),
            Mistake(
                lambda before, after: falls(before, after)[::-1],
                "the right two numbers in the wrong order: points first.",
                credit=0.5,
            ),
            Mistake(
                lambda before, after: (falls(before, after)[0], falls(before, after)[1] / 100),
                "the second number is a share of 1: give it in per cent, like SARR itself.",
                credit=0.5,
            ),
        ),
    ),
    Exercise(
        id="d7",
        title="What the placebo takes off",
        name="split_fall",
        difficulty=3,
        importance=5,
        minutes=7,
        outcome="near plain PO's",
        reference=split_fall,
        inputs=three_rows_of_seeds,
        mistakes=(
            Mistake(
                _unpaired,
                "means over different seeds: keep to the seeds that all three rows have, and what "
                "is left differs in the method alone.",
                credit=0.5,
            ),
            Mistake(
                _by_two,
                "each difference has other seeds: take those that *all three* rows have, or the "
                "two parts do not add up to the whole fall.",
                credit=0.5,
            ),
            Mistake(
                _all_of_it,
                "the second number is PD's whole fall: what the placebo does, PD's pictures do as "
                "well. Take it off.",
            ),
            Mistake(
                lambda *rows: tuple(-x for x in split_fall(*rows)),
                "the sign: a fall is what was before, minus what is left.",
                credit=0.5,
            ),
            Mistake(
                lambda *rows: split_fall(*rows)[::-1],
                "the right two numbers in the wrong order: the placebo has the pictures, and not "
                "the question.",
            ),
            Mistake(
                _in_shares,
                "these are shares of the whole fall: give points, the shares are easily got from "
                "them (and mean little where the whole fall is small).",
                credit=0.5,
            ),
        ),
    ),
)
