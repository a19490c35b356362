"""The one forward pass through a vision-language model: what it predicts for answers.

Training, evaluation, the frozen reference and the lessons all take this path. It computes no more
than the answers need: the frozen vision tower sees each picture once, the language model reads it
once for all questions about it, and the output head runs at the answers' positions alone. A family
in which questions cannot share a picture (`Anatomy.packs`) is read question by question, from the
pixels, by its own forward pass.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any
from weakref import WeakKeyDictionary

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from safeerase_lite.config import Config
from safeerase_lite.data.images import file_signature
from safeerase_lite.unlearning.losses import Answers
from safeerase_lite.utils import UserError

from .anatomy import anatomy_of, on_tower, picture_features
from .inputs import (
    IGNORED,
    PackedRow,
    answer_ids,
    pack,
    packed_tensors,
    pad,
    picture,
    picture_tensors,
)
from .llava import compute_dtype, reference

FEATURE_BYTES = 4 * 2**30  # for each model; a picture of LLaVA-1.5 takes 1.2 MB in half precision
REFERENCE_BYTES = 2 * 2**30  # 140 words of LLaVA-1.5-7B take about 1.6 MB in half precision

# (model, paths of pictures) → what the projector reads of each, (views, patches, width)
Features = Callable[[Any, Sequence[str]], list[Tensor]]


def answer_logits(model, table: pd.DataFrame) -> Answers:
    """What a model predicts for each answer token of a table.

    Args:
        model: a LLaVA with its processor at `.processor`, adapted or not.
        table: a row per answer, with the columns image (a path), question and answer.

    Returns:
        Logits (rows, longest answer, vocabulary) and labels (rows, longest answer), the end token
        included, padded on the left.
    """
    return predictions(model, layer_states(model, table), table["answer"])


def predictions(model, states: Sequence[Tensor], answers: Sequence[str]) -> Answers:
    """The logits of answers and their labels, from the states that predict them.

    Args:
        states: from `layer_states`, the last layer first; a second layer becomes `hidden`.
    """
    ids = [answer_ids(model.processor, answer) for answer in answers]
    padded = pad_sequence(list(states), batch_first=True, padding_side="left")
    logits = model.get_output_embeddings()(padded[:, :, 0])
    hidden = padded[:, :, 1] if padded.shape[2] > 1 else None
    return Answers(logits, pad(ids, IGNORED).to(padded.device), hidden=hidden)


def answer_states(model, table: pd.DataFrame) -> list[Tensor]:
    """The hidden states that predict each answer's tokens: (tokens, width) for each row."""
    return [states[:, 0] for states in layer_states(model, table)]


LAST = -1  # the states that the output head reads, the final norm applied


def layer_states(
    model,
    table: pd.DataFrame,
    layers: Sequence[int] = (LAST,),
    features: Features | None = None,
) -> list[Tensor]:
    """The hidden states of some layers where each answer's tokens are predicted.

    All questions about a picture share a row, if the family packs (see `inputs.pack`): the picture
    is read once, and the states are those of rows of their own.

    Args:
        table: image (a path; "": none), question and answer.
        layers: by number; n is what the first n layers make.
        features: what the projector reads of pictures; None: `vision_features`.

    Returns:
        (tokens, layers, width) for each row of the table.
    """
    inner = any(layer != LAST for layer in layers)
    states: dict[int, Tensor] = {}
    for rows, output in read(model, table, features, output_hidden_states=inner):
        every = output.hidden_states if inner else [output.last_hidden_state]
        for row, given in zip(rows, torch.stack([every[n] for n in layers], 2), strict=True):
            states |= {number: given[places] for number, places in row.predictors.items()}
    return [states[number] for number in range(len(table))]


def read(
    model, table: pd.DataFrame, features: Features | None = None, **options: bool
) -> Iterator[tuple[list[PackedRow], Any]]:
    """Let the model read a table's pictures, questions and answers, pass by pass.

    Args:
        features: as for `layer_states`.
        options: of the language model, such as output_hidden_states.

    Yields:
        The packed rows of a pass, which number the answers as the table does, and what the language
        model returns: its last_hidden_state is (rows, length, width).
    """
    packs = anatomy_of(llava_of(model).config).packs
    columns = (table["image"], table["question"], table["answer"])
    for rows in _passes(pack(model.processor, *columns, together=packs)):
        yield rows, (_together if packs else _apart)(model, rows, features, options)


