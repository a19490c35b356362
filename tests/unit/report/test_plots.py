"""Every chart says in words what it shows, stays small, and has a second cue beside colour."""

import base64
import io
from itertools import product
from types import SimpleNamespace

import altair as alt
import pandas as pd
import pytest
from PIL import Image

from safeerase_lite.evaluation.metrics import UTILITY
from safeerase_lite.report import plots
from safeerase_lite.utils import UserError, is_interactive

MAX_BYTES = 60 * 1024  # two pictures beside the text of a notebook, which has 150 KB in all
SEEN = ["seen", "unseen", "all"]
OUTCOMES = ["right", "wrong", "refused", "gibberish", "unknown"]
TRAINED = list(product(plots.objective_order(), ["none", "pd", "placebo"]))


def summary():
    """Every objective, plain, with PD and with placebo, and the two that are not trained."""
    models = [("vanilla", "none"), ("gold", "none"), *TRAINED]
    rows = pd.DataFrame(product(models, SEEN, SEEN), columns=["model", "kinds", "templates"])
    rows[["objective", "decouple"]] = rows["model"].tolist()
    value = pd.Series([0.1 * n % 1 for n in range(len(rows))])
    rows = rows.assign(metric="sarr", split="test", world="default", value=value, n=96)
    return rows.assign(low=(value - 0.1).clip(0), high=(value + 0.1).clip(0, 1))


def over_all():
    rows = summary().query("kinds != 'unseen' and templates == 'all'")
    hazards, harmless = rows.query("kinds == 'seen'"), rows.query("kinds == 'all'")
    return pd.concat([hazards.assign(metric="asr"), hazards.assign(metric="rr"),
                      harmless.assign(metric="safe_error")])  # fmt: skip


def candidates():
    """Every objective plain and with PD at four rates of two seeds, and the untrained models."""
    models = [*product(plots.objective_order(), ["none", "pd"]), ("vanilla", "none")]
    rows = [(*model, rate, seed) for model in models for rate in range(4) for seed in range(2)]
    rows += [("gold", "none", float("nan"), 0)]
    table = pd.DataFrame(rows, columns=["objective", "decouple", "learning_rate", "seed"])
    rate, pd_ = table["learning_rate"].fillna(3), table["decouple"] == "pd"
    cells = [(name, "all", "all", 0.9 - 0.1 * rate) for name in UTILITY]
    cells += [("asr", "seen", "all", 0.3 - 0.1 * rate), ("asr", "all", "all", 0.9),
              ("sarr", "seen", "seen", 1 - 0.9 * pd_)]  # fmt: skip
    return pd.concat(
        table.assign(metric=metric, kinds=kinds, templates=templates, split="test", value=value)
        for metric, kinds, templates, value in cells
    )


def by_cue():
    rows = summary().query("objective == 'po'")
    measures = [rows.assign(metric=name) for name in ("sarr", "safe_error")]
    return pd.concat([table.assign(cue=cue) for table in measures for cue in (0.0, 0.8, 1.0)])


def answers():
    rows = [
        {"run": run, "verdict": OUTCOMES[n % (index + 2)], "sample": 0}
        for index, run in enumerate(["PO", "PO+PD", "base", "gold"])
        for n in range(40)
    ]
    return pd.DataFrame(rows).assign(set="decouple", split="test")


def grid():
    places = product(["PO", "PO+PD"], [f"kind {n}" for n in range(12)], ["How?", "Which?"])
    table = pd.DataFrame(places, columns=["run", "kind", "question"])
    return table.assign(answer="a plan", verdict=[OUTCOMES[n % 5] for n in range(len(table))])


def steps():
    terms = {name: [3.0 - 0.01 * n for n in range(60)] for name in ("forget", "retain", "decouple")}
    return pd.DataFrame({"step": range(60), "loss": 0.0} | terms)


def one_step():
    rows = product(plots.objective_order(), ["none", "pd"], ["harmful", "safe", "retain"])
    table = pd.DataFrame(rows, columns=["objective", "decouple", "answer"])
    return table.assign(before=0.9, after=[0.03 * n for n in range(len(table))])


def shares():
    whats = ["harmful picture", "harmless picture"]
    rows = product(["PO", "PO+PD"], whats, range(0, 48, 4), ["refused", "gibberish"])
    table = pd.DataFrame(rows, columns=["run", "what", "step", "verdict"])
    return table.assign(share=table["step"] / 96)


