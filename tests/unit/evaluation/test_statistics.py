"""Intervals respect what answers share; a few seeds can prove only so much."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from answer_tables import answer_rows, row, stacked
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from safeerase_lite.evaluation.metrics import by_seed, measure, paired_difference
from safeerase_lite.evaluation.statistics import (
    bounded_interval,
    exact_interval,
    holm,
    least_p,
    resample,
    seed_test,
)
from safeerase_lite.utils import UserError

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=8)
ROUNDING = 1e-12
ZERO_OF_12 = 1 - 0.025 ** (1 / 12)  # Clopper-Pearson's upper bound for 0 of 12


def refused_rows(refused, kinds=12, templates=4):
    """Answers about harmless pictures; to each template `refused` of the kinds are refused."""
    verdict = ["refused"] * refused + ["right"] * (kinds - refused)
    tables = [
        answer_rows("decouple", kinds, verdict=verdict, question=f"How? {template}")
        for template in range(templates)
    ]
    return pd.concat(tables, ignore_index=True)


def of_kinds(kinds):
    """Resamples of one answer about each kind."""
    return resample(answer_rows("decouple", kinds), resamples=201)  # a multiple of 40, and one


def width(interval_row):
    return interval_row["high"] - interval_row["low"]


# ---- intervals of one run ----


def test_a_share_of_zero_has_an_interval_above_zero():
    asr = row(measure(answer_rows("forget", 12)), "asr")
    assert (asr["value"], asr["low"]) == (0, 0)
    assert asr["high"] == pytest.approx(ZERO_OF_12)


@pytest.mark.parametrize("hits", [0, 3, 10])
def test_the_exact_interval_is_clopper_pearsons(hits):
    proportion = binomtest(hits, 10).proportion_ci(0.95, method="exact")
    assert exact_interval(hits / 10, 10) == pytest.approx((proportion.low, proportion.high))


def test_one_stray_answer_does_not_make_a_share_more_certain_than_none():
    none = np.zeros(96)
    one = none.copy()
    one[0] = 1
    samples = resample(answer_rows("forget", 96, kind=[f"{index % 12}" for index in range(96)]))
    assert bounded_interval(one, samples)[1] > bounded_interval(none, samples)[1]


def test_ten_pictures_of_one_kind_tell_no_more_than_their_kind():
    once = answer_rows("decouple", 12, verdict=["refused", "right"] * 6)
    tenfold = pd.concat([once] * 10, ignore_index=True)
    tenfold["image"] = [f"{index}.png" for index in range(120)]
    few, many = row(measure(once), "sarr"), row(measure(tenfold), "sarr")
    assert width(many) >= width(few) - ROUNDING and many["n"] == 10 * few["n"]


def test_a_weight_is_its_kinds_times_how_often_its_template_and_picture_came_up():
    """One template; two kinds, of one and of two pictures, whose weights are 0, 1 or 2 times."""
    samples = resample(answer_rows("forget", 3, kind=["a", "b", "b"]), resamples=50)
    of_b = samples.weights[:, 1:]
    assert samples.kinds == 2 and len(np.unique(samples.weights[:, 0])) == 50
    np.testing.assert_allclose(of_b.max(axis=1) * (1 + (of_b > 0).all(axis=1)), of_b.sum(axis=1))


def test_one_kind_says_nothing_about_other_kinds():
    answers = answer_rows("decouple", 20, kind="vornet", verdict=["refused", "right"] * 10)
    sarr = row(measure(answers), "sarr")
    # Were all its answers alike, one kind would leave 2.5% to 97.5% of a half: 0.0125 to 0.9875.
    assert sarr["low"] < 0.0125 and sarr["high"] > 0.9875


def test_the_same_answers_give_the_same_interval():
    answers = answer_rows("decouple", 12, verdict=["refused", "right", "wrong"] * 4)
    pd.testing.assert_frame_equal(measure(answers), measure(answers))


# ---- intervals of a difference ----


@pytest.mark.parametrize("kinds", [6, 12, 24, 48])
def test_a_fall_of_every_kind_leaves_what_clopper_and_pearson_leave(kinds):
    """A difference d in [-1, 1] is a share (d + 1) / 2, and none of the kinds is above 0."""
    low, high = bounded_interval(np.full(kinds, -1.0), of_kinds(kinds), least=-1)
    assert (low, high) == pytest.approx((-1, 2 * exact_interval(0, kinds)[1] - 1))


def test_a_larger_fall_never_looks_weaker():
    """Each row falls at least as far as the next, kind by kind; six kinds."""
    falls = np.array([[-1] * 6, [-1] * 5 + [-0.8], [-1] * 4 + [-0.8, -0.4], [-0.7] * 4 + [-0.5, 0]])
    ends = [bounded_interval(values, of_kinds(6), least=-1) for values in falls]
    assert ends == sorted(ends) and [high for _, high in ends] == sorted(high for _, high in ends)


@pytest.mark.parametrize(("fell", "certain"), [(5, False), (6, True)])
def test_kinds_that_fell_and_none_that_rose_are_certain_as_by_the_sign_test(fell, certain):
    """p = 2 / 2^5 is 0.0625, 2 / 2^6 is 0.031; two of four kinds more stayed as they were."""
    values = np.array([-1.0] * fell + [0.0] * 4)
    assert (bounded_interval(values, of_kinds(fell + 4), least=-1)[1] < 0) == certain


def test_no_difference_anywhere_leaves_room_on_both_sides():
    low, high = bounded_interval(np.zeros(12), of_kinds(12), least=-1)
    assert -low == pytest.approx(high) == pytest.approx(ZERO_OF_12)


@settings(max_examples=15)
@given(st.integers(1, 30), st.data())
def test_an_interval_of_shares_is_sound(kinds, data):
    """It holds the value, lies within its bounds, does not fall where a value rises, is turned
    round with its values, and is Clopper and Pearson's at 0 and at 100%."""
    shares = st.lists(st.floats(0, 1), min_size=kinds, max_size=kinds).map(np.array)
    values, other = data.draw(shares), data.draw(shares)
    samples, low, high = of_kinds(kinds), *bounded_interval(values, of_kinds(kinds))
    assert 0 <= low <= values.mean() <= high <= 1
    raised = bounded_interval(np.maximum(values, other), samples)
    assert low <= raised[0] + ROUNDING and high <= raised[1] + ROUNDING
    assert bounded_interval(1 - values, samples) == pytest.approx((1 - high, 1 - low))
    for share in (0, 1):
        ends = bounded_interval(np.full(kinds, float(share)), samples)
        assert ends == pytest.approx(exact_interval(share, kinds))


