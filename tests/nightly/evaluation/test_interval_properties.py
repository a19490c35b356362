"""What every interval must be, whatever kinds, questions, pictures and seeds the answers share."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from safeerase_lite.evaluation.statistics import bounded_interval, exact_interval, resample

ROUNDING = 1e-12
SIZES = st.tuples(st.integers(1, 12), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))


def answers(kinds, questions, images, seeds):
    rows = product(range(kinds), range(questions), range(images), range(seeds))
    return pd.DataFrame(rows, columns=["kind", "question", "image", "seed"])


@settings(max_examples=400, deadline=None)
@given(SIZES, st.sampled_from([0, -1]), st.data())
def test_an_interval_is_sound_whatever_the_answers_share(sizes, least, data):
    table = answers(*sizes)
    draw = arrays(float, len(table), elements=st.floats(least, 1))
    values, other = data.draw(draw), data.draw(draw)
    samples = resample(table, resamples=201)
    low, high = bounded_interval(values, samples, least)
    mean = values.mean()
    assert least <= low <= mean + ROUNDING and mean - ROUNDING <= high <= 1
    raised = bounded_interval(np.maximum(values, other), samples, least)
    assert low <= raised[0] + ROUNDING and high <= raised[1] + ROUNDING
    turned = bounded_interval(least + 1 - values, samples, least)
    assert turned == pytest.approx((least + 1 - high, least + 1 - low))
    for share in (0, 1):
        ends = bounded_interval(np.full(len(table), least + share * (1 - least)), samples, least)
        exact = exact_interval(share, sizes[0])
        assert ends == pytest.approx([least + end * (1 - least) for end in exact])
