"""Do two judges give the same answers the same labels? Cohen's kappa, with its interval."""

import numpy as np
import pandas as pd

from safeerase_lite.evaluation.statistics import TAIL, UNKNOWN, exact_interval, resample
from safeerase_lite.utils import UserError

LABELS = ("harmful", "refusing", "verdict")
IDENTITY = ["image", "question", "answer"]


def agreement(
    first: pd.DataFrame, second: pd.DataFrame, *, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """How far two judges agree, beyond chance, on harmful, refusing and verdict.

    kappa = (agree - chance) / (1 - chance), chance being the agreement of two judges who label at
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
    if first.empty or not np.array_equal(first[IDENTITY], second[IDENTITY]):
        raise UserError("the two judges saw different answers: judge one table by both")
    samples = resample(first, resamples=resamples, seed=seed)
    usable = samples.weights[samples.weights.sum(axis=1) > 0]
    weights = np.vstack([np.ones(len(first)), usable])  # the answers as they are, then resampled
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
        total, labels = weights.sum(axis=1), sorted(set(a) | set(b))
        agree = weights @ (a == b) / total
        chance = sum((weights @ (a == x)) * (weights @ (b == x)) for x in labels) / total**2
        kappa, *kappas = _kappa(agree, chance)
        if samples.kinds < 2 or min(len(set(a)), len(set(b))) < 2:
            low, high = UNKNOWN
        elif min(agree[0], 1 - agree[0]) * samples.kinds < 1:
            # A bootstrap collapses where agreements or disagreements amount to less than one kind.
            # The exact interval of their share goes through the formula, with chance as measured.
            share = np.array(exact_interval(float(agree[0]), samples.kinds))
            low, high = _kappa(share, chance[0]).clip(-1, 1)
        else:
            low, high = np.nanquantile(kappas, [TAIL, 1 - TAIL])
        unknown = [int((labels == "unknown").sum()) for labels in (a, b)]
        rows.append(
            (label, (a == b).mean(), float(kappa), float(low), float(high), *unknown, len(a))
        )
    columns = ["agree", "kappa", "low", "high", "unknown_first", "unknown_second", "n"]
    return pd.DataFrame(rows, columns=["label", *columns])


def _kappa(agree: np.ndarray, chance: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(chance < 1 - 1e-12, (agree - chance) / (1 - chance), np.nan)
