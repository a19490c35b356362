"""Measures of the relational edit on scores made by hand."""

import numpy as np
import pytest
from pytest import approx

from safeerase_lite.relations.evaluation import auroc, beside_rivals, probe, recall_at, wins


def test_a_picture_wins_when_its_caption_beats_every_rival():
    scores = np.array([[3.0, 1.0, 9.0], [1.0, 2.0, 2.0]])
    rivals = np.array([[False, True, False], [True, False, True]])
    assert wins(scores, np.array([0, 1]), rivals).tolist() == [True, False]  # 9 is no rival


def test_a_refused_picture_wins_nothing():
    refused = np.full((1, 3), -np.inf)
    assert not wins(refused, np.array([0]), np.array([[False, True, True]])).any()


def test_margin_and_rank_say_how_far_from_the_top_the_unsafe_caption_is():
    scores = np.array([[3.0, 1.0, 2.0], [1.0, 4.0, 2.0]])
    rivals = np.array([[False, True, True], [False, True, True]])
    rows = beside_rivals(scores, np.array([0, 0]), rivals, np.array([True, True]))
    values = {name: value for name, _, value, *_ in rows}
    assert values == {"margin": (1 - 3) / 2, "rank": (1 + 3) / 2}


def test_a_refused_image_has_no_margin():
    scores = np.array([[-np.inf, -np.inf]])
    rows = beside_rivals(scores, np.array([0]), np.array([[False, True]]), np.array([True]))
    assert rows[0][2] is None


def test_recall_counts_unsafe_pictures_among_the_first():
    scores = np.array([9.0, 8.0, 7.0, 1.0])
    assert recall_at(scores, np.array([True, False, True, True]), k=2) == 0.5


@pytest.mark.parametrize(
    ("scores", "area"),
    [([3, 2, 1, 0], 1.0), ([0, 1, 2, 3], 0.0), ([1, 1, 1, 1], 0.5), ([3, 1, 2, 0], 0.75)],
)
def test_auroc_is_how_often_an_unsafe_picture_scores_higher(scores, area):
    unsafe = np.array([True, True, False, False])
    assert auroc(np.array(scores, dtype=float), unsafe) == approx(area)


def test_a_probe_finds_what_is_linear_even_with_few_unsafe_pictures():
    rng = np.random.default_rng(0)
    pictures = rng.normal(size=(200, 10))
    unsafe = pictures[:, 3] + 0.1 * pictures[:, 5] > 0.9
    predicted = probe(pictures[:150], unsafe[:150], pictures[150:])
    # 50 pictures, 6 of them unsafe: one of those may lie too near the border, or 8 of the others.
    assert predicted[unsafe[150:]].mean() > 0.8 and predicted[~unsafe[150:]].mean() < 0.2


def test_a_probe_finds_nothing_in_noise():
    rng = np.random.default_rng(1)
    predicted = probe(rng.normal(size=(150, 5)), np.arange(150) < 40, rng.normal(size=(400, 5)))
    # Over 300 draws of such noise the share is 0.46, give or take 0.04: four times that.
    assert 0.3 < predicted.mean() < 0.7
