"""Make the small ledger that ships with the lessons: `python tools/lesson_ledger.py`.

Every objective plain and with PD, PO with the placebo, weights matched, the projector frozen, and
the sign of harm less and less reliable; one seed, the default tiny world. About ten minutes on two
cores; finished runs are kept in `output/lessons` and not repeated.
"""

import platform
from itertools import product
from pathlib import Path

import pandas as pd
import torch
import transformers

import safeerase_lite as sl
from safeerase_lite.lessons.demo import OBJECTIVES, Job, run_all

RUNS = Path("output/lessons")
TARGET = Path(sl.__file__).parent / "tinyworld" / "assets" / "lessons"

SETTINGS = ["objective", "decouple", "weights", "projector", "cue", "seed"]
COLUMNS = [*SETTINGS, "split", "kinds", "templates", "metric", "value", "low", "high", "n"]


def grid() -> list[Job]:
    trained = list(product((*OBJECTIVES, "npo"), ("none", "pd")))
    cells = [("vanilla", "none"), ("gold", "none"), ("po", "placebo"), *trained]
    jobs = [Job("default", *cell) for cell in cells]
    jobs += [
        Job("default", objective, "pd", weights="matched") for objective in ("ga", "gd", "npo")
    ]
    jobs += [Job("default", "po", decouple, projector="frozen") for decouple in ("none", "pd")]
    by_cue = [("vanilla", "none"), ("po", "placebo"), *product(OBJECTIVES, ("none", "pd"))]
    return jobs + [Job("default", *cell, cue=cue) for cue in (0.0, 0.8) for cell in by_cue]


def table(runs: Path) -> pd.DataFrame:
    """The grid's metrics on test (and on train, of the forget questions), the 2×2 and its whole."""
    metrics = sl.ledger.load(runs, allow_mixed=True).metrics
    asked = metrics["split"].isin(["train", "test"])
    inner = (metrics["kinds"] != "all") & (metrics["templates"] != "all")
    outer = (metrics["kinds"] == "all") & (metrics["templates"] == "all")
    untrained = metrics["objective"].isin(["vanilla", "gold"])
    metrics["projector"] = metrics["projector"].where(~untrained, "none")
    kept = metrics.loc[asked & (inner | outer), COLUMNS]
    return kept.sort_values([*SETTINGS, "split"], kind="stable")


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
