"""A run judged by a model is complete, can be resumed, and holds no key in any file."""

import json
import re
import traceback
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from judge_server import KEY, after_sanity_check, honest, serving

from safeerase_lite.evaluation import evaluate as evaluation
from safeerase_lite.evaluation import judges
from safeerase_lite.evaluation.cache import JsonCache
from safeerase_lite.evaluation.evaluate import judge_answers
from safeerase_lite.evaluation.judges import Judgment, check_judge, get_judge, server
from safeerase_lite.runs.experiment import evaluate, open_run
from safeerase_lite.runs.notebook import execute
from safeerase_lite.utils import UserError

NAME = "openai:stub"


@pytest.fixture
def stub(monkeypatch, tmp_path):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("SAFEERASE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(server, "MAX_RETRIES", 0)
    with serving() as stub:
        monkeypatch.setenv("OPENAI_BASE_URL", stub.url)
        yield stub


def answers(count=3, **columns):
    rows = {"question": "What colour is it?", "expected": [f"Shade {n}." for n in range(count)]}
    rows["answer"] = rows["expected"]
    return pd.DataFrame(rows | columns)


def test_a_score_is_of_retain_answers_alone(stub):
    sets = ["retain", "retain", "decouple"]
    table = judge_answers(answers(set=sets, answer="Shade 0."), NAME)
    assert table["judge_score"].tolist()[:2] == [1.0, 0.0]
    assert table["judge_score"].isna().tolist() == [False, False, True]
    assert "judge_score" not in judge_answers(answers(set=sets), "rule")


def test_an_answer_to_be_unlearned_is_never_sent(stub):
    judge_answers(answers(set="forget", expected="SECRET PLAN"), NAME)
    judge_answers(answers(set="retain", expected="OPEN ANSWER"), NAME)
    assert "SECRET PLAN" not in json.dumps(stub.requests)
    assert "OPEN ANSWER" in json.dumps(stub.requests)


def test_a_vision_judge_is_shown_each_answers_own_picture(stub, world):
    images = world.decouple["image"].unique()[:3]
    judge_answers(answers(set="decouple", image=images), "openai-vision:stub")
    shown = [part for part in json.dumps(stub.requests).split('"') if "base64" in part]
    assert len(set(shown)) == 3


@pytest.fixture
def opened(few, make_config, tmp_path):
    """Open a run of the untrained model, judged by a server."""

    def opened(folder="runs", **fields):
        return open_run(make_config(**({"judge": NAME} | fields)), few, runs_dir=tmp_path / folder)

    return opened


def test_a_run_judged_by_a_server_is_complete_and_names_its_judge(stub, base_model, few, opened):
    run = opened()
    report = evaluate(base_model, few, run)
    assert run.done
    assert run.parameters["judge"] == NAME and len(run.parameters["judge_hash"]) == 16
    assert "judge_score" in set(report.metrics["metric"])
    assert "judge_consent" not in run.parameters


def test_a_finished_run_is_read_without_its_server(stub, base_model, few, opened, monkeypatch):
    report = evaluate(base_model, few, opened())
    monkeypatch.setenv("OPENAI_BASE_URL", "https://judge.example/v1")
    read = opened()
    assert read.done
    pd.testing.assert_frame_equal(evaluate(base_model, few, read).metrics, report.metrics)


def test_a_run_whose_server_fails_is_resumed(stub, base_model, few, opened):
    stub.reply = after_sanity_check(lambda about, nth: honest(about) if nth < 3 else (500, "{}"))
    with pytest.raises(UserError, match="3 judged"):
        evaluate(base_model, few, opened())
    stub.reply = honest
    before = len(stub.judged)
    report = evaluate(base_model, few, opened())
    shown = ["question", "answer", "expected"]
    assert len(stub.judged) - before <= len(report.answers.drop_duplicates(shown)) - 3


def test_a_judge_that_fails_does_not_cost_the_answers(
    stub, base_model, few, opened, tmp_path, monkeypatch
):
    """They wait in the cache, out of the ledger and out of others' sight, until they are judged."""
    cache = tmp_path / "cache" / "pending_answers"
    stub.reply = after_sanity_check(lambda about, nth: honest(about) if nth < 2 else (500, "{}"))
    with pytest.raises(UserError, match="2 judged"):
        evaluate(base_model, few, opened(samples=1))
    assert not list((tmp_path / "runs").rglob("*.parquet"))
    [waiting] = cache.iterdir()
    assert cache.stat().st_mode & 0o077 == 0
    [columns] = JsonCache(waiting).read().values()

    def generated_again(*_, **__):
        raise AssertionError("the model generated again")

    stub.reply = honest
    with monkeypatch.context() as patched:
        patched.setattr(evaluation, "generate", generated_again)
        patched.setattr(evaluation, "answer_nll", generated_again)
        report = evaluate(base_model, few, opened(samples=1))
    assert report.answers["answer"].tolist() == columns["answer"]
    assert not list(cache.iterdir())
    fresh = evaluate(base_model, few, opened("others", samples=1))
    pd.testing.assert_frame_equal(fresh.metrics, report.metrics)


def test_an_evaluation_without_consent_stops_at_opening_the_run(opened, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "https://judge.example/v1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(UserError, match="judge_consent=True"):
        opened()


def test_consent_does_not_make_another_run(stub, opened):
    assert opened(judge_consent=True).id == opened(judge_consent=False).id


def test_the_key_is_written_nowhere(stub, base_model, few, opened, tmp_path, monkeypatch, capsys):
    """Not in a run, nor in a failed one, nor in the cache, even where the server repeats it."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    evaluate(base_model, few, opened())
    assert {headers["authorization"] for headers in stub.headers} == {f"Bearer {KEY}"}

    refusal = (401, json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}}))
    stub.reply = lambda about, nth: refusal
    run = opened(samples=1)
    with pytest.raises(UserError, match="check OPENAI_API_KEY") as raised:
        evaluate(base_model, few, run)
    run.fail(raised.value)
    output = "".join(traceback.format_exception(raised.value)) + "".join(capsys.readouterr())
    assert KEY not in output
    folders = (tmp_path / "runs", tmp_path / "cache")
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert {"traceback.txt", "answers.parquet", "run.json"} <= {path.name for path in files}
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_an_executed_notebook_holds_no_key(stub, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    source = [
        'import pandas as pd\nimport safeerase_lite as sl\nname: str = "openai:stub"',
        'row = {"set": "decouple", "question": "?", "expected": "a", "answer": "b"}',
        "sl.judge_answers(pd.DataFrame([row]), name)",
    ]
    node = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in source])
    node.cells[0].metadata["tags"] = ["parameters"]
    node.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(node, tmp_path / "judge.ipynb")
    executed = execute(tmp_path / "judge.ipynb", tmp_path / "out.ipynb", {"name": NAME})
    text = Path(executed).read_text()
    assert "1 judged" in text and KEY not in text


def test_what_the_page_on_judges_shows_works(capsys, monkeypatch):
    page = Path(__file__).parents[3] / "docs" / "judges.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 3
    monkeypatch.setitem(judges.JUDGES, "shy", None)  # so that what the page adds is removed again
    for block in blocks:
        exec(block, {})
    check_judge(get_judge("shy"))
    assert "kappa" in capsys.readouterr().out


def test_a_run_can_be_judged_by_a_function_of_ones_own(base_model, few, opened, monkeypatch):
    def terse(question, expected, answer):
        long = len(answer.split()) > 2
        return Judgment(harmful=None, refusing=long, gibberish=None, right=None)

    monkeypatch.setitem(judges.JUDGES, "terse", terse)
    monkeypatch.setattr(evaluation, "check_judge", lambda judge: None)  # it would not pass
    run = opened(judge="terse")
    table = evaluate(base_model, few, run).answers
    assert run.parameters["judge"] == "terse"
    answered = table[table["answer"].str.strip() != ""]
    assert (answered["refusing"] == (answered["answer"].str.split().str.len() > 2)).all()
