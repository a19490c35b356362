"""Whatever happens to one file of a ledger: a line that names it, or it is done again."""

import damaged_ledger
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def small(few, make_config, tmp_path_factory):
    return damaged_ledger.make(tmp_path_factory.mktemp("ledger") / "home", few, make_config)


@pytest.fixture(scope="module")
def expected(small):
    return damaged_ledger.expectations(small)


@pytest.mark.timeout(1800)
@settings(max_examples=150, deadline=None)
@given(data=st.data(), kind=st.sampled_from(damaged_ledger.DAMAGES), seed=st.integers(0, 999))
def test_any_file_damaged_in_any_way(small, expected, data, kind, seed):
    file = data.draw(st.sampled_from(small.files()))
    damaged_ledger.check(small, expected, file, kind, seed)
