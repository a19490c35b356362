"""A ledger's report: its numbers, and how they are written."""

import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from itertools import product
from pathlib import Path

import pandas as pd
import pytest
from synthetic_ledger import PO, answers, complete, fail, rewrite, vanilla
from typer.testing import CliRunner

from safeerase_lite.cli import app
from safeerase_lite.evaluation import metrics
from safeerase_lite.report.document import document
from safeerase_lite.report.formats import markdown
from safeerase_lite.report.tables import study
from safeerase_lite.report.write import report
from safeerase_lite.utils import UserError

# `approx` is used for sums of thirds and for bisections: equal up to rounding.
FILES = ["report.md", "report.tex", "report.html", "table.csv", "differences.csv"]


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    """Two objectives, plain and with PD, in two worlds, three seeds; GD+PD lacks seed 2 in the
    fresh world; and the two models that are not trained."""
    folder = tmp_path_factory.mktemp("ledger")
    for world, objective, decouple, seed in product(
        (0, 7919), ("gd", "po"), ("none", "pd"), range(3)
    ):
        if (world, objective, decouple, seed) != (7919, "gd", "pd", 2):
            where = {"world_seed": world, "data_hash": f"d{world}"}
            complete(folder, objective=objective, decouple=decouple, seed=seed, **where)
    complete(folder, decouple="placebo", seed=1)
    vanilla(folder)
    vanilla(folder, "gold", model="tiny-llava-gold", model_hash="m1")
    fail(folder, objective="kl", seed=5)
    return folder


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """PO, plain with two seeds and with PD with one."""
    folder = tmp_path_factory.mktemp("pair")
    for decouple, seed in (("none", 0), ("none", 1), ("pd", 0)):
        complete(folder, decouple=decouple, seed=seed)
    return folder


@pytest.fixture(scope="module")
def written(ledger, tmp_path_factory):
    """The report of that ledger: its folder and the study."""
    folder = tmp_path_factory.mktemp("report")
    return folder, report(ledger, folder)


def text_of(written, name):
    return (written[0] / name).read_text()


def change(
    table, objective, contrast="PD - plain", world="default world", metric="sarr", kinds="seen"
):
    return cell(table, objective=objective, contrast=contrast, world=world, metric=metric,
                kinds=kinds)  # fmt: skip


def cell(table, **where):
    result = table[(table[list(where)] == pd.Series(where)).all(axis=1)]
    assert len(result) == 1
    return result.iloc[0]


