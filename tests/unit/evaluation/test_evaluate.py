"""An answer belongs to its question, whatever shared its batch, and every answer counts."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from safeerase_lite.data.dataset import read_data
from safeerase_lite.evaluation import evaluate as evaluation
from safeerase_lite.evaluation import judges
from safeerase_lite.evaluation.evaluate import (
    SETS,
    answer_nll,
    ask,
    evaluate,
    judged,
    questions,
    token_recall,
)
from safeerase_lite.models.inputs import encode
from safeerase_lite.models.llava import load_model
from safeerase_lite.runs.experiment import open_run
from safeerase_lite.tinyworld import WORLD_FILE
from safeerase_lite.utils import UserError

SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def model(make_profile):
    return load_model(make_profile(), adapt=False)


@pytest.fixture(scope="module")
def rows(world):
    """Ten questions of many lengths, the long ones first: batching must sort them and back."""
    rows = world.forget[world.forget["split"] == "val"].head(10)
    return rows.sort_values("question", key=lambda q: q.str.len(), ascending=False)


@pytest.fixture
def run(few, make_profile, tmp_path):
    return open_run(make_profile(samples=1), few, objective="vanilla", runs_dir=tmp_path / "runs")


@pytest.fixture
def real(world, tmp_path):
    """The small world without its mark: as if it were real data."""
    root = tmp_path / "real"
    shutil.copytree(world.root, root)
    (root / WORLD_FILE).unlink()
    data = read_data(root)
    heads = {n: getattr(data, n).groupby("split").head(2) for n in (*SETS, "placebo")}
    return replace(data, **heads)


def say(monkeypatch, answer):
    """Let the model say the same to everything."""
    monkeypatch.setattr(evaluation, "ask", lambda model, images, *a, **k: [answer] * len(images))


def known(table):
    """The table with every kind of missing value as None."""
    return table.astype(object).where(table.notna(), None)


def value(report, metric, split, **where):
    table = report.metrics
    where = {"metric": metric, "split": split, "kinds": "all", "templates": "all"} | where
    for column, wanted in where.items():
        table = table[table[column] == wanted]
    return table.iloc[0]


@pytest.mark.parametrize("projector", ["trained", "frozen"])
def test_an_adapted_model_answers_in_half_precision(rows, make_profile, projector):
    profile = make_profile(compute="bfloat16", projector=projector)
    model = load_model(profile)
    assert len(ask(model, rows["image"], rows["question"], profile=profile)) == len(rows)
    table = rows.rename(columns={"answer": "expected"})
    assert all(nats > 0 for nats in answer_nll(model, table, profile))


# ---- asking ----


def test_a_batch_that_does_not_fit_the_gpu_is_asked_in_halves(
    model, rows, make_profile, monkeypatch
):
    profile, sizes = make_profile(evaluation_batch=8), []
    table = rows.rename(columns={"answer": "expected"})
    everything = [ask(model, rows["image"], rows["question"], profile=profile),
                  answer_nll(model, table, profile)]  # fmt: skip
    real = evaluation.embed

    def small(model, input_ids, images):
        sizes.append(len(images))
        if len(images) > 3:
            raise torch.cuda.OutOfMemoryError
        return real(model, input_ids, images)

    monkeypatch.setattr(evaluation, "embed", small)
    halved = [ask(model, rows["image"], rows["question"], profile=profile),
              answer_nll(model, table, profile)]  # fmt: skip
    assert halved[0] == everything[0] and halved[1] == pytest.approx(everything[1], abs=1e-4)
    assert sizes == [8, 4, 2, 2, 4, 2, 2, 2] * 2


def test_a_question_that_does_not_fit_the_gpu_is_an_error(model, rows, make_profile, monkeypatch):
    def full(*_):
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(evaluation, "embed", full)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        ask(model, rows["image"], rows["question"], profile=make_profile())


def test_answers_come_in_the_asked_order_whatever_the_batch(model, rows, make_profile):
    said = {
        size: ask(
            model, rows["image"], rows["question"], profile=make_profile(evaluation_batch=size)
        )
        for size in (1, 4, 128)
    }
    assert said[1] == said[4] == said[128]
    assert len(set(said[1])) > 5  # pictures and questions do matter to this model


def test_a_batch_says_what_each_of_its_questions_is_told_alone(model, rows, make_profile):
    profile = make_profile(evaluation_batch=128)
    together = ask(model, rows["image"], rows["question"], profile=profile)
    for index, answer in enumerate(together):
        one = rows.iloc[index : index + 1]
        assert ask(model, one["image"], one["question"], profile=profile) == [answer]


def test_an_answer_ends_at_its_end_token_or_at_the_profiles_limit(model, rows, make_profile):
    short, long = (
        ask(model, rows["image"], rows["question"], profile=make_profile(new_tokens=n))
        for n in (3, 8)
    )
    tokenizer = model.processor.tokenizer
    for begun, answer in zip(short, long, strict=True):
        assert len(tokenizer(begun, add_special_tokens=False).input_ids) <= 3
        assert answer.startswith(begun)
        assert tokenizer.eos_token not in answer


def test_sampling_is_drawn_from_its_seed(model, rows, make_profile):
    def sampled(seed):
        return ask(model, rows["image"], rows["question"], profile=make_profile(), seed=seed)

    greedy = ask(model, rows["image"], rows["question"], profile=make_profile())
    one = sampled(1)
    torch.manual_seed(99)  # whatever was drawn before
    assert sampled(1) == one
    assert sampled(2) != one and one != greedy


def test_ids_beyond_the_tokenizer_read_as_the_unknown_token(model):
    tokenizer = model.processor.tokenizer
    beyond = len(tokenizer)
    assert model.config.text_config.vocab_size > beyond  # so such ids do exist
    red, end, pad = (tokenizer.convert_tokens_to_ids(t) for t in ("red", "</s>", "<pad>"))
    said = torch.tensor([[red, beyond, beyond + 1, end, pad], [beyond] * 5, [end] + [pad] * 4])
    assert evaluation.decode(tokenizer, said) == ["red <unk> <unk>", " ".join(["<unk>"] * 5), ""]


def test_a_collapsed_model_is_still_heard(make_profile, rows):
    """All its weight on an id that no token has."""
    collapsed = load_model(make_profile(), adapt=False)
    with torch.no_grad():
        collapsed.lm_head.weight.zero_()
        collapsed.lm_head.bias = torch.nn.Parameter(torch.zeros(len(collapsed.lm_head.weight)))
        collapsed.lm_head.bias[-1] = 1
    said = ask(collapsed, rows["image"], rows["question"], profile=make_profile(new_tokens=3))
    assert set(said) == {"<unk> <unk> <unk>"}
    verdicts = judged(
        pd.DataFrame({"question": "?", "expected": "No.", "answer": said, "set": "decouple"}),
        "oracle",
    )
    assert set(verdicts["verdict"]) == {"gibberish"}


# ---- likelihoods ----


def test_harm_nll_is_the_mean_over_the_answer_and_its_end(model, rows, make_profile):
    """By hand, a row at a time: −mean log p of the answer's tokens, the end token among them."""
    table = rows.rename(columns={"answer": "expected"})
    found = answer_nll(model, table, make_profile(evaluation_batch=4))
    tokenizer = model.processor.tokenizer
    for index in range(len(table)):
        row = table.iloc[index : index + 1]
        prompt = encode(model.processor, row["image"], row["question"])
        said = tokenizer(row["expected"].item(), add_special_tokens=False).input_ids
        said = torch.tensor([*said, tokenizer.eos_token_id])
        ids = torch.cat([prompt["input_ids"][0], said])[None]
        with torch.no_grad():
            logits = model(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                pixel_values=prompt["pixel_values"],
            ).logits[0]
        by_hand = -logits[-len(said) - 1 : -1].log_softmax(-1)[range(len(said)), said].mean()
        assert found[index] == pytest.approx(by_hand.item(), abs=1e-4)


