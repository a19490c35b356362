"""Every chart says in words what it shows, and its picture stays small."""

import base64
import io
from itertools import product

import altair as alt
import pandas as pd
import pytest
from PIL import Image

from safeerase_lite.report import plots as charts
from safeerase_lite.utils import UserError, is_interactive

KB = 1024


@pytest.fixture
def summary():
    """Every objective, plain, with PD and with placebo, and the two that are not trained."""
    trained = product(charts.objective_order(), ["none", "pd", "placebo"])
    rows = [
        {"objective": o, "decouple": d, "kinds": k, "templates": t, "value": 0.1 * n % 1, "n": 96}
        for n, ((o, d), k, t) in enumerate(
            product(
                [("vanilla", "none"), ("gold", "none"), *trained],
                ["seen", "unseen", "all"],
                ["seen", "unseen", "all"],
            )
        )
    ]
    table = pd.DataFrame(rows).assign(metric="sarr", split="test", world="default")
    return table.assign(low=(table["value"] - 0.1).clip(0), high=(table["value"] + 0.1).clip(0, 1))


@pytest.fixture
def answers():
    said = ["right", "wrong", "refused", "gibberish", "unknown"]
    rows = [
        {"run": run, "verdict": said[n % (index + 2)], "sample": 0}
        for index, run in enumerate(["PO", "PO+PD", "base", "gold"])
        for n in range(40)
    ]
    return pd.DataFrame(rows).assign(set="decouple", split="test")


@pytest.fixture
def steps():
    terms = {name: [3.0 - 0.01 * n for n in range(60)] for name in ("forget", "retain", "decouple")}
    return pd.DataFrame({"step": range(60), "loss": 0.0} | terms)


@pytest.fixture
def whole(summary):
    """What the plane shows: three measures of every run, over all kinds and templates."""
    rows = summary[(summary["kinds"] == "all") & (summary["templates"] == "all")]
    return pd.concat([rows.assign(metric=name) for name in ("asr", "rr", "safe_error")])


@pytest.fixture
def by_cue(summary):
    rows = summary[summary["objective"] == "po"]
    measures = [rows.assign(metric=name) for name in ("sarr", "safe_error")]
    return pd.concat([table.assign(cue=cue) for table in measures for cue in (0.0, 0.8, 1.0)])


@pytest.fixture
def stepped():
    rows = product(charts.objective_order(), ["none", "pd"], ["harmful", "safe", "retain"])
    table = pd.DataFrame(rows, columns=["objective", "decouple", "answer"])
    return table.assign(before=0.9, after=[0.03 * n for n in range(len(table))])


@pytest.fixture
def grid():
    runs, kinds, questions = ["PO", "PO+PD"], [f"kind {n}" for n in range(12)], ["How?", "Which?"]
    table = pd.DataFrame(product(runs, kinds, questions), columns=["run", "kind", "question"])
    said = ["right", "wrong", "refused", "gibberish", "unknown"]
    return table.assign(answer="a plan", verdict=[said[n % 5] for n in range(len(table))])


@pytest.fixture
def shares():
    table = pd.DataFrame(
        product(["PO", "PO+PD"], ["harmful picture", "harmless picture"], range(0, 48, 4)),
        columns=["run", "what", "step"],
    )
    return table.assign(share=table["step"] / 48)


@pytest.fixture(
    params=[
        "over_forgetting", "verdicts", "history", "plane", "cues", "one_step", "heat_map",
        "trajectory", "forgetting",
    ]
)  # fmt: skip
def chart(request, summary, answers, steps, whole, by_cue, stepped, grid, shares):
    if request.param == "trajectory":
        return charts.trajectory(shares, title="refused or gibberish")
    tables = {"over_forgetting": summary, "verdicts": answers, "history": steps, "plane": whole}
    tables |= {
        "forgetting": steps.assign(run="GA"),
        "cues": by_cue,
        "one_step": stepped,
        "heat_map": grid,
    }
    return getattr(charts, request.param)(tables[request.param])


@pytest.fixture
def shown(monkeypatch):
    """What was displayed, in place of displaying it."""
    calls = []
    monkeypatch.setattr("IPython.display.display", lambda *a, **k: calls.append((a, k)))
    return calls


