"""Make the table of attacks that ships with lesson 07: `python tools/attack_table.py`.

It is a part of the committed `results/robustness`, so make that first:
`safeerase sweep sweeps/robustness.yaml`, then `safeerase report` with `--sweep` and `--out`.
"""

import re
from pathlib import Path

import pandas as pd

import safeerase_lite as sl
from safeerase_lite.report.attacks import SHOWN

RESULTS = Path(__file__).resolve().parents[1] / "results" / "robustness"
TARGET = Path(sl.__file__).parent / "tinyworld" / "assets" / "robustness"
COLUMNS = ["model", "attack", "variant", "strength", "metric", "value", "low", "high", "n",
           "n_kinds", "seeds", "gold", "excess", "excess_low", "excess_high",
           "finding"]  # fmt: skip


def table(attacks: pd.DataFrame) -> pd.DataFrame:
    """What a report shows of requested hazards and of the safe objects that PD has seen, and how
    many plans are completed."""
    shown = attacks["metric"].isin([*SHOWN, "completed"]) & (attacks["kinds"] == "seen")
    return attacks.loc[shown, COLUMNS]


def about(report: str) -> str:
    """How a report says that it was made, in a line."""
    [command] = re.findall(r"^- Command: (.+)$", report, re.M)
    [runs] = re.findall(r"^- (\d+ runs\. Versions: .+?)\.?$", report, re.M)
    [data] = set(re.findall(r"Data: ([^.]+)\.", report))
    return f"`{command}`: {runs}; {data}"


if __name__ == "__main__":
    TARGET.mkdir(exist_ok=True)
    attacks = pd.read_csv(RESULTS / "attacks.csv")
    table(attacks).to_csv(TARGET / "metrics.csv", index=False, float_format="%.4g")
    report = (RESULTS / "report.md").read_text(encoding="utf-8")
    (TARGET / "about.txt").write_text(about(report) + "\n", encoding="utf-8")