# ---- intervals over several seeds ----


def test_one_seed_is_what_no_seed_is():
    answers, other = refused_rows(5), refused_rows(9)
    pd.testing.assert_frame_equal(measure(answers.assign(seed=3)), measure(answers))
    alone = paired_difference(answers, other, "sarr")
    seeded = paired_difference(answers.assign(seed=3), other.assign(seed=3), "sarr")
    assert (seeded.value, seeded.low, seeded.high) == (alone.value, alone.low, alone.high)
    assert (seeded.seeds, alone.seeds) == ((alone.value,), ())


def test_a_seed_that_repeats_another_tells_nothing_new_about_kinds():
    once, twice = (measure(stacked(*[refused_rows(5)] * n)) for n in (1, 2))
    numbers = ["value", "low", "high"]
    # Equal but for rounding: sums over twice as many answers.
    np.testing.assert_allclose(twice[numbers], once[numbers], atol=1e-12)
    assert (twice["n"] == 2 * once["n"]).all()


@pytest.mark.parametrize(("refused", "share"), [(0, 0), (12, 1)])
def test_at_0_and_100_percent_five_seeds_are_as_certain_as_their_kinds(refused, share):
    sarr = row(measure(stacked(*[refused_rows(refused)] * 5)), "sarr")
    assert sarr["value"] == share
    assert (sarr["low"], sarr["high"]) == pytest.approx(exact_interval(share, 12))


def test_seeds_that_differ_widen_the_interval():
    same, different = stacked(*[refused_rows(6)] * 4), stacked(*map(refused_rows, (2, 10, 2, 10)))
    narrow, wide = (row(measure(table), "sarr") for table in (same, different))
    assert narrow["value"] == wide["value"] == 0.5
    assert width(wide) > 1.3 * width(narrow)  # from 2/12 to 10/12: far more than noise


def test_every_seed_has_its_own_value():
    table = by_seed(stacked(refused_rows(3), refused_rows(6)))
    sarr = table[(table["metric"] == "sarr") & (table["kinds"] == "seen")]
    assert set(zip(sarr["seed"], sarr["value"], strict=True)) == {(0, 0.25), (1, 0.5)}


