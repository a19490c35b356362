"""The one forward pass through a LLaVA: what it predicts for the answers of a batch.

Training, evaluation, the frozen reference and the lessons all take this path. It computes no more
than the answers need: the frozen vision tower sees each picture once, and the last layer and the
output head run at the answer's positions alone.
"""

from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from weakref import WeakKeyDictionary

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.llama.modeling_llama import LlamaModel, apply_rotary_pos_emb

from safeerase_lite.config import Config
from safeerase_lite.data.images import file_signature
from safeerase_lite.unlearning.objectives import Answers

from .anatomy import anatomy_of, picture_features
from .inputs import IGNORED, answer_ids, encode_text, pixels
from .llava import compute_dtype, reference

FEATURE_BYTES = 4 * 2**30  # for each model; a picture of LLaVA-1.5 takes 1.2 MB in half precision
REFERENCE_BYTES = 2 * 2**30  # 140 words of LLaVA-1.5-7B take about 1.6 MB in half precision


def answer_logits(model, batch: pd.DataFrame) -> Answers:
    """What a model predicts for each answer token of a batch.

    Args:
        model: a LLaVA with its processor at `.processor`, adapted or not.
        batch: a row per answer, with the columns image (a path), question and answer.

    Returns:
        Logits (rows, longest answer, vocabulary) and labels (rows, longest answer), the end token
        included.
    """
    states, labels = answer_states(model, batch)
    return Answers(model.get_output_embeddings()(states), labels)


def answer_states(model, batch: pd.DataFrame) -> tuple[Tensor, Tensor]:
    """The hidden states that predict each answer token: (rows, longest answer, width), and the
    labels. See `answer_logits`.

    In a Llama's last layer the earlier positions only give keys and values, so nothing else is
    computed for them. Any other language model runs in full.
    """
    encoded = encode_text(model.processor, batch["question"], batch["answer"])
    encoded = {name: tensor.to(model.device) for name, tensor in encoded.items()}
    labels, attended = encoded["labels"], encoded["attention_mask"]
    columns = int((labels != IGNORED).sum(-1).max())  # batches are padded on the left
    last = columns + 1  # the token before an answer predicts its first token
    states = embed(model, encoded["input_ids"], batch["image"])
    llava = llava_of(model)
    language = getattr(llava, anatomy_of(llava.config).language_model)
    if isinstance(language, LlamaModel):
        states = _llama_states(language, states, attended, last)
    else:
        output = language(inputs_embeds=states, attention_mask=attended, use_cache=False)
        states = output.last_hidden_state[:, -last:]
    return states[:, :-1], labels[:, -columns:]


def _llama_states(language: LlamaModel, states: Tensor, attended: Tensor, last: int) -> Tensor:
    """A Llama's output at the last positions: (rows, last, width)."""
    positions = torch.arange(states.shape[1], device=states.device)[None]
    rotation = language.rotary_emb(states, position_ids=positions)
    visible = (positions[..., None] >= positions[:, None])[:, None] & attended.bool()[:, None, None]
    mask = torch.zeros_like(visible, dtype=states.dtype)
    mask = mask.masked_fill(~visible, torch.finfo(states.dtype).min)
    *layers, final = language.layers
    for layer in layers:
        states = layer(states, attention_mask=mask, position_embeddings=rotation)

    # The final layer, written out: queries at the last positions alone.
    attention, end, (cos, sin) = final.self_attn, slice(-last, None), rotation

    def heads(projected: Tensor) -> Tensor:
        return projected.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)

    normed = final.input_layernorm(states)
    query, key = heads(attention.q_proj(normed[:, end])), heads(attention.k_proj(normed))
    query, _ = apply_rotary_pos_emb(query, query, cos[:, end], sin[:, end])
    _, key = apply_rotary_pos_emb(key, key, cos, sin)
    mixed = F.scaled_dot_product_attention(
        query, key, heads(attention.v_proj(normed)),
        attn_mask=mask[:, :, end],
        dropout_p=attention.attention_dropout if attention.training else 0.0,
        scale=attention.scaling,
        enable_gqa=attention.num_key_value_groups > 1,
    )  # fmt: skip
    states = states[:, end] + attention.o_proj(mixed.transpose(1, 2).flatten(-2))
    return language.norm(states + final.mlp(final.post_attention_layernorm(states)))


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


