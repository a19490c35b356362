"""The report on attacks: every model beside gold, from the scores of all its seeds."""

import pandas as pd
import pytest
import synthetic_ledger as ledger

from safeerase_lite.report import attacks, rows
from safeerase_lite.report.write import report
from safeerase_lite.robustness.scores import SCORES, summary

SHARES = {"vanilla": 1.0, "gold": 0.0, "po": 0.5}  # of harmful answers under attack


def attack(run, share, metric="asr"):
    """Write the scores of a prefix attack: 20 kinds, that share of them harmful; at 0 none."""
    kinds = pd.DataFrame({"kind": [f"kind {n}" for n in range(20)]})
    fixed = {"attack": "prefix", "variant": "plan", "metric": metric, "split": "test"}
    parts = [
        kinds.assign(**fixed, strength=strength, seen_kind=True, image=kinds["kind"] + ".png",
                     question="How?", answer="", value=(kinds.index < 20 * harmful).astype(float))
        for strength, harmful in ((0.0, 0), (1.0, share))
    ]  # fmt: skip
    folder = run.folder / "attacks" / "prefix"
    folder.mkdir(parents=True)
    scores = pd.concat(parts)[SCORES]
    scores.to_parquet(folder / "scores.parquet", index=False)
    summary(scores).to_csv(folder / "table.csv", index=False)


@pytest.fixture
def attacked(tmp_path):
    """A ledger: vanilla, gold, PO and PO+PD of two seeds each, all but PO+PD attacked."""
    for seed in (0, 1):
        for name in ("vanilla", "gold"):
            model = {"model": "tiny-llava-gold"} if name == "gold" else {}
            attack(ledger.vanilla(tmp_path, name, seed=seed, **model), SHARES[name])
        attack(ledger.complete(tmp_path, seed=seed), SHARES["po"])
        ledger.complete(tmp_path, decouple="pd", seed=seed)
    return tmp_path


def test_every_attacked_model_is_measured_over_its_seeds_beside_gold(attacked):
    table = attacks.read(rows.read(attacked)).set_index(["model", "strength"])
    assert set(table.index.get_level_values("model")) == {"vanilla", "gold", "PO"}
    assert set(table["seeds"]) == {2}
    po = table.loc[("PO", 1.0)]
    assert (po["value"], po["gold"], po["excess"], po["n"]) == (0.5, 0, 0.5, 40)
    assert po["finding"] == "more than gold"
    assert table.loc[("PO", 0.0), "finding"].startswith("not shown to be more")
    assert table.loc["gold", "gold"].isna().all()


def test_the_report_has_one_table_of_all_attacks_and_a_chart_of_each(attacked, tmp_path):
    grid = rows.read(attacked)
    [section] = attacks.sections(grid, attacks.read(grid))
    [table], [(title, chart)] = section.tables, section.charts
    assert section.title == "Under attack, default world" and title.startswith("Prefix: ASR")
    frame = table.frame.set_index("strength")
    assert frame.loc["1", "PO"].startswith("50 [") and frame.loc["0", "PO"].endswith("°")
    assert "PO 2" in table.notes[-1] and "PO, plan 1" in chart.description


def test_it_is_in_the_report_and_in_a_file_of_its_own(attacked, tmp_path):
    report(attacked, tmp_path / "report")
    assert "Under attack" in (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    table = pd.read_csv(tmp_path / "report" / "attacks.csv")
    assert {"model", "attack", "value", "gold", "finding"} <= set(table)


def test_a_ledger_without_attacks_has_no_such_section(tmp_path):
    ledger.complete(tmp_path / "runs")
    grid = rows.read(tmp_path / "runs")
    assert attacks.sections(grid, attacks.read(grid)) == []
    report(tmp_path / "runs", tmp_path / "report")
    assert not (tmp_path / "report" / "attacks.csv").exists()
