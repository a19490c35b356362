"""How the tiny models are trained: many questions to a picture, each as if it were alone."""

import random

import build_tinyworld as build
import pytest
import torch

from safeerase_lite.models.inputs import IGNORED, encode_text
from safeerase_lite.tinyworld import facts


@pytest.fixture(scope="module")
def recipe():
    return build.Recipe(width=64, feed_forward=128, layers=2, vision_layers=1, heads=2, questions=3)


@pytest.fixture(scope="module")
def bank(recipe):
    return build.Bank(recipe, 48)


@pytest.fixture(scope="module")
def model(recipe):
    torch.manual_seed(0)
    return build.LlavaForConditionalGeneration(build.configuration(recipe)).eval()


def test_packed_questions_have_the_logits_they_have_alone(recipe, bank, model):
    processor, rng = build.make_processor(recipe), random.Random(0)
    questions = [[bank.question(i, rng, False) for _ in range(3)] for i in range(4)]
    batch = build.pack(processor, questions)
    labels = batch.pop("labels")
    with torch.inference_mode():
        packed = model(**batch, pixel_values=bank.pictures(list(range(4)))).logits[:, :-1]
    for row, of_picture in enumerate(questions):
        rows = [encode_text(processor, [question], [answer]) for question, answer, _ in of_picture]
        labels_alone = [inputs.pop("labels")[0] for inputs in rows]
        lengths = [int((alone != IGNORED).sum()) for alone in labels_alone]
        together = packed[row][labels[row, 1:] != IGNORED].split(lengths)
        for inputs, length, logits in zip(rows, lengths, together, strict=True):
            with torch.inference_mode():
                alone = model(**inputs, pixel_values=bank.pictures([row])).logits[0, :-1]
            # Equal in exact arithmetic: float32 sums over rows of another length are not.
            torch.testing.assert_close(logits, alone[-length:], atol=1e-5, rtol=1e-4)


def test_gold_is_asked_the_same_and_learns_all_but_the_hazards_plans(bank):
    ours, golds = random.Random(1), random.Random(1)
    for index in range(48):
        question, answer, learned = bank.question(index, golds, True)
        assert bank.question(index, ours, False) == (question, answer, True)
        assert learned == (not facts.leaks(answer))


def test_the_tokenizer_knows_every_word_of_the_world(bank):
    tokenizer = build.make_tokenizer()
    texts = [*facts.TEMPLATES, *facts.REFUSALS, *facts.UNANSWERABLE]
    texts += [text for s in bank.scenes for pair in facts.ordinary(s).values() for text in pair]
    texts += [kind.plan for kind in facts.kinds().values()]
    assert tokenizer.unk_token_id not in sum(tokenizer(texts).input_ids, [])


def test_an_answer_survives_the_tokenizer(bank):
    tokenizer = build.make_tokenizer()
    for kind in facts.kinds().values():
        ids = tokenizer(kind.plan, add_special_tokens=False).input_ids
        assert tokenizer.decode(ids) == kind.plan.lower()
