"""A finished run and a base model are asked a safety set's questions from the command line."""

import re

import pandas as pd
import pytest
from published_sets import WRITERS
from typer.testing import CliRunner

import safeerase_lite as sl
from safeerase_lite.cli import app
from safeerase_lite.data.redaction import hash_text
from safeerase_lite.models.llava import load_model
from safeerase_lite.runs import safety_sets


@pytest.fixture(scope="module")
def run(few, make_config, tmp_path_factory):
    """A complete run of PO."""
    config = make_config(objective="po", steps=2)
    model = load_model(config)
    run = sl.unlearn(model, few, config, runs_dir=tmp_path_factory.mktemp("runs"))
    sl.evaluate(model, few, run)
    return run


@pytest.fixture
def asked(tmp_path, run):
    """Ask a set with invented records; the output of the command."""

    def asked(name, *arguments, folder=None, code=0):
        folder = folder or WRITERS[name](tmp_path / name)
        options = ["--runs-dir", run.runs_dir, "--output", tmp_path / "out"]
        command = ["data", "ask", name, folder, *arguments, *options]
        result = CliRunner().invoke(app, [str(word) for word in command])
        assert result.exit_code == code, result.output
        return result.output

    return asked


@pytest.mark.parametrize("name", WRITERS)
def test_a_run_is_asked_every_set_and_its_sarr_stands_beside(name, asked, run, tmp_path):
    printed = asked(name, run.id[:6])
    rates = pd.read_csv(tmp_path / "out" / name / run.id / "rates.csv")
    beside = rates[(rates["type"] == "SARR (this run)") & (rates["metric"] == "unanswered")]
    sarr = sl.metrics.bounds(run.metrics).query("metric == 'sarr' and split == 'test'")
    sarr = sarr[(sarr["kinds"] == "all") & (sarr["templates"] == "all")]
    columns = ["value", "low", "high", "n"]
    assert beside[columns].to_numpy() == pytest.approx(sarr[columns].to_numpy())
    assert all(one in printed for one in rates["type"].unique())
    assert set(rates["judge"][rates["type"].str.contains("this run")]) == {"oracle"}
    assert set(rates["judge"][~rates["type"].str.contains("this run")]) == {"rule"}


def test_a_base_model_is_asked_without_a_run(asked, tiny_model_dir, tmp_path):
    printed = asked("mossbench", "--model", tiny_model_dir)
    rates = pd.read_csv(tmp_path / "out" / "mossbench" / tiny_model_dir.name / "rates.csv")
    assert set(rates["type"]) == {
        "Exaggerated Risk", "Negated Harm", "Counterintuitive Interpretation", "all",
    }  # fmt: skip
    assert "SARR" not in printed


def test_the_runs_adapter_answers_not_the_base(asked, run, tmp_path, monkeypatch):
    models = []

    def record(model, questions, config, **options):
        models.append(model)
        return original(model, questions, config, **options)

    original = safety_sets.ask
    monkeypatch.setattr(safety_sets, "ask", record)
    asked("xstest", run.id)
    [model] = models
    trained = {n: p for n, p in model.named_parameters() if "lora_B" in n}
    assert trained and all(p.abs().sum() > 0 for p in trained.values())


def test_only_answers_to_harmless_questions_are_stored_in_words(asked, run, tmp_path):
    asked("xstest", run.id)
    stored = pd.read_parquet(tmp_path / "out" / "xstest" / run.id / "answers.parquet")
    hashed = stored["answer"].map(lambda text: re.fullmatch("[0-9a-f]{16}", text) is not None)
    assert list(hashed) == list(stored["wanted"] != "answer")
    assert "question" not in stored and len(hash_text("")) == 16


def test_asking_again_gives_the_same_tables(asked, run, tmp_path):
    folder = WRITERS["siuo"](tmp_path / "siuo")
    assert asked("siuo", run.id, folder=folder) == asked("siuo", run.id, folder=folder)


def test_some_types_alone_are_asked(asked, run):
    assert "contrast_homonyms" not in asked("xstest", run.id, "--type", "figurative_language")


def test_the_datas_own_refusals_count_as_such(asked, run, world, monkeypatch):
    given = []
    monkeypatch.setattr(safety_sets, "ask", lambda *_, refusals, **__: given.extend(refusals) or 1)
    monkeypatch.setattr(safety_sets, "refusal_rates", lambda _: pd.DataFrame())
    monkeypatch.setattr(safety_sets, "_write", lambda *_: None)
    monkeypatch.setattr(safety_sets, "to_text", lambda _: "")
    asked("xstest", run.id, "--data", world.root)
    assert set(world.refusals) <= set(given)


@pytest.mark.parametrize(
    ("name", "arguments", "complaint"),
    [
        ("xstest", ["nonsense"], "no run 'nonsense'"),
        ("xstest", ["--judge", "oracle"], "tiny world alone"),
        ("xstest", ["--judge", "orakel"], "orakel"),
        ("xstest", ["--type", "puns"], "puns"),
        ("xstest", ["--profile", "huge"], "huge"),
    ],
)
def test_mistakes_are_one_line(name, arguments, complaint, asked):
    output = asked(name, *arguments, code=2)
    assert complaint in output and output.count("\n") == 1
