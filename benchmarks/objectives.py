"""What training by each objective costs, plain and with PD, beside plain PO: one after another in
one process, on one CPU thread, on the tiny profile.

`python benchmarks/objectives.py` writes `objectives.csv` and a section of RESULTS.md. A ratio is to
PO's CPU time in the same turn; its median, least and most over turns.
"""

import argparse
import tempfile
import time
import warnings
from pathlib import Path

import pandas as pd
import sections
import torch

import safeerase_lite as sl
from safeerase_lite.unlearning.objectives import OBJECTIVES, label_of

HERE = Path(__file__).parent
STEPS = 16


def rows() -> list[tuple[str, str]]:
    """objective, decouple."""
    return [
        (name, decouple)
        for name, objective in OBJECTIVES.items()
        for decouple in ("none", "pd")
        if not (objective.negated and decouple == "pd")
    ]


def seconds(objective: str, decouple: str, folder: Path) -> float:
    """CPU seconds of a short training, from a loaded model to its adapter."""
    config = sl.config(
        "tiny", precision="dense", objective=objective, decouple=decouple, steps=STEPS
    )
    data, model = sl.load_data(config), sl.load_model(config)
    begin = time.process_time()
    sl.unlearn(model, data, config, runs_dir=folder)
    return time.process_time() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=3)
    turns = parser.parse_args().turns
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    measured = []
    for turn in range(turns):
        with tempfile.TemporaryDirectory() as temporary:
            for objective, decouple in rows():
                cost = seconds(objective, decouple, Path(temporary))
                measured.append({"turn": turn, "objective": objective, "decouple": decouple,
                                 "seconds": cost})  # fmt: skip
    table = pd.DataFrame(measured)
    of_po = table[(table["objective"] == "po") & (table["decouple"] == "none")]
    table["ratio"] = table["seconds"] / table["turn"].map(of_po.set_index("turn")["seconds"])
    by_row = table.groupby(["objective", "decouple"], sort=False)["ratio"]
    summary = by_row.agg(["median", "min", "max"]).round(2).reset_index()
    summary.to_csv(HERE / "objectives.csv", index=False)
    summary["objective"] = summary["objective"].map(label_of)
    text = (
        f"CPU seconds of {STEPS} steps beside those of plain PO, {turns} turns, one thread; "
        f"{sections.versions()}.\n\n{sections.markdown(summary.to_dict('records'))}"
    )
    sections.write("Objectives: seconds beside plain PO", text)
    print(text)


if __name__ == "__main__":
    main()
