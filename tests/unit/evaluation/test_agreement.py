"""Kappa is agreement beyond chance; its interval respects the kinds."""

import numpy as np
import pandas as pd
import pytest

from safeerase_lite.evaluation.judges import agreement
from safeerase_lite.utils import UserError


def table(refusing, kinds=None, **columns):
    """Answers of several kinds, two questions each, judged."""
    n = len(refusing)
    kinds = kinds if kinds is not None else [f"kind {i // 2}" for i in range(n)]
    rows = {
        "kind": kinds,
        "image": [f"{i}.png" for i in range(n)],
        "question": [f"question {i % 2}" for i in range(n)],
        "answer": [f"answer {i}" for i in range(n)],
        "refusing": pd.array(refusing, dtype="boolean"),
        "harmful": pd.array([None] * n, dtype="boolean"),
        "verdict": ["refused" if r else "right" for r in refusing],
    }
    return pd.DataFrame(rows | columns)


def of(agreements, label="refusing"):
    return agreements.set_index("label").loc[label]


def test_kappa_is_that_of_a_table_worked_by_hand():
    """20 both yes, 15 both no, 5 and 10 apart: agree 0.7, chance 0.5, so 0.4."""
    first = table([True] * 25 + [False] * 25)
    second = table([True] * 20 + [False] * 5 + [True] * 10 + [False] * 15)
    row = of(agreement(first, second))
    assert row["agree"] == pytest.approx(0.7)
    assert row["kappa"] == pytest.approx(0.4)
    assert row["low"] < 0.4 < row["high"] and row["n"] == 50


def test_full_agreement_is_one_and_its_interval_is_no_point():
    """10 kinds: the exact interval of their share begins at 0.025^(1/10), and chance is 0.5."""
    judged = table([True, False] * 10)
    row = of(agreement(judged, judged))
    assert row["kappa"] == row["high"] == 1
    assert row["low"] == pytest.approx((0.025 ** (1 / 10) - 0.5) / 0.5)


def test_two_who_always_say_opposite_things_are_below_chance():
    row = of(agreement(table([True, False] * 10), table([False, True] * 10)))
    assert row["kappa"] == row["low"] == -1 and row["high"] < 0


def test_agreeing_on_everything_being_the_same_says_nothing():
    judged = table([True] * 8)
    row = of(agreement(judged, judged))
    assert row["agree"] == 1 and np.isnan([row["kappa"], row["low"], row["high"]]).all()


def test_a_judge_that_says_one_thing_agrees_with_nobody_beyond_chance():
    row = of(agreement(table([True] * 8), table([True, False] * 4)))
    assert row["kappa"] == 0 and np.isnan([row["low"], row["high"]]).all()


def test_rare_labels_make_kappa_small_where_agreement_is_high():
    """The paradox of Feinstein and Cicchetti (1990)."""
    first = table([True] + [False] * 49)
    second = table([False] * 49 + [True])
    row = of(agreement(first, second))
    assert row["agree"] == pytest.approx(0.96) and row["kappa"] < 0


def test_unknown_is_a_label_and_is_counted():
    knows = table([True, True, False, False])
    silent = table([True, None, False, False])
    row = of(agreement(knows, silent))
    assert (row["agree"], row["unknown_first"], row["unknown_second"]) == (0.75, 0, 1)
    assert row["kappa"] < 1
    assert of(agreement(knows, silent), "harmful")["unknown_first"] == 4


def test_order_of_the_judges_does_not_matter():
    one, two = table([True, False, True, True] * 5), table([True, False, False, True] * 5)
    columns = ["agree", "kappa", "low", "high"]
    assert of(agreement(one, two))[columns].equals(of(agreement(two, one))[columns])


def test_answers_of_one_kind_widen_the_interval():
    a, b = [True, False] * 20, ([True, False] * 15 + [False, True] * 5)
    many = of(agreement(table(a), table(b)))
    clustered = [f"kind {i // 10}" for i in range(40)]
    few = of(agreement(table(a, clustered), table(b, clustered)))
    assert many["kappa"] == few["kappa"]
    assert few["high"] - few["low"] > many["high"] - many["low"]


def test_the_interval_of_kappa_stays_within_its_range():
    """One disagreement among answers that nearly all have one label: chance is high."""
    row = of(agreement(table([True] * 39 + [False]), table([True] * 38 + [False] * 2)))
    assert -1 <= row["low"] < row["kappa"] < row["high"] <= 1


def test_other_answers_are_refused():
    one = table([True, False])
    with pytest.raises(UserError, match="different answers"):
        agreement(one, one.assign(answer="another"))
    with pytest.raises(UserError, match="different answers"):
        agreement(one, one.head(1))
    with pytest.raises(UserError, match="lack the columns verdict"):
        agreement(one, one.drop(columns="verdict"))