def seeds():
    rows = product(["po", "ga"], [("none", 0.9), ("pd", 0.2)], range(3))
    return pd.DataFrame(
        {"objective": objective, "decouple": decouple, "seed": seed, "value": value + seed / 100}
        for objective, (decouple, value), seed in rows
    )


def copies():
    """Two series at four steps, the steps not in the order of their names."""
    return pd.DataFrame(
        {"copies": step, "val": val, "value": 0.2 * n, "low": 0.2 * n - 0.1, "high": 0.2 * n + 0.1}
        for n, step in enumerate(["75%", "0%", "50%", "25%"], 1)
        for val in ("as it is", "mended")
    )


def interval_steps():
    titles = {"x": "copies", "y": "share right", "series": "val", "about": "Leaks."}
    return plots.interval_steps(copies(), **titles)


def methods():
    """Three shares and the seconds of every objective, and of the models that are not trained."""
    rows = summary().query("kinds == 'seen' and templates == 'all' and decouple != 'placebo'")
    panels = ["ASR requested", "SARR", "retain"]
    shares = [rows.assign(panel=panel) for panel in panels]
    seconds = rows.assign(panel=plots.SECONDS, value=20.0, low=float("nan"), high=float("nan"))
    return pd.concat([*shares, seconds])


def attacked():
    """Three models under an attack in two variants, at strengths that are not in steps."""
    rows = product(["gold", "PO", "PO+PD"], ["words", "picture"], [0.0, 2.0, 10.0])
    table = pd.DataFrame(rows, columns=["model", "variant", "strength"])
    value = pd.Series([0.05 * n for n in range(len(table))])
    return table.assign(value=value, low=value * 0.8, high=value * 0.8 + 0.2)


LOSSES = ["hazard, template", "safe, template", "hazard, ordinary"]
MODELS = ["vanilla", "PO", "PO+PD"]


def cosines():
    """Of every pair of three losses and a control."""
    table = pd.DataFrame(product([*LOSSES, "control"], LOSSES), columns=["first", "second"])
    return table.assign(cosine=[1 - 0.1 * n for n in range(len(table))])


def looks():
    """Attention of three models by layer, with the least and the most over seeds."""
    table = pd.DataFrame(
        product(LOSSES[:2], MODELS, range(1, 5)), columns=["group", "model", "layer"]
    )
    picture = pd.Series([0.04 * n for n in range(len(table))])
    return table.assign(picture=picture, low=picture * 0.9, high=picture * 0.9 + 0.1)


def states():
    rows = product(MODELS, LOSSES[:2], range(10))
    table = pd.DataFrame(rows, columns=["model", "group", "n"])
    return table.assign(x=table["n"] - 4.5, y=[n % 7 for n in range(len(table))])


def lenses():
    """A plan of ten words at four places, of two models."""
    rows = product(MODELS[1:], range(10), range(1, 5))
    table = pd.DataFrame(rows, columns=["model", "token", "layer"])
    answer = table["layer"] / 4 * (table["token"] > 0)
    return table.assign(text="word", answer=answer, refusal=1 - answer)


def dosed():
    rows = product(
        ["PO", "PO+PD"], ["refusal", "random"], ["right", "refused", "begun"], [0.0, 0.5, 1]
    )
    table = pd.DataFrame(rows, columns=["panel", "direction", "measure", "dose"])
    value = table["dose"].where(table["measure"] == "right", 1 - table["dose"])
    return table.assign(value=value, low=value * 0.9, high=value * 0.9 + 0.1)


READS = {"right": "exactly right", "refused": "refused"}

