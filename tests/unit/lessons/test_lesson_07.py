"""Lesson 07 reads off a table of attacks which claims it refutes, whatever table ships."""

import ast
from pathlib import Path

import nbformat
import pandas as pd
import pytest

import safeerase_lite as sl

NOTEBOOK = Path(__file__).parents[3] / "notebooks" / "07_does_it_really_forget.ipynb"
SHIPPED = sl.ledger.shipped_table("robustness")


@pytest.fixture(scope="module")
def lesson():
    """The lesson's claims and how it judges one."""
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    [source] = [c.source for c in cells if c.cell_type == "code" and "CLAIMS = " in c.source]
    names = {}
    nodes = [n for n in ast.parse(source).body if isinstance(n, (ast.Assign, ast.FunctionDef))][:2]
    exec(compile(ast.Module(nodes, []), "lesson 07", "exec"), names)
    return names


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
