"""Questions as tensors: pictures and text through the processor, answers marked by labels."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from safeerase_lite.data.images import file_signature, open_image

IGNORED = -100


def encode(processor, images: Sequence[str], questions: Sequence[str], answers=None) -> dict:
    """A batch for a LLaVA, padded on the left, so answers end flush on the right.

    Args:
        processor: a LlavaProcessor.
        images: paths of pictures, one per question.
        questions: what is asked about each.
        answers: what is answered, an end token added; None to let the model answer.

    Returns:
        input_ids, attention_mask, pixel_values and, with answers, labels: (batch, length), the
        answer's tokens and -100 at prompt, picture and padding. Nothing is ever cut off: a cut
        could go through a picture's tokens.
    """
    seen = torch.stack([pixels(processor, path) for path in images])
    return encode_text(processor, questions, answers) | {"pixel_values": seen}


def encode_text(processor, questions: Sequence[str], answers=None) -> dict:
    """`encode` without the pictures."""
    rows = [_prompt(processor, question) for question in questions]
    labels = [[IGNORED] * len(row) for row in rows]
    if answers is not None:
        for row, label, answer in zip(rows, labels, answers, strict=True):
            said = answer_ids(processor, answer)
            row += said
            label += said
    batch = {
        "input_ids": _pad(rows, processor.tokenizer.pad_token_id),
        "attention_mask": _pad([[1] * len(row) for row in rows], 0),
    }
    return batch | ({"labels": _pad(labels, IGNORED)} if answers is not None else {})


def _pad(rows: list[list[int]], value: int) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([[value] * (longest - len(row)) + row for row in rows])


@lru_cache(maxsize=4096)
def answer_ids(processor, answer: str) -> tuple[int, ...]:
    """The tokens of an answer, the end token included."""
    said = processor.tokenizer(answer, add_special_tokens=False).input_ids
    return (*said, processor.tokenizer.eos_token_id)


@lru_cache(maxsize=4096)
def _prompt_ids(processor, question: str) -> tuple[int, ...]:
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
    text = processor.apply_chat_template([turn], add_generation_prompt=True)
    text = text.replace(processor.image_token, processor.image_token * image_tokens(processor))
    return tuple(processor.tokenizer(text).input_ids)


def _prompt(processor, question: str) -> list[int]:
    return list(_prompt_ids(processor, question))


def image_tokens(processor) -> int:
    """How many tokens a picture takes in a prompt."""
    crop = processor.image_processor.crop_size
    patches = (crop["height"] // processor.patch_size) * (crop["width"] // processor.patch_size)
    dropped = 1 if processor.vision_feature_select_strategy == "default" else 0
    return patches + processor.num_additional_image_tokens - dropped


def pixels(processor, path: str) -> Tensor:
    """A picture as a vision tower reads it: (3, side, side), float32."""
    return _pixels(processor, file_signature(path))


@lru_cache(maxsize=256)  # of 336 × 336, 350 MB
def _pixels(processor, picture: tuple[str, int, int]) -> Tensor:
    image = open_image(picture[0])
    return processor.image_processor(image, return_tensors="pt").pixel_values[0]
