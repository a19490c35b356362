"""95% intervals and tests for answers that share kinds, question templates, pictures and seeds.

Answers are not independent: pictures of one kind share their answer, and one template is used
about every kind. So kinds and templates are resampled, crossed, and pictures within their kind.
This is the "pigeonhole" bootstrap of Owen (2007, arXiv 0711.0861), which errs on the wide side.

Answers of several runs, distinguished by a column `seed`, are resampled over their seeds as well.
Without that column every result is conditional on one trained model. With or without it, every
result is conditional on one base model.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import betaincinv
from scipy.stats import permutation_test, ttest_1samp

from safeerase_lite.utils import UserError

CONFIDENCE = 0.95
TAIL = (1 - CONFIDENCE) / 2

Interval = tuple[float, float]
UNKNOWN: Interval = (np.nan, np.nan)


# ---- the bootstrap ----


@dataclass(frozen=True)
class Resamples:
    """How often each answer occurs in each bootstrap sample.

    weights: (resamples, answers), counts as float.  kinds: the number of distinct kinds.
    """

    weights: np.ndarray
    kinds: int


def resample(answers: pd.DataFrame, *, resamples: int = 1000, seed: int = 0) -> Resamples:
    """Resample kinds, templates, pictures within each kind, and seeds, all with replacement.

    The weight of an answer is the product of the multiplicities:
    w = times(seed) * times(kind) * times(question) * times(image within its kind).

    Of n things, n are sampled; of n seeds, n - 1 (Rao and Wu 1988). The mean of m samples has
    variance (n - 1) / n * s² / m: with m = n, five seeds would miss a fifth of their variance, with
    m = n - 1 they miss none. Few seeds still err on the narrow side, because their s² is uncertain.
    Where five seeds differ and nothing else does, a 95% interval covers the truth about 85 times in
    100 (simulated in the tests). With one seed the weights are those without a column seed.

    Args:
        answers: a row per answer, with the columns kind, question (the template) and image, and
            seed where they come from several runs.
    """
    generator = np.random.default_rng(seed)

    def multiplicities(n: int, samples: int) -> np.ndarray:
        """How often each of n things is among so many samples: (resamples, n)."""
        return generator.multinomial(samples, np.full(n, 1 / n), size=resamples)

    kind, kinds = pd.factorize(answers["kind"], sort=True, use_na_sentinel=False)
    template, templates = pd.factorize(answers["question"], sort=True, use_na_sentinel=False)
    image = answers.groupby(["kind", "image"], dropna=False).ngroup().to_numpy()
    kind_of_image = pd.Series(kind).groupby(image).first().to_numpy()

    # The order of these calls decides the random numbers, and with them every published interval.
    times_kind = multiplicities(len(kinds), len(kinds))
    times_template = multiplicities(len(templates), len(templates))
    times_image = np.ones((resamples, len(kind_of_image)), dtype=int)
    for index, n in enumerate(np.bincount(kind_of_image)):
        if n > 1:
            times_image[:, kind_of_image == index] = multiplicities(n, n)

    weights = times_kind[:, kind] * times_template[:, template] * times_image[:, image]
    if "seed" in answers:
        run, runs = pd.factorize(answers["seed"], sort=True)
        weights *= multiplicities(len(runs), max(1, len(runs) - 1))[:, run]
    return Resamples(weights.astype(float), len(kinds))


# ---- intervals of a mean ----


def bootstrap_interval(values: np.ndarray, samples: Resamples) -> Interval:
    """The crossed bootstrap interval of the mean of `values`, shape (answers,), any unit.

    The 2.5th and 97.5th percentile of the weighted mean sum(w v) / sum(w). Unknown, (nan, nan),
    with a single kind or a value that is not finite.
    """
    if samples.kinds < 2 or not np.isfinite(values).all():
        return UNKNOWN
    sizes = samples.weights.sum(axis=1)
    usable = sizes > 0
    means = samples.weights[usable] @ values / sizes[usable]
    low, high = np.quantile(means, [TAIL, 1 - TAIL])
    return float(low), float(high)


def exact_interval(share: float, clusters: int) -> Interval:
    """Clopper-Pearson (1934) for hits = share * clusters of `clusters`; hits may be a fraction.

    `clusters` is the number of distinct *kinds*, not of answers nor of kind x template pairs. This
    is the most cautious count: as if all answers about one kind, of every seed, were the same.
    """
    hits = share * clusters
    misses = clusters - hits
    low = betaincinv(hits, misses + 1, TAIL) if hits > 0 else 0.0
    high = betaincinv(hits + 1, misses, 1 - TAIL) if misses > 0 else 1.0
    return float(low), float(high)


def share_interval(values: np.ndarray, samples: Resamples) -> Interval:
    """The interval of a mean of values in [0, 1], shape (answers,).

    The crossed bootstrap; but `exact_interval` over kinds when hits or misses amount to less than
    one kind, because a bootstrap collapses there (0 of 96 would be [0, 0]).
    """
    share = float(values.mean())
    if min(share, 1 - share) * samples.kinds < 1:
        return exact_interval(share, samples.kinds)
    return bootstrap_interval(values, samples)


def difference_interval(differences: np.ndarray, samples: Resamples) -> Interval:
    """The interval of a mean of paired differences in [-1, 1], shape (answers,).

    The crossed bootstrap, unless the answers that depart from the most common difference c amount
    to less than one kind (all differences equal, say), because a bootstrap collapses there. Then:

    - for c of -1 or 1, from c to `exact_bound`;
    - for any other c, [c - u (c + 1), c + u (1 - c)], with u the exact upper bound of the departing
      share over kinds. Departing kinds may then be anything from -1 to 1.
    """
    distinct, counts = np.unique(differences, return_counts=True)
    common = float(distinct[counts.argmax()])
    departing = 1 - counts.max() / len(differences)
    if departing * samples.kinds >= 1:
        return bootstrap_interval(differences, samples)
    if abs(common) == 1:
        lost = samples.kinds * (1 - common * float(differences.mean()))
        bound = exact_bound(math.ceil(lost - 1e-9), samples.kinds)
        return (-1.0, bound) if common < 0 else (-bound, 1.0)
    _, most = exact_interval(departing, samples.kinds)
    return common - most * (common + 1), common + most * (1 - common)


def exact_bound(lost: int, kinds: int) -> float:
    """The greatest mean difference d that is compatible with a sum of at most `lost - kinds`.

    Each kind's difference is -1, 0 or 1. With lost = 0 every kind fell by one; each 0 among them
    loses one, each 1 loses two. A mean d is compatible when, for some share of zeros, such a sum or
    a lower one has a chance of at least 2.5%: an exact unconditional test, inverted (Barnard 1945;
    Chan and Zhang 1999).
    """

    def chance(d: float) -> float:
        zero = np.linspace(0, 1 - abs(d), 1001)
        fell, rose = (1 - zero - d) / 2, (1 - zero + d) / 2
        terms = []
        for m in range(lost // 2 + 1):  # kinds that rose
            for n in range(lost - 2 * m + 1):  # kinds that stayed
                if n + m <= kinds:
                    ways = math.comb(kinds, n + m) * math.comb(n + m, m)
                    terms.append(ways * fell ** (kinds - n - m) * zero**n * rose**m)
        return max(sum(terms))

    return float(brentq(lambda d: chance(d) - TAIL, -1 + 1e-9, 1 - 1e-9))


# ---- tests over seeds ----


@dataclass(frozen=True)
class SeedTest:
    """Is a difference other than zero? Two-sided p values.

    n: seeds.  mean, least, most: of their differences.

    p: exact sign-flip test, never below `least_p(n)`.

    p_t: paired t test (Student 1908). It may be lower than p, because it assumes that the seeds'
    differences are normal. 1 where every difference is 0; NaN for fewer than two seeds, and for
    differences that are all equal and not 0.
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

    Args:
        differences: shape (seeds,), any unit. All 2^n patterns of signs are tried.

    Raises:
        UserError: there is no seed, or a value is not finite.
    """
    values = np.asarray(differences, dtype=float)
    n = values.size
    if n == 0 or not np.isfinite(values).all():
        raise UserError("a seed test needs a finite difference from every seed, and one at least")
    p, p_t = least_p(n), float("nan")
    if n > 1:
        p = permutation_test(
            (values,), np.mean, permutation_type="samples", n_resamples=np.inf, batch=4096
        ).pvalue
    if n > 1 and np.abs(values).max() <= 1e-9:
        p_t = 1.0
    elif np.ptp(values) > 1e-9:
        p_t = ttest_1samp(values, 0).pvalue
    mean, least, most = (float(f(values)) for f in (np.mean, np.min, np.max))
    return SeedTest(n, mean, least, most, float(p), float(p_t))


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
