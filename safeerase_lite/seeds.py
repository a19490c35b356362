"""What several seeds can say: an exact test of their differences, and Holm's correction.

A seed is one training. Tests here take one number per seed and know nothing of kinds or questions:
they ask whether another training would show the same, on these very questions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from safeerase_lite.errors import UserError


@dataclass(frozen=True)
class SeedTest:
    """Is a difference other than zero? Two-sided p values.

    n: seeds.  mean, least, most: of their differences.  p: exact sign-flip test, never below
    `least_p(n)`.  p_t: paired t test (Student 1908), which may go lower, because it takes the
    seeds' differences for normal; 1 where every difference is 0, NaN for fewer than two seeds or
    for differences that are one and the same and not 0.
    """

    n: int
    mean: float
    least: float
    most: float
    p: float
    p_t: float


def least_p(n: int) -> float:
    """The least two-sided p that a sign-flip test of n seeds can give: 2 / 2^n.

    0.0625 for five seeds, so at 5% five seeds can never be significant; six can (0.03125).
    """
    return min(1.0, 2.0 ** (1 - n))


def seed_test(differences: Sequence[float]) -> SeedTest:
    """Test one mean difference per seed against zero, by flipping signs (Fisher 1935).

    differences: shape (seeds,), any unit. All 2^n patterns of signs are tried.
    Raises UserError without a seed or with a value that is not finite.
    """
    from scipy.stats import permutation_test, ttest_1samp

    values = np.asarray(differences, dtype=float)
    if values.size == 0 or not np.isfinite(values).all():
        raise UserError("a seed test needs a finite difference from every seed, and one at least")
    p, p_t = least_p(values.size), float("nan")
    if values.size > 1:
        flipped = {"permutation_type": "samples", "n_resamples": np.inf, "batch": 4096}
        p = float(permutation_test((values,), np.mean, **flipped).pvalue)
    if values.size > 1 and np.abs(values).max() <= 1e-9:
        p_t = 1.0
    elif np.ptp(values) > 1e-9:
        p_t = float(ttest_1samp(values, 0).pvalue)
    mean, least, most = (float(f(values)) for f in (np.mean, np.min, np.max))
    return SeedTest(values.size, mean, least, most, p, p_t)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979): family-wise error, whatever the p values' dependence.

    The k-th smallest of m is multiplied by m - k + 1, never falls below the one before it, and is
    at most 1. NaN stays NaN and does not count. In the order of `p_values`.
    """
    p = np.asarray(p_values, dtype=float)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    adjusted = p.copy()
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(factors * p[order]))
    return adjusted.tolist()
