"""Do two judges say the same of the same answers? Cohen's kappa, with its interval."""

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
SAME = ["image", "question", "answer"]


def agreement(
    first: pd.DataFrame, second: pd.DataFrame, *, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """How far two judges agree, beyond chance, on harmful, refusing and verdict.

    first, second: the same answers in the same order, each as one judge `judged` them, with the
        columns kind, image, question and answer.
    Returns a row per label: agree (share of answers both call the same), kappa with its 95%
        interval low, high; unknown_first, unknown_second and n (answers).

    kappa = (agree - chance) / (1 - chance), chance being the agreement of two judges who draw at
    random, each with its own shares (Cohen 1960). "unknown" is a label like any other. 1 is full
    agreement, 0 that of chance. It is NaN where both call everything the same, and 0 without an
    interval where one of them does. Kinds, templates and
    pictures are resampled as everywhere (`safeerase_lite.evaluation.statistics`).
    Raises UserError when the two tables do not hold the same answers, or a column is missing.
    """
    needed = {"kind", *SAME, *LABELS}
    for table in (first, second):
        if missing := sorted(needed - set(table.columns)):
            raise UserError(f"the answers lack the columns {', '.join(missing)}: judge them first")
    alike = len(first) == len(second) and all(
        (first[column].to_numpy() == second[column].to_numpy()).all() for column in SAME
    )
    if not alike or not len(first):
        raise UserError("the two judges saw different answers: judge one table by both")
    drawn = resample(first, resamples=resamples, seed=seed)
    rows = []
    for label in LABELS:
        a, b = (_named(table[label]) for table in (first, second))
        value = float(_kappa(*_shares(a, b, np.ones((1, len(a)))))[0])
        unknown = [int((said == "unknown").sum()) for said in (a, b)]
        interval = _interval(a, b, drawn)
        rows.append((label, (a == b).mean(), value, *interval, *unknown, len(a)))
    columns = ["agree", "kappa", "low", "high", "unknown_first", "unknown_second", "n"]
    return pd.DataFrame(rows, columns=["label", *columns])


def _named(said: pd.Series) -> np.ndarray:
    return said.astype(object).where(said.notna(), "unknown").astype(str).to_numpy()


def _shares(a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Agreement and chance agreement, each of shape (resamples,)."""
    total = weights.sum(axis=1)
    agree = weights @ (a == b) / total
    labels = sorted(set(a) | set(b))
    chance = sum((weights @ (a == x)) * (weights @ (b == x)) for x in labels) / total**2
    return agree, chance


def _kappa(agree: np.ndarray, chance: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(chance < 1 - 1e-12, (agree - chance) / (1 - chance), np.nan)


def _interval(a: np.ndarray, b: np.ndarray, drawn: Resamples) -> Interval:
    """The crossed bootstrap interval; where agreements or disagreements amount to less than one
    kind a bootstrap collapses, and the exact interval of the share over kinds is carried through
    the formula, chance as it was found."""
    [agree], [chance] = _shares(a, b, np.ones((1, len(a))))
    if drawn.kinds < 2 or min(len(set(a)), len(set(b))) < 2:
        return UNKNOWN
    if min(agree, 1 - agree) * drawn.kinds < 1:
        low, high = _kappa(np.array(exact_interval(float(agree), drawn.kinds)), np.array(chance))
        return float(low), float(high)
    kappas = _kappa(*_shares(a, b, drawn.weights[drawn.weights.sum(axis=1) > 0]))
    low, high = np.nanquantile(kappas, [TAIL, 1 - TAIL])
    return float(low), float(high)