CHARTS = {
    "board": lambda: plots.board(methods(), split="test"),
    "over_forgetting": lambda: plots.over_forgetting(summary()),
    "plane": lambda: plots.plane(over_all()),
    "pareto": lambda: plots.pareto(candidates()),
    "cues": lambda: plots.cues(by_cue()),
    "seeds": lambda: plots.seeds(seeds()),
    "interval_steps": interval_steps,
    "verdicts": lambda: plots.verdicts(answers()),
    "heat_map": lambda: plots.heat_map(grid()),
    "history": lambda: plots.history(steps()),
    "forgetting": lambda: plots.forgetting(steps().assign(run="GA")),
    "trajectory": lambda: plots.trajectory(shares(), title="refused or gibberish"),
    "one_step": lambda: plots.one_step(one_step()),
    "under_attack": lambda: plots.under_attack(attacked(), strength="steps"),
    "two_by_two": lambda: plots.two_by_two("pd"),
    "gradient_cosines": lambda: plots.gradient_cosines(cosines(), [*LOSSES, "control"], LOSSES),
    "attention": lambda: plots.attention(looks()),
    "state_plane": lambda: plots.state_plane(states(), [0.6, 0.25]),
    "logit_lens": lambda: plots.logit_lens(lenses()),
    "doses": lambda: plots.doses(dosed(), READS, title="share taken out"),
}

# Two whose cells say all that a table would, and two of more points than anybody reads.
WITHOUT_TABLE = ["two_by_two", "gradient_cosines", "state_plane", "logit_lens"]


@pytest.fixture
def shown(monkeypatch):
    """What was displayed, in place of displaying it."""
    calls = []
    monkeypatch.setattr("IPython.display.display", lambda *a, **k: calls.append((a, k)))
    return calls


# ---- every chart ----

NO_CHART = {"png", "save", "show", "styled", "numbers", "contact_sheet", "objective_order"}
OF_RELATIONS = {
    "attacks_compared", "best_captions", "collateral", "several", "trade_off", "tuple_graph",
}  # fmt: skip
OF_WEIGHTS = {"level_spacing", "memory", "weight_block"}


def test_every_chart_says_what_one_sees_in_three_seconds():
    named = {name for name in plots.__all__ if name.islower()} - NO_CHART
    assert named == {*CHARTS, *OF_WEIGHTS, *OF_RELATIONS}
    silent = {name for name in named if "In three seconds:" not in getattr(plots, name).__doc__}
    assert not silent


@pytest.mark.parametrize("name", CHARTS)
def test_headless_a_chart_is_a_small_png_on_white_with_alt_text_and_its_numbers(name, shown):
    chart = CHARTS[name]()
    plots.show(chart)
    ((bundle,), options), *below = shown
    png = base64.b64decode(bundle["image/png"])
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG" and image.convert("RGB").getpixel((2, 2)) == (255, 255, 255)
    assert len(png) < MAX_BYTES
    assert len(chart.description) > 40 and "nan" not in chart.description
    has_numbers = any(character.isdigit() for character in chart.description)
    assert has_numbers == (name != "two_by_two")  # which has none
    assert options == {"raw": True, "metadata": {"image/png": {"alt": chart.description}}}
    assert bundle["text/plain"] == chart.description
    if name in WITHOUT_TABLE:
        assert below == []
        return
    table, [((folded,), _)] = plots.numbers(chart), below
    assert len(table) >= 4 and folded["text/html"].startswith("<details>")
    assert all(str(column) in folded["text/html"] for column in table.columns)


def test_a_given_text_goes_before_the_description_and_a_file_into_a_new_folder(shown, tmp_path):
    chart = plots.seeds(seeds())
    plots.show(chart, "in other words")
    assert shown[0][1]["metadata"]["image/png"]["alt"] == "in other words"
    assert plots.save(chart, tmp_path / "deep" / "chart.png").read_bytes() == plots.png(chart)


@pytest.mark.parametrize(
    "picture", [Image.new("RGB", (8, 8)), alt.Chart(pd.DataFrame({"x": [1]})).mark_point()]
)
def test_a_picture_without_words_is_an_error(picture, shown):
    with pytest.raises(UserError, match="alt_text"):
        plots.show(picture)
    assert shown == []


@pytest.mark.parametrize(
    "name",
    [
        *("over_forgetting", "cues", "seeds", "interval_steps", "one_step", "under_attack"),
        *("attention", "doses"),
    ],
)
def test_series_differ_in_shape_as_well_as_colour(name):
    chart = CHARTS[name]().to_dict()
    chart = chart["concat"][0] if "concat" in chart else chart.get("spec", chart)
    layers = [part for layer in chart["layer"] for part in layer.get("layer", [layer])]
    encodings = [layer["encoding"] for layer in layers]
    [points] = [encoding for encoding in encodings if "shape" in encoding]
    colour, shape = points["color"]["scale"], points["shape"]["scale"]
    assert colour["domain"] == shape["domain"]
    for looks in (colour["range"], shape["range"]):
        assert len(set(looks)) == len(looks) == len(colour["domain"]) >= 2


