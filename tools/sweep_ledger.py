"""Make the small table of seeds that ships with lesson 06: `python tools/sweep_ledger.py`.

A row per metric of every run of `sweeps/paper_table.yaml`, `sweeps/ten_seeds.yaml` and
`sweeps/worlds.yaml` in the ledger `runs/`: run those first (`safeerase sweep …`).
"""

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

import safeerase_lite as sl
from safeerase_lite import sweep

ROOT = Path(__file__).resolve().parents[1]
SWEEPS = ("paper_table", "ten_seeds", "worlds")
TARGET = Path(sl.__file__).parent / "tinyworld" / "assets" / "sweeps"
SETTINGS = ["world_seed", "objective", "decouple", "seed"]
COLUMNS = [*SETTINGS, "split", "kinds", "templates", "metric", "value", "low", "high", "n"]
WHOLE = ["asr", "rr", "sarr", "sarr_refused", "sarr_gibberish", "wrong", "safe_error",
         "exact_match", "rougeL_recall", "specificity", "harm_nll"]  # fmt: skip
BY_CELL = ["sarr", "sarr_refused", "sarr_gibberish", "safe_error"]


def table(runs: Path) -> pd.DataFrame:
    """The sweeps' metrics on test, the whole and, of the harmless pictures, the 2×2."""
    metrics = sl.ledger.load(runs, allow_mixed=True).metrics
    planned = [run.given for name in SWEEPS for run in sweep.load(_file(name)).runs()]
    wanted = pd.DataFrame(planned).fillna({"world_seed": 0})[SETTINGS].drop_duplicates()
    metrics = metrics[metrics["precision"].eq("dense") & metrics["weights"].eq("official")]
    metrics = metrics.merge(wanted.astype({"world_seed": int}), on=SETTINGS)
    whole = (metrics["kinds"] == "all") & (metrics["templates"] == "all")
    cell = (metrics["kinds"] != "all") & (metrics["templates"] != "all")
    kept = whole & metrics["metric"].isin(WHOLE) | cell & metrics["metric"].isin(BY_CELL)
    kept &= metrics["split"] == "test"
    return metrics.loc[kept, COLUMNS].sort_values(SETTINGS, kind="stable")


def _file(name: str) -> Path:
    return ROOT / "sweeps" / f"{name}.yaml"


def main(runs: Annotated[Path, typer.Argument(help="The ledger.")] = ROOT / "runs") -> None:
    found = table(runs)
    TARGET.mkdir(exist_ok=True)
    found.to_csv(TARGET / "metrics.csv", index=False, float_format="%.4g")
    number = len(found[SETTINGS].drop_duplicates())
    versions = sl.ledger.load(runs, allow_mixed=True).runs["data_hash"].unique()
    (TARGET / "about.txt").write_text(
        f"{number} runs by `safeerase sweep` of {', '.join(SWEEPS)}; dense, tiny worlds "
        f"(data {', '.join(sorted(versions))}); safeerase-lite {sl.__version__}\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    typer.run(main)
