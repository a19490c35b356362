"""An answer belongs to its question, whatever shared its batch."""

import pandas as pd
import pytest
import torch

from safeerase_lite.evaluation import generate as generate_module
from safeerase_lite.evaluation.evaluate import judge_answers
from safeerase_lite.evaluation.generate import answer_nll, decode, generate
from safeerase_lite.models import prefix
from safeerase_lite.models.inputs import encode, encode_text
from safeerase_lite.models.llava import load_model


@pytest.fixture(scope="module")
def rows(world):
    """Ten questions of many lengths, the long ones first: batching must sort them and back."""
    rows = world.forget[world.forget["split"] == "val"].head(10)
    return rows.sort_values("question", key=lambda q: q.str.len(), ascending=False)


@pytest.fixture
def answers(base_model, rows, make_config):
    def answers(rows=rows, seed=None, **fields):
        return generate(
            base_model, rows["image"], rows["question"], make_config(**fields), seed=seed
        )

    return answers


@pytest.mark.parametrize("projector", ["trained", "frozen"])
def test_an_adapted_model_answers_in_half_precision(rows, make_config, projector, monkeypatch):
    monkeypatch.setattr("safeerase_lite.models.llava.cpu_has_bfloat16", lambda: True)
    config = make_config(compute="bfloat16", projector=projector)
    model = load_model(config)
    assert len(generate(model, rows["image"], rows["question"], config)) == len(rows)
    assert all(nats > 0 for nats in answer_nll(model, rows, config))


# ---- batches ----


def test_a_batch_that_does_not_fit_the_gpu_is_done_in_halves(
    base_model, rows, make_config, answers, monkeypatch
):
    def everything():
        return answers(), answer_nll(base_model, rows, make_config())

    expected, sizes = everything(), []

    def small(compute):
        def limited(first, rows, *others):
            sizes.append(len(rows))
            if len(rows) > 3:
                raise torch.cuda.OutOfMemoryError
            return compute(first, rows, *others)

        return limited

    for owner, name in ((prefix.Prefixes, "inputs"), (generate_module, "answer_logits")):
        monkeypatch.setattr(owner, name, small(getattr(owner, name)))
    halved = everything()
    assert halved[0] == expected[0]
    assert halved[1] == pytest.approx(expected[1], abs=1e-4)  # padded otherwise: float32 rounding
    assert sizes == [8, 4, 2, 2, 4, 2, 2, 2] * 2


def test_a_question_that_does_not_fit_the_gpu_is_an_error(answers, monkeypatch):
    def full(*_):
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(prefix, "embed", full)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        answers()


def test_a_picture_is_read_once_for_all_that_is_asked_about_it(answers, rows, monkeypatch):
    read, real = [], prefix.embed
    monkeypatch.setattr(
        prefix,
        "embed",
        lambda model, ids, images: (read.extend(images), real(model, ids, images))[1],
    )
    twice = pd.concat([rows, rows.assign(question="Where is it ?")])
    answers(twice, eval_batch_size=3)
    assert sorted(read) == sorted(rows["image"].unique())


def test_pictures_that_do_not_fit_the_cache_are_read_anew(answers, rows, monkeypatch):
    """A cache of one picture at a time, and questions about several in a batch."""
    expected, read, real = answers(), [], prefix.embed
    monkeypatch.setattr(prefix, "PREFIX_BYTES", 1)
    monkeypatch.setattr(
        prefix,
        "embed",
        lambda model, ids, images: (read.extend(images), real(model, ids, images))[1],
    )
    assert answers() == expected
    assert sorted(read) == sorted(rows["image"].unique())  # a picture's questions are neighbours


def test_answers_come_in_the_order_of_the_questions_whatever_the_batch(rows, answers):
    alone = [answers(rows.iloc[[index]])[0] for index in range(len(rows))]
    assert len(set(alone)) > 5  # pictures and questions do matter to this model
    for size in (1, 4, 128):
        assert answers(eval_batch_size=size) == alone


