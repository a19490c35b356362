"""Questions as tensors: pictures and text through the processor, the answer's tokens as labels."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from safeerase_lite.data.images import file_signature, open_image
from safeerase_lite.utils import UserError

from .anatomy import image_tokens

IGNORED = -100


def encode(processor, images: Sequence[str], questions: Sequence[str], answers=None) -> dict:
    """A batch for a LLaVA, padded on the left, so that answers end flush on the right.

    Args:
        processor: a LlavaProcessor.
        images: paths of pictures, one per question.
        questions: one per picture.
        answers: one per question; an end token is added. None: the model is to answer.

    Returns:
        input_ids, attention_mask, pixel_values and, with answers, labels: (batch, length), the
        answer's tokens and -100 at prompt, picture and padding. Nothing is ever cut off: a cut
        could go through a picture's tokens.
    """
    pictures = torch.stack([pixels(processor, path) for path in images])
    return encode_text(processor, questions, answers) | {"pixel_values": pictures}


def encode_text(processor, questions: Sequence[str], answers=None) -> dict:
    """`encode` without the pictures.

    Raises:
        UserError: a prompt has not the tokens of exactly one picture; rows would read each other's.
    """
    prompts = [list(_prompt_ids(processor, question)) for question in questions]
    endings = [[]] * len(prompts)
    if answers is not None:
        endings = [list(answer_ids(processor, answer)) for answer in answers]
    rows = [prompt + ending for prompt, ending in zip(prompts, endings, strict=True)]
    taken, expected = {row.count(processor.image_token_id) for row in rows}, image_tokens(processor)
    if taken != {expected}:
        raise UserError(
            f"a prompt has {max(taken - {expected})} tokens of pictures, and its one picture takes "
            f"{expected}: one {processor.image_token} in the chat template, none in texts"
        )
    batch = {
        "input_ids": _pad(rows, processor.tokenizer.pad_token_id),
        "attention_mask": _pad([[1] * len(row) for row in rows], 0),
    }
    if answers is not None:
        labels = [[IGNORED] * len(p) + e for p, e in zip(prompts, endings, strict=True)]
        batch["labels"] = _pad(labels, IGNORED)
    return batch


def _pad(rows: list[list[int]], value: int) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([[value] * (longest - len(row)) + row for row in rows])


@lru_cache(maxsize=4096)
def answer_ids(processor, answer: str) -> tuple[int, ...]:
    """The tokens of an answer, the end token included."""
    return (*_text_ids(processor, answer), processor.tokenizer.eos_token_id)


def _text_ids(processor, text: str) -> list[int]:
    """The tokens of a text in which nothing, such as </s>, is a token of the model's own."""
    return processor.tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids


@lru_cache(maxsize=4096)
def _prompt_ids(processor, question: str) -> tuple[int, ...]:
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
    text = processor.apply_chat_template([turn], add_generation_prompt=True)
    text = text.replace(processor.image_token, processor.image_token * image_tokens(processor))
    tokenizer = processor.tokenizer
    if not any(token in question for token in tokenizer.all_special_tokens):
        return tuple(tokenizer(text).input_ids)
    before, question, after = text.partition(question)
    after = tokenizer(after, add_special_tokens=False).input_ids
    return (*tokenizer(before).input_ids, *_text_ids(processor, question), *after)


def pixels(processor, path: str) -> Tensor:
    """A picture as a vision tower reads it: (3, side, side), float32."""
    return _pixels(processor, file_signature(path))


@lru_cache(maxsize=256)  # of 336 × 336, 350 MB
def _pixels(processor, picture: tuple[str, int, int]) -> Tensor:
    image = open_image(picture[0])
    return processor.image_processor(image, return_tensors="pt").pixel_values[0]
