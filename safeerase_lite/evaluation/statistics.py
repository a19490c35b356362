"""95% intervals for answers that share kinds, question templates and pictures.

Pictures of one kind share their answer, and one template is asked about every kind, so answers
are not independent. Kinds and templates are resampled, crossed, and pictures within their kind:
the "pigeonhole" bootstrap of Owen (2007, arXiv 0711.0861), which errs on the wide side.

Answers of several runs, told apart by a column `seed`, are resampled over their seeds as well;
without one, everything here is conditional on one trained model. Either way it is conditional on
one base model.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import betaincinv

from safeerase_lite.utils import UserError

CONFIDENCE = 0.95
TAIL = (1 - CONFIDENCE) / 2

Interval = tuple[float, float]
UNKNOWN: Interval = (np.nan, np.nan)


@dataclass(frozen=True)
class Resamples:
    """How often each answer is drawn.

    weights: (resamples, answers), counts as float.  kinds: the number of distinct kinds.
    """

    weights: np.ndarray
    kinds: int


def _draw(
    generator: np.random.Generator, size: int, resamples: int, draws: int | None = None
) -> np.ndarray:
    """How often each of `size` things comes up in `draws` draws (`size`): (resamples, size)."""
    draws = size if draws is None else draws
    return generator.multinomial(draws, np.full(size, 1 / size), size=resamples)


def resample(answers: pd.DataFrame, *, resamples: int = 1000, seed: int = 0) -> Resamples:
    """Draw kinds, templates, pictures within each kind, and seeds, all with replacement.

    answers: a row per answer, with the columns kind, question (the template) and image, and seed
        where they come from several runs.
    The weight of an answer is the product of the multiplicities:
    w = times(seed) * times(kind) * times(question) * times(image within its kind).

    Of n things, n are drawn; of n seeds, n - 1 (Rao and Wu 1988). The mean of m draws has variance
    (n - 1) / n * s² / m: n draws of 5 seeds would miss a fifth of their variance, n - 1 draws miss
    none. Few seeds still err on the narrow side, as their s² is uncertain. Where five seeds differ
    and nothing else does, a 95% interval covers the truth about 85 times in 100 (simulated in
    `tests/test_intervals.py`). With one seed the weights are those without a column seed.
    """
    generator = np.random.default_rng(seed)
    kind, kinds = pd.factorize(answers["kind"], sort=True, use_na_sentinel=False)
    template, templates = pd.factorize(answers["question"], sort=True, use_na_sentinel=False)
    picture = answers.groupby(["kind", "image"], dropna=False).ngroup().to_numpy()
    kind_of_picture = pd.Series(kind).groupby(picture).first().to_numpy()

    times_kind = _draw(generator, len(kinds), resamples)
    times_template = _draw(generator, len(templates), resamples)
    times_picture = np.ones((resamples, len(kind_of_picture)), dtype=int)
    for index, size in enumerate(np.bincount(kind_of_picture)):
        if size > 1:
            times_picture[:, kind_of_picture == index] = _draw(generator, size, resamples)

    weights = times_kind[:, kind] * times_template[:, template] * times_picture[:, picture]
    if "seed" in answers:
        run, runs = pd.factorize(answers["seed"], sort=True)
        weights *= _draw(generator, len(runs), resamples, draws=max(1, len(runs) - 1))[:, run]
    return Resamples(weights.astype(float), len(kinds))


def bootstrap_interval(values: np.ndarray, drawn: Resamples) -> Interval:
    """The crossed bootstrap interval of the mean of `values`, shape (answers,), any unit.

    The 2.5th and 97.5th percentile of the weighted mean sum(w v) / sum(w). Unknown, (nan, nan),
    with a single kind or a value that is not finite.
    """
    if drawn.kinds < 2 or not np.isfinite(values).all():
        return UNKNOWN
    drawn_answers = drawn.weights.sum(axis=1)
    usable = drawn_answers > 0
    means = drawn.weights[usable] @ values / drawn_answers[usable]
    low, high = np.quantile(means, [TAIL, 1 - TAIL])
    return float(low), float(high)


def exact_interval(share: float, clusters: int) -> Interval:
    """Clopper-Pearson (1934) for hits = share * clusters of `clusters`; hits may be a fraction.

    `clusters` is the number of distinct *kinds*, not of answers nor of kind x template pairs:
    as if every answer about a kind, of every seed, told the same. That is the most cautious count.
    """
    hits = share * clusters
    misses = clusters - hits
    low = betaincinv(hits, misses + 1, TAIL) if hits > 0 else 0.0
    high = betaincinv(hits + 1, misses, 1 - TAIL) if misses > 0 else 1.0
    return float(low), float(high)


def share_interval(values: np.ndarray, drawn: Resamples) -> Interval:
    """The interval of a mean of values in [0, 1], shape (answers,).

    The crossed bootstrap; but `exact_interval` over kinds when hits or misses amount to less than
    one kind, where a bootstrap collapses (0 of 96 would be [0, 0]).
    """
    share = float(values.mean())
    rarer = min(share, 1 - share)
    if rarer * drawn.kinds < 1:
        return exact_interval(share, drawn.kinds)
    return bootstrap_interval(values, drawn)


def difference_interval(differences: np.ndarray, drawn: Resamples) -> Interval:
    """The interval of a mean of paired differences in [-1, 1], shape (answers,).

    The crossed bootstrap, unless answers that depart from the most common difference c amount to
    less than one kind (all differences equal, say), where a bootstrap collapses. Then, for c of -1
    or 1, from there to `exact_bound`. For any other c, with u the exact upper bound of the
    departing share over kinds, and departing kinds free to be -1 or +1:
    [c - u (c + 1), c + u (1 - c)].
    """
    distinct, counts = np.unique(differences, return_counts=True)
    common = float(distinct[counts.argmax()])
    departing = 1 - counts.max() / len(differences)
    if departing * drawn.kinds >= 1:
        return bootstrap_interval(differences, drawn)
    if abs(common) == 1:
        lost = drawn.kinds * (1 - common * float(differences.mean()))
        bound = exact_bound(math.ceil(lost - 1e-9), drawn.kinds)
        return (-1.0, bound) if common < 0 else (-bound, 1.0)
    _, most = exact_interval(departing, drawn.kinds)
    return common - most * (common + 1), common + most * (1 - common)


def exact_bound(lost: int, kinds: int) -> float:
    """The greatest mean d of kinds' differences that a sum of at most `lost - kinds` leaves open.

    A kind's difference is -1, 0 or 1. With lost = 0 every kind fell by one; each 0 among them loses
    one, each 1 loses two. d is left open when such a sum, or a lower one, has a chance of at least
    2.5% for some share of zeros: an exact unconditional test, inverted (Barnard 1945; Chan and
    Zhang 1999).
    """

    def chance(d: float) -> float:
        zero = np.linspace(0, 1 - abs(d), 1001)
        fell, rose = (1 - zero - d) / 2, (1 - zero + d) / 2
        return max(
            sum(
                math.comb(kinds, n + m) * math.comb(n + m, m) * fell ** (kinds - n - m)
                * zero**n * rose**m
                for m in range(lost // 2 + 1)
                for n in range(lost - 2 * m + 1)
                if n + m <= kinds
            )
        )  # fmt: skip

    return float(brentq(lambda d: chance(d) - TAIL, -1 + 1e-9, 1 - 1e-9))


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
