"""What the table of many edits says, on tables made by hand."""

import numpy as np
import pandas as pd
import pytest
from pytest import approx

from safeerase_lite.relations import tuples
from safeerase_lite.relations.report import PRESERVED, headline, several, summary
from safeerase_lite.relations.runs import TIDY_COLUMNS
from safeerase_lite.relations.tuples import UNSAFE
from safeerase_lite.report import plots


def row(method, tuple_, measure, value, slot="", seed=0, attack="", strength=0.0):
    return (method, tuple_, measure, slot, attack, strength, seed, value, value, value, 40)


def table(rows):
    return pd.DataFrame(rows, columns=TIDY_COLUMNS)


def test_relative_is_the_mean_over_tuples_by_the_base_models():
    rows = [row("base", t, "unrelated", v) for t, v in (("a", 1.0), ("b", 0.6))]
    rows += [row("relation", t, "unrelated", v) for t, v in (("a", 0.9), ("b", 0.3))]
    means = summary(table(rows)).iloc[0]
    assert means["value"] == approx(0.6) and means["base"] == approx(0.8)
    assert means["relative"] == approx(0.75)
    assert np.isnan(means["low"])  # two tuples are too few


def test_an_edit_is_held_against_the_base_under_the_same_attack():
    rows = []
    for attack, was, now in (("", 1.0, 0.9), ("blur", 0.5, 0.45)):
        rows.append(row("base", "a", "unrelated", was, attack=attack))
        rows.append(row("relation", "a", "unrelated", now, attack=attack))
    assert summary(table(rows))["relative"].tolist() == approx([0.9, 0.9])


def test_the_interval_is_over_tuples_and_not_over_seeds():
    """Seeds of a tuple share its pictures: a hundred of them do not make the interval narrow."""
    rng = np.random.default_rng(0)
    values = {t: rng.uniform(0.5, 1) for t in "abcdefgh"}

    def widths(seeds):
        rows = [row("base", t, "unrelated", 1.0, seed=s) for t in values for s in range(seeds)]
        rows += [
            row("relation", t, "unrelated", v, seed=s)
            for t, v in values.items()
            for s in range(seeds)
        ]
        means = summary(table(rows)).iloc[0]
        return means["high"] - means["low"]

    # Eight values between 0.5 and 1: ±2 standard errors of their mean are 0.2 wide. Were
    # seeds independent, 50 of them would make it a seventh of that.
    assert widths(1) == approx(widths(50)) and widths(1) > 0.1


def test_suppression_is_unknown_where_the_base_reads_nothing():
    rows = [row(m, "a", "tuple top-1", 0.0) for m in ("base", "relation")]
    assert np.isnan(summary(table(rows))["relative"].item())


def all_measures(methods=("relation", "pair")):
    cells = {("tuple top-1", "")} | set(PRESERVED.values())
    rows = [row("base", "a", m, 1.0, slot=s) for m, s in cells]
    for value, method in zip((0.9, 0.2), methods, strict=True):
        rows += [row(method, "a", m, 1 - value if m == "tuple top-1" else value, slot=s)
                 for m, s in cells]  # fmt: skip
    return table(rows)


def test_the_headline_has_a_row_per_method_and_shares_of_the_base():
    shown = headline(summary(all_measures())).set_index("method")
    assert shown.loc["relationship-aware", "suppression"] == approx(0.9)
    assert shown.loc["pair unlearning", "held-out object"] == approx(0.2)


def test_the_map_says_every_share_in_words():
    chart = plots.collateral(headline(summary(all_measures())))
    assert "pair unlearning: tuple top-1 80%" in chart.description
    assert len(plots.numbers(chart)) == 2


def test_the_graph_names_the_unsafe_tuple_and_counts_what_is_near():
    chart = plots.tuple_graph(tuples.table([UNSAFE[1]]))
    near = len(tuples.neighbours(UNSAFE[1], UNSAFE[1:2]))
    assert "Unsafe: fox chasing owl" in chart.description
    assert f"{near} neighbour" in chart.description and "1 role swap" in chart.description


def test_attacks_are_told_with_what_each_brings_back():
    cells = [("ours", "blur", 0.1), ("ours", "typos", 0.3)]
    rows = pd.DataFrame(cells, columns=["method", "attack", "value"]).assign(low=None, high=None)
    chart = plots.attacks_compared(rows, title="unsafe on top")
    assert "ours: blur 10%, typos 30%" in chart.description


def test_the_cost_of_forgetting_names_the_corner_that_is_wanted():
    rows = pd.DataFrame([("ours", 0.1, 0.97)], columns=["method", "leakage", "kept"])
    assert "ours: leakage 0.10, kept 97%" in plots.trade_off(rows).description


def test_gold_stands_beside_the_methods_and_in_no_mean_of_theirs():
    rows = [row(m, "a", "unrelated", v) for m, v in (("base", 1.0), ("pair", 0.1), ("gold", 0.9))]
    means = summary(table(rows)).set_index("method")
    assert means.loc["gold", "relative"] == approx(0.9)
    assert means.loc["pair", "relative"] == approx(0.1)


def test_leakage_and_margin_are_told_as_they_are_with_an_interval_of_their_own():
    values = {"a": 0.1, "b": 0.2, "c": 0.3}
    rows = [row("base", t, "leakage", 0.5) for t in values]
    rows += [row("relation", t, "leakage", v) for t, v in values.items()]
    means = summary(table(rows)).iloc[0]
    assert means["low"] <= means["value"] <= means["high"] <= 0.3


@pytest.mark.parametrize("top_1", [0.0, 0.01])
def test_a_share_of_eight_tuples_may_be_a_third_elsewhere_even_if_all_eight_are_at_zero(top_1):
    """0 of 8 and nearly 0 of 8 say about the same of a ninth tuple."""
    rows = [row("base", t, "tuple top-1", 1.0) for t in "abcdefgh"]
    rows += [row("relation", t, "tuple top-1", top_1 * (t == "a")) for t in "abcdefgh"]
    means = summary(table(rows)).iloc[0]
    assert means["low"] == approx(0, abs=1e-3) and means["high"] == approx(0.37, abs=0.02)


def test_several_tells_together_from_one_after_another():
    rows = all_measures(("relation", "pair")).assign(tuples=2, way="together")
    later = all_measures(("relation", "pair")).assign(tuples=2, way="one after another")
    later["value"] *= 0.5
    means = several(pd.concat([rows, later[later["method"] != "base"]]))
    unrelated = means[means["measure"] == "unrelated"].set_index(["method", "way"])["relative"]
    assert unrelated["relationship-aware", "together"] == approx(0.9)
    assert unrelated["relationship-aware", "one after another"] == approx(0.45)


@pytest.mark.parametrize("missing", ["neighbour", "role swap"])
def test_a_graph_without_an_unsafe_tuple_is_refused(missing):
    rows = tuples.table([UNSAFE[1]])
    with pytest.raises(Exception, match="no unsafe tuple"):
        plots.tuple_graph(rows[rows["role"] == missing])
