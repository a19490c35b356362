"""Every question is asked where it belongs, every answer counts, and real harm is stored hashed."""

import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from safeerase_lite.data.dataset import read_data
from safeerase_lite.evaluation import evaluate as evaluation
from safeerase_lite.evaluation import judges
from safeerase_lite.evaluation.evaluate import SETS, questions, token_recall, with_interval
from safeerase_lite.runs.experiment import evaluate, open_run
from safeerase_lite.tinyworld import WORLD_FILE
from safeerase_lite.utils import UserError

SPLITS = ("train", "val", "test")


@pytest.fixture
def opened(make_config, tmp_path):
    """Open a run of the model as it is, in a ledger of its own."""

    def opened(data, **fields):
        config = make_config(objective="vanilla", **{"samples": 1} | fields)
        return open_run(config, data, runs_dir=tmp_path / "runs")

    return opened


@pytest.fixture
def run(few, opened):
    return opened(few)


@pytest.fixture(scope="module")
def evaluated(base_model, few, make_config, tmp_path_factory):
    """A complete run of the model as it is, and its report. Shared: nothing here changes them."""
    config = make_config(objective="vanilla", samples=1)
    run = open_run(config, few, runs_dir=tmp_path_factory.mktemp("runs"))
    return run, evaluate(base_model, few, run)


@pytest.fixture
def real(world, tmp_path):
    """The small world without its mark: as if it were real data."""
    root = tmp_path / "real"
    shutil.copytree(world.root, root)
    (root / WORLD_FILE).unlink()
    data = read_data(root)
    heads = {n: getattr(data, n).groupby("split").head(2) for n in SETS}
    return replace(data, **heads)


@pytest.fixture
def answer_always(monkeypatch):
    """Let the model give one answer to everything."""

    def answer_always(answer):
        monkeypatch.setattr(
            evaluation, "generate", lambda model, images, *a, **k: [answer] * len(images)
        )

    return answer_always


def without_missing(table):
    """The table with every kind of missing value as None."""
    return table.astype(object).where(table.notna(), None)


def value(report, metric, split="test"):
    [row] = report.select(metric, split=split).to_dict("records")
    return row


@pytest.mark.parametrize(
    ("expected", "answer", "recall"),
    [
        ("lock the peg", "lock the peg", 1.0),
        ("lock the peg.", "PEG the lock", 1.0),
        ("lock the peg", "", 0.0),
        ("a a b b", "a b c d", 0.5),
        ("a b c d", "a a a a", 0.25),
    ],
)
def test_token_recall_counts_each_word_as_often_as_it_occurs(expected, answer, recall):
    assert token_recall(expected, answer) == recall


def test_a_forget_answer_is_not_without_a_verdict_because_right_was_not_asked():
    rows = [  # set, harmful, refusing, verdict
        ("forget", False, False, "unknown"),
        ("forget", None, False, "unknown"),
        ("retain", False, False, "unknown"),
        ("retain", None, False, "right"),
    ]
    answers = pd.DataFrame(rows, columns=["set", "harmful", "refusing", "verdict"])
    assert evaluation.Report(pd.DataFrame(), answers).unjudged == 2


@pytest.mark.parametrize("refusals", [["A riddle!"], ["It is late."]])
def test_the_rule_knows_the_datas_own_refusals(base_model, real, opened, answer_always, refusals):
    answer_always("a  riddle!")
    data = replace(real, refusals=refusals)
    answers = evaluate(base_model, data, opened(data, judge="rule")).answers
    assert set(answers["refusing"]) == {refusals == ["A riddle!"]}


# ---- what is asked ----


def test_train_asks_one_forget_question_per_record_and_nothing_else(world):
    table = questions(world, SPLITS)
    train = table[table["split"] == "train"]
    assert set(train["set"]) == {"forget"}
    records = set(world.forget.loc[world.forget["split"] == "train", "record"])
    assert sorted(train["record"]) == sorted(records)
    assert len({turn % 4 for turn in train["record"]}) == 4  # every template has its turn


def test_a_record_with_fewer_questions_is_asked_too(world):
    """Real records can carry fewer than four."""
    train = world.forget["split"] == "train"
    first = world.forget.groupby(["split", "record"]).cumcount() == 0
    table = questions(replace(world, forget=world.forget[~train | first]), ("train",))
    assert sorted(table["record"]) == sorted(world.forget.loc[train, "record"].unique())


def test_val_and_test_ask_everything(world):
    table = questions(world, ("val", "test"))
    assert set(table["split"]) == {"val", "test"}
    for name in SETS:
        held_out = getattr(world, name)["split"].isin(["val", "test"])
        assert (table["set"] == name).sum() == held_out.sum()


# ---- the complete evaluation ----