def test_a_wrong_value_for_headless_is_an_error(monkeypatch):
    monkeypatch.setenv("SAFEERASE_HEADLESS", "yes")
    with pytest.raises(UserError, match="0 or 1"):
        is_interactive()


# ---- measures ----


def test_over_forgetting_shows_the_two_by_two_and_only_the_split_asked_for():
    [rows] = plots.over_forgetting(summary()).to_dict()["datasets"].values()
    assert len({row["panel"] for row in rows}) == 4
    assert "all" not in {row["kinds"] for row in rows} | {row["templates"] for row in rows}
    with pytest.raises(UserError, match="unknown split 'val': choose one of test"):
        plots.over_forgetting(summary(), split="val")


SPLIT_CHARTS = [
    (plots.over_forgetting, summary), (plots.plane, over_all), (plots.cues, by_cue),
    (plots.verdicts, answers),
]  # fmt: skip


@pytest.mark.parametrize(("draw", "table"), SPLIT_CHARTS)
def test_a_chart_takes_test_where_there_is_one_else_val(draw, table):
    val, test = table().assign(split="val"), table()
    assert plots.numbers(draw(val)).equals(plots.numbers(draw(test)))
    assert draw(pd.concat([val.head(9), test])).description == draw(test).description


@pytest.mark.parametrize(("draw", "table"), SPLIT_CHARTS)
def test_a_chart_of_no_rows_is_refused_and_one_of_another_split_names_those_there(draw, table):
    with pytest.raises(UserError, match="no rows to measure or draw"):
        draw(table().iloc[:0])
    with pytest.raises(UserError, match="unknown split 'tset': choose one of test; did you mean"):
        draw(table(), split="tset")


def test_over_forgetting_takes_the_report_of_a_run():
    rows = summary().query("objective == 'po' and decouple == 'pd'")
    metrics = rows.drop(columns=["objective", "decouple", "model", "world"])
    report = SimpleNamespace(metrics=metrics, label="PO+PD seed 0")
    assert set(plots.numbers(plots.over_forgetting(report))["objective"]) == {"PO+PD seed 0"}


@pytest.mark.parametrize(
    ("draw", "table"),
    [(plots.over_forgetting, summary), (plots.plane, over_all), (plots.seeds, seeds)],
)
def test_an_objective_of_ones_own_shows_with_and_without_pd(draw, table):
    chart = draw(table().query("objective == 'po'").assign(objective="mine"))
    assert {"plain", "PD"} <= set(plots.numbers(chart)["training"])
    assert plots.png(chart)[:4] == b"\x89PNG"


def test_pareto_shows_every_candidate_between_the_gold_model_and_ideal_behaviour():
    chart = plots.pareto(candidates())
    table = plots.numbers(chart)
    trained = table[table["series"].isin(["plain", "PD"])]
    assert len(trained) == 2 * 4 * len(plots.objective_order())
    assert set(table["series"]) == {"plain", "PD", "gold", "ideal"}
    anchors = table[~table.index.isin(trained.index)].groupby("series").first()
    assert tuple(anchors.loc["ideal", ["utility", "sarr", "asr"]]) == (1, 0, 0)
    assert "PO PD 60% and 10%" in chart.description  # rate 3: requested ASR 0, its utility 60%


def test_pareto_is_hollow_where_more_than_5_percent_of_requested_hazards_are_answered():
    """Only requested hazards count: over all of them ASR is 90% everywhere."""
    [rows] = plots.pareto(candidates()).to_dict()["datasets"].values()
    assert {row["learning_rate"] for row in rows if row["hollow"]} == {0, 1, 2}


def test_pareto_takes_the_median_of_the_seeds():
    table = candidates().query("objective == 'po' and decouple == 'pd'")
    bad = table.query("seed == 0").assign(seed=2, value=1.0)
    numbers = plots.numbers(plots.pareto(pd.concat([table, bad])))
    assert set(numbers.query("series == 'PD'")["sarr"]) == {0.1}
    with pytest.raises(UserError, match="no sarr to draw: .* seen kinds"):
        plots.pareto(table.query("metric != 'sarr'"))


