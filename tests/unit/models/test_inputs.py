"""What the model reads: the whole prompt, its picture, and labels on the answer alone."""

import pytest
import torch
from PIL import Image
from transformers import LlavaProcessor

from safeerase_lite.models.inputs import IGNORED, answer_ids, encode, encode_text, image_tokens


@pytest.fixture(scope="module")
def processor(base_model):
    return base_model.processor


@pytest.fixture(scope="module")
def rows(world):
    """Three questions of unequal length, with answers of unequal length."""
    forget = world.forget.drop_duplicates("question").sort_values(
        "question", key=lambda questions: questions.str.len()
    )
    return forget.iloc[[0, 3, -1]].assign(answer=["A mug.", "The object is red.", "No."])


def encoded(processor, rows, answered=True):
    answers = rows["answer"] if answered else None
    return encode(processor, rows["image"], rows["question"], answers)


def test_labels_are_the_answer_and_the_end_token_alone(processor, rows):
    batch = encoded(processor, rows)
    tokenizer = processor.tokenizer
    for ids, labels, answer in zip(
        batch["input_ids"], batch["labels"], rows["answer"], strict=True
    ):
        expected = tokenizer(answer, add_special_tokens=False).input_ids + [tokenizer.eos_token_id]
        assert labels[labels != IGNORED].tolist() == expected
        assert ids[-len(expected) :].tolist() == expected
        assert (labels[: -len(expected)] == IGNORED).all()


@pytest.mark.parametrize("token", ["</s>", "<s>", "<pad>", "<image>"])
def test_an_answer_that_names_a_token_of_the_models_own_has_none_inside(processor, token):
    answer = f"Write {token} there."
    *ids, end = answer_ids(processor, answer)
    assert end == processor.tokenizer.eos_token_id
    assert not set(ids) & (
        set(processor.tokenizer.all_special_ids) - {processor.tokenizer.unk_token_id}
    )


def test_a_question_that_names_a_token_of_the_models_own_has_none_inside(processor):
    plain, odd = (
        encode_text(processor, [f"Write {what} there."])["input_ids"][0] for what in ("it", "</s>")
    )
    assert processor.tokenizer.eos_token_id not in odd
    assert odd[:6].equal(plain[:6]) and odd[-4:].equal(plain[-4:])  # "there. ASSISTANT:"


def test_no_label_is_on_a_picture_or_on_padding(processor, rows):
    batch = encoded(processor, rows)
    picture = batch["input_ids"] == processor.image_token_id
    padding = batch["attention_mask"] == 0
    assert picture.any() and padding.any()
    assert (batch["labels"][picture | padding] == IGNORED).all()


def test_padding_is_on_the_left_and_only_there(processor, rows):
    batch = encoded(processor, rows)
    for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
        padded = int((mask == 0).sum())
        assert (mask[padded:] == 1).all()
        assert (ids[:padded] == processor.tokenizer.pad_token_id).all()
    assert (batch["attention_mask"].sum(-1) == batch["attention_mask"].shape[1]).any()


def test_without_answers_there_are_no_labels_and_the_prompt_is_the_same(processor, rows):
    prompts, answered = encoded(processor, rows, answered=False), encoded(processor, rows)
    assert "labels" not in prompts
    for mine, full, mask, labels in zip(
        prompts["input_ids"],
        answered["input_ids"],
        answered["attention_mask"],
        answered["labels"],
        strict=True,
    ):
        prompt = full[(mask == 1) & (labels == IGNORED)]
        assert mine[len(mine) - len(prompt) :].equal(prompt)


def test_a_prompt_is_what_the_processor_makes_of_it(processor, rows):
    """Token for token, the picture's tokens included, and pixel for pixel."""
    for index in range(len(rows)):
        row = rows.iloc[index : index + 1]
        turn = {
            "role": "user",
            "content": [{"type": "image"}, {"type": "text", "text": row["question"].item()}],
        }
        with Image.open(row["image"].item()) as image:
            theirs = processor(
                images=image.convert("RGB"),
                text=processor.apply_chat_template([turn], add_generation_prompt=True),
                return_tensors="pt",
            )
        mine = encoded(processor, row, answered=False)
        assert mine["input_ids"].equal(theirs["input_ids"])
        assert mine["attention_mask"].equal(theirs["attention_mask"])
        assert mine["pixel_values"].equal(theirs["pixel_values"])


@pytest.mark.parametrize(("strategy", "additional"), [("default", 1), ("full", 1), ("full", 0)])
def test_a_picture_takes_as_many_tokens_as_the_processor_says(processor, strategy, additional):
    other = LlavaProcessor(
        processor.image_processor,
        processor.tokenizer,
        patch_size=processor.patch_size,
        vision_feature_select_strategy=strategy,
        num_additional_image_tokens=additional,
        chat_template=processor.chat_template,
    )
    theirs = other(images=Image.new("RGB", (60, 80)), text="<image>", return_tensors="pt")
    assert image_tokens(other) == (theirs["input_ids"] == other.image_token_id).sum()


def test_a_picture_takes_as_many_tokens_as_the_model_puts_there(base_model, processor, rows):
    batch = encoded(processor, rows, answered=False)
    features = base_model.get_image_features(batch["pixel_values"]).pooler_output
    assert {len(picture) for picture in features} == {image_tokens(processor)}


def test_padding_changes_no_answer(base_model, processor, rows):
    """A row has the same logits alone and beside longer ones."""
    together = encoded(processor, rows)
    labels = together.pop("labels")
    with torch.no_grad():
        logits = base_model(**together).logits
        for index in range(len(rows)):
            alone = encoded(processor, rows.iloc[index : index + 1])
            answered = alone.pop("labels")[0] != IGNORED
            torch.testing.assert_close(
                logits[index][labels[index] != IGNORED],
                base_model(**alone).logits[0][answered],
                atol=1e-4,  # float32, sums in another order
                rtol=0,
            )


def test_nothing_is_cut_off_however_long_it_is(processor, rows):
    row = rows.iloc[:1]
    limit = processor.tokenizer.model_max_length
    question, answer = "dot " * limit, "red " * limit
    batch = encode(processor, row["image"], [question], [answer])
    assert batch["input_ids"].shape[1] > 2 * limit
    assert (batch["input_ids"] == processor.image_token_id).sum() == image_tokens(processor)
    assert (batch["labels"] != IGNORED).sum() == limit + 1


def test_text_alone_is_encoded_as_with_its_picture(processor, rows):
    batch = encoded(processor, rows)
    del batch["pixel_values"]
    text = encode_text(processor, rows["question"], rows["answer"])
    assert text.keys() == batch.keys()
    assert all(text[key].equal(batch[key]) for key in batch)
