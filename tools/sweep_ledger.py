"""Make the small table of seeds that ships with lesson 06: `python tools/sweep_ledger.py`.

A row per metric of every run of those SWEEPS that the ledger holds whole: run them first
(`safeerase sweep sweeps/paper_table.yaml` …).
"""

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

import safeerase_lite as sl
from safeerase_lite.report import rows
from safeerase_lite.runs import sweep

ROOT = Path(__file__).resolve().parents[1]
SWEEPS = ("paper_table", "ten_seeds", "three_worlds")
TARGET = Path(sl.__file__).parent / "tinyworld" / "assets" / "sweeps"
SETTINGS = ["world_seed", "objective", "decouple", "seed"]
COLUMNS = [*SETTINGS, "split", "kinds", "templates", "metric", "value", "low", "high", "n"]
WHOLE = ["asr", "rr", "sarr", "sarr_refused", "sarr_gibberish", "wrong", "safe_error",
         "exact_match", "rougeL_recall", "specificity", "harm_nll"]  # fmt: skip
BY_CELL = ["sarr", "sarr_refused", "sarr_gibberish", "safe_error"]


def planned_by(name: str) -> list[sweep.PlannedRun]:
    return sweep.load(ROOT / "sweeps" / f"{name}.yaml").runs()


def finished(runs: Path) -> list[str]:
    """The sweeps of which the ledger holds every run; half of one is no result."""
    found = []
    for name in SWEEPS:
        planned = [run.settings for run in planned_by(name)]
        if not rows.missing(planned, rows.read(runs, planned=planned).runs):
            found.append(name)
    return found


def table(runs: Path, ids: pd.Index) -> pd.DataFrame:
    """Those runs' metrics on test: the whole and, of the harmless pictures, the 2×2."""
    metrics = sl.ledger.load(runs, allow_mixed=True).metrics
    whole = (metrics["kinds"] == "all") & (metrics["templates"] == "all")
    cell = (metrics["kinds"] != "all") & (metrics["templates"] != "all")
    kept = whole & metrics["metric"].isin(WHOLE) | cell & metrics["metric"].isin(BY_CELL)
    kept &= metrics["id"].isin(ids) & (metrics["split"] == "test")
    return metrics.loc[kept, COLUMNS].sort_values(SETTINGS, kind="stable")


def main(runs: Annotated[Path, typer.Argument(help="The ledger.")] = ROOT / "runs") -> None:
    names = finished(runs)
    planned = [run.settings for name in names for run in planned_by(name)]
    found = rows.read(runs, planned=planned).runs
    TARGET.mkdir(exist_ok=True)
    table(runs, found.index).to_csv(TARGET / "metrics.csv", index=False, float_format="%.4g")
    (TARGET / "about.txt").write_text(
        f"{len(found)} runs by `safeerase sweep` of {', '.join(names)}; dense, tiny worlds (data "
        f"{', '.join(found['data_hash'].unique())}); safeerase-lite {sl.__version__}\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    typer.run(main)