def test_the_plane_is_of_requested_hazards():
    rows = over_all()
    refused = rows["metric"] == "rr"
    unrequested = rows[refused].assign(kinds="unseen", value=1.0)
    both = rows[refused].assign(kinds="all", value=0.99)
    table = pd.concat([rows, unrequested, both])
    assert plots.numbers(plots.plane(table)).equals(plots.numbers(plots.plane(rows)))
    with pytest.raises(UserError, match="no asr, rr to draw"):
        plots.plane(rows.query("kinds == 'all'"))


def test_the_chart_of_seeds_says_the_lowest_and_the_highest_and_lists_each():
    chart = plots.seeds(seeds())
    assert "PO plain 90% to 92%; PO PD 20% to 22%" in chart.description
    numbers = plots.numbers(chart)
    assert list(numbers) == ["objective", "training", "seed 0", "seed 1", "seed 2"]
    assert numbers.loc[0, "seed 2"] == 0.92
    with pytest.raises(UserError, match="no seed"):
        plots.seeds(seeds().iloc[:0])


def test_seeds_that_nearly_agree_share_a_mark_that_counts_them():
    values = [0.10, 0.11, 0.16, 0.5, 1.0, 1.0]
    rows = pd.DataFrame({"objective": "po", "decouple": "pd", "seed": range(6), "value": values})
    marks = drawn(plots.seeds(rows))
    assert list(marks["label"]) == ["×2", "", "", "×2"]
    assert marks["count"].sum() == 6


def test_labels_of_the_plane_stand_apart():
    rows = drawn(plots.plane(over_all())).query("label != ''")
    for _, side in rows.groupby("align"):
        assert (side["label at"].sort_values().diff().dropna() > 0.05).all()
        assert (side["label at"] >= side["right"] - 1e-9).all()


def test_the_chart_of_cues_has_the_ends_of_the_seeds_where_there_are_several():
    several = by_cue().assign(least=lambda t: t["value"] / 2, most=lambda t: t["value"])
    assert "lowest and highest seed" in plots.cues(several).description
    assert "95% interval" in plots.cues(by_cue()).description


def test_strengths_that_are_words_keep_their_order():
    words = {0: "as it is", 2: "changed"}
    rows = attacked()
    rows = rows[rows["strength"].isin(words)].sort_values("strength")
    rows = rows.assign(strength=rows["strength"].map(words))
    x = plots.under_attack(rows).to_dict()["spec"]["layer"][0]["encoding"]["x"]
    assert x["sort"] == list(words.values())


def test_interval_steps_are_in_the_order_of_the_rows_from_none_to_all():
    intervals, points = (layer["encoding"] for layer in interval_steps().to_dict()["layer"])
    assert points["x"]["sort"] == ["75%", "0%", "50%", "25%"]
    assert points["xOffset"]["field"] == "val"
    assert intervals["y"]["scale"]["domain"] == [0, 1]


def test_intervals_are_in_the_description_and_in_the_table():
    chart = interval_steps()
    assert chart.description.startswith("Leaks. ")
    assert "as it is: 75% 20% [10%, 30%], 0% 40% [30%, 50%]" in chart.description
    numbers = plots.numbers(chart)
    assert list(numbers) == ["copies", "val", "value", "low", "high"] and len(numbers) == 8


# ---- inside ----


def drawn(chart):
    """The rows that a chart draws."""
    [rows] = chart.to_dict()["datasets"].values()
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("decouple", "empty"), [("none", 2), ("pd", 1), ("placebo", 1)])
def test_the_two_by_two_shows_which_cells_no_loss_covers(decouple, empty):
    table = drawn(plots.two_by_two(decouple))
    assert (table["asks"] == "nothing").sum() == empty
    safe = table["picture"].str.contains("safe") & table["question"].str.contains("template")
    assert (table[safe]["asks"] == "answer").all() == (decouple == "pd")


def test_cosines_and_doses_draw_the_rows_asked_for_alone():
    chart = plots.gradient_cosines(cosines(), ["control"], LOSSES[:1])
    assert len(drawn(chart)) == 1 and "control 0.10" in chart.description
    chart = plots.doses(dosed(), READS, title="dose")
    assert {"exactly right", "refused"} <= set(plots.numbers(chart))
    assert "begun" not in chart.description
    assert "PO+PD: exactly right 100%, PO+PD: refused 0%" in chart.description.replace(";", ",")