def safeerase(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def markdown_of(result):
    return markdown(document(result, "safeerase report runs"))


# ---- rows ----


def test_a_row_measures_the_greedy_answers_of_all_its_seeds(written):
    """The sampled answers are all harmful, the greedy ones none."""
    asr = cell(written[1].table, metric="asr", objective="po", decouple="none", split="test",
               kinds="all", templates="all", world="default world")  # fmt: skip
    assert (asr["value"], asr["n"], asr["seeds"]) == (0, 3 * 18, 3)


def test_a_row_shows_the_spread_of_its_seeds(written):
    """Seeds 0 and 2 refuse none of the four seen kinds, seed 1 one of them."""
    sarr = cell(written[1].table, metric="sarr", objective="po", decouple="pd", kinds="seen",
                templates="seen", world="default world")  # fmt: skip
    assert (sarr["least"], sarr["most"]) == (0, 0.25)
    assert sarr["value"] == pytest.approx(0.25 / 3)


def test_every_table_says_how_its_runs_were_trained(written):
    """A rate that differs by row by nature is no column, so the notes list it."""
    ours, _ = text_of(written, "report.md").split("## What the paper reports")
    tables = ours.split("### ")[1:]
    shared = f"In every run: profile tiny, precision nf4, steps {PO.steps}, pictures 4, "
    assert [table for table in tables if shared not in table] == []
    rows = ("GD", "GD+PD", "PO", "PO+PD", "PO+placebo")
    rates = f"Learning rates: {', '.join(f'{row} {PO.learning_rate:g}' for row in rows)}."
    assert rates in text_of(written, "report.md")
    result = pd.read_csv(written[0] / "table.csv").set_index(["objective", "decouple"])
    assert set(result.loc[("po", "pd"), "learning_rate"]) == {PO.learning_rate}
    assert set(result.loc[("po", "none"), "steps"]) == {PO.steps}


# ---- differences ----


def test_pd_is_held_against_plain_within_each_seed(written):
    """Plain refuses all; with PD seed 1 refuses one of four seen kinds, seeds 0 and 2 none."""
    result = change(written[1].differences, "po")
    assert result["before"] == 1 and result["seeds"] == 3 and result["n"] == 3 * 8
    assert result["value"] == pytest.approx(-2.75 / 3)
    assert result["relative"] == pytest.approx(2.75 / 3)
    assert (result["least"], result["most"]) == (-1, -0.75)
    assert result["low"] == -1 and result["high"] > result["value"]


def test_what_pd_never_saw_it_does_not_cure(written):
    assert change(written[1].differences, "po", kinds="unseen")["value"] == 0


def test_p_is_exact_over_seeds_and_adjusted_over_objectives(written):
    """Three seeds give 2 / 2^3 at least; two objectives double it."""
    result = change(written[1].differences, "po")
    assert (result["p"], result["p_holm"]) == (0.25, 0.5)


def test_the_placebo_is_compared_with_plain_and_pd_on_the_seeds_it_has(written):
    differences, left_out = written[1].differences, written[1].left_out
    assert change(differences, "po", "placebo - plain")["value"] == 0
    assert change(differences, "po", "PD - placebo")["seeds"] == 1
    reasons = {
        about["contrast"]: about["reason"] for about in left_out if about["objective"] == "po"
    }
    assert reasons["PD - placebo"] == "without seed 0, 2, which only PD has"


def test_a_seed_that_only_plain_has_is_left_out_and_named(written):
    result = change(written[1].differences, "gd", world="fresh world")
    assert result["seeds"] == 2
    line = "Left out: GD, PD − plain, fresh world: without seed 2, which only plain has"
    assert line in text_of(written, "report.md")


def test_both_weights_of_pd_are_held_against_the_one_plain_run_and_drawn(tmp_path):
    for seed in (0, 2):
        complete(tmp_path / "runs", seed=seed)
        for weights in ("official", "matched"):
            complete(tmp_path / "runs", decouple="pd", weights=weights, seed=seed)
    table = report(tmp_path / "runs", tmp_path / "out").differences
    for weights in ("official", "matched"):
        assert change(table[table["weights"] == weights], "po")["value"] == -1
        title = f"SARR of every seed, default world, weights {weights}"
        assert title in (tmp_path / "out" / "report.html").read_text()


def test_pd_without_a_plain_run_has_no_difference_and_says_so(tmp_path):
    complete(tmp_path, decouple="pd")
    result = study(tmp_path)
    assert result.differences.empty
    assert [about["reason"] for about in result.left_out] == [
        "there is no one plain row to compare with"
    ]
    assert "no one plain row" in markdown_of(result)


def test_five_seeds_at_100_percent_have_an_interval_of_their_kinds(tmp_path):
    """All of four kinds fall in all five seeds; the interval is that of a single seed."""
    for seed, decouple in product(range(5), ("none", "pd")):
        complete(tmp_path, seed=seed, decouple=decouple, table=answers(decouple, 0))
    result = change(study(tmp_path).differences, "po")
    alone = metrics.paired_difference(answers("none", 0), answers("pd", 0), "sarr", kinds="seen",
                                      templates="seen")  # fmt: skip
    assert (result["value"], result["low"], result["high"]) == (-1, -1, pytest.approx(alone.high))
    assert result["p"] == 0.0625


# ---- several learning rates ----


def at_rate(decouple, rate, *, answered=""):
    """Answers on val and test: from rate 5e-3 on nothing about hazards is right, and `answered` are
    the requested hazards that are still answered."""
    table = answers(decouple, 0)
    table["harmful"] = table["kind"].isin(list(answered)) & (table["set"] == "forget")
    table.loc[(table["set"] == "retain") & (rate >= 5e-3), "answer"] = ""
    val = table[table["split"] == "test"].assign(split="val")
    return pd.concat([table, val], ignore_index=True)


@pytest.fixture(scope="module")
def rates(tmp_path_factory):
    """PO: at 6e-4 plain forgets, and PD does not yet. GA answers a hazard at either rate."""
    folder = tmp_path_factory.mktemp("rates")
    cells = [("po", "none", 6e-4, ""), ("po", "none", 5e-3, ""), ("po", "pd", 6e-4, "a"),
             ("po", "pd", 1e-3, ""), ("po", "pd", 5e-3, ""),
             ("ga", "none", 6e-4, "ab"), ("ga", "none", 5e-3, "a")]  # fmt: skip
    for objective, decouple, rate, answered in cells:
        table = at_rate(decouple, rate, answered=answered)
        complete(folder, objective=objective, decouple=decouple, learning_rate=rate, table=table)
    vanilla(folder)
    return study(folder)


def models_in(text, title):
    """(model, learning rate) of each row of a Markdown table."""
    table = re.search(rf"### {title}\n\n((?:\|.*\n)+)", text)[1].splitlines()[2:]
    return [tuple(cell.strip() for cell in row.split("|")[1:3]) for row in table]


def test_the_plain_setting_isolates_pd_and_the_own_one_is_each_rows_choice(rates):
    text = markdown_of(rates)
    plain, own = (models_in(text, title) for title in ("Plain settings", "Own settings"))
    assert plain == [("vanilla", "–"), ("PO", "0.0006"), ("PO+PD", "0.0006")]
    assert own == [("vanilla", "–"), ("PO", "0.0006"), ("PO+PD", "0.001")]


def test_an_objective_that_no_rate_makes_forget_is_named_with_its_least_asr(rates):
    text = markdown_of(rates)
    said = "No learning rate is chosen: GA, default world: none has requested ASR ≤ 5% on val"
    assert said in text
    assert "the least is 25.0% at 0.005" in text  # one of four requested hazards


def test_every_candidate_is_drawn_where_there_are_several_and_nowhere_else(rates, written):
    (section,) = [s for s in document(rates, "").sections if s.title == "Default world"]
    assert "Every candidate, default world" in [title for title, _ in section.charts]
    assert "Every candidate" not in text_of(written, "report.html")
    assert "Plain settings" not in text_of(written, "report.md")


def test_without_val_no_rate_is_chosen_and_the_report_says_so(tmp_path):
    for rate in (6e-4, 5e-3):
        complete(tmp_path, learning_rate=rate)
    text = markdown_of(study(tmp_path))
    assert "No learning rate is chosen: " in text and "evaluate them with val" in text
    assert "Plain settings" not in text


# ---- requested and unrequested hazards ----


def test_no_column_mixes_requested_and_unrequested_hazards(tmp_path):
    """Of six hazards four are requested; only the other two are answered."""
    table = answers("none", 0)
    table["harmful"] = ~table["seen_kind"] & (table["set"] == "forget") & (table["sample"] == 0)
    complete(tmp_path, table=table)
    text = markdown_of(study(tmp_path))
    row = re.search(r"### Unlearning\n\n(?:\|.*\n){2}(\|.*)", text)[1]
    assert "0.0 [0, 60] (0 of 4)" in row and "100.0 [16, 100] (2 of 2)" in row
    assert "33.3" not in text


# ---- mixed, missing ----


def test_versions_are_not_mixed_unless_told(tmp_path):
    runs = [complete(tmp_path, seed=seed) for seed in range(2)]
    versions = json.loads((runs[0].folder / "run.json").read_text())["versions"]
    rewrite(runs[0], versions=versions | {"torch": "2.0.0", "python": "3.99.0"})
    message = r"are mixed, 2 versions of torch \(2.0.0: 1 runs, .*\): keep .* --allow-mixed"
    with pytest.raises(UserError, match=message):
        study(tmp_path)
    text = markdown_of(study(tmp_path, allow_mixed=True))
    assert "MIXED runs" in text and "Mixed, as --allow-mixed allows: 2 versions of torch" in text
    assert re.search(r"python 3\.\S+, 3\.99\.0", text)


def test_a_seed_that_other_rows_of_the_world_have_is_missing(written):
    assert "Missing: GD+PD, fresh world: seed 2\n" in text_of(written, "report.md")


def test_a_failed_run_is_named_with_its_reason(written):
    text = text_of(written, "report.md")
    assert re.search(r"Not usable: KL, .*seed 5 \(\w+\): FloatingPointError: the loss is NaN", text)


def test_a_failed_run_is_not_also_missing(tmp_path):
    for decouple, seed in (("none", 0), ("none", 1), ("pd", 0)):
        complete(tmp_path, decouple=decouple, seed=seed)
    fail(tmp_path, decouple="pd", seed=1)
    assert study(tmp_path).missing == []


def test_several_base_models_are_named(tmp_path):
    for seed, model in enumerate(("m0", "m9")):
        complete(tmp_path, seed=seed, model_hash=model)
    assert "base models tiny-llava m0, tiny-llava m9" in markdown_of(study(tmp_path))


def test_where_no_safe_object_is_named_the_main_sarr_is_of_new_ones(tmp_path):
    """As in the benchmark: each safe picture counts as an object of its own, and none was seen."""
    for decouple, seed in product(("none", "pd"), range(2)):
        table = answers(decouple, seed)
        table["seen_kind"] &= table["set"] != "decouple"
        complete(tmp_path, decouple=decouple, seed=seed, table=table)
    result = study(tmp_path)
    assert result.main == {"default world": ("unseen", "seen")}
    assert change(result.differences, "po", kinds="unseen")["before"] == 1
    text = markdown_of(result)
    assert "SARR: objects that PD was not trained on (pictures, where" in text
    assert "trained on. Each cell" not in text
    for title in (
        "SARR with PD against plain",
        "Paired differences in SARR",
        "Paired differences in safe error",
    ):
        table = re.search(rf"### {title}\n\n((?:\|.*\n)+)", text)[1]
        assert table.count("\n") > 2 and "–" not in table
    assert re.search(r"\| PO +\|[^–]*\| 100.0 \[", text)


# ---- what is written ----


def test_the_same_ledger_gives_the_same_bytes(pair, tmp_path):
    for folder in ("one", "other"):
        report(pair, tmp_path / folder)
    for name in FILES:
        one, other = ((tmp_path / folder / name).read_bytes() for folder in ("one", "other"))
        assert one == other


def test_csv_holds_every_number_of_every_row(written):
    table = pd.read_csv(written[0] / "table.csv")
    assert {"world", "objective", "decouple", "metric", "split", "kinds", "templates", "value",
            "low", "high", "n", "seeds", "least", "most"} <= set(table)  # fmt: skip
    assert {"asr", "rr", "sarr", "sarr_refused", "sarr_gibberish", "wrong", "safe_error"} | {
        "rougeL_recall",
        "rougeL_f1",
        "exact_match",
        "specificity",
    } <= set(table["metric"])
    assert len(table) == len(written[1].table)
    differences = pd.read_csv(written[0] / "differences.csv")
    assert change(differences, "po")["p_holm"] == 0.5


def test_markdown_says_the_result_and_all_one_needs_to_cite_it(written, ledger):
    text = text_of(written, "report.md")
    for part in (
        "−91.7 [",  # PO, percentage points
        "−79.5%",
        "what that is an average of is unknown",
        "Conditional on one base model: tiny-llava m0",
        "3 seeds (0, 1, 2)",
        "Split test; efficacy on train",
        "default world d0",
        "fresh world d7919",
        "safeerase-lite",
        "transformers",
        "exact over kinds",
        "(3 of 4)",  # with PD seed 1 keeps a kind refused
        "0.25 with 3 seeds",
        f"Command: safeerase report {ledger} --split test",
        "| 7B PO+PD ",
        "secondary",
    ):
        assert part in text


def test_markdown_tables_are_rectangular(written):
    for block in re.findall(r"(?:^\|.*\n)+", text_of(written, "report.md"), flags=re.M):
        assert len({line.count("|") for line in block.splitlines()}) == 1


def test_latex_is_booktabs_with_balanced_columns(written):
    text = text_of(written, "report.tex")
    assert (
        text.count(r"\toprule") == text.count(r"\bottomrule") == text.count(r"\begin{table*}") > 5
    )
    for columns, body in re.findall(
        r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", text, re.S
    ):
        for line in [line for line in body.splitlines() if line.endswith(r"\\")]:
            assert len(re.findall(r"(?<!\\)&", line)) == len(columns) - 1
    assert len(set(re.findall(r"\\label\{.*?\}", text))) == text.count(r"\label")
    assert not set("−→–") & set(re.sub("%.*", "", text))


class Page(HTMLParser):
    """What a page holds: its tags, every address in it, and the ids."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.ids = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "href", "xlink:href", "srcset")]
        self.ids += [v for k, v in attrs if k == "id"]


def test_html_needs_nothing_from_elsewhere_and_runs_nothing(written):
    text = text_of(written, "report.html")
    page = Page(text)
    assert "script" not in page.tags and "link" not in page.tags and "iframe" not in page.tags
    assert page.addresses == [] and "url(" not in text and "@import" not in text
    assert len(set(page.ids)) == len(page.ids)


def test_html_is_legible_by_night_and_says_in_words_what_its_charts_show(written):
    text = text_of(written, "report.html")
    assert "prefers-color-scheme: dark" in text and '<html lang="en">' in text
    drawings = re.findall(r"<svg.*?</svg>", text, re.S)
    assert len(drawings) == 8  # the board, the 2×2, the plane and the seeds, of two worlds
    for drawing in drawings:
        svg = ET.fromstring(drawing)
        title, description = svg[0], svg[1]
        assert svg.get("role") == "img" and title.tag.endswith("title") and title.text
        assert description.tag.endswith("desc") and "PO" in description.text


def test_one_seed_has_no_chart_of_seeds(tmp_path):
    complete(tmp_path / "runs")
    report(tmp_path / "runs", tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text()
    assert "SARR of every seed" not in text and text.count("<svg") == 3
    assert "and on one seed" in text


def test_unknown_judgements_show_as_both_bounds(tmp_path):
    table = answers("pd", 0)
    seen = (table["set"] == "decouple") & table["seen_kind"] & table["seen_template"]
    table.loc[seen & (table["kind"] == "a"), "verdict"] = "unknown"
    complete(tmp_path, decouple="pd", table=table)
    assert "0.0 to 25.0 [" in markdown_of(study(tmp_path))


def test_a_change_with_unknown_judgements_shows_as_both_bounds_and_no_interval(tmp_path):
    complete(tmp_path)
    table = answers("pd", 0)
    seen = (table["set"] == "decouple") & table["seen_kind"] & table["seen_template"]
    complete(tmp_path, decouple="pd", table=table.assign(verdict="unknown").where(seen, table))
    headline = markdown_of(study(tmp_path)).split("## What is missing")[0]
    assert "−100.0 to +0.0 (8 of 8 pairs unknown), –, 1 " in headline


def test_a_judges_score_has_a_column_where_there_is_one(tmp_path):
    scored = answers("none", 0).assign(judge_score=0.5)
    complete(
        tmp_path, table=scored.where(scored["set"] == "retain", scored.assign(judge_score=None))
    )
    assert " judge score |" in markdown_of(study(tmp_path))


def test_data_without_unseen_kinds_leaves_their_cells_empty(tmp_path):
    for decouple in ("none", "pd"):
        table = answers(decouple, 0)
        complete(
            tmp_path, decouple=decouple, table=table.assign(seen_kind=True, seen_template=True)
        )
    result = study(tmp_path)
    assert set(result.differences["kinds"]) == {"seen"}
    assert "–" in markdown_of(result)


# ---- the command ----


def test_the_command_prints_the_tables_and_what_is_missing(pair, tmp_path):
    result = safeerase("report", pair, "--output", tmp_path / "out")
    assert result.exit_code == 0
    for part in ("default world, test", "PO+PD", "SARR with PD against plain", "Missing: PO+PD"):
        assert part in result.stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(FILES)


def board_of(folder, runs_dir, **options):
    """The rows of the board, by model."""
    result = report(runs_dir, folder, **options)
    text = (folder / "report.md").read_text(encoding="utf-8")
    head, _, *rows = re.search(r"### The board\n\n((?:\|.*\n)+)", text)[1].splitlines()
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in (head, *rows)]
    table = pd.DataFrame(cells[1:], columns=cells[0]).set_index("model")
    return table, result


def test_the_board_has_forgetting_overforgetting_utility_and_cost_of_every_row(pair, tmp_path):
    table, result = board_of(tmp_path, pair)
    assert list(table.index) == ["PO", "PO+PD"]
    assert list(table) == [
        "ASR requested", "SARR", "SARR, new objects", "retain", "safe pictures", "specificity",
        "seconds", "GB", "seeds",
    ]  # fmt: skip
    assert table["SARR"].str.split().str[0].tolist() == ["100.0", "0.0"]
    runs = result.grid.runs[result.grid.runs["decouple"] == "none"]
    records = [json.loads((run / "run.json").read_text()) for run in runs["folder"]]
    least, most = sorted(record["seconds"] for record in records)
    assert float(table["seconds"]["PO"]) == pytest.approx((least + most) / 2, abs=0.51)
    most_gb = max(record["peak_memory_mb"] for record in records) / 1024
    assert float(table["GB"]["PO"]) == pytest.approx(most_gb, abs=0.051)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<figcaption>The board, default world</figcaption>" in page


def test_the_board_has_a_column_for_each_attack_that_some_run_was_under(tmp_path):
    """The mean over the runs that were attacked, of requested hazards; the others stay blank."""
    cells = [("plan", 1, "asr", "seen", 0.5), ("plan", 1, "asr", "unseen", 0.9),
             ("plan", 5, "asr", "seen", 0.9), ("plan", 1, "rr", "seen", 0.1)]  # fmt: skip
    columns = ["variant", "strength", "metric", "kinds", "value"]
    for seed, more in ((0, 0.0), (1, 0.25), (2, None)):
        run = complete(tmp_path / "runs", seed=seed)
        if more is not None:
            table = pd.DataFrame(cells, columns=columns).assign(attack="prefix")
            folder = run.folder / "attacks" / "prefix"
            folder.mkdir(parents=True)
            table.assign(value=table["value"] + more).to_csv(folder / "table.csv", index=False)
    complete(tmp_path / "runs", decouple="pd")
    table, _ = board_of(tmp_path / "report", tmp_path / "runs")
    title = "ASR, one token given"
    assert table[title].to_dict() == {"PO": "62.5 (2)", "PO+PD": "–"}
    assert [name for name in table if name.startswith("ASR, ")] == [title]


@pytest.mark.parametrize(
    ("where", "message"),
    [("empty", "no run in"), ("absent", "is not a folder"), ("file", "is not a folder")],
)
def test_a_folder_without_runs_is_an_error_in_one_line(tmp_path, where, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    result = safeerase("report", tmp_path / where, "--output", tmp_path / "out")
    assert result.exit_code == 2 and message in result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_ledger_of_failures_says_why_they_failed(tmp_path):
    fail(tmp_path)
    result = safeerase("report", tmp_path)
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert "no complete run" in result.stderr and "the loss is NaN" in result.stderr


def test_a_split_nobody_asked_lists_those_that_were(ledger):
    result = safeerase("report", ledger, "--split", "tset")
    assert result.exit_code == 2 and "take --split test or train" in result.stderr


def test_a_mixed_ledger_is_an_error_until_allowed(tmp_path):
    for seed in range(2):
        complete(tmp_path / "runs", seed=seed, data_hash=f"d{seed}")
    arguments = ("report", tmp_path / "runs", "--output", tmp_path / "out")
    assert safeerase(*arguments).exit_code == 2
    assert safeerase(*arguments, "--allow-mixed").exit_code == 0


def test_a_sweep_says_what_is_reported_and_what_is_expected(tmp_path):
    for seed in (0, 1):
        complete(tmp_path / "runs", seed=seed, weights="official")
    complete(tmp_path / "runs", objective="kl")
    complete(tmp_path / "runs", projector="frozen")  # 03 leaves it to the profile: trained
    notebook = Path(__file__).parents[3] / "notebooks" / "03_unlearn.ipynb"
    file = tmp_path / "grid.yaml"
    file.write_text(f"notebook: {notebook}\nseeds: [0, 7]\ngrid: {{objective: po, decouple: none}}")
    result = study(tmp_path / "runs", sweep=file)
    assert result.grid.runs[["objective", "projector", "seed"]].to_numpy().tolist() == [
        ["po", "trained", 0]
    ]
    assert result.missing == [{"objective": "po", "decouple": "none", "seed": 7}]
    file.write_text(f"notebook: {notebook}\ngrid: {{objective: ga, decouple: none}}")
    with pytest.raises(UserError, match="no run of this sweep"):
        study(tmp_path / "runs", sweep=file)
