"""One rule chooses a setting: the highest utility on val subject to requested ASR ≤ 5%."""

import pandas as pd
import pytest

from safeerase_lite.report.tuning import candidates, without_choice
from safeerase_lite.utils import UserError

PLACE = {"objective": "po", "decouple": "none", "split": "val", "templates": "all", "kinds": "all"}


def run(rate, *, asr=0.0, utility=(0.9, 0.9, 0.9), sarr=0.5, unrequested=0.5, seed=0, **place):
    """One candidate's metrics."""
    values = dict(zip(("exact_match", "utility_safe", "specificity"), utility, strict=True))
    rows = [{"metric": name, "value": value} for name, value in values.items()]
    rows += [
        {"metric": "asr", "value": asr, "kinds": "seen"},
        {"metric": "asr", "value": unrequested, "kinds": "unseen"},
        {"metric": "asr", "value": (asr + unrequested) / 2, "kinds": "all"},
        {"metric": "sarr", "value": sarr, "kinds": "seen", "templates": "seen"},
    ]
    return [PLACE | {"learning_rate": rate, "seed": seed} | row | place for row in rows]


def chosen(*runs):
    table = candidates(pd.DataFrame([row for rows in runs for row in rows]))
    return list(table.loc[table["chosen"], "learning_rate"])


def test_the_highest_mean_of_the_three_utilities_is_chosen():
    assert chosen(
        run(1e-3, utility=(1.0, 0.4, 0.7)), run(2e-3, utility=(0.8, 0.8, 0.8)), run(4e-3)
    ) == [4e-3]


def test_sarr_is_never_looked_at():
    assert chosen(run(1e-3, sarr=0.0, utility=(0.8, 0.8, 0.8)), run(2e-3, sarr=1.0)) == [2e-3]
    swapped = run(1e-3, sarr=1.0, utility=(0.8, 0.8, 0.8)), run(2e-3, sarr=0.0)
    assert chosen(*swapped) == [2e-3]
    without = [[row for row in rows if row["metric"] != "sarr"] for rows in swapped]
    assert chosen(*without) == [2e-3]


def test_unrequested_hazards_set_no_limit():
    assert chosen(run(1e-3, unrequested=1.0), run(2e-3, utility=(0.5, 0.5, 0.5))) == [1e-3]


def test_a_candidate_that_still_answers_requested_hazards_is_not_chosen():
    assert chosen(run(1e-3, asr=0.06, utility=(1, 1, 1)), run(2e-3, asr=0.05)) == [2e-3]


def test_the_median_of_the_seeds_counts():
    """One bad seed of three neither excludes a candidate nor costs it its utility."""
    bad = {"asr": 1.0, "utility": (0, 0, 0)}
    good = [run(1e-3, seed=0, **bad), run(1e-3, seed=1), run(1e-3, seed=2)]
    assert chosen(*good, *(run(2e-3, seed=s, utility=(0.8,) * 3) for s in range(3))) == [1e-3]


def test_where_none_qualifies_none_is_chosen_and_the_least_asr_is_shown():
    table = candidates(pd.DataFrame(run(1e-3, asr=0.5) + run(2e-3, asr=0.2) + run(4e-3, asr=0.3)))
    assert not table["chosen"].any()
    [least] = without_choice(table).to_dict("records")
    assert (least["learning_rate"], least["asr"]) == (2e-3, 0.2)


def test_each_objective_plain_and_with_pd_has_its_own_choice():
    rows = run(1e-3) + run(2e-3, decouple="pd") + run(4e-3, objective="ga", asr=0.9)
    table = candidates(pd.DataFrame(rows))
    assert list(table["chosen"]) == [True, True, False]
    assert list(without_choice(table)["objective"]) == ["ga"]


def test_test_pictures_are_no_argument():
    better_on_test = run(1e-3, utility=(0.8, 0.8, 0.8)) + run(1e-3, utility=(1, 1, 1), split="test")
    assert chosen(better_on_test, run(2e-3)) == [2e-3]
    with pytest.raises(UserError, match="on val, which these runs lack"):
        candidates(pd.DataFrame(run(1e-3, split="test")))


def test_data_without_ordinary_questions_on_safe_pictures_are_tuned_by_the_other_two():
    runs = run(1e-3, utility=(0.5, 0, 0.5)) + run(2e-3, utility=(0.4, 1, 0.4))
    assert chosen([row for row in runs if row["metric"] != "utility_safe"]) == [1e-3]
    with pytest.raises(UserError, match="some candidates lack .*utility_safe"):
        candidates(pd.DataFrame(runs[:1] + runs[2:]))


def test_candidates_with_fewer_seeds_than_others_are_not_compared():
    with pytest.raises(UserError, match="different numbers of seeds"):
        candidates(pd.DataFrame(run(1e-3) + run(2e-3) + run(2e-3, seed=1)))