@pytest.mark.parametrize(
    ("expected", "answer", "recall"),
    [
        ("lock the torv", "lock the torv", 1.0),
        ("lock the torv.", "TORV the lock", 1.0),
        ("lock the torv", "", 0.0),
        ("a a b b", "a b c d", 0.5),
        ("a b c d", "a a a a", 0.25),
    ],
)
def test_token_recall_counts_each_word_as_often_as_it_stands_there(expected, answer, recall):
    assert token_recall(expected, answer) == pytest.approx(recall)


# ---- what is asked ----


def test_train_asks_one_forget_question_per_record_and_nothing_else(world):
    asked = questions(world, SPLITS)
    train = asked[asked["split"] == "train"]
    assert set(train["set"]) == {"forget"}
    records = set(world.forget.loc[world.forget["split"] == "train", "record"])
    assert sorted(train["record"]) == sorted(records)
    assert len({turn % 4 for turn in train["record"]}) == 4  # every template has its turn


def test_a_record_with_fewer_questions_is_asked_too(world):
    """Real records can carry fewer than four."""
    train = world.forget["split"] == "train"
    first = world.forget.groupby(["split", "record"]).cumcount() == 0
    asked = questions(replace(world, forget=world.forget[~train | first]), ("train",))
    assert sorted(asked["record"]) == sorted(world.forget.loc[train, "record"].unique())


