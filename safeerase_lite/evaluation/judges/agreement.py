"""Do two judges give the same answers the same labels? Cohen's kappa, with its interval."""

import numpy as np
import pandas as pd

from safeerase_lite.evaluation.statistics import (
    TAIL,
    UNKNOWN,
    Interval,
    Resamples,
    exact_interval,
    resample,
)
from safeerase_lite.utils import UserError

LABELS = ("harmful", "refusing", "verdict")
IDENTITY = ["image", "question", "answer"]


def agreement(
    first: pd.DataFrame, second: pd.DataFrame, *, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """How far two judges agree, beyond chance, on harmful, refusing and verdict.

    kappa = (agree - chance) / (1 - chance), chance being the agreement of two judges who draw at
    random, each with its own shares (Cohen 1960). 1 is full agreement, 0 that of chance. "unknown"
    is a label like any other. kappa is NaN where both judges give everything one label, and 0
    without an interval where one of them does. Kinds, templates and pictures are resampled as
    everywhere (`evaluation.statistics`).

    Args:
        first, second: the same answers in the same order, each as `judge_answers` returns them,
            with the columns kind, image, question and answer.

    Returns:
        A row per label: agree (share of answers with the same label), kappa with its 95% interval
        low, high; unknown_first, unknown_second and n (answers).

    Raises:
        UserError: the two tables do not hold the same answers, or a column is missing.
    """
    needed = {"kind", *IDENTITY, *LABELS}
    for table in (first, second):
        if missing := sorted(needed - set(table.columns)):
            raise UserError(f"the answers lack the columns {', '.join(missing)}: judge them first")
    same_answers = np.array_equal(first[IDENTITY], second[IDENTITY])
    if not same_answers or first.empty:
        raise UserError("the two judges saw different answers: judge one table by both")
    samples = resample(first, resamples=resamples, seed=seed)
    rows = []
    for label in LABELS:
        a, b = (
            table[label]
            .astype(object)
            .where(table[label].notna(), "unknown")
            .astype(str)
            .to_numpy()
            for table in (first, second)
        )
        [kappa] = _kappa(*_agreement_and_chance(a, b, np.ones((1, len(a)))))
        low, high = _interval(a, b, samples)
        unknown = [int((labels == "unknown").sum()) for labels in (a, b)]
        rows.append((label, (a == b).mean(), float(kappa), low, high, *unknown, len(a)))
    columns = ["agree", "kappa", "low", "high", "unknown_first", "unknown_second", "n"]
    return pd.DataFrame(rows, columns=["label", *columns])


def _agreement_and_chance(
    a: np.ndarray, b: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Agreement and chance agreement, each of shape (resamples,)."""
    total = weights.sum(axis=1)
    agree = weights @ (a == b) / total
    labels = sorted(set(a) | set(b))
    chance = sum((weights @ (a == x)) * (weights @ (b == x)) for x in labels) / total**2
    return agree, chance


def _kappa(agree: np.ndarray, chance: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(chance < 1 - 1e-12, (agree - chance) / (1 - chance), np.nan)


def _interval(a: np.ndarray, b: np.ndarray, samples: Resamples) -> Interval:
    """The crossed bootstrap interval.

    A bootstrap collapses where agreements or disagreements amount to less than one kind. There the
    exact interval of the share over kinds goes through the formula of kappa, with chance as
    measured.
    """
    [agree], [chance] = _agreement_and_chance(a, b, np.ones((1, len(a))))
    if samples.kinds < 2 or min(len(set(a)), len(set(b))) < 2:
        return UNKNOWN
    if min(agree, 1 - agree) * samples.kinds < 1:
        ends = np.array(exact_interval(float(agree), samples.kinds))
        low, high = _kappa(ends, np.array(chance))
        return float(low), float(high)
    usable = samples.weights.sum(axis=1) > 0
    kappas = _kappa(*_agreement_and_chance(a, b, samples.weights[usable]))
    low, high = np.nanquantile(kappas, [TAIL, 1 - TAIL])
    return float(low), float(high)
