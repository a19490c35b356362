"""The chart of every seed says their spread in words and keeps every number."""

import pandas as pd
import pytest

from safeerase_lite.report import plots as charts
from safeerase_lite.utils import UserError

TABLE = pd.DataFrame(
    [("po", d, s, v + s / 100) for d, v in (("none", 0.9), ("pd", 0.2)) for s in range(3)],
    columns=["objective", "decouple", "seed", "value"],
)


def test_the_chart_of_seeds_says_the_lowest_and_the_highest():
    assert "PO plain 90% to 92%; PO PD 20% to 22%" in charts.seeds(TABLE).description


def test_every_seed_is_among_the_numbers():
    numbers = charts.numbers(charts.seeds(TABLE))
    assert list(numbers) == ["objective", "training", "seed 0", "seed 1", "seed 2"]
    assert numbers.loc[0, "seed 2"] == 0.92


def test_trainings_differ_in_shape_as_well_as_colour():
    spec = charts.seeds(TABLE).to_dict()
    encoding = spec["layer"][0]["encoding"]
    assert encoding["shape"]["scale"]["range"] == ["circle", "diamond"]
    assert len(set(encoding["color"]["scale"]["range"])) == 2


def test_no_seed_is_an_error_and_an_objective_of_ones_own_is_drawn():
    with pytest.raises(UserError, match="no seed"):
        charts.seeds(TABLE.iloc[:0])
    assert charts.png(charts.seeds(TABLE.assign(objective="mine")))[:4] == b"\x89PNG"
