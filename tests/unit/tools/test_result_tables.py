"""The tables that ship are the committed results, and say how those were made."""

import pandas as pd
import pytest
import result_tables

import safeerase_lite as sl


@pytest.mark.parametrize("result", result_tables.TABLES)
def test_what_ships_is_the_committed_result(result):
    ships, committed = sl.ledger.shipped_table(result), result_tables.shipped(result)
    pd.testing.assert_frame_equal(
        ships, committed.reset_index(drop=True), check_dtype=False, rtol=1e-3, atol=1e-4
    )
    assert ships.attrs["about"] == result_tables.about(result)


def test_the_chart_of_the_results_shows_the_committed_table():
    table = pd.read_csv(result_tables.RESULTS / "paper_table" / "table.csv")
    cell = {"metric": "sarr", "split": "test", "kinds": "seen", "templates": "seen"}
    rows = table[(table[list(cell)] == pd.Series(cell)).all(axis=1) & (table["objective"] == "po")]
    sarr = rows.set_index("decouple")["value"]
    told = result_tables.chart().description
    assert f"PO plain {sarr['none']:.0%}" in told and f"PO PD {sarr['pd']:.0%}" in told


def write_report(folder, monkeypatch, text):
    monkeypatch.setattr(result_tables, "RESULTS", folder)
    (folder / "mine").mkdir()
    (folder / "mine" / "report.md").write_text(text)


def test_of_a_report_it_says_command_versions_and_data(monkeypatch, tmp_path):
    text = (
        "Note. Data: default world 0123abcd. In every run: x.\n"
        "- Command: safeerase report runs\n- 3 runs. Versions: torch 2.\n"
    )
    write_report(tmp_path, monkeypatch, text)
    about = result_tables.about("mine")
    assert about == "`safeerase report runs`: 3 runs. Versions: torch 2; default world 0123abcd"


def test_a_report_of_two_data_sets_is_refused(monkeypatch, tmp_path):
    text = "Data: a b.\nData: a c.\n- Command: c\n- 3 runs. Versions: torch 2.\n"
    write_report(tmp_path, monkeypatch, text)
    with pytest.raises(ValueError):
        result_tables.about("mine")
