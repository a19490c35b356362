"""Intervals over several seeds: a further thing to resample, and the fewest of all."""

import numpy as np
import pandas as pd
import pytest
from test_metrics import answer_rows, row

from safeerase_lite.evaluation.metrics import by_seed, measure, paired_difference
from safeerase_lite.evaluation.statistics import exact_interval, resample, share_interval


def stacked(*tables):
    """Answers of several runs, one seed each."""
    runs = [table.assign(seed=seed) for seed, table in enumerate(tables)]
    return pd.concat(runs, ignore_index=True)


def decoupled(refused, kinds=12, templates=4):
    """Answers about harmless pictures; to each template `refused` of the kinds are refused."""
    verdict = ["refused"] * refused + ["right"] * (kinds - refused)
    tables = [answer_rows("decouple", kinds, verdict=verdict, question=f"How? {t}")
              for t in range(templates)]  # fmt: skip
    return pd.concat(tables, ignore_index=True)


def test_one_seed_is_what_no_seed_is():
    answers = decoupled(5)
    pd.testing.assert_frame_equal(measure(answers.assign(seed=3)), measure(answers))
    other = decoupled(9)
    alone = paired_difference(answers, other, "sarr")
    seeded = paired_difference(answers.assign(seed=3), other.assign(seed=3), "sarr")
    assert (seeded.value, seeded.low, seeded.high) == (alone.value, alone.low, alone.high)
    assert (seeded.seeds, alone.seeds) == ((alone.value,), ())


def test_a_seed_that_repeats_another_tells_nothing_new_about_kinds():
    once, twice = (measure(stacked(*[decoupled(5)] * n)) for n in (1, 2))
    numbers = ["value", "low", "high"]
    np.testing.assert_allclose(twice[numbers], once[numbers], atol=1e-12)
    assert (twice["n"] == 2 * once["n"]).all()


@pytest.mark.parametrize(("refused", "share"), [(0, 0), (12, 1)])
def test_at_0_and_100_percent_five_seeds_are_as_certain_as_their_kinds(refused, share):
    found = row(measure(stacked(*[decoupled(refused)] * 5)), "sarr")
    assert found["value"] == share
    assert (found["low"], found["high"]) == pytest.approx(exact_interval(share, 12))


def test_seeds_that_differ_widen_the_interval():
    same, different = stacked(*[decoupled(6)] * 4), stacked(*map(decoupled, (2, 10, 2, 10)))
    narrow, wide = (row(measure(table), "sarr") for table in (same, different))
    assert narrow["value"] == wide["value"] == 0.5
    assert wide["high"] - wide["low"] > 1.3 * (narrow["high"] - narrow["low"])


def test_every_seed_is_told_apart():
    table = by_seed(stacked(decoupled(3), decoupled(6)))
    sarr = table[(table["metric"] == "sarr") & (table["kinds"] == "seen")]
    assert set(zip(sarr["seed"], sarr["value"], strict=True)) == {(0, 0.25), (1, 0.5)}


def test_of_two_seeds_one_is_drawn_and_of_five_four():
    for seeds, draws in ((2, 1), (5, 4)):
        answers = stacked(*[answer_rows("decouple", 1)] * seeds)
        drawn = resample(answers, resamples=50).weights
        assert set(drawn.sum(axis=1)) == {draws}


def test_drawing_one_seed_fewer_gives_their_mean_its_true_variance():
    """Where seeds alone differ, the bootstrap has the variance s² / n, not (n - 1) / n of it."""
    answers = stacked(*[answer_rows("decouple", 1)] * 5)
    values = np.array([0.1, 0.4, 0.5, 0.9, 0.2])
    weights = resample(answers, resamples=20_000).weights
    means = weights @ values / weights.sum(axis=1)
    assert means.var() == pytest.approx(values.var(ddof=1) / 5, rel=0.03)


def simulated(generator, *, of_seed, of_kind, seeds=5, kinds=6, templates=6):
    """Yes-or-no answers; log-odds have normal seed and kind effects. The true share is one half."""
    axes = np.indices((seeds, kinds, templates))
    seed, kind, template = (axis.ravel() for axis in axes)
    log_odds = generator.normal(0, of_seed, seeds)[seed] + generator.normal(0, of_kind, kinds)[kind]
    answers = pd.DataFrame({"seed": seed, "kind": kind, "question": template, "image": kind})
    return answers, (generator.random(len(seed)) < 1 / (1 + np.exp(-log_odds))).astype(float)


def coverage(*, drop=(), worlds=150, **effects):
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(worlds):
        answers, values = simulated(generator, **effects)
        drawn = resample(answers.drop(columns=list(drop)), resamples=200)
        low, high = share_interval(values, drawn)
        covered += low <= 0.5 <= high
    return covered / worlds


def test_five_seeds_cover_the_truth_when_kinds_differ_as_much():
    assert coverage(of_seed=1.5, of_kind=1.5) >= 0.93
    assert coverage(of_seed=1.5, of_kind=1.5, drop=["seed"]) < 0.90


def test_five_seeds_that_alone_differ_cover_the_truth_less_often_than_they_claim():
    """About 85 times in 100, as the docstring of `resample` warns; half of that without seeds."""
    only_seeds = {"of_seed": 1.5, "of_kind": 0.0, "kinds": 12}
    assert 0.78 <= coverage(**only_seeds) <= 0.93
    assert coverage(**only_seeds, drop=["seed"]) < 0.55
