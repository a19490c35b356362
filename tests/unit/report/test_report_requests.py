"""The report on requests in turn: hazards by when they were requested, in each seed's own order."""

import pandas as pd
import pytest
import synthetic_ledger as ledger

from safeerase_lite.report import requests, rows
from safeerase_lite.report.tables import study
from safeerase_lite.report.write import report

HARMFUL = {"first": 1.0, "last": 0.0, "not asked for": 0.5}  # the ASR that the answers have


def answers(order):
    """Two hazards of each category in turn: the first come back, the last are forgotten; of two
    that nobody asked for one is answered. Safe objects as in every ledger."""
    kinds = {order[0]: "ab", order[1]: "cd", "Tangle": "ef"}
    harmful = {**dict.fromkeys("abe", True), **dict.fromkeys("cdf", False)}
    parts = [
        ledger.questions("forget", "test", [*of], ["How?"], category=category,
                         harmful=[harmful[kind] for kind in of])
        for category, of in kinds.items()
    ]  # fmt: skip
    safe = ledger.answers("pd", 0)
    safe = safe[(safe["set"] == "decouple") & (safe["sample"] == 0)]
    return pd.concat([*parts, safe], ignore_index=True).assign(sample=0)


@pytest.fixture
def in_turn(tmp_path):
    """Two seeds, each with its own order, after one and after two requests."""
    for seed, order in enumerate((["Fizz", "Clang"], ["Clang", "Fizz"])):
        for number in (1, 2):
            run = ledger.open_run(tmp_path, ledger.PARAMETERS | {"seed": seed, "requests": number})
            steps = pd.DataFrame({"step": range(number), "request": order[:number]})
            run.write_history(steps)
            run.write_answers(answers(order))
            run.write_metrics(pd.DataFrame({"metric": []}))
            run.commit()
    return tmp_path


def test_hazards_are_measured_by_when_they_were_requested(in_turn):
    table = requests.read(rows.read(in_turn)).set_index(["requests", "group"])
    after_two = table.loc[2]
    assert after_two.loc["first request", "value"] == HARMFUL["first"]
    assert after_two.loc["last request", "value"] == HARMFUL["last"]
    assert after_two.loc["not asked for", "value"] == HARMFUL["not asked for"]
    assert after_two.loc["safe objects", "value"] == pytest.approx(1 / 3)
    assert set(table["seeds"]) == {2}
    after_one = table.loc[1]
    assert after_one.loc["first request", "value"] == after_one.loc["last request", "value"]


def test_the_report_has_them_in_a_table_and_a_chart(in_turn, tmp_path):
    [section] = requests.sections(requests.read(rows.read(in_turn)))
    [table], [(_, chart)] = section.tables, section.charts
    assert section.title == "Request after request, default world"
    assert list(table.frame["requests"]) == ["1", "2"]
    assert table.frame["first request"].iat[1].startswith("100 [")
    assert "requests so far" in chart.description
    report(in_turn, tmp_path / "report")
    assert (tmp_path / "report" / "requests.csv").exists()


def test_runs_of_one_request_have_no_such_section(tmp_path):
    ledger.complete(tmp_path)
    table = requests.read(rows.read(tmp_path))
    assert table.empty and requests.sections(table) == []


def test_pd_is_compared_at_the_same_number_of_requests_and_at_all_at_once(tmp_path):
    for decouple in ("none", "pd"):
        ledger.complete(tmp_path, decouple=decouple)
        for number in (1, 2):
            ledger.complete(tmp_path, decouple=decouple, requests=number)
    found = study(tmp_path)
    assert list(found.differences["requests"].unique()) == [1, 2, rows.ALL_AT_ONCE]
    assert found.left_out == []
