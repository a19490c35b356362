"""What a second worker is worth: one sweep by one worker and by two, a thread each, side by side.

`python benchmarks/sweep_scaling.py` executes notebook 03 four times for each, into ledgers of its
own, turn by turn (one, two, two, one, so that a machine that warms up favours neither), and writes
`sweep_scaling.csv`. The machine must have nothing else to do.
"""

import os
import tempfile
import time
from pathlib import Path

import pandas as pd

from safeerase_lite.runs import sweep
from safeerase_lite.runs.executor import cpu_count

HERE = Path(__file__).parent
GRID = """
notebook: {notebook}
parameters: {{precision: dense, decouple: none, steps: 12}}
seeds: [0, 1, 2, 3]
grid: {{objective: po}}
"""


def seconds(workers: int) -> float:
    """How long the sweep takes, from an empty ledger."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "four.yaml"
        file.write_text(GRID.format(notebook=HERE.parent / "notebooks" / "03_unlearn.ipynb"))
        begin = time.perf_counter()
        outcomes = sweep.run_sweep(sweep.load(file), "four", Path(folder), workers=workers)
        assert {outcome.status for outcome in outcomes.values()} == {"complete"}
        return time.perf_counter() - begin


def main() -> None:
    print(f"{cpu_count()} cores, load {os.getloadavg()[0]:.1f} before")
    rows = [{"workers": workers, "seconds": seconds(workers)} for workers in (1, 2, 2, 1)]
    table = pd.DataFrame(rows).groupby("workers")["seconds"].agg(["mean", "min", "max"]).round(1)
    table["speed-up"] = (table.loc[1, "mean"] / table["mean"]).round(2)
    print(table)
    table.to_csv(HERE / "sweep_scaling.csv")


if __name__ == "__main__":
    main()
