"""Data as the benchmark's, which name no safe object, go through a sweep, its report, an export."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from small_dataset import copy_as_documented

LESSON = Path(__file__).parents[3] / "notebooks" / "03_unlearn.ipynb"


@pytest.fixture
def safeerase(tmp_path):
    """Run a command in a folder of its own; its output."""

    def safeerase(*arguments):
        command = [sys.executable, "-m", "safeerase_lite", *map(str, arguments)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return safeerase


def test_no_table_is_empty_that_has_data(safeerase, world, tmp_path):
    data = copy_as_documented(world.root, tmp_path / "set")
    (tmp_path / "two.yaml").write_text(
        f"notebook: {LESSON}\nparameters: {{precision: dense, steps: 4, data_dir: {data}}}\n"
        "grid: {objective: po, decouple: [none, pd], seed: 0}\n"
    )
    swept = safeerase("sweep", tmp_path / "two.yaml", "--runs-dir", tmp_path / "runs")
    [command] = re.findall("its table: safeerase (.*)", swept)
    printed = safeerase(*command.split(), "--output", tmp_path / "report")
    assert "val; SARR: objects that PD was not trained on" in printed

    text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    ours, _ = text.split("## What the paper reports")
    tables = re.findall(r"((?:^\|.*\n)+)", ours, flags=re.M)
    assert len(tables) == 5
    for table in tables:
        heads, _, *rows = ([cell.strip() for cell in row.split("|")] for row in table.splitlines())
        assert rows
        for row in rows:
            assert row[heads.index("SARR")] != "–" if "SARR" in heads else "–" not in row[1:4]

    runs = pd.read_csv(tmp_path / "runs" / "sweeps" / "two.csv").set_index("decouple")["run"]
    adapter = tmp_path / "adapter"
    safeerase("export", runs["pd"], adapter, "--runs-dir", tmp_path / "runs", "--data", data)
    card = (adapter / "README.md").read_text(encoding="utf-8")
    assert "judge `rule`" in card and "held out of training" in card and "nan" not in card
    assert "dedupe none; categories" in card and "computing in float32" in card