def _together(model, rows: Sequence[PackedRow], features: Features | None, options: dict) -> Any:
    """The language model reads rows that questions share."""
    inputs = packed_tensors(model.processor, rows)
    inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
    embeddings = embed(model, inputs.pop("input_ids"), [row.image for row in rows], features)
    inputs["attention_mask"] = inputs["attention_mask"].to(embeddings.dtype)
    inputs |= {"use_cache": False, **options}
    return language_model(model)(inputs_embeds=embeddings, **inputs)


def _apart(model, rows: Sequence[PackedRow], features: Features | None, options: dict) -> Any:
    """The model reads rows of one question each in its own way, from the pixels."""
    if features is not None:
        raise UserError(
            f"features of one's own need questions that share rows, and those about a model of "
            f"type {llava_of(model).config.model_type!r} do not"
        )
    return llava_of(model)(**row_tensors(model, rows, "right"), use_cache=False, **options)


def row_tensors(model, rows: Sequence[PackedRow], side: str) -> dict[str, Tensor]:
    """What a whole model reads of rows of one question each, padded on a side."""
    core = llava_of(model)
    answered = [[False] * len(row.ids) for row in rows]
    for row, of_answer in zip(rows, answered, strict=True):
        for place in (place for places in row.predictors.values() for place in places):
            of_answer[place + 1] = True
    ids = pad([row.ids for row in rows], model.processor.tokenizer.pad_token_id, side)
    inputs = {"input_ids": ids, "attention_mask": pad([[1] * len(r.ids) for r in rows], 0, side)}
    inputs |= anatomy_of(core.config).marks(model.processor, ids, pad(answered, False, side))
    inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
    pictures = picture_tensors(model.processor, [row.image for row in rows if row.image])
    return inputs | on_tower(core, pictures)


def _passes(rows: list[PackedRow]) -> list[list[PackedRow]]:
    """Rows that share a forward pass: at most a quarter of one is padding."""
    passes: list[list[PackedRow]] = []
    for row in sorted(rows, key=lambda row: len(row.ids), reverse=True):
        if not passes or len(row.ids) < 0.75 * len(passes[-1][0].ids):
            passes.append([])
        passes[-1].append(row)
    return passes


def autocast(config: Config, device: torch.device) -> AbstractContextManager:
    """Compute in the config's type. Trained weights stay in float32, as in training."""
    dtype = compute_dtype(config)
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


# ---- pictures ----


class TensorCache:
    """Tensors by key on the CPU, up to a number of bytes. What came first stays.

    Questions come in shuffled epochs. If the set is twice the cache, half of it is read from the
    cache every epoch; dropping the oldest instead would find next to nothing.
    """

    def __init__(self, max_bytes: int):
        self.free_bytes = max_bytes
        self.tensors: dict[Hashable, Tensor] = {}

    def get(self, key: Hashable, compute: Callable[[], Tensor]) -> Tensor:
        """The tensor of a key, computed without a gradient where it is not cached."""
        if key in self.tensors:
            return self.tensors[key]
        with torch.inference_mode(False), torch.no_grad():
            tensor = compute().cpu()
        if tensor.nbytes <= self.free_bytes:
            self.free_bytes -= tensor.nbytes
            self.tensors[key] = tensor
        return tensor


_features: WeakKeyDictionary[nn.Module, TensorCache] = WeakKeyDictionary()  # one for each tower


def embed(
    model, input_ids: Tensor, images: Sequence[str], features: Features | None = None
) -> Tensor:
    """The input of the language model: (rows, length, width), each row's picture in its place.

    Args:
        model: with its processor. Its projector may be trained, so it is applied anew.
        input_ids: (rows, length), from `inputs.encode_text`, on the model's device.
        images: paths of pictures, one per row; "": the row has none.
        features: as for `layer_states`.
    """
    core = llava_of(model)
    if not anatomy_of(core.config).packs:
        raise UserError(
            f"this needs questions that share rows, and those about a model of type "
            f"{core.config.model_type!r} do not"
        )
    words = core.get_input_embeddings()(input_ids)
    shown = [path for path in images if path]
    if not shown:
        return words
    pictures = _projected(model, shown, (features or vision_features)(model, shown))
    picture_tokens = (input_ids == model.processor.image_token_id)[..., None]
    return words.masked_scatter(picture_tokens, torch.cat(pictures).to(words.dtype))


