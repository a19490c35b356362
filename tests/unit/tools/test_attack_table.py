"""The table of attacks that ships is the committed result, and says how that was made."""

import attack_table
import pandas as pd
import pytest

import safeerase_lite as sl

SHIPPED = sl.ledger.shipped_table("robustness")


def test_what_ships_is_the_committed_result():
    committed = attack_table.table(pd.read_csv(attack_table.RESULTS / "attacks.csv"))
    pd.testing.assert_frame_equal(
        SHIPPED, committed.reset_index(drop=True), check_dtype=False, rtol=1e-3, atol=1e-4
    )
    report = (attack_table.RESULTS / "report.md").read_text(encoding="utf-8")
    assert SHIPPED.attrs["about"] == attack_table.about(report)


def test_of_a_report_it_says_command_versions_and_data():
    report = (
        "Note. Data: default world 0123abcd. In every run: x.\n"
        "- Command: safeerase report runs\n- 3 runs. Versions: torch 2.\n"
    )
    about = attack_table.about(report)
    assert about == "`safeerase report runs`: 3 runs. Versions: torch 2; default world 0123abcd"


def test_a_report_of_two_data_sets_is_refused():
    report = "Data: a b.\nData: a c.\n- Command: c\n- 3 runs. Versions: torch 2.\n"
    with pytest.raises(ValueError):
        attack_table.about(report)
