"""What lesson 08 shows of the shipped edits: every method, in words that can be read."""

import pytest

from safeerase_lite.lessons.relations import (
    cost,
    together_or_in_turn,
    under_attack,
    with_intervals,
)
from safeerase_lite.relations.adaptive import ADAPTIVE
from safeerase_lite.relations.attacks import ATTACKS
from safeerase_lite.relations.objectives import METHODS
from safeerase_lite.relations.report import shipped
from safeerase_lite.relations.runs import LABELS


@pytest.fixture(scope="module")
def means():
    return shipped()


def test_the_table_has_a_row_per_method_and_a_dash_where_nothing_was_measured(means):
    table = with_intervals(means)
    assert list(table.index) == [LABELS[m] for m in METHODS]
    assert table.loc["threshold filter", "margin"] == "–"  # a refused picture has none
    assert table.loc["relationship-aware", "tuple top-1"].startswith("0% [")


def test_the_cost_of_each_method_is_what_the_summary_says(means):
    table = cost(means).set_index("method")
    plain = means[(means["attack"] == "") & (means["measure"] == "leakage") & (means["slot"] == "")]
    for row in plain.itertuples():
        assert table.loc[LABELS[row.method], "leakage"] == row.value


def test_every_attack_stands_once_beside_none(means):
    rows = under_attack(means, "tuple top-1", ["relation"])
    assert sorted(rows["attack"]) == sorted(["none", *ATTACKS, *ADAPTIVE])


def test_one_tuple_begins_both_ways_of_unlearning_several():
    rows = together_or_in_turn(shipped("several"))
    first = rows[rows["tuples"] == 1].pivot(index="measure", columns="way", values="value")
    assert first["together"].equals(first["one after another"])
    assert set(rows["tuples"]) == {1, 2, 4, 8}