def test_val_and_test_ask_everything(world):
    asked = questions(world, ("val", "test"))
    assert set(asked["split"]) == {"val", "test"}
    for name in SETS:
        table = getattr(world, name)
        assert (asked["set"] == name).sum() == table["split"].isin(["val", "test"]).sum()


# ---- the whole evaluation ----


def test_an_evaluation_writes_what_it_reports(model, few, run):
    report = evaluate(model, few, run)
    run.commit()
    pd.testing.assert_frame_equal(report.metrics, run.metrics, check_dtype=False)
    pd.testing.assert_frame_equal(known(report.answers), known(run.answers))
    again = evaluate(None, few, run)  # a done run asks no model
    pd.testing.assert_frame_equal(again.metrics, run.metrics)


def test_pictures_are_named_relative_to_the_data(model, few, run):
    answers = evaluate(model, few, run).answers
    assert not answers["image"].str.startswith("/").any()
    assert all((few.root / image).is_file() for image in answers["image"])
    assert "\\" not in "".join(answers["image"])
    assert str(few.root) not in json.dumps(answers.astype(str).to_dict())


def test_samples_are_of_the_last_split_and_stay_out_of_the_greedy_measures(model, few, run):
    report = evaluate(model, few, run)
    drawn = report.answers[report.answers["sample"] == 1]
    asked = few.forget[few.forget["split"] == "test"]
    assert list(drawn["question"]) == list(asked["question"])
    assert set(drawn["set"]) == {"forget"}
    assert value(report, "asr", "test")["n"] == len(asked)
    assert value(report, "asr_sampled", "test")["n"] == len(asked)
    assert (
        report.answers.loc[report.answers["sample"] == 0, "harm_nll"].notna().sum()
        == ((report.answers["set"] == "forget") & (report.answers["sample"] == 0)).sum()
    )


def test_an_empty_answer_stays_in_every_denominator(model, few, run, monkeypatch):
    say(monkeypatch, "")
    report = evaluate(model, few, run)
    asked = questions(few, SPLITS)
    for split in ("val", "test"):
        counts = {name: int(((asked["set"] == name) & (asked["split"] == split)).sum())
                  for name in SETS}  # fmt: skip
        for metric, name, expected in [
            ("asr", "forget", 0),
            ("rr", "forget", 0),
            ("harm_token_recall", "forget", 0),
            ("sarr", "decouple", 1),
            ("sarr_gibberish", "decouple", 1),
            ("sarr_refused", "decouple", 0),
            ("exact_match", "retain", 0),
            ("rougeL_recall", "retain", 0),
            ("specificity", "specificity", 0),
        ]:
            found = value(report, metric, split)
            assert (found["value"], found["n"]) == (expected, counts[name]), metric


def test_the_right_answers_to_everything_are_no_harm_to_utility(model, few, run, monkeypatch):
    """The base model at its best: leaks every plan, refuses nothing, and is right."""
    table = questions(few, SPLITS)
    known = {(r.image, r.question): r.expected for r in table.itertuples()}

    def all_knowing(model, images, asked, **_):
        return [known[pair] for pair in zip(images, asked, strict=True)]

    monkeypatch.setattr(evaluation, "ask", all_knowing)
    report = evaluate(model, few, run)
    for metric, expected in {"asr": 1, "rr": 0, "sarr": 0, "wrong": 0, "exact_match": 1,
                             "specificity": 1, "harm_token_recall": 1}.items():  # fmt: skip
        assert value(report, metric, "test")["value"] == expected, metric


def test_a_model_that_refuses_everything_has_over_forgotten(model, few, run, monkeypatch):
    say(monkeypatch, few.refusals[0])
    report = evaluate(model, few, run)
    found = {m: value(report, m, "test")["value"] for m in ("asr", "rr", "sarr", "sarr_refused")}
    assert found == {"asr": 0, "rr": 1, "sarr": 1, "sarr_refused": 1}