def test_an_evaluation_completes_the_run_and_writes_what_it_reports(few, evaluated):
    run, report = evaluated
    assert run.done and report.label == run.config.label
    pd.testing.assert_frame_equal(report.metrics, run.metrics, check_dtype=False)
    pd.testing.assert_frame_equal(without_missing(report.answers), without_missing(run.answers))
    again = evaluate(None, few, run)  # a complete run asks no model
    pd.testing.assert_frame_equal(again.metrics, run.metrics)
    assert again.table().equals(report.table())


def test_pictures_are_named_relative_to_the_data(few, evaluated):
    images = evaluated[1].answers["image"]
    assert not images.str.startswith("/").any() and not images.str.contains("\\", regex=False).any()
    assert all((few.root / image).is_file() for image in images)


def test_samples_are_of_the_last_split_and_stay_out_of_the_greedy_measures(few, evaluated):
    _, report = evaluated
    sampled = report.answers[report.answers["sample"] == 1]
    forget = few.forget[few.forget["split"] == "test"]
    assert list(sampled["question"]) == list(forget["question"])
    assert set(sampled["set"]) == {"forget"}
    assert value(report, "asr")["n"] == value(report, "asr_sampled")["n"] == len(forget)
    greedy = report.answers[report.answers["sample"] == 0]
    assert greedy["harm_nll"].notna().equals(greedy["set"] == "forget")
    assert sampled["harm_nll"].isna().all()


def test_an_empty_answer_stays_in_every_denominator(base_model, few, run, answer_always):
    answer_always("")
    report = evaluate(base_model, few, run)
    table = questions(few, SPLITS)
    for split in ("val", "test"):
        counts = table[table["split"] == split]["set"].value_counts()
        for metric, name, expected in [
            ("asr", "forget", 0),
            ("rr", "forget", 0),
            ("harm_token_recall", "forget", 0),
            ("sarr", "decouple", 1),
            ("sarr_gibberish", "decouple", 1),
            ("sarr_refused", "decouple", 0),
            ("exact_match", "retain", 0),
            ("rougeL_recall", "retain", 0),
            ("utility_safe", "placebo", 0),
            ("specificity", "specificity", 0),
        ]:
            row = value(report, metric, split)
            assert (row["value"], row["n"]) == (expected, counts[name]), metric


def test_the_right_answers_to_everything_are_no_harm_to_utility(base_model, few, run, monkeypatch):
    """The base model at its best: leaks every plan, refuses nothing, and is right."""
    table = questions(few, SPLITS)
    expected = {(r.image, r.question): r.expected for r in table.itertuples()}

    def all_knowing(model, images, questions, *_, **__):
        return [expected[pair] for pair in zip(images, questions, strict=True)]

    monkeypatch.setattr(evaluation, "generate", all_knowing)
    report = evaluate(base_model, few, run)
    best = {"asr": 1, "rr": 0, "sarr": 0, "wrong": 0, "exact_match": 1, "utility_safe": 1,
            "specificity": 1, "harm_token_recall": 1}  # fmt: skip
    assert {metric: value(report, metric)["value"] for metric in best} == best


def test_a_model_that_refuses_everything_has_over_forgotten(base_model, few, run, answer_always):
    answer_always(few.refusals[0])
    report = evaluate(base_model, few, run)
    expected = {"asr": 0, "rr": 1, "sarr": 1, "sarr_refused": 1}
    assert {metric: value(report, metric)["value"] for metric in expected} == expected


def test_efficacy_is_measured_on_train_and_generality_on_the_rest(evaluated):
    metrics = evaluated[1].metrics
    assert set(metrics.loc[metrics["metric"] == "asr", "split"]) == set(SPLITS)
    assert set(metrics.loc[metrics["metric"] == "sarr", "split"]) == {"val", "test"}


def test_data_without_a_test_split_are_measured_on_val(base_model, few, opened):
    parts = {name: getattr(few, name) for name in SETS}
    data = replace(few, **{name: table[table["split"] != "test"] for name, table in parts.items()})
    report = evaluate(base_model, data, opened(data))
    assert report.split == "val"
    assert value(report, "asr_sampled", "val")["n"] == 6
    assert "test" not in set(report.metrics["split"])


def test_data_without_ordinary_questions_on_safe_pictures_have_no_such_utility(
    base_model, few, opened, answer_always
):
    """The real benchmark has none."""
    answer_always("")
    data = replace(few, placebo=few.placebo.iloc[:0])
    report = evaluate(base_model, data, opened(data))
    assert "utility_safe" not in set(report.metrics["metric"])
    assert report.text("utility_safe") == report.table(["utility_safe"]).iloc[0]["kinds"] == "–"


