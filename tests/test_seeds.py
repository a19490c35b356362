"""What a few seeds can say, and what they cannot."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeerase_lite.evaluation.statistics import holm, least_p, seed_test
from safeerase_lite.utils import UserError

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=8)


def test_five_seeds_that_agree_cannot_be_significant_and_six_can():
    five, six = (seed_test([-0.7 - 0.01 * seed for seed in range(n)]) for n in (5, 6))
    assert five.p == least_p(5) == 0.0625
    assert six.p == least_p(6) == 0.03125


def test_one_seed_says_nothing():
    alone = seed_test([-0.9])
    assert alone.p == least_p(1) == 1
    assert math.isnan(alone.p_t)


def test_flipping_signs_is_counting_patterns():
    differences = np.array([0.5, -0.1, 0.3, 0.2])
    patterns = [np.dot(signs, differences) for signs in itertools.product((-1, 1), repeat=4)]
    as_far = np.mean([abs(total) >= differences.sum() - 1e-12 for total in patterns])
    assert seed_test(differences).p == pytest.approx(as_far)


def test_no_difference_is_no_evidence():
    assert seed_test([0.0] * 5).p == 1
    assert math.isnan(seed_test([-1.0] * 5).p_t) and seed_test([0.0] * 5).p_t == 1


def test_the_paired_t_test_may_say_what_sign_flips_cannot():
    found = seed_test([-0.7, -0.72, -0.68, -0.71, -0.69])
    assert found.p_t < 1e-4 < found.p


def test_the_t_test_is_students_on_the_seeds_differences():
    """t = mean / (s / sqrt(3)) = 2 / (1 / sqrt(3)); two-sided, two degrees of freedom: 0.0742."""
    assert seed_test([1.0, 2.0, 3.0]).p_t == pytest.approx(0.0742, abs=1e-4)


def test_a_test_shows_the_spread_of_the_seeds():
    found = seed_test([-0.9, -0.1, -0.5])
    assert (found.n, found.least, found.most) == (3, -0.9, -0.1)
    assert found.mean == pytest.approx(-0.5)


@pytest.mark.parametrize("differences", [[], [0.1, float("nan")]])
def test_a_seed_without_a_difference_is_refused(differences):
    with pytest.raises(UserError, match="from every seed"):
        seed_test(differences)


def test_holm_steps_down_from_the_smallest():
    """0.005 * 4; 0.01 * 3; 0.03 * 2; and 0.04 * 1, which may not fall below the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_leaves_a_p_value_that_is_not_there_out_of_the_count():
    adjusted = holm([0.02, float("nan"), 0.5])
    assert math.isnan(adjusted[1])
    assert [adjusted[0], adjusted[2]] == pytest.approx([0.04, 0.5])


@given(P_VALUES)
def test_holm_lies_between_no_correction_and_bonferronis(p_values):
    for p, adjusted in zip(p_values, holm(p_values), strict=True):
        assert p <= adjusted <= min(1, len(p_values) * p)


@given(P_VALUES)
def test_holm_keeps_the_order_of_evidence(p_values):
    adjusted = [value for _, value in sorted(zip(p_values, holm(p_values), strict=True))]
    assert adjusted == sorted(adjusted)


def test_five_seeds_and_four_objectives_leave_sign_flips_nothing():
    assert holm([least_p(5)] * 4) == [0.25] * 4