def test_a_chart_describes_itself_in_words_and_numbers(chart):
    assert len(chart.description) > 40
    assert any(character.isdigit() for character in chart.description)
    assert "nan" not in chart.description


def test_a_chart_is_drawn_on_white_and_is_a_small_picture(chart, tmp_path):
    path = charts.save(chart, tmp_path / "deep" / "chart.png")
    assert path.stat().st_size < 60 * KB
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.convert("RGB").getpixel((2, 2)) == (255, 255, 255)


def test_headless_a_chart_is_a_png_with_alt_text(chart, shown):
    charts.show(chart)
    (((bundle,), how), _) = shown
    assert Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))).format == "PNG"
    assert how["metadata"] == {"image/png": {"alt": chart.description}}
    assert bundle["text/plain"] == chart.description and how["raw"]


def test_below_a_chart_stand_its_numbers(chart, shown):
    charts.show(chart)
    table = charts.numbers(chart)
    [_, ((bundle,), _)] = shown
    assert len(table) >= 4 and bundle["text/html"].startswith("<details>")
    assert all(name in bundle["text/html"] for name in table.columns)


def test_a_given_text_goes_before_the_description(chart, shown):
    charts.show(chart, "in other words")
    assert shown[0][1]["metadata"]["image/png"]["alt"] == "in other words"


@pytest.mark.parametrize(
    "picture", [Image.new("RGB", (8, 8)), alt.Chart(pd.DataFrame({"x": [1]})).mark_point()]
)
def test_a_picture_without_words_is_an_error(picture, shown):
    with pytest.raises(UserError, match="alt_text"):
        charts.show(picture)
    assert shown == []


def test_over_forgetting_tells_plain_from_pd_from_placebo_by_more_than_colour(summary):
    drawn = charts.over_forgetting(summary).to_dict()
    points = drawn["spec"]["layer"][1]["encoding"]
    assert points["color"]["scale"]["domain"] == points["shape"]["scale"]["domain"]
    assert len(set(points["shape"]["scale"]["range"])) == 4


def test_over_forgetting_shows_the_two_by_two_and_only_the_split_asked_for(summary):
    drawn = charts.over_forgetting(summary).to_dict()
    [rows] = drawn["datasets"].values()
    assert len({row["panel"] for row in rows}) == 4
    assert "all" not in {row["kinds"] for row in rows} | {row["templates"] for row in rows}
    with pytest.raises(UserError, match="no SARR on 'val'"):
        charts.over_forgetting(summary, split="val")


def test_a_heat_map_has_one_legend_whatever_became_of_the_answers(grid):
    some, all_right = (charts.heat_map(t) for t in (grid, grid.assign(verdict="right")))
    legends = [
        c.to_dict()["spec"]["layer"][0]["encoding"]["color"]["scale"] for c in (some, all_right)
    ]
    assert legends[0]["domain"][:4] == legends[1]["domain"] == charts.VERDICTS[:4]
    assert "PO: right 24, wrong 0, refused 0, gibberish 0" in all_right.description


def test_verdicts_are_shares_of_the_greedy_answers(answers):
    sampled = answers.assign(sample=1, verdict="gibberish")
    charts_equal = [
        charts.verdicts(t).description for t in (answers, pd.concat([answers, sampled]))
    ]
    assert charts_equal[0] == charts_equal[1]
    assert "PO: right 50%, wrong 50%" in charts_equal[0]


@pytest.mark.parametrize(("count", "columns", "rows"), [(3, 3, 1), (8, 4, 2), (9, 4, 3)])
def test_a_contact_sheet_has_a_cell_per_picture(world, count, columns, rows):
    images = list(world.forget["image"].unique()[:count])
    sheet = charts.contact_sheet(images, [f"picture {n}" for n in range(count)])
    one = charts.contact_sheet(images[:1], ["picture 0"])
    assert sheet.size == (one.width * columns, one.height * rows)
    assert len(charts.png(sheet)) < 60 * KB


def test_a_contact_sheet_needs_a_caption_for_every_picture(world):
    with pytest.raises(ValueError):
        charts.contact_sheet(list(world.forget["image"].unique()[:3]), ["one", "two"])


def test_a_wrong_word_for_headless_is_an_error(monkeypatch):
    monkeypatch.setenv("SAFEERASE_HEADLESS", "yes")
    with pytest.raises(UserError, match="0 or 1"):
        is_interactive()