def _projected(model, images: Sequence[str], features: list[Tensor]) -> list[Tensor]:
    """What takes each picture's place among the words: (tokens, width) for each."""
    core = llava_of(model)
    anatomy = anatomy_of(core.config)
    projector = core.get_submodule(anatomy.projector)
    if len({one.shape[1:] for one in features}) == 1:
        projected = projector(torch.cat(features)).split([len(one) for one in features])
    else:
        projected = [projector(one) for one in features]
    if anatomy.arrange is None:
        return [one.flatten(0, -2) for one in projected]
    tensors = [picture(model.processor, path).tensors for path in images]
    return [anatomy.arrange(core, *both) for both in zip(projected, tensors, strict=True)]


def vision_features(model, images: Sequence[str]) -> list[Tensor]:
    """The frozen tower's output that the projector reads: (views, patches, width) of each picture.

    Each picture passes through the tower alone, whatever batch it is in, and is then cached.
    """
    core = llava_of(model)
    tower = core.get_submodule(anatomy_of(core.config).tower)
    cache = _features.setdefault(tower, TensorCache(FEATURE_BYTES))
    return [
        cache.get(file_signature(path), lambda path=path: _tower_output(model, path)).to(
            model.device
        )
        for path in images
    ]


def _tower_output(model, path: str) -> Tensor:
    return picture_features(llava_of(model), picture(model.processor, path).tensors)


def language_model(model) -> nn.Module:
    """The layers between embeddings and output head, adapted or not."""
    core = llava_of(model)
    return core.get_submodule(anatomy_of(core.config).language_model)


def layer_at(model, depth: float) -> int:
    """The number of the layer at this share of the language model's layers, at least 1."""
    return max(1, round(depth * language_model(model).config.num_hidden_layers))


def llava_of(model) -> nn.Module:
    """Tower, projector and language model, without the output head, adapted or not."""
    return (model.get_base_model() if hasattr(model, "get_base_model") else model).model


# ---- the frozen reference ----


class Reference:
    """The frozen model's predictions, for KL, NPO and others. They are the same at every step, so
    each answer is computed once in a run. Hidden states are cached, a width per token; logits would
    take a vocabulary per token.

    The last bits of a prediction depend on what else is in its pass. The answers about a picture
    are therefore always computed together, and a resumed run is bit-identical.

    Args:
        model: from `load_model`, adapted.
        table: all answers to come: image, question, answer.
        pictures: as many are computed together, if the cache can hold them all; else each alone.
        layers: whose states are needed; see `layer_states`.
    """

    def __init__(
        self, model, table: pd.DataFrame, pictures: int = 1, layers: Sequence[int] = (LAST,)
    ):
        self.model, self.layers = model, layers
        self.states = TensorCache(REFERENCE_BYTES)
        columns = ["image", "question", "answer"]
        table = table[columns].drop_duplicates().sort_values(columns)
        lengths = [len(answer_ids(model.processor, answer)) for answer in table["answer"]]
        head = model.get_output_embeddings().weight
        if sum(lengths) * len(layers) * head.shape[1] * head.itemsize > REFERENCE_BYTES:
            pictures = 1
        asked = table["image"].where(table["image"] != "", table["question"])
        groups = asked.rank(method="dense").sub(1) // pictures
        self.tables = dict(iter(table.groupby(groups)))
        self.places = {}
        for group, of_group in self.tables.items():
            for index, row in enumerate(of_group.itertuples(index=False, name=None)):
                self.places[row] = group, index

    def answers(self, table: pd.DataFrame) -> Answers:
        """The frozen model's predictions for a table's answers."""
        rows = table[["image", "question", "answer"]].itertuples(index=False, name=None)
        places = [self.places[row] for row in rows]
        states = {group: self._of(group) for group in dict.fromkeys(group for group, _ in places)}
        with torch.no_grad():
            chosen = [states[group][index].to(self.model.device) for group, index in places]
            return predictions(self.model, chosen, table["answer"])

    def _of(self, group) -> tuple[Tensor, ...]:
        """(tokens, layers, width) for each answer of a group of pictures."""
        of_group = self.tables[group]
        states = self.states.get(group, lambda: self._compute(of_group))
        return states.split(
            [len(answer_ids(self.model.processor, answer)) for answer in of_group["answer"]]
        )

    def _compute(self, table: pd.DataFrame) -> Tensor:
        with reference(self.model):
            states = layer_states(self.model, table, self.layers)
        return torch.cat(states).to(self.model.get_output_embeddings().weight.dtype)
