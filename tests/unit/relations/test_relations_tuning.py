"""The rule that chooses settings, on measures made by hand; and what it may look at."""

import pandas as pd
import pytest

from safeerase_lite.relations.objectives import METHODS
from safeerase_lite.relations.scenes import held_out_combinations
from safeerase_lite.relations.tuning import KEPT, candidates, choose
from safeerase_lite.relations.tuples import TUNING, UNSAFE, changed_slots


def measures(method, candidate, top, leakage, kept):
    """Every cell of KEPT at one value, but the last, which is `kept`."""
    cells = [("tuple top-1", "", top), ("leakage", "", leakage)]
    cells += [(*cell, 0.99) for cell in KEPT[:-1]] + [(*KEPT[-1], kept)]
    columns = ["measure", "slot", "value"]
    return pd.DataFrame(cells, columns=columns).assign(method=method, candidate=candidate)


BASE = measures("base", 0, 1.0, 0.5, 1.0)


def chosen_of(*rows):
    found = choose(pd.concat([BASE, *rows], ignore_index=True))
    return found.loc[found["chosen"], "candidate"].tolist()


def test_of_those_that_forget_the_one_that_keeps_most_is_chosen():
    gentle = measures("relation", 1, 0.05, 0.14, 0.95)
    assert chosen_of(measures("relation", 0, 0.0, 0.01, 0.6), gentle) == [1]


def test_what_does_not_forget_is_not_chosen_however_much_it_keeps():
    nothing = measures("relation", 1, 1.0, 0.5, 1.0)
    assert chosen_of(measures("relation", 0, 0.0, 0.1, 0.6), nothing) == [0]


def test_an_inverted_score_has_not_forgotten():
    """It is never on top, and as telling as before."""
    inverted = measures("relation", 1, 0.0, 0.4, 0.99)
    assert chosen_of(measures("relation", 0, 0.05, 0.1, 0.6), inverted) == [0]


def test_where_none_forgets_the_one_that_leaks_least_is_chosen():
    rows = [measures("pair", i, 0.0, leakage, 0.1) for i, leakage in enumerate((0.5, 0.3, 0.4))]
    assert chosen_of(*rows) == [1]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_as_many_candidates(method):
    assert len(set(candidates(method))) == 4


def test_tuning_tuples_are_no_neighbours_of_those_in_the_tables_and_tiny_clip_knows_them():
    assert len(TUNING) >= 3 and not held_out_combinations() & set(TUNING)
    assert all(len(changed_slots(t, u)) > 1 for t in TUNING for u in UNSAFE)
