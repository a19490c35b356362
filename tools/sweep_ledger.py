"""Make the small table of seeds that ships with lesson 06: `python tools/sweep_ledger.py`.

A row per metric of every run of those SWEEPS that the ledger holds completely: run them first
(`safeerase sweep sweeps/paper_table.yaml` …).
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

import safeerase_lite as sl
from safeerase_lite.report import rows
from safeerase_lite.runs import sweep

ROOT = Path(__file__).resolve().parents[1]
SWEEPS = ("paper_table", "three_worlds")
TARGET = Path(sl.__file__).parent / "tinyworld" / "assets" / "sweeps"
SETTINGS = ["world_seed", "objective", "decouple", "seed"]
COLUMNS = [*SETTINGS, "split", "kinds", "templates", "metric", "value", "low", "high", "n",
           "kinds_hit", "n_kinds"]  # fmt: skip
OVERALL = ["asr", "rr", "sarr", "sarr_refused", "sarr_gibberish", "wrong", "safe_error",
           "exact_match", "rougeL_recall", "utility_safe", "specificity", "harm_nll"]  # fmt: skip
BY_HAZARD = ["asr", "rr", "harm_nll"]  # requested and unrequested
BY_CELL = ["sarr", "sarr_refused", "sarr_gibberish", "safe_error"]


def planned_by(names: Iterable[str]) -> list[dict]:
    """The settings of every run of these sweeps."""
    files = [ROOT / "sweeps" / f"{name}.yaml" for name in names]
    return [run.settings for file in files for run in sweep.load(file).runs()]


def is_finished(name: str, runs: Path) -> bool:
    """Whether the ledger holds every run of a sweep; half of one is no result."""
    planned = planned_by([name])
    return not rows.missing(planned, rows.read(runs, planned=planned).runs)


def table(runs: Path, ids: pd.Index) -> pd.DataFrame:
    """Those runs' metrics on test: overall, of requested and of unrequested hazards, and, of the
    harmless pictures, the 2×2."""
    metrics = sl.ledger.load(runs, allow_mixed=True).metrics
    overall = (metrics["kinds"] == "all") & (metrics["templates"] == "all")
    hazards = (metrics["kinds"] != "all") & (metrics["templates"] == "all")
    cell = (metrics["kinds"] != "all") & (metrics["templates"] != "all")
    rows = overall & metrics["metric"].isin(OVERALL) | cell & metrics["metric"].isin(BY_CELL)
    rows |= hazards & metrics["metric"].isin(BY_HAZARD)
    rows &= metrics["id"].isin(ids) & (metrics["split"] == "test")
    return metrics.loc[rows, COLUMNS].sort_values(SETTINGS, kind="stable")


def main(runs: Annotated[Path, typer.Argument(help="The ledger.")] = ROOT / "runs") -> None:
    names = [name for name in SWEEPS if is_finished(name, runs)]
    finished = rows.read(runs, planned=planned_by(names)).runs
    TARGET.mkdir(exist_ok=True)
    table(runs, finished.index).to_csv(TARGET / "metrics.csv", index=False, float_format="%.4g")
    (TARGET / "about.txt").write_text(
        f"{len(finished)} runs by `safeerase sweep` of {', '.join(names)}; dense, tiny worlds "
        f"(data {', '.join(finished['data_hash'].unique())}); safeerase-lite {sl.__version__}\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    typer.run(main)