def test_a_report_selects_by_name_in_the_order_asked_for(evaluated):
    _, report = evaluated
    assert list(report.select(["rr", "asr"])["metric"]) == ["rr", "asr"]
    assert list(report.select("asr", split="val")["split"]) == ["val"]
    table = report.table(["rr", "asr"])
    assert list(table.index) == ["rr", "asr"]
    assert table.loc["asr", "value [95% interval]"] == report.text("asr")
    of_hazards = value(report, "asr")
    assert table.loc["asr", "kinds"] == "{kinds_hit} of {n_kinds}".format_map(of_hazards)
    assert set(report.select()["metric"]) == set(report.metrics["metric"])


@pytest.mark.parametrize("read", ["select", "table", "text"])
@pytest.mark.parametrize(
    ("metric", "where", "says"),
    [
        ("sar", {}, "unknown metric 'sar': .*did you mean 'sarr'?"),
        ("sarr", {"split": "tset"}, "unknown split 'tset': choose one of test, val, train"),
        ("sarr", {"kinds": "unsen"}, "unknown kinds 'unsen': .*did you mean 'unseen'?"),
        ("sarr", {"templates": "al"}, "unknown templates 'al'"),
    ],
)
def test_a_misspelt_metric_or_place_is_an_error(evaluated, read, metric, where, says):
    with pytest.raises(UserError, match=says):
        getattr(evaluated[1], read)(metric if read == "text" else [metric], **where)


def test_a_metric_that_was_not_measured_is_a_dash(evaluated):
    assert evaluated[1].text("judge_score") == "–"


# ---- redaction ----


def test_forget_answers_on_real_data_are_stored_hashed(base_model, real, opened):
    assert not real.invented
    run = opened(real, judge="rule")
    report = evaluate(base_model, real, run)
    forget = report.answers["set"] == "forget"
    stored = run.answers
    for column in ("expected", "answer"):
        assert stored.loc[forget, column].str.fullmatch("[0-9a-f]{16}").all()
        assert stored.loc[~forget, column].equals(report.answers.loc[~forget, column])
    assert not report.answers.loc[forget, "expected"].str.fullmatch("[0-9a-f]{16}").any()
    texts = report.answers[["expected", "answer"]]
    harm = set(texts[forget].stack()) - set(texts[~forget].stack()) - {""}
    assert harm
    for path in Path(run.folder).rglob("*.*"):
        packed = path.suffix == ".parquet"
        content = pd.read_parquet(path).to_csv() if packed else path.read_text(encoding="utf-8")
        assert not any(text in content for text in harm), path.name


def test_forget_answers_on_real_data_are_stored_plainly_when_that_is_asked_for(
    base_model, real, opened
):
    run = opened(real, judge="rule")
    report = evaluate(base_model, real, run, raw=True)
    for column in ("kind", "expected", "answer"):
        assert run.answers[column].equals(report.answers[column])
    assert set(run.answers["expected"]) >= set(real.forget["answer"].head(2))


def test_forget_answers_of_the_tiny_world_are_stored_plainly(evaluated):
    run, report = evaluated
    assert run.answers["answer"].equals(report.answers["answer"])


# ---- the judge ----


@pytest.mark.parametrize("judge", ["orakel", "openai:elsewhere"])
def test_a_judge_that_cannot_be_asked_stops_the_evaluation(
    base_model, few, run, monkeypatch, judge
):
    monkeypatch.setenv("OPENAI_BASE_URL", "https://example.org/v1")
    run.config = run.config.model_copy(update={"judge": judge})
    monkeypatch.setattr(evaluation, "generate", lambda *a, **k: pytest.fail("it generates first"))
    with pytest.raises(UserError, match="orakel|consent"):
        evaluate(base_model, few, run)
    assert not run.done


def test_a_judge_on_this_machine_and_the_model_take_turns(base_model, few, run, monkeypatch):
    turns, oracle, generate = [], judges.get_judge("oracle"), evaluation.generate

    def judgments(items):
        turns.append("judge")
        return oracle.iter_judgments(items)

    local = replace(oracle, iter_judgments=judgments, release=lambda: turns.append("free"))
    monkeypatch.setattr(evaluation, "get_judge", lambda name, **options: local)
    monkeypatch.setattr(
        evaluation, "generate", lambda *a, **k: turns.append("model") or generate(*a, **k)
    )
    evaluate(base_model, few, run)
    assert turns == ["judge", "free", "model", "model", "judge", "free"]


@pytest.mark.parametrize(
    ("metric", "at_most", "text"),
    [("sarr", 0.5, "50%"), ("sarr", 0.75, "50% to 75%"), ("harm_nll", 0.5, "0.50")],
)
def test_a_value_without_an_interval_stands_alone(metric, at_most, text):
    nan = float("nan")
    row = {"metric": metric, "value": 0.5, "at_most": at_most, "low": nan, "high": nan}
    assert with_interval(row) == text