def test_the_lens_s_description_is_of_the_first_word_at_the_last_place():
    assert "PO: plan 0%, refusal 100%" in plots.logit_lens(lenses()).description


# ---- answers ----


def test_a_label_stands_on_its_own_part_of_the_bar():
    rows = [("PO", "refused", 60), ("PO", "gibberish", 35), ("PO", "right", 5)]
    table = pd.DataFrame(
        [{"run": run, "verdict": verdict} for run, verdict, n in rows for _ in range(n)]
    ).assign(set="decouple", split="test")
    bars = drawn(plots.verdicts(table)).set_index("verdict")
    assert list(bars["label"]) == ["+", "refused 60%", "gibberish 35%"]
    assert ((bars["start"] < bars["middle"]) & (bars["middle"] < bars["end"])).all()
    assert bars["end"].max() == pytest.approx(1)


def test_a_line_parts_what_training_showed_from_what_is_new():
    kinds = grid()["kind"].unique()
    table = grid().assign(seen_kind=grid()["kind"].isin(kinds[:6]), seen_template=True)
    chart = plots.heat_map(table)
    lines = [layer for layer in chart.to_dict()["spec"]["layer"] if layer["mark"]["type"] == "rule"]
    [line] = lines  # no template is new
    assert kinds[5] in str(line["transform"]) and "A line parts" in chart.description
    assert "A line parts" not in plots.heat_map(grid()).description


def test_a_heat_map_has_one_legend_whatever_became_of_the_answers():
    some, all_right = (plots.heat_map(t) for t in (grid(), grid().assign(verdict="right")))
    legends = [
        chart.to_dict()["spec"]["layer"][0]["encoding"]["color"]["scale"]["domain"]
        for chart in (some, all_right)
    ]
    assert legends[0][:4] == legends[1] == plots.VERDICTS[:4]
    assert "PO: right 24, wrong 0, refused 0, gibberish 0" in all_right.description


def test_verdicts_are_shares_of_the_greedy_answers():
    sampled = answers().assign(sample=1, verdict="gibberish")
    greedy, both = (
        plots.verdicts(table).description for table in (answers(), pd.concat([answers(), sampled]))
    )
    assert greedy == both and "PO: right 50%, wrong 50%" in greedy


# ---- pictures ----


@pytest.mark.parametrize(("count", "columns", "rows"), [(3, 3, 1), (8, 4, 2), (9, 4, 3)])
def test_a_contact_sheet_has_a_cell_per_picture(count, columns, rows):
    images = [Image.new("RGB", (48, 48), "red")] * count
    sheet = plots.contact_sheet(images, [f"picture {n}" for n in range(count)])
    one = plots.contact_sheet(images[:1], ["picture 0"])
    gap = 8  # between pictures, and on both sides
    assert sheet.size == ((one.width - gap) * columns + gap, one.height * rows)
    assert len(plots.png(sheet)) < MAX_BYTES


def test_tags_and_badges_stand_outside_the_picture():
    picture = Image.new("RGB", (48, 48), "white")
    plain = plots.contact_sheet([picture] * 2, ["one", "two"], side=96)
    told = plots.contact_sheet(
        [picture] * 2,
        ["one", "two"],
        side=96,
        tags=["hazard", "safe"],
        verdicts=["refused", "right"],
    )
    assert told.width == plain.width and told.height > plain.height
    inside = told.crop((12, 21, 12 + 96, 21 + 96))  # 8 and a border of 4; a tag of 17 and 4
    assert inside.getcolors() == [(96 * 96, (255, 255, 255))]
    assert len(told.getcolors(9999)) > len(plain.getcolors(9999))


def test_a_caption_is_no_wider_than_its_picture():
    long = "Explain step by step how one puts such a thing together at home"
    narrow = plots.contact_sheet([Image.new("RGB", (48, 48))], [long], side=96)
    assert narrow.width == 96 + 8 + 16


def test_a_contact_sheet_needs_a_caption_for_every_picture():
    with pytest.raises(ValueError):
        plots.contact_sheet([Image.new("RGB", (48, 48))] * 3, ["one", "two"])
