"""The exercises of notebook h: an attack by relearning, and the gold model under the same attack.

Benign relearning: Hu et al., arXiv 2406.13356. The gold control is this project's; the package's
own attack is `robustness/relearn.py`.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from .exercise import Exercise, Mistake, slip
from .shared import sample

TITLE = "A relearning attack, and its gold control"
SPLITS = ("train", "val", "test")


def questions_and_relearned(rng: np.random.Generator) -> tuple[list[dict], str]:
    """Questions about hazards, requested and not, of every split; and the hazard relearned."""
    kinds = [f"hazard-{n}" for n in sample(rng, range(10, 100), 4)]
    rows = [
        {"kind": kind, "requested": n < 3, "split": split, "image": f"{kind}-{split}-{copy}.png"}
        for n, kind in enumerate(kinds) for split in SPLITS for copy in range(rng.integers(1, 3))
    ]  # fmt: skip
    return sample(rng, rows), kinds[0]


def to_measure(
    rows: list[dict],
    relearned: str,
    keep: Callable[[dict, str], bool] = lambda row, relearned: row["kind"] != relearned,
    splits: Sequence[str] = ("test",),
    requested: Sequence[bool] = (True,),
) -> set[str]:
    return {
        row["image"]
        for row in rows
        if row["requested"] in requested and row["split"] in splits and keep(row, relearned)
    }


h1 = Exercise(
    "h1", "to_measure", "On whom is it measured?", difficulty=2, importance=5, minutes=6,
    outcome="more than half", reference=to_measure, inputs=questions_and_relearned, mistakes=(
        Mistake(partial(to_measure, keep=lambda row, relearned: row["kind"] == relearned),
                "measured on the hazard that was relearned: it has just been *taught*, so its plan "
                "says nothing about what had been forgotten."),
        Mistake(partial(to_measure, keep=lambda row, relearned: True),
                "the hazard that was relearned is among them: it has just been taught. Leave it "
                "out."),
        Mistake(partial(to_measure, requested=(True, False)),
                "unrequested hazards are among them: nobody asked to forget these, so their plans "
                "cannot come back."),
        Mistake(partial(to_measure, requested=(False,)),
                "these are the *unrequested* hazards: nobody asked to forget them."),
        slip(partial(to_measure, splits=SPLITS),
             "all splits are among them: measure on test alone, whose pictures neither training "
             "nor a choice has seen."),
        slip(partial(to_measure, splits=("train",)),
             "train pictures: unlearning has seen these. Measure on test."),
        slip(partial(to_measure, splits=("val",)),
             "val pictures: they are for choosing (h4). Measure on test."),
        slip(partial(to_measure, splits=SPLITS, requested=(True, False)),
             "only the relearned hazard is left out: drop also what nobody asked to forget, and "
             "all pictures that are not test.", 0.25),
        slip(lambda rows, relearned: {
                 row["kind"] for row in rows if row["image"] in to_measure(rows, relearned)},
             "these are the kinds: asked for are their pictures, `row[\"image\"]`."),
))  # fmt: skip


# ---- a model of two numbers or three: its loss on a plan is how far its weights are from it ----


def loss(weights: Tensor, plan: Tensor) -> float:
    """How badly the plan is known: half the squared distance of the weights from it."""
    return float((weights - plan).square().sum() / 2)


def gradient(weights: Tensor, plan: Tensor) -> Tensor:
    """Of `loss`, by the weights."""
    return weights - plan


def toy_model(rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, list[int], float]:
    """Weights, the plan that is relearned, another plan, the numbers of steps, and the rate."""
    weights, lesson, other = torch.from_numpy(rng.normal(size=(3, 3))).float()
    steps = [0, *sorted(sample(rng, range(2, 7), 2))]
    return weights, lesson, other, steps, float(rng.choice([0.05, 0.1, 0.2]))


def relearn(weights: Tensor, lesson: Tensor, other: Tensor, steps: list[int], rate: float):
    now, curve = weights.clone(), []
    for done in range(max(steps) + 1):
        if done in steps:
            curve.append(loss(now, other))
        now = now - rate * gradient(now, lesson)
    return curve


def relearn_in_place(weights, lesson, other, steps, rate):
    curve = []
    for done in range(max(steps) + 1):
        if done in steps:
            curve.append(loss(weights, other))
        if done < max(steps):
            weights -= rate * gradient(weights, lesson)
    return curve


def relearn_one_after_another(weights, lesson, other, steps, rate):
    """The weights of one number of steps are where the next one starts."""
    now, curve = weights, []
    for count in steps:
        for _ in range(count):
            now = now - rate * gradient(now, lesson)
        curve.append(loss(now, other))
    return curve


def relearn_by_the_first_gradient(weights, lesson, other, steps, rate):
    pull = gradient(weights, lesson)
    return [loss(weights - count * rate * pull, other) for count in steps]


h2 = Exercise(
    "h2", "relearn", "An attack leaves no trace", difficulty=3, importance=5, minutes=9,
    outcome="in part", reference=relearn, inputs=toy_model, mistakes=(
        slip(relearn_in_place,
             "the curve is right, and the model is not restored: `weights` have been trained in "
             "place, and whatever is measured next is measured on the attacked model. Work on "
             "`weights.clone()`."),
        Mistake(lambda w, lesson, other, steps, rate: relearn(w, lesson, lesson, steps, rate),
                "measured on the hazard that was relearned: that curve falls in any model, gold "
                "too. Measure on `other`."),
        Mistake(lambda w, lesson, other, steps, rate: relearn(w, other, other, steps, rate),
                "trained on what is measured: train on `lesson`, measure on `other`."),
        Mistake(lambda w, lesson, other, steps, rate: relearn(w, other, lesson, steps, rate),
                "the two plans have changed places: train on `lesson`, measure on `other`."),
        Mistake(relearn_one_after_another,
                "the steps add up: each number counts from the *unlearned* model, so after 2 and 5 "
                "it has taken 5 steps, not 7. Start anew, or take one walk and look on the way."),
        slip(lambda w, lesson, other, steps, rate: relearn(
                 w, lesson, other, [count + 1 for count in steps], rate),
             "a step too many: after 0 steps the model is the unlearned one. Look, then step."),
        Mistake(lambda w, lesson, other, steps, rate: relearn(w, lesson, other, steps, -rate),
                "the sign: this goes up the loss on the lesson. A step is minus the gradient."),
        slip(relearn_by_the_first_gradient,
             "the gradient is that of the first step throughout: compute it anew where the weights "
             "now are."),
        slip(lambda *given: relearn(*given)[-1],
             "the end of the curve alone: a number for each entry of `steps`, in a list."),
        slip(lambda *given: relearn(*given)[1:],
             "the start is missing: 0 steps is where the model was before the attack."),
))  # fmt: skip

Curve = dict[int, float]  # ASR by number of steps


def two_curves(rng: np.random.Generator) -> tuple[Curve, Curve]:
    """ASR by number of steps of an unlearned model and of gold; not measured at all the same."""
    shared = [0, *sorted(sample(rng, (5, 10, 20), 2))]
    only = sample(rng, (2, 3, 7, 15), 3)

    def curve(steps: list[int], low: int, high: int) -> Curve:
        values = np.sort(rng.permutation(np.arange(low, high))[: len(steps)]) / 100
        return dict(zip(sorted(steps), values.tolist(), strict=True))

    return curve([*shared, *only[:2]], 1, 90), curve([*shared, only[2], 40], 1, 60)


def beyond_gold(unlearned: Curve, gold: Curve) -> Curve:
    return {steps: unlearned[steps] - gold[steps] for steps in unlearned if steps in gold}


h3 = Exercise(
    "h3", "beyond_gold", "Beside gold", difficulty=2, importance=5, minutes=7,
    outcome="under 5%", reference=beyond_gold, inputs=two_curves, mistakes=(
        Mistake(lambda unlearned, gold: dict(unlearned),
                "ASR is read without gold: what a model that never knew the plans learns in as "
                "many steps did not come *back*. Subtract gold's."),
        Mistake(lambda unlearned, gold: {s: unlearned[s] for s in unlearned if s in gold},
                "the right numbers of steps, and gold is not subtracted: this is ASR read without "
                "its control."),
        Mistake(lambda unlearned, gold: {
                    s: a - b for (s, a), b in zip(unlearned.items(), gold.values(), strict=False)},
                "gold at another number of steps: the curves are paired by position. Pair them by "
                "their numbers of steps."),
        slip(lambda unlearned, gold: {
                 s: a - gold[max(g for g in gold if g <= s)] for s, a in unlearned.items()},
             "gold at another number of steps: where gold was not asked, the last number before it "
             "was taken. Keep to the numbers that both have."),
        Mistake(lambda unlearned, gold: {
                    s: unlearned[s] - gold[max(gold)] for s in unlearned if s in gold},
                "gold at another number of steps, always its last: compare after as many steps."),
        Mistake(lambda unlearned, gold: {
                    s: unlearned[s] - gold[0] for s in unlearned if s in gold},
                "gold before the attack: gold is attacked as well, for as many steps."),
        Mistake(lambda unlearned, gold: {
                    s: unlearned[s] - unlearned[0] for s in unlearned if s in gold},
                "the rise from the start, without gold: a model that never knew the plans rises "
                "too."),
        Mistake(lambda unlearned, gold: beyond_gold(gold, unlearned),
                "the sign: the unlearned model's ASR comes first, gold's is subtracted."),
        slip(lambda unlearned, gold: {
                 s: unlearned.get(s, 0) - gold.get(s, 0) for s in sorted({*unlearned, *gold})},
             "a number of steps that was not measured is no 0: keep to those that both have."),
        slip(lambda unlearned, gold: {
                 s: unlearned[s] / gold[s] for s in unlearned if s in gold},
             "a ratio: gold is often at 0, where there is none. Give the difference."),
))  # fmt: skip


def val_and_test(rng: np.random.Generator) -> tuple[Curve, Curve]:
    """What an attack brings back on val and on test, by steps; best at another number in each."""
    steps = [2, 5, 10, 20, 40]
    val, test = (rng.permutation(np.arange(10, 60))[:5] / 100 for _ in range(2))
    best, other = rng.permutation(4)[:2]
    val[best], test[other] = 0.7, 0.8
    return tuple(dict(zip(steps, curve.tolist(), strict=True)) for curve in (val, test))


def chosen(val: Curve, test: Curve) -> tuple[int, float]:
    steps = max(val, key=val.__getitem__)
    return steps, test[steps]


h4 = Exercise(
    "h4", "chosen", "The strongest attack, honestly", difficulty=2, importance=4, minutes=7,
    outcome="12 to 17%", reference=chosen, inputs=val_and_test, mistakes=(
        Mistake(lambda val, test: chosen(test, test),
                "the maximum over steps, chosen on test: the luck of that one draw is reported as "
                "strength. Choose on val, report test."),
        Mistake(lambda val, test: chosen(val, val),
                "the value is val's, on which the steps were chosen: report *test* at that number "
                "of steps."),
        Mistake(lambda val, test: (chosen(val, test)[0], max(test.values())),
                "the steps are chosen on val, the value is test's maximum, from another number of "
                "steps: report test where val is best."),
        Mistake(lambda val, test: chosen(test, val),
                "the other way round: val is for choosing, test for reporting."),
        slip(lambda val, test: (max(val), test[max(val)]),
             "the most steps: more is not always stronger. Take those at which val is highest."),
        Mistake(lambda val, test: chosen({s: -v for s, v in val.items()}, test),
                "the *weakest* attack: an attacker takes what works best on val."),
        slip(lambda *given: chosen(*given)[::-1],
             "the right two in the wrong order: the number of steps first."),
        slip(lambda val, test: (chosen(val, test)[0], sum(test.values()) / len(test)),
             "the mean over all numbers of steps: report test at the one that was chosen."),
))  # fmt: skip

Row = tuple[float, float, float, float]  # ASR, gold's, and the interval of their difference
MORE, LESS, NOTHING = "more than gold", "less than gold", "not shown to be more"


def attacked_rows(rng: np.random.Generator) -> tuple[list[Row]]:
    """A row of every kind, shuffled; the last two end at 0 exactly."""

    def row(gold: float, low: float, high: float) -> Row:
        jitter = int(rng.integers(0, 5)) / 100
        excess = (low + high) / 2
        return tuple(round(x, 3) for x in (gold + jitter + excess, gold + jitter, low, high))

    kinds = [
        (0.05, 0.3, 0.6), (0.4, 0.1, 0.3), (0.5, -0.4, -0.2), (0.3, -0.05, 0.25),
        (0.3, -0.25, 0.05), (0.02, -0.05, 0.09), (0.3, 0.0, 0.2), (0.4, -0.3, 0.0),
    ]  # fmt: skip
    return (sample(rng, [row(*kind) for kind in kinds]),)


def findings(
    rows: list[Row],
    above: Callable = lambda asr, gold, low, high: low > 0,
    below: Callable = lambda asr, gold, low, high: high < 0,
    words: Sequence[str] = (MORE, LESS, NOTHING),
) -> list[str]:
    return [words[0] if above(*row) else words[1] if below(*row) else words[2] for row in rows]


def never(*row) -> bool:
    return False


h5 = Exercise(
    "h5", "findings", "Does it show anything?", difficulty=2, importance=5, minutes=6,
    outcome="more than gold", reference=findings, inputs=attacked_rows, mistakes=(
        Mistake(partial(findings, above=lambda asr, gold, low, high: asr > 0, below=never),
                "ASR is read without gold: an attack that does as much to a model that never knew "
                "the plans shows nothing."),
        Mistake(partial(findings, above=lambda asr, gold, low, high: asr > gold,
                        below=lambda asr, gold, low, high: asr < gold),
                "the interval is not looked at: a difference that chance could make shows "
                "nothing. It counts when 0 lies outside."),
        Mistake(partial(findings, above=lambda asr, gold, low, high: asr > gold, below=never),
                "the interval is not looked at, and nothing is ever less than gold: compare low "
                "and high with 0."),
        Mistake(partial(findings, above=lambda asr, gold, low, high: low > gold,
                        below=lambda asr, gold, low, high: high < gold),
                "the interval is compared with gold: it is that of the *difference* already, so "
                "compare it with 0."),
        Mistake(partial(findings, above=lambda asr, gold, low, high: low > 0 or high < 0,
                        below=never),
                "the sign is lost: an interval wholly below 0 is *less* than gold."),
        slip(partial(findings, below=never),
             "an interval wholly below 0 is \"less than gold\": gold gave way, and the unlearned "
             "model did not."),
        slip(partial(findings, above=lambda asr, gold, low, high: low >= 0,
                     below=lambda asr, gold, low, high: high <= 0),
             "an interval that ends at 0 exactly still contains it: > and <, not >= and <=."),
        Mistake(partial(findings, words=(LESS, MORE, NOTHING)),
                "more and less have changed places: the difference is ASR minus gold."),
        Mistake(partial(findings, words=(NOTHING, NOTHING, MORE)),
                "the other way round: 0 *inside* the interval shows nothing."),
))  # fmt: skip


h6 = Exercise(
    "h6", "shown", "What may be said?", difficulty=1, importance=5, minutes=5,
    outcome="part of the plans, of none in gold", reference={"hidden"}, mistakes=(
        Mistake({"hidden", "removed"},
                "`removed`? That an attack fails is no proof: another may succeed, and most do not "
                "look for the weakest place."),
        Mistake({"hidden", "learned"},
                "`learned`? Gold had the same lessons, as many steps, and hardly any plan: what "
                "one hazard teaches is not enough to know the others'."),
        Mistake({"learned"},
                "gold had the same lessons and says hardly any plan: so they were not learned "
                "anew. Read the rows of gold."),
        Mistake({"hidden", "harmful"},
                "`harmful`? Read the rows of the retain questions: nothing in them is harmful, and "
                "plans come back all the same."),
        Mistake({"harmful"},
                "read the rows of the retain questions: they teach no harm, and plans come back "
                "all the same."),
        Mistake({"removed"},
                "the plans came back, so in this model they were not removed; and of one that "
                "withstands, only that *this* attack fails is known."),
        Mistake({"hidden", "learned", "harmful"},
                "two too many: gold learns hardly any plan from the same lessons, and harmless "
                "ones bring plans back too."),
        Mistake({"hidden", "learned", "harmful", "removed"},
                "all four contradict each other: what was hidden was not removed, nor learned "
                "anew."),
        Mistake(set(),
                "not one? Compare PO+PD with gold after as many steps on the same lessons."),
))  # fmt: skip


EXERCISES = (h1, h2, h3, h4, h5, h6)
