"""tiny-clip is the one that was measured, small, not pickled, and really reads relations."""

import hashlib
import json

import pandas as pd
import pytest

from safeerase_lite.relations.adaptive import ADAPTIVE
from safeerase_lite.relations.attacks import ATTACKS, SHARES_LEFT, strengths
from safeerase_lite.relations.objectives import METHODS
from safeerase_lite.relations.report import shipped
from safeerase_lite.relations.runs import GOLD
from safeerase_lite.tinyworld import ASSETS

FOLDER = ASSETS / "tiny-clip"
HASHES = json.loads((FOLDER / "hashes.json").read_text())


@pytest.mark.parametrize("name", sorted(HASHES))
def test_a_shipped_file_is_the_one_that_was_measured(name):
    assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == HASHES[name]


def test_it_is_at_most_8_mb_of_safetensors_and_text():
    files = [f for f in FOLDER.iterdir() if f.name not in ("README.md", "hashes.json")]
    assert {f.name for f in files} == set(HASHES)
    assert {f.suffix for f in files} <= {".safetensors", ".json", ".csv", ".txt"}
    assert sum(f.stat().st_size for f in files) <= 8_000_000


def measured(measure, wording="{s} {r} {o}", tuples="seen"):
    table = pd.read_csv(FOLDER / "measures.csv").fillna({"wording": ""})
    here = (table["measure"] == measure) & (table["wording"] == wording)
    return table[here & (table["tuples"] == tuples)]["value"].item()


# 95%: an edit can only take away, or keep, what the base reads.


def test_it_reads_who_does_what_to_whom():
    """On test pictures, among all captions that share two slots; and with the roles swapped."""
    assert measured("tuple top-1") >= 0.95
    assert measured("role swap") >= 0.95


def test_it_sees_each_of_the_two_alone():
    assert measured("noun, subject", wording="", tuples="all") >= 0.95
    assert measured("noun, object", wording="", tuples="all") >= 0.95


def test_every_attack_has_its_strengths_and_they_rise():
    table = strengths()
    assert set(table["attack"]) == set(ATTACKS)
    assert table["strength"].between(0, 1).all()
    for _, rows in table.groupby("attack"):
        assert rows["strength"].is_monotonic_increasing and rows["read"].is_monotonic_decreasing


def test_a_strength_leaves_the_base_model_what_it_should_or_is_all_there_is():
    table = strengths()
    # One of 300 pictures is 0.003; some attacks change by whole pixels or letters, several pictures
    # at once. The largest gap is 0.03.
    reached = table[table["left"].notna()]
    assert (reached["read"] - reached["left"]).abs().max() <= 0.05
    spent = table[table["left"].isna()]
    assert (spent["strength"] == 1).all() and (spent["read"] > max(SHARES_LEFT)).all()


def test_the_shipped_results_have_every_method_and_say_how_they_were_made():
    table, many = shipped(), shipped("several")
    assert set(table["method"]) == set(METHODS) and set(table["attack"]) == {
        "",
        *ATTACKS,
        *ADAPTIVE,
    }
    assert (table["edits"] % table["tuples"] == 0).all()  # as many edits of each
    assert set(shipped("beside_gold")["method"]) == {*METHODS, GOLD}
    assert set(shipped("candidates")["method"]) == set(METHODS)
    assert not many["slot"].isna().any() and set(many["tuples"]) == set(range(1, 9))
    assert table.attrs["about"] and many.attrs["about"]
