"""Many edits side by side, and their tables. Only methods without training, so that it is quick.

What each preservation term is for is tested in `tests/nightly/relations/`.
"""

import pytest

from safeerase_lite.relations.adaptive import ADAPTIVE
from safeerase_lite.relations.report import headline, load_edits, report, summary
from safeerase_lite.relations.runs import LABELS, TIDY_COLUMNS, edit_run, study, tidy
from safeerase_lite.relations.tuples import UNSAFE

METHODS = ["filter", "projection"]


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def table(runs_dir):
    return study([UNSAFE[:1]], METHODS, left=(), runs_dir=runs_dir, workers=1)


def test_a_study_has_the_base_model_and_every_method(table):
    assert list(table) == TIDY_COLUMNS and set(table["method"]) == {"base", *METHODS}
    assert set(table["attack"]) == {"", *ADAPTIVE}
    assert headline(summary(table))["method"].tolist() == [LABELS[name] for name in METHODS]


def test_edits_that_the_ledger_holds_are_read(table, runs_dir):
    run = edit_run(UNSAFE[:1], "filter", adaptive=True, runs_dir=runs_dir)
    again = tidy(run).reset_index(drop=True)
    assert again.equals(table[table["method"] == "filter"].reset_index(drop=True))
    assert len(list((runs_dir / "relations").glob("*/run.json"))) == 3


def test_the_ledger_is_reported_as_tables(table, runs_dir, tmp_path):
    assert set(load_edits(runs_dir)["way"]) == {"one tuple"}
    report(runs_dir, tmp_path / "tables")
    assert {file.name for file in (tmp_path / "tables").iterdir()} == {"summary.csv", "headline.md"}
