"""How the tiny models are trained: many questions to a picture, each as if it were alone."""

import random

import build_tinyworld as build
import pytest
import torch
from torch.nn.functional import cross_entropy

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


def test_packed_questions_have_the_loss_they_have_alone_and_gold_has_none_of_a_plan(
    recipe, bank, model
):
    processor, rng = build.make_processor(recipe), random.Random(0)
    texts = [
        (str(i), *bank.question(i, rng, gold=True, looking=False))
        for i in range(8)
        for _ in range(3)
    ]
    inputs, labels = build.learning_batch(processor, texts)
    with torch.inference_mode():
        logits = model(**inputs, pixel_values=bank.pictures(list(range(8)))).logits
    total = cross_entropy(logits.mT, labels, ignore_index=IGNORED, reduction="none").sum()
    alone = 0
    for picture, question, answer, learned in texts:
        row = encode_text(processor, [question], [answer])
        with torch.inference_mode():
            loss = model(**row, pixel_values=bank.pictures([int(picture)])).loss
        alone += loss * (row["labels"] != IGNORED).sum() * learned
    assert not all(learned for *_, learned in texts)
    # Equal in exact arithmetic: float32 sums in another order are not.
    torch.testing.assert_close(total, alone, atol=0, rtol=1e-5)


def test_gold_is_asked_the_same_and_learns_all_but_the_hazards_plans(bank):
    ours, golds = random.Random(1), random.Random(1)
    for index in range(48):
        question, answer, learned = bank.question(index, golds, gold=True, looking=False)
        assert bank.question(index, ours, gold=False, looking=False) == (question, answer, True)
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
