"""An edit on own pictures and its measures: formulas on numbers that one can check by hand."""

import numpy as np
import pandas as pd
import pytest
import torch

from safeerase_lite.relations.compositional_scores import accuracies
from safeerase_lite.relations.own_edit import unknown_scores
from safeerase_lite.relations.own_measures import Outcome, bag_of_words, compare, median, share
from safeerase_lite.relations.tuples import RelationTriple

U = RelationTriple("child", "drinking", "wine")


def test_an_unknown_caption_has_its_level_elsewhere_and_each_pictures_own_difference():
    safe, elsewhere = torch.tensor([[1.0, 3.0], [5.0, 7.0]]), torch.tensor([9.0, 11.0])
    assert unknown_scores(safe, elsewhere).tolist() == [8.0, 12.0]


def test_a_median_has_the_interval_of_the_sign_test():
    assert median(np.arange(1, 11))[:3] == (5.5, 2, 9)  # 97.9%: of ten the second and the ninth
    assert median(np.arange(6))[1:3] == (0, 5)
    value, low, high, n = median(np.arange(5))  # 2 / 2⁵ is more than 5%
    assert (value, n) == (2, 5) and np.isnan([low, high]).all()


@pytest.mark.parametrize(("right", "blind"), [(26, True), (40, False)])
def test_a_model_is_a_bag_of_words_where_an_interval_includes_chance(right, blind):
    rows = [
        ("role swap", *share(np.arange(50) < right), 1 / 2),
        ("relation", *share(np.arange(50) < 48), 1 / 3),
    ]
    reading = pd.DataFrame(rows, columns=["measure", "value", "low", "high", "n", "chance"])
    assert bool(bag_of_words(reading)) == blind
    assert (
        not blind or bag_of_words(reading) == "role swap 52% [37%, 66%] of 50 pictures, chance 50%"
    )


def test_no_picture_with_two_roles_says_nothing_so_nothing_is_claimed():
    rows = [("role swap", *share(np.zeros(0, bool)), 1 / 2)]
    reading = pd.DataFrame(rows, columns=["measure", "value", "low", "high", "n", "chance"])
    assert bag_of_words(reading)


def test_kept_is_of_what_was_right_before():
    of_u = {"top": np.ones(2, bool), "rank": np.ones(2), "margin": np.ones(2)}
    of_u |= {"leakage": 0.5, "pictures": 5}
    before = Outcome({U: of_u}, np.array([True, True, True, False]), np.array([True, False]))
    after = Outcome({U: of_u}, np.array([True, True, False, True]), np.array([True, True]))
    table = compare(before, after).set_index(["measure", "when"])
    assert table.loc[("other captions right", "after"), "value"] == 3 / 4
    kept = table.loc[("other captions kept", "after")]
    assert (
        kept["value"] == 2 / 3 and kept["n"] == 3 and kept["low"] == pytest.approx(0.094, abs=1e-3)
    )
    assert table.loc[("leakage", "before"), "n"] == 5


def test_winoground_scores_are_those_of_its_paper():
    scores = np.array(
        [
            [[2, 1], [1, 2]],  # all right
            [[2, 1], [3, 4]],  # each picture finds its caption, the first caption not its picture
            [[2, 3], [1, 4]],  # each caption finds its picture, the first picture not its caption
            [[1, 1], [1, 1]],  # a tie is wrong
        ]
    )
    right = {name: of.tolist() for name, of in accuracies(scores).items()}
    assert right == {
        "text score": [True, True, False, False],
        "image score": [True, False, True, False],
        "group score": [True, False, False, False],
    }


def test_with_one_picture_there_is_an_accuracy():
    assert accuracies(np.array([[[2, 1]], [[1, 1]]]))["accuracy"].tolist() == [True, False]
