"""Questions as tensors: pictures and text through the processor, the answer's tokens as labels."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from safeerase_lite.data.images import file_signature, open_image
from safeerase_lite.utils import UserError

IGNORED = -100
BLANK = Image.new("RGB", (64, 64), "white")  # where only the place of a picture matters


def encode(processor, images: Sequence[str], questions: Sequence[str], answers=None) -> dict:
    """A batch for a vision-language model, padded on the left, so that answers end flush on the
    right.

    Args:
        processor: from `processors.load_processor`.
        images: paths of pictures, one per question.
        questions: one per picture.
        answers: one per question; an end token is added. None: the model is to answer.

    Returns:
        input_ids, attention_mask, pixel_values (and what else a family's pictures are) and, with
        answers, labels: (batch, length), the answer's tokens and -100 at prompt, picture and
        padding. Nothing is ever cut off: a cut could go through a picture's tokens.
    """
    return encode_text(processor, questions, answers, images) | picture_tensors(processor, images)


def encode_text(
    processor, questions: Sequence[str], answers=None, images: Sequence[str] | None = None
) -> dict:
    """`encode` without the pictures. images: paths, "" for none; None: each prompt has a place for
    one small square picture."""
    places = [None] * len(questions) if images is None else images
    prompts = [list(prompt_ids(processor, *one)) for one in zip(questions, places, strict=True)]
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
    processor,
    images: Sequence[str],
    questions: Sequence[str],
    answers: Sequence[str],
    *,
    together: bool = True,
    places: Sequence[str] | None = None,
) -> list[PackedRow]:
    """A row for each picture, with every question about it; answers are numbered from 0.

    together: False gives every question a row of its own.
    places: what stands for each picture in a prompt; None: as its file has it.
    """
    endings = [answer_ids(processor, answer) for answer in answers]
    return pack_tokens(processor, images, questions, endings, together=together, places=places)


def pack_tokens(
    processor,
    images: Sequence[str],
    questions: Sequence[str],
    answers: Sequence[Sequence[int]],
    *,
    together: bool = True,
    places: Sequence[str] | None = None,
) -> list[PackedRow]:
    """`pack`, of answers that are tokens already."""
    rows: dict[tuple, PackedRow] = {}
    places = [place_of(processor, image) for image in images] if places is None else places
    texts = zip(images, places, questions, answers, strict=True)
    for number, (image, place, question, answer) in enumerate(texts):
        prefix, rest = _split(processor, _prompt_ids(processor, question, place))
        key = (image, prefix if image and together else number)
        if key not in rows:
            positions = list(range(len(prefix)))
            rows[key] = PackedRow(image, list(prefix), positions, [0] * len(prefix))
        rows[key].add(number, rest, answer)
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


def split_prompt(
    processor, question: str, image: str | None = None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The tokens of a prompt up to its picture's end, and those after it; image: see
    `prompt_ids`."""
    return _split(processor, prompt_ids(processor, question, image))


def _split(processor, ids: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if processor.image_token_id not in ids:
        return (), ids
    end = len(ids) - ids[::-1].index(processor.image_token_id)
    return ids[:end], ids[end:]


def prompt_ids(processor, question: str, image: str | None = None) -> tuple[int, ...]:
    """The tokens of a question in the chat template, those of its picture, if any, included.

    image: the picture's path; "": there is none; None: a small square one.

    Raises:
        UserError: they have not the tokens of the picture; rows would read each other's.
    """
    return _prompt_ids(processor, question, place_of(processor, image))


def place_of(processor, image: str | None) -> str:
    """What stands for a picture in a prompt; image: see `prompt_ids`."""
    if image is None:
        return blank(processor).place
    return _place(processor, file_signature(image)) if image else ""


@lru_cache(maxsize=4096)
def _prompt_ids(processor, question: str, place: str) -> tuple[int, ...]:
    ids = _tokens_of_prompt(processor, question, place)
    token, pictures = processor.image_token, int(place != "")
    taken, expected = ids.count(processor.image_token_id), place.count(token)
    if taken != expected:
        raise UserError(
            f"a prompt has {taken} tokens of pictures, and {pictures} picture takes {expected}: as "
            f"many {token} in the chat template, none in texts"
        )
    return ids


def _tokens_of_prompt(processor, question: str, place: str) -> tuple[int, ...]:
    content = [{"type": "image"}] * bool(place) + [{"type": "text", "text": question}]
    turn = {"role": "user", "content": content}
    text = processor.apply_chat_template([turn], add_generation_prompt=True)
    if place:
        text = processor.prepare_inputs_layout(images=[BLANK], text=[text])[1][0]
    text = text.replace(processor.image_token, place)
    tokenizer = processor.tokenizer
    before, asked, after = text.partition(question)
    begins = tokenizer.bos_token is None or tokenizer.bos_token not in before
    if not any(token in question for token in tokenizer.all_special_tokens):
        return tuple(tokenizer(text, add_special_tokens=begins).input_ids)
    first = tokenizer(before, add_special_tokens=begins).input_ids
    last = tokenizer(after, add_special_tokens=False).input_ids
    return (*first, *_text_ids(processor, asked), *last)


# ---- pictures ----


@dataclass(frozen=True)
class Picture:
    """A picture as a processor makes it.

    Attributes:
        tensors: what the model reads of it, by the names of `get_image_features` in transformers.
        place: the text that stands for it in a prompt, a token for every one of its features.
    """

    tensors: Mapping[str, Tensor]
    place: str


def picture(processor, path: str) -> Picture:
    """The picture of a file."""
    return _picture(processor, file_signature(path))


@lru_cache(maxsize=4)
def blank(processor) -> Picture:
    """A small square picture, for want of any."""
    return make_picture(processor, BLANK)


def image_tokens(processor) -> int:
    """How many tokens a small square picture takes in a prompt. Of many families all take as many,
    of others it depends on size and shape."""
    return blank(processor).place.count(processor.image_token)


def picture_tensors(processor, images: Sequence[str]) -> dict[str, Tensor]:
    """The tensors of several pictures, one after the other."""
    each = [picture(processor, path).tensors for path in images]
    return {name: torch.cat([one[name] for one in each]) for name in each[0]} if each else {}


@lru_cache(maxsize=65536)  # most are one and the same text
def _place(processor, file: tuple[str, int, int]) -> str:
    return _picture(processor, file).place


@lru_cache(maxsize=64)  # of 336 × 336, 90 MB; of 512 × 512, 200
def _picture(processor, file: tuple[str, int, int]) -> Picture:
    return make_picture(processor, open_image(file[0]))


def make_picture(processor, image: Image.Image) -> Picture:
    """What a processor makes of an image, and of its token in a text."""
    settings = getattr(processor, "images_kwargs", {})
    made = processor.image_processor([image], return_tensors="pt", **settings)
    framed = {"use_image_special_tokens": True}  # of LFM2-VL: between a begin and an end
    place = processor.replace_image_token(made, image_idx=0, **(settings | framed))
    names = processor.image_processor.model_input_names
    return Picture({name: made[name] for name in names if name in made}, sys.intern(place))