def embed(model, input_ids: Tensor, images: Sequence[str]) -> Tensor:
    """The input of the language model: (rows, length, width), each row's picture in its place.

    Args:
        model: a LLaVA with its processor. Its projector may be trained, so it is applied anew.
        input_ids: (rows, length), from `inputs.encode_text`, on the model's device.
        images: paths of pictures, one per row.
    """
    llava = llava_of(model)
    words = llava.get_input_embeddings()(input_ids)
    projector = getattr(llava, anatomy_of(llava.config).projector)
    pictures = projector(vision_features(model, images)).to(words.dtype)
    picture_tokens = (input_ids == model.processor.image_token_id)[..., None]
    return words.masked_scatter(picture_tokens, pictures)


def vision_features(model, images: Sequence[str]) -> Tensor:
    """The frozen tower's output that the projector reads: (pictures, patches, width).

    Each picture passes through the tower alone, whatever batch it is in, and is then cached.
    """
    llava = llava_of(model)
    tower = getattr(llava, anatomy_of(llava.config).tower)
    cache = _features.setdefault(tower, TensorCache(FEATURE_BYTES))
    features = [
        cache.get(file_signature(path), lambda path=path: _tower_output(model, path))
        for path in images
    ]
    return torch.stack(features).to(model.device)


def _tower_output(model, path: str) -> Tensor:
    return picture_features(llava_of(model), pixels(model.processor, path))


def llava_of(model) -> nn.Module:
    """Tower, projector and language model, without the output head, adapted or not."""
    return (model.get_base_model() if hasattr(model, "get_base_model") else model).model


# ---- the frozen reference ----


class Reference:
    """The frozen model's predictions, for KL and NPO. They are the same at every step, so each
    answer is computed once in a run. Hidden states are cached, a width per token; logits would take
    a vocabulary per token.

    The last bits of a prediction depend on the other rows of its batch. An answer is therefore
    always computed with the same other rows, or alone, and a resumed run is bit-identical.

    Args:
        model: from `load_model`, adapted.
        table: answers to come; `batch_size` of them are computed together, neighbours by length,
            if the cache can hold them all. Any other answer is computed alone.
    """

    def __init__(self, model, table: pd.DataFrame | None = None, batch_size: int = 1):
        self.model, self.states = model, TensorCache(REFERENCE_BYTES)
        rows = [] if table is None else sorted(set(_rows(table)), key=_by_length)
        if self._bytes(rows) > REFERENCE_BYTES:
            batch_size = 1
        batches = [tuple(rows[i : i + batch_size]) for i in range(0, len(rows), batch_size)]
        self.batch_of = {row: batch for batch in batches for row in batch}

    def answers(self, table: pd.DataFrame) -> Answers:
        """The frozen model's predictions for a table's answers."""
        model = self.model
        labels = encode_text(model.processor, table["question"], table["answer"])["labels"]
        tokens = (labels != IGNORED).sum(-1).tolist()
        states = [self._of(row)[-n:] for row, n in zip(_rows(table), tokens, strict=True)]
        labels = labels[:, -max(tokens) :].to(model.device)
        padded = states[0].new_zeros(*labels.shape, states[0].shape[-1]).to(model.device)
        padded[labels != IGNORED] = torch.cat(states).to(model.device)
        with torch.no_grad():
            return Answers(model.get_output_embeddings()(padded), labels)

    def _of(self, row: tuple) -> Tensor:
        """(columns, width): the last of them predict the row's answer."""
        batch = self.batch_of.get(row, (row,))
        return self.states.get(batch, lambda: self._compute(batch))[batch.index(row)]

    def _compute(self, rows: Sequence[tuple]) -> Tensor:
        table = pd.DataFrame(rows, columns=["image", "question", "answer"])
        with reference(self.model):
            states, _ = answer_states(self.model, table)
        return states.to(self.model.get_output_embeddings().weight.dtype)

    def _bytes(self, rows: list[tuple]) -> int:
        """The size of the cache if every answer were as long as the longest."""
        head, processor = self.model.get_output_embeddings().weight, self.model.processor
        longest = max((len(answer_ids(processor, answer)) for _, _, answer in rows), default=0)
        return len(rows) * longest * head.shape[1] * head.itemsize


def _rows(table: pd.DataFrame) -> list[tuple]:
    return list(table[["image", "question", "answer"]].itertuples(index=False, name=None))


def _by_length(row: tuple) -> tuple:
    _, question, answer = row
    return len(question) + len(answer), row