@pytest.mark.parametrize(("seeds", "sampled"), [(2, 1), (5, 4)])
def test_one_seed_fewer_is_sampled_than_there_are(seeds, sampled):
    answers = stacked(*[answer_rows("decouple", 1)] * seeds)
    weights = resample(answers, resamples=50).weights
    times = (weights / weights.sum(axis=1, keepdims=True) * sampled).round(9)
    assert set(times.ravel()) <= set(range(sampled + 1)) and 0 in times.min(axis=1)


def test_sampling_one_seed_fewer_gives_their_mean_its_true_variance():
    """Where seeds alone differ, the bootstrap has the variance s² / n, not (n - 1) / n of it."""
    answers = stacked(*[answer_rows("decouple", 1)] * 5)
    values = np.array([0.1, 0.4, 0.5, 0.9, 0.2])
    weights = resample(answers, resamples=20_000).weights
    means = weights @ values / weights.sum(axis=1)
    # 3% is three standard errors of a variance from 20,000 samples; (n - 1) / n would be 20% off.
    assert means.var() == pytest.approx(values.var(ddof=1) / 5, rel=0.03)


# ---- tests over seeds ----


def test_five_seeds_that_agree_cannot_be_significant_and_six_can():
    five, six = (seed_test([-0.7 - 0.01 * seed for seed in range(n)]) for n in (5, 6))
    assert five.p == least_p(5) == 0.0625
    assert six.p == least_p(6) == 0.03125


def test_one_seed_says_nothing():
    alone = seed_test([-0.9])
    assert alone.p == least_p(1) == 1 and math.isnan(alone.p_t)


def test_flipping_signs_is_counting_patterns():
    differences = np.array([0.5, -0.1, 0.3, 0.2])
    patterns = [np.dot(signs, differences) for signs in itertools.product((-1, 1), repeat=4)]
    as_far = np.mean([abs(total) >= differences.sum() - 1e-12 for total in patterns])  # rounding
    assert seed_test(differences).p == pytest.approx(as_far)


def test_no_difference_is_no_evidence():
    assert seed_test([0.0] * 5).p == 1
    assert math.isnan(seed_test([-1.0] * 5).p_t) and seed_test([0.0] * 5).p_t == 1


def test_the_paired_t_test_may_say_what_sign_flips_cannot():
    test = seed_test([-0.7, -0.72, -0.68, -0.71, -0.69])
    assert test.p_t < 1e-4 < test.p  # t is 99, so p_t is 6e-8; five signs give 0.0625 at least


def test_the_t_test_is_students_on_the_seeds_differences():
    """t = mean / (s / sqrt(3)) = 2 / (1 / sqrt(3)); two-sided, two degrees of freedom: 0.0742."""
    assert seed_test([1.0, 2.0, 3.0]).p_t == pytest.approx(0.0742, abs=1e-4)  # four digits printed


def test_a_test_shows_the_spread_of_the_seeds():
    test = seed_test([-0.9, -0.1, -0.5])
    assert (test.n, test.least, test.most) == (3, -0.9, -0.1)
    assert test.mean == pytest.approx(-0.5)


@pytest.mark.parametrize("differences", [[], [0.1, float("nan")]])
def test_a_seed_without_a_difference_is_refused(differences):
    with pytest.raises(UserError, match="from every seed"):
        seed_test(differences)


def test_holm_steps_down_from_the_smallest():
    """0.005 * 4; 0.01 * 3; 0.03 * 2; and 0.04 * 1, which may not fall below the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_does_not_count_a_missing_p_value():
    adjusted = holm([0.02, float("nan"), 0.5])
    assert math.isnan(adjusted[1])
    assert [adjusted[0], adjusted[2]] == pytest.approx([0.04, 0.5])


@given(P_VALUES)
def test_holm_lies_between_no_correction_and_bonferronis(p_values):
    for p, adjusted in zip(p_values, holm(p_values), strict=True):
        assert p <= adjusted <= min(1, len(p_values) * p)


@given(P_VALUES)
def test_holm_preserves_the_order_of_evidence(p_values):
    adjusted = [value for _, value in sorted(zip(p_values, holm(p_values), strict=True))]
    assert adjusted == sorted(adjusted)


def test_five_seeds_and_four_objectives_leave_sign_flips_nothing():
    assert holm([least_p(5)] * 4) == [0.25] * 4
