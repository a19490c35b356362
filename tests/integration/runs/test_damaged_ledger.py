"""One file of a ledger is damaged: one line names it, or it is done again. All ways are nightly."""

import damaged_ledger
import pytest


@pytest.fixture(scope="module")
def small(few, make_config, tmp_path_factory):
    return damaged_ledger.make(tmp_path_factory.mktemp("ledger") / "home", few, make_config)


@pytest.fixture(scope="module")
def expected(small):
    return damaged_ledger.expectations(small)


@pytest.mark.parametrize(
    ("pattern", "kind"),
    [
        ("runs/*/run.json", "deleted"),
        ("runs/*/run.json", "null"),
        ("runs/*/metrics.csv", "truncated"),
        ("runs/*/answers.parquet", "a folder"),
        ("runs/*/adapter/*.safetensors", "other bytes"),
        ("runs/predictions.json", "null"),
        ("runs/sweeps/grid.csv", "emptied"),
        ("runs/partial/*/checkpoint/*/state.safetensors", "other bytes"),
        ("runs/partial/*/run.json", "not UTF-8"),
        ("cache/*/judge.jsonl", "a folder"),
    ],
)
def test_one_file_is_damaged(small, expected, pattern, kind):
    [path] = small.home.glob(pattern)
    file = path.relative_to(small.home).as_posix()
    damaged_ledger.check(small, expected, file, kind, seed=0)
