"""The counting of lesson 09, on numbers one can check by hand."""

from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest

from safeerase_lite.lessons import seed_counts
from safeerase_lite.lessons.seed_counts import flips


def test_one_seed_of_each_is_counted_over_all_pairs():
    assert flips([0.1, 0.2, 0.9], [0.5, 0.6]) == 2 / 6
    assert flips([0.1, 0.2], [0.5, 0.6]) == flips([0.5, 0.6], [0.1, 0.2]) == 0


@pytest.mark.parametrize("k", [1, 2, 3])
def test_flips_are_those_of_every_choice_of_seeds(k):
    generator = np.random.default_rng(k)
    for _ in range(20):
        a, b = (list(generator.integers(0, 8, size) / 8) for size in (5, 4))
        order = np.sign(round(np.mean(a) - np.mean(b), 9))
        chosen = list(product(combinations(a, k), combinations(b, k)))
        opposite = [np.sign(round(np.mean(x) - np.mean(y), 9)) == -order for x, y in chosen]
        assert flips(a, b, k) == pytest.approx(np.mean(opposite) if order else 0)


def test_a_tie_and_rows_that_do_not_differ_are_no_flip():
    assert flips([0.5, 0.9], [0.5, 0.5]) == 0
    assert flips([0.1, 0.3], [0.2, 0.2]) == 0


def test_all_seeds_of_both_rows_never_flip():
    assert flips([0.1, 0.9, 0.3], [0.2, 0.4, 0.1], 3) == 0


def test_the_other_seeds_are_those_of_the_same_row():
    runs = pd.DataFrame(
        {"objective": ["po", "po", "ga"], "seed": [0, 1, 0], "value": [0.2, 0.4, 0.3],
         "low": [0.1, 0.35, 0], "high": [0.5, 0.5, 1]}
    )  # fmt: skip
    told = seed_counts.other_seeds_inside(runs, lambda run: (run.low, run.high))
    assert told["other seeds inside"] == "50%"


def test_an_interval_over_seeds_stays_within_0_and_1():
    low, high = seed_counts.over_seeds(pd.Series([0.0, 0.02, 0.9]))
    assert low == 0 and 0.3 < high <= 1


def test_five_equal_falls_have_the_least_p_that_five_seeds_can_give():
    falls = {f"{name}, new objects": pd.Series([-0.5, -0.51, -0.52, -0.5, -0.49]) for name in "ab"}
    table = seed_counts.seed_tests(falls)
    assert list(table["p"]) == ["0.062", "0.062"] and list(table["p, Holm"]) == ["0.12", "0.12"]
    assert list(table["mean"]) == ["-50", "-50"]


def test_no_seed_is_told_as_a_dash():
    assert seed_counts.told(pd.Series([], dtype=float)) == "–"
    assert seed_counts.told(pd.Series([0.1, 0.3])) == "20% (10% to 30%; 2)"
