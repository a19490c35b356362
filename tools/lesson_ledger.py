"""Make the small ledger that ships with the lessons: `python tools/lesson_ledger.py`.

Every objective plain and with PD, PO with the placebo, weights matched, the projector frozen, and
for PO, the sign of harm less and less reliable; one seed, the default tiny world. About ten minutes
on two cores; finished runs are stored in `output/lessons` and not repeated.
"""

import platform
from itertools import product
from pathlib import Path

import pandas as pd
import torch
import transformers

import safeerase_lite as sl
from safeerase_lite.config import Config, config
from safeerase_lite.lessons.demo import run_all
from safeerase_lite.unlearning.objectives import OBJECTIVES

RUNS = Path("output/lessons")
TARGET = Path(sl.__file__).parent / "tinyworld" / "assets" / "lessons"

SETTINGS = ["objective", "decouple", "weights", "projector", "cue", "seed"]
COLUMNS = [*SETTINGS, "split", "kinds", "templates", "metric", "value", "low", "high", "n",
           "kinds_hit", "n_kinds"]  # fmt: skip


def grid() -> list[Config]:
    base = config(precision="dense")
    cells = [("vanilla", "none"), ("gold", "none"), ("po", "placebo")]
    cells += product(OBJECTIVES, ("none", "pd"))
    fields = [{"objective": objective, "decouple": decouple} for objective, decouple in cells]
    fields += [
        {"objective": objective, "decouple": "pd", "weights": "matched"}
        for objective in ("ga", "gd", "npo")
    ]
    fields += [
        {"objective": "po", "decouple": decouple, "projector": "frozen"}
        for decouple in ("none", "pd")
    ]
    fields += [
        {"objective": "po", "decouple": decouple, "cue": cue}
        for cue in (0.0, 0.8)
        for decouple in ("none", "pd", "placebo")
    ]
    return [config(base, **changes) for changes in fields]


def table(runs: Path) -> pd.DataFrame:
    """The grid's metrics on test (on train, of the forget questions): overall, of seen and unseen
    kinds, and in the 2×2."""
    metrics = sl.ledger.load(runs, allow_mixed=True).metrics
    split = metrics["split"].isin(["train", "test"])
    of_kinds = (metrics["kinds"] != "all") | (metrics["templates"] == "all")
    untrained = metrics["objective"].isin(["vanilla", "gold"])
    metrics["projector"] = metrics["projector"].where(~untrained, "none")
    rows = metrics.loc[split & of_kinds, COLUMNS]
    return rows.sort_values([*SETTINGS, "split"], kind="stable")


def about(runs: Path) -> str:
    data = sl.ledger.load(runs, allow_mixed=True).runs.groupby("cue")["data_hash"].first()
    hashes = ", ".join(f"cue {cue:g}: {digest}" for cue, digest in data.items())
    return (
        f"{len(grid())} runs by `python tools/lesson_ledger.py`; seed 0, dense, tiny world "
        f"({hashes}); safeerase-lite {sl.__version__}, torch {torch.__version__}, transformers "
        f"{transformers.__version__}, Python {platform.python_version()}"
    )


if __name__ == "__main__":
    run_all(grid(), RUNS, workers=2)
    TARGET.mkdir(exist_ok=True)
    table(RUNS).to_csv(TARGET / "metrics.csv", index=False, float_format="%.4g")
    (TARGET / "about.txt").write_text(about(RUNS) + "\n", encoding="utf-8")
