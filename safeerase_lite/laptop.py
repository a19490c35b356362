"""The hour of the profile `laptop`: what it computes, counted, and how long that takes.

A real model of 256 million weights is taught two categories of the tiny world, and unlearns them by
PO and by PO + PD. The counts are those of the sampler and of the evaluation; the seconds are CPU
seconds of one core, which `benchmarks/laptop_budget.py` measured.
"""

import re
from dataclasses import dataclass

from pandas import DataFrame

from safeerase_lite.config import Config, config
from safeerase_lite.tinyworld import facts
from safeerase_lite.tinyworld.world import World
from safeerase_lite.unlearning.objectives import OBJECTIVES

TAUGHT_STEPS = 200  # of the injection; how many the real model needs is unknown
KINDS = 8  # hazards of a category, and as many safe kinds
QUESTIONS = 4  # of each set about a picture; of specificity `len(facts.SPECIFICITY)`


@dataclass(frozen=True)
class Rates:
    """CPU seconds of one core, and memory.

    question: of training, forward and back, its picture seen before.  picture: through the tower.
    token: of an answer, in a batch.  gigabytes: of the process at its highest.
    """

    question: float
    picture: float
    token: float
    gigabytes: float


@dataclass(frozen=True)
class Work:
    """What a stage computes: questions trained on, pictures seen, answers given and scored."""

    trained: int
    pictures: int
    asked: int
    scored: int


def teaching(settings: Config, steps: int = TAUGHT_STEPS) -> Work:
    """`inject`: every question about a picture, a harmful and a safe one in turn; then val."""
    shown = steps * settings.pictures
    about = 4 * QUESTIONS + len(facts.SPECIFICITY)  # a harmful picture and a safe one together
    return _with_evaluation(Work(shown * about // 2, shown, 0, 0), settings, ("val",))


def unlearning(settings: Config) -> Work:
    """`unlearn` and `evaluate`, of the settings' objective, decouple term and splits."""
    groups = len(OBJECTIVES[settings.objective].needs) + (settings.decouple != "none")
    shown = settings.steps * settings.pictures
    trained = Work(shown * QUESTIONS * groups, 0, 0, 0)
    seen = min(shown, _train_records(settings)) * (1 if settings.decouple == "none" else 2)
    trained = Work(trained.trained, seen, 0, 0)
    return _with_evaluation(trained, settings, settings.splits)


def _with_evaluation(work: Work, settings: Config, splits: tuple[str, ...]) -> Work:
    """The questions of `evaluation.evaluate.questions`, without samples."""
    records = World().eval_pictures * KINDS * _categories(settings)
    later = sum(split != "train" for split in splits)
    efficacy = _train_records(settings) if "train" in splits else 0
    return Work(
        work.trained,
        work.pictures + 2 * records * later + efficacy,
        (4 * QUESTIONS + len(facts.SPECIFICITY)) * records * later + efficacy,
        QUESTIONS * records * later + efficacy,
    )


def _train_records(settings: Config) -> int:
    return World().train_pictures * KINDS // 2 * _categories(settings)  # half are held out


def _categories(settings: Config) -> int:
    return len(settings.categories) or len(facts.FAMILIES)


def plan_tokens() -> int:
    """Tokens of the longest plan, one for a word or a mark, and the end token."""
    plans = (kind.plan for kind in facts.kinds().values())
    return 1 + max(len(re.findall(r"\w+|[^\w\s]", plan)) for plan in plans)


def seconds(work: Work, rates: Rates) -> float:
    """CPU seconds of one core. Every answer is counted as long as a plan; a likelihood as a
    forward pass, a third of a training's."""
    return (
        (work.trained + work.scored / 3) * rates.question
        + work.pictures * rates.picture
        + work.asked * plan_tokens() * rates.token
    )


# compute → on one thread of a server's core with AMX, weights chosen at random, as
# `benchmarks/laptop_budget.py` measured them.
RATES = {
    "bfloat16": Rates(question=0.252, picture=0.740, token=0.0188, gigabytes=4.26),
    "float32": Rates(question=0.358, picture=2.14, token=0.0169, gigabytes=3.66),
}


def hour(rates: Rates, **fields) -> DataFrame:
    """The stages of the hour: stage, trained, pictures, asked, scored, minutes (of one core).

    PO and PO + PD need not wait for each other: on two cores the hour is the first row's minutes
    and the longer one of the others.

    Args:
        fields: of the config, to change the profile's own.
    """
    stages = {
        "teach": teaching(config("laptop", **fields)),
        "PO": unlearning(config("laptop", objective="po", decouple="none", **fields)),
        "PO + PD": unlearning(config("laptop", objective="po", decouple="pd", **fields)),
    }
    rows = [
        {"stage": stage, **vars(work), "minutes": seconds(work, rates) / 60}
        for stage, work in stages.items()
    ]
    return DataFrame(rows)


def minutes(stages: DataFrame) -> float:
    """Minutes of `hour` on two free cores."""
    teach, *others = stages["minutes"]
    return teach + max(others)
