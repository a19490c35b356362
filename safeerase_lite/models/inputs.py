"""Questions as tensors: pictures and text through the processor, the answer's tokens as labels."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

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


def encode_text(processor, questions: Sequence[str], answers=None, pictures: int = 1) -> dict:
    """`encode` without the pictures; `pictures`: how many each prompt has a place for, 1 or 0."""
    prompts = [list(prompt_ids(processor, question, pictures)) for question in questions]
    endings = [[]] * len(prompts)
    if answers is not None:
        endings = [list(answer_ids(processor, answer)) for answer in answers]
    rows = [prompt + ending for prompt, ending in zip(prompts, endings, strict=True)]
    batch = {
        "input_ids": pad(rows, processor.tokenizer.pad_token_id),
        "attention_mask": pad([[1] * len(row) for row in rows], 0),
    }
    if answers is not None:
        labels = [[IGNORED] * len(p) + e for p, e in zip(prompts, endings, strict=True)]
        batch["labels"] = pad(labels, IGNORED)
    return batch


def pad(rows: Sequence[Sequence[int]], value: int, side: str = "left") -> Tensor:
    """(rows, longest), filled up with a value on one side."""
    tensors = [torch.tensor(row) for row in rows]
    return pad_sequence(tensors, batch_first=True, padding_value=value, padding_side=side)


# ---- many questions to a picture ----


@dataclass
class PackedRow:
    """A picture and questions about it, in one row: the prompt up to the picture's end once, then a
    segment for each question with its answer. A question without a picture is a row of its own.

    Attributes:
        image: the picture's path; "": there is none.
        ids: the row's tokens.
        positions: of each token, as if its segment stood alone after the picture.
        segments: the number of each token's segment, from 1; 0 up to the picture's end.
        predictors: the answer's number → the places in this row that predict its tokens.
    """

    image: str
    ids: list[int]
    positions: list[int]
    segments: list[int]
    predictors: dict[int, list[int]] = field(default_factory=dict)

    def add(self, number: int, prompt: Sequence[int], answer: Sequence[int]) -> None:
        """Add a segment; prompt: what follows the picture."""
        prefix, start = self.segments.count(0), len(self.ids)
        segment = [*prompt, *answer]
        self.ids += segment
        self.positions += range(prefix, prefix + len(segment))
        self.segments += [len(self.predictors) + 1] * len(segment)
        first = start + len(prompt) - 1  # the token before an answer predicts its first token
        self.predictors[number] = list(range(first, first + len(answer)))


def pack(
    processor, images: Sequence[str], questions: Sequence[str], answers: Sequence[str]
) -> list[PackedRow]:
    """A row for each picture, with every question about it; answers are numbered from 0."""
    rows: dict[tuple, PackedRow] = {}
    texts = zip(images, questions, answers, strict=True)
    for number, (image, question, answer) in enumerate(texts):
        if image:
            prefix, rest = split_prompt(processor, question)
        else:
            prefix, rest = (), prompt_ids(processor, question, pictures=0)
        key = (image, prefix or number)
        if key not in rows:
            places = list(range(len(prefix)))
            rows[key] = PackedRow(image, list(prefix), places, [0] * len(prefix))
        rows[key].add(number, rest, answer_ids(processor, answer))
    return list(rows.values())


def packed_tensors(processor, rows: Sequence[PackedRow]) -> dict[str, Tensor]:
    """What a language model reads of packed rows, padded on the right.

    A token attends to the picture's part of its row and to its own segment, up to itself.

    Returns:
        input_ids, position_ids (rows, length) and attention_mask (rows, 1, length, length), which
        is added to attention scores: 0, or the least float32.
    """
    segments = pad([row.segments for row in rows], -1, "right")
    attends = segments[:, :, None] == segments[:, None]
    attends = (attends | (segments == 0)[:, None]).tril()
    mask = torch.zeros(attends.shape).masked_fill_(~attends, torch.finfo(torch.float32).min)
    return {
        "input_ids": pad([row.ids for row in rows], processor.tokenizer.pad_token_id, "right"),
        "position_ids": pad([row.positions for row in rows], 0, "right"),
        "attention_mask": mask[:, None],
    }


# ---- tokens ----


@lru_cache(maxsize=4096)
def answer_ids(processor, answer: str) -> tuple[int, ...]:
    """The tokens of an answer, the end token included."""
    return (*_text_ids(processor, answer), processor.tokenizer.eos_token_id)


def _text_ids(processor, text: str) -> list[int]:
    """The tokens of a text in which nothing, such as </s>, is a token of the model's own."""
    return processor.tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids


@lru_cache(maxsize=4096)
def split_prompt(processor, question: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A prompt's tokens up to its picture's end, and those after it."""
    ids = prompt_ids(processor, question)
    end = len(ids) - ids[::-1].index(processor.image_token_id)
    return ids[:end], ids[end:]


@lru_cache(maxsize=4096)
def prompt_ids(processor, question: str, pictures: int = 1) -> tuple[int, ...]:
    """The tokens of a question in the chat template, those of its picture, if any, included.

    Raises:
        UserError: they have not the tokens of so many pictures; rows would read each other's.
    """
    ids = _prompt_ids(processor, question, pictures)
    taken, expected = ids.count(processor.image_token_id), pictures * image_tokens(processor)
    if taken != expected:
        raise UserError(
            f"a prompt has {taken} tokens of pictures, and {pictures} picture takes {expected}: as "
            f"many {processor.image_token} in the chat template, none in texts"
        )
    return ids


def _prompt_ids(processor, question: str, pictures: int) -> tuple[int, ...]:
    content = [{"type": "image"}] * pictures + [{"type": "text", "text": question}]
    turn = {"role": "user", "content": content}
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
