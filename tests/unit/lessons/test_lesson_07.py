"""Lesson 07 reads off a table of attacks which claims it refutes, whatever table ships."""

import pandas as pd
import pytest

import safeerase_lite as sl
from safeerase_lite.lessons import attacked as tables

SHIPPED = sl.ledger.shipped_table("robustness")


@pytest.fixture
def lesson():
    """The lesson's claims and how it judges one."""
    return {"CLAIMS": tables.CLAIMS, "verdict": tables.verdict}


def attacked(*excess, gold=False):
    """Rows of one model, one for each excess over gold, shown where it is above 0.3."""
    finding = ["more than gold" if e > 0.3 else "not shown to be more" for e in excess]
    names = [f"attack {n}" for n, _ in enumerate(excess)]
    return pd.DataFrame(
        {"model": "gold" if gold else "mine", "variant": names, "strength": 1.0,
         "excess": excess, "finding": finding}
    )  # fmt: skip


def test_a_claim_is_refuted_by_the_attack_furthest_above_gold(lesson):
    assert lesson["verdict"]("mine", attacked(0.4, 0.8, 0.1)) == "no: attack 1 1, +80"


def test_what_is_no_more_than_gold_refutes_nothing(lesson):
    assert lesson["verdict"]("mine", attacked(0.1, 0.2)) == "not refuted"
    assert lesson["verdict"]("mine", attacked(0.9, gold=True)) == "not refuted"


def test_every_claim_finds_its_attacks_in_what_ships(lesson):
    for where in lesson["CLAIMS"].values():
        assert set(SHIPPED.query(where)["model"]) == set(SHIPPED["model"])


def test_the_knowing_model_supports_no_claim(lesson):
    for where in lesson["CLAIMS"].values():
        assert lesson["verdict"]("vanilla", SHIPPED.query(where)).startswith("no: ")


def test_a_mark_stands_where_an_attack_shows_no_more_than_gold():
    rows = pd.concat([attacked(0.4, 0.1), attacked(0, gold=True)]).assign(value=0.5)
    table = tables.in_cells(rows, ["variant"], ["mine", "gold"])
    assert list(table["mine"]) == ["50", "50°"]


def test_the_words_name_what_shows_nothing_and_what_breaks_the_question():
    tried, ends = tables.at_last_strength(SHIPPED)
    lines = tables.in_words(tried, ends, ["PO", "PO+PD"])
    assert "words, many-shot" in lines[0] and "words, many-shot" in lines[1]
    assert lines[2].startswith("PO: more than gold, at some strength, under ")


def test_exchanged_plans_are_those_of_other_kinds():
    material = pd.DataFrame({"kind": ["a", "a", "b", "c"], "answer": ["1", "1", "2", "3"]})
    assert list(tables.exchanged(material)["answer"]) == ["2", "2", "3", "1"]
