"""Charts of data sets: a share and its interval at a few steps, series side by side."""

import pandas as pd
import pytest

from safeerase_lite.report import plots as charts


@pytest.fixture
def rows():
    """Two series at four steps, the steps not in the order of their names."""
    return pd.DataFrame(
        {"copies": step, "val": val, "value": 0.2 * n, "low": 0.2 * n - 0.1, "high": 0.2 * n + 0.1}
        for n, step in enumerate(["75%", "0%", "50%", "25%"], 1)
        for val in ("as it is", "mended")
    )


@pytest.fixture
def chart(rows):
    return charts.interval_steps(rows, x="copies", y="share right", series="val", about="Leaks.")


def test_series_are_told_apart_by_shape_and_by_place_as_well_as_by_colour(chart):
    points = chart.to_dict()["layer"][1]["encoding"]
    assert points["color"]["scale"]["domain"] == points["shape"]["scale"]["domain"]
    assert len(set(points["color"]["scale"]["range"])) == 2
    assert len(set(points["shape"]["scale"]["range"])) == 2
    assert points["xOffset"]["field"] == "val"


def test_steps_keep_the_order_of_the_rows(chart):
    points = chart.to_dict()["layer"][1]["encoding"]
    assert points["x"]["sort"] == ["75%", "0%", "50%", "25%"]


def test_shares_are_drawn_from_none_to_all_whatever_their_range(chart):
    rules = chart.to_dict()["layer"][0]["encoding"]
    assert rules["y"]["scale"]["domain"] == [0, 1]


def test_intervals_are_read_out_in_the_description_and_kept_in_the_table(rows, chart):
    assert chart.description.startswith("Leaks. ")
    assert "as it is: 75% 20% [10%, 30%], 0% 40% [30%, 50%]" in chart.description
    assert list(charts.numbers(chart)) == ["copies", "val", "value", "low", "high"]
    assert len(charts.numbers(chart)) == len(rows)


def test_it_is_a_small_picture_on_white(chart):
    assert chart.to_dict()["background"] == "white"
    assert len(charts.png(chart)) < 40 * 1024