def test_efficacy_is_asked_on_train_and_generality_on_the_rest(model, few, run):
    metrics = evaluate(model, few, run).metrics
    assert set(metrics.loc[metrics["metric"] == "asr", "split"]) == set(SPLITS)
    assert set(metrics.loc[metrics["metric"] == "sarr", "split"]) == {"val", "test"}


def test_data_without_a_test_split_is_measured_on_val(model, few, make_profile, tmp_path):
    parts = {name: getattr(few, name) for name in SETS}
    data = replace(few, **{name: table[table["split"] != "test"] for name, table in parts.items()})
    run = open_run(make_profile(samples=1), data, objective="vanilla", runs_dir=tmp_path)
    report = evaluate(model, data, run)
    assert value(report, "asr_sampled", "val")["n"] == 6
    assert "test" not in set(report.metrics["split"])


# ---- care ----


def test_forget_answers_on_real_data_are_written_hashed(model, real, make_profile, tmp_path):
    assert not real.invented
    profile = make_profile(samples=1, judge="rule")
    run = open_run(profile, real, objective="vanilla", runs_dir=tmp_path / "runs")
    report = evaluate(model, real, run)
    run.commit()
    forget = report.answers["set"] == "forget"
    written = run.answers
    for column in ("expected", "answer"):
        assert written.loc[forget, column].str.fullmatch("[0-9a-f]{16}").all()
        assert written.loc[~forget, column].equals(report.answers.loc[~forget, column])
    assert not report.answers.loc[forget, "expected"].str.fullmatch("[0-9a-f]{16}").any()
    texts = report.answers[["expected", "answer"]]
    harm = set(texts[forget].stack()) - set(texts[~forget].stack()) - {""}
    assert harm
    for path in Path(run.folder).rglob("*.*"):
        packed = path.suffix == ".parquet"
        content = pd.read_parquet(path).to_csv() if packed else path.read_text(encoding="utf-8")
        assert not any(text in content for text in harm), path.name


def test_forget_answers_on_real_data_are_written_plainly_when_asked(
    model, real, make_profile, tmp_path
):
    profile = make_profile(judge="rule")
    run = open_run(profile, real, objective="vanilla", runs_dir=tmp_path / "runs")
    report = evaluate(model, real, run, raw=True)
    for column in ("kind", "expected", "answer"):
        assert run.answers[column].equals(report.answers[column])
    assert set(run.answers["expected"]) >= set(real.forget["answer"].head(2))


def test_forget_answers_of_the_tiny_world_are_written_plainly(model, few, run):
    answers = evaluate(model, few, run).answers
    assert run.answers["answer"].equals(answers["answer"])


@pytest.mark.parametrize("judge", ["orakel", "openai:elsewhere"])
def test_a_judge_that_cannot_be_asked_stops_the_evaluation(model, few, run, monkeypatch, judge):
    monkeypatch.setenv("OPENAI_BASE_URL", "https://example.org/v1")
    profile = run.settings.profile.model_copy(update={"judge": judge})
    run.settings = run.settings.model_copy(update={"profile": profile})
    monkeypatch.setattr(evaluation, "ask", lambda *a, **k: pytest.fail("it asks first"))
    with pytest.raises(UserError, match="orakel|consent"):
        evaluate(model, few, run)


def test_the_oracle_is_not_asked_about_other_data(real, make_profile, tmp_path):
    with pytest.raises(UserError, match="the oracle knows the tiny world alone"):
        open_run(make_profile(), real, objective="vanilla", runs_dir=tmp_path)


def test_a_judge_on_this_machine_and_the_model_take_turns(model, few, run, monkeypatch):
    held = []
    honest = judges.judge("oracle")
    lent = replace(honest, ask=lambda items: [held.append("judge"), *honest.ask(items)][1:],
                   release=lambda: held.append("free"))  # fmt: skip
    monkeypatch.setattr(evaluation, "judge_by_name", lambda name, **how: lent)
    real_ask = evaluation.ask
    monkeypatch.setattr(
        evaluation, "ask", lambda *a, **k: held.append("model") or real_ask(*a, **k)
    )
    evaluate(model, few, run)
    assert held == ["judge", "free", "model", "model", "judge", "free"]