# ---- decoding ----


def test_an_answer_ends_at_its_end_token_or_at_the_limit(base_model, answers):
    tokenizer = base_model.processor.tokenizer
    for short, long in zip(answers(max_new_tokens=3), answers(max_new_tokens=8), strict=True):
        assert len(tokenizer(short, add_special_tokens=False).input_ids) <= 3
        assert long.startswith(short)
        assert tokenizer.eos_token not in long


def test_sampled_answers_depend_on_their_seed_alone(answers):
    one = answers(seed=1)
    torch.manual_seed(99)  # whatever was drawn before
    assert answers(seed=1) == one
    assert answers(seed=2) != one and one != answers()


def test_ids_beyond_the_tokenizer_are_decoded_as_the_unknown_token(base_model):
    tokenizer = base_model.processor.tokenizer
    beyond = len(tokenizer)
    assert base_model.config.text_config.vocab_size > beyond  # so such ids do exist
    red, end, pad = (tokenizer.convert_tokens_to_ids(t) for t in ("red", "</s>", "<pad>"))
    ids = torch.tensor([[red, beyond, beyond + 1, end, pad], [beyond] * 5, [end] + [pad] * 4])
    assert decode(tokenizer, ids) == ["red <unk> <unk>", " ".join(["<unk>"] * 5), ""]


def test_a_collapsed_model_gives_gibberish_not_an_error(make_config, rows):
    """All its weight on an id that no token has."""
    collapsed = load_model(make_config(), adapt=False)
    with torch.no_grad():
        collapsed.lm_head.weight.zero_()
        collapsed.lm_head.bias = torch.nn.Parameter(torch.zeros(len(collapsed.lm_head.weight)))
        collapsed.lm_head.bias[-1] = 1
    answers = generate(collapsed, rows["image"], rows["question"], make_config(max_new_tokens=3))
    assert set(answers) == {"<unk> <unk> <unk>"}
    table = {"question": "?", "expected": "No.", "answer": answers, "set": "decouple"}
    assert set(judge_answers(pd.DataFrame(table), "oracle")["verdict"]) == {"gibberish"}


# ---- likelihoods ----


def test_answer_nll_is_the_mean_over_the_answer_and_its_end(base_model, rows, make_config):
    """By hand, a row at a time: −mean log p of the answer's tokens, the end token among them."""
    computed = answer_nll(base_model, rows, make_config(eval_batch_size=4))
    tokenizer = base_model.processor.tokenizer
    for index in range(len(rows)):
        row = rows.iloc[index : index + 1]
        prompt = encode(base_model.processor, row["image"], row["question"])
        answer = tokenizer(row["answer"].item(), add_special_tokens=False).input_ids
        answer = torch.tensor([*answer, tokenizer.eos_token_id])
        ids = torch.cat([prompt["input_ids"][0], answer])[None]
        with torch.no_grad():
            logits = base_model(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                pixel_values=prompt["pixel_values"],
            ).logits[0]
        by_hand = -logits[-len(answer) - 1 : -1].log_softmax(-1)[range(len(answer)), answer].mean()
        # Padding changes the order of float32 sums.
        assert computed[index] == pytest.approx(by_hand.item(), abs=1e-4)


def test_a_question_without_a_picture_is_asked_in_words_alone(rows, answers, base_model):
    in_words = rows.assign(image="")
    texts = answers(in_words, eval_batch_size=3)
    assert texts == answers(in_words, eval_batch_size=10)
    assert texts != answers(rows)
    batch = encode_text(base_model.processor, [rows["question"].iloc[0]], images=[""])
    ids = base_model.generate(**batch, max_new_tokens=8, do_sample=False)
    ids = ids[:, batch["input_ids"].shape[1] :]
    assert texts[:1] == decode(base_model.processor.tokenizer, ids)
