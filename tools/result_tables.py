"""Make the tables that ship with lessons 05 and 07, and the chart of docs/results.md:
`python tools/result_tables.py`.

They are parts of the committed results that TABLES names, so make those first:
`safeerase sweep` their files, then `safeerase report` with `--sweep` and `--output`.
"""

import re
from pathlib import Path

import pandas as pd

import safeerase_lite as sl
from safeerase_lite.report.attacks import SHOWN
from safeerase_lite.unlearning.objectives import UNTRAINED

ROOT = Path(__file__).resolve().parents[1]
RESULTS, CHART = ROOT / "results", ROOT / "docs" / "over_forgetting.png"
ASSETS = Path(sl.__file__).parent / "tinyworld" / "assets"
COLUMNS = ["model", "attack", "variant", "strength", "metric", "value", "low", "high", "n",
           "n_kinds", "seeds", "gold", "excess", "excess_low", "excess_high",
           "finding"]  # fmt: skip


def attacks(table: pd.DataFrame) -> pd.DataFrame:
    """What a report shows of requested hazards and of the safe objects that PD has seen, and how
    many plans are completed."""
    shown = table["metric"].isin(SHOWN) & (table["kinds"] == "seen")
    return table.loc[shown, COLUMNS]


def requests(table: pd.DataFrame) -> pd.DataFrame:
    """All groups after each request, in one world."""
    return table.drop(columns="world")


def cues(table: pd.DataFrame) -> pd.DataFrame:
    """SARR of PO plain, with the placebo and with all kinds of PD, on harmless test pictures."""
    shown = table["objective"].eq("po") & table["metric"].eq("sarr") & table["split"].eq("test")
    shown &= table["kinds"].ne("all") & table["templates"].eq("seen")
    all_kinds = table["decouple"].ne("pd") | table["decouple_kinds"].eq("all")
    columns = ["cue", "objective", "decouple", "split", "kinds", "templates", "metric", "value",
               "low", "high", "n", "n_kinds", "seeds", "least", "most"]  # fmt: skip
    return table.loc[shown & all_kinds, columns]


# result → its file, and what of it ships
TABLES = {
    "cue": ("table.csv", cues),
    "robustness": ("attacks.csv", attacks),
    "sequential": ("requests.csv", requests),
}


def shipped(result: str) -> pd.DataFrame:
    """The part of a committed result that ships."""
    file, part_of = TABLES[result]
    return part_of(pd.read_csv(RESULTS / result / file))


def about(result: str) -> str:
    """How a committed result says that it was made, in a line."""
    report = (RESULTS / result / "report.md").read_text(encoding="utf-8")
    [command] = re.findall(r"^- Command: (.+)$", report, re.M)
    [runs] = re.findall(r"^- (\d+ runs\. Versions: .+?)\.?$", report, re.M)
    named = set(re.findall(r"Data: (.+?)\.(?:\s|$)", report))
    [data] = [all_of_it for all_of_it in named if all(part in all_of_it for part in named)]
    return f"`{command}`: {runs}; {data}"


def chart():
    """SARR of ten seeds on test pictures, of every objective that was trained."""
    table = pd.read_csv(RESULTS / "paper_table" / "table.csv")
    return sl.plots.over_forgetting(table[~table["objective"].isin(UNTRAINED)], split="test")


if __name__ == "__main__":
    sl.plots.save(chart(), CHART)
    for result in TABLES:
        target = ASSETS / result
        target.mkdir(exist_ok=True)
        shipped(result).to_csv(target / "metrics.csv", index=False, float_format="%.4g")
        (target / "about.txt").write_text(about(result) + "\n", encoding="utf-8")
