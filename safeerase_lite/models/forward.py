"""A LLaVA's forward pass, for those who look at the answers alone."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.llama.modeling_llama import LlamaModel, apply_rotary_pos_emb

from safeerase_lite.data.images import file_signature
from safeerase_lite.models.inputs import IGNORED, answer_ids, encode_text, pixels
from safeerase_lite.models.llava import reference


def answer_states(model, encoded: dict, images: Sequence[str], columns: int) -> Tensor:
    """What the output head reads in the last `columns` columns, where answers stand: batches pad
    left.

    In the last layer the positions before them give keys and values, and that is all which is
    computed of them: nothing reads more. A language model other than a Llama runs whole.

    Args:
        model: a LLaVA with its processor.
        encoded: from `batches.encode_text`, on the model's device.
        images: paths of pictures, one per row.

    Returns:
        (batch, columns, width).
    """
    states = embed(model, encoded["input_ids"], images)
    language, real = llava_of(model).language_model, encoded["attention_mask"]
    if not isinstance(language, LlamaModel):
        said = language(inputs_embeds=states, attention_mask=real, use_cache=False)
        return said.last_hidden_state[:, -columns:]
    positions = torch.arange(states.shape[1], device=states.device)[None]
    rotation = language.rotary_emb(states, position_ids=positions)
    seen = (positions[..., None] >= positions[:, None])[:, None] & real.bool()[:, None, None]
    mask = torch.zeros_like(seen, dtype=states.dtype)
    mask = mask.masked_fill(~seen, torch.finfo(states.dtype).min)
    *layers, last = language.layers
    for layer in layers:
        states = layer(states, attention_mask=mask, position_embeddings=rotation)
    return language.norm(_end(last, states, mask, rotation, columns))


def _end(layer: nn.Module, states: Tensor, mask: Tensor, rotation: tuple, columns: int) -> Tensor:
    """A Llama's decoder layer, in its last `columns` columns."""
    attention, end, (cos, sin) = layer.self_attn, slice(-columns, None), rotation

    def heads(projected: Tensor) -> Tensor:
        return projected.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)

    read = layer.input_layernorm(states)
    query, key = heads(attention.q_proj(read[:, end])), heads(attention.k_proj(read))
    query, _ = apply_rotary_pos_emb(query, query, cos[:, end], sin[:, end])
    _, key = apply_rotary_pos_emb(key, key, cos, sin)
    found = F.scaled_dot_product_attention(
        query, key, heads(attention.v_proj(read)),
        attn_mask=mask[:, :, end],
        dropout_p=attention.attention_dropout if attention.training else 0.0,
        scale=attention.scaling,
        enable_gqa=attention.num_key_value_groups > 1,
    )  # fmt: skip
    states = states[:, end] + attention.o_proj(found.transpose(1, 2).flatten(-2))
    return states + layer.mlp(layer.post_attention_layernorm(states))


class TensorCache:
    """Tensors by key, up to a number of bytes; what came first stays.

    Questions come in shuffled epochs: of a set twice as large as the room, half is found again. To
    let the oldest go instead would find next to nothing.
    """

    def __init__(self, max_bytes: int):
        self.bytes_left = max_bytes
        self.tensors: dict[Hashable, Tensor] = {}

    def get(self, key: Hashable, compute: Callable[[], Tensor]) -> Tensor:
        """The tensor of a key, computed where it is not kept; on the CPU, without a gradient."""
        if key in self.tensors:
            return self.tensors[key]
        with torch.inference_mode(False), torch.no_grad():
            found = compute().cpu()
        if found.nbytes <= self.bytes_left:
            self.bytes_left -= found.nbytes
            self.tensors[key] = found
        return found


FEATURE_BYTES = 4 * 2**30  # for each model; a picture of LLaVA-1.5 takes 1.2 MB

_SEEN: WeakKeyDictionary[nn.Module, TensorCache] = WeakKeyDictionary()  # goes with its tower


def embed(model, input_ids: Tensor, images: Sequence[str]) -> Tensor:
    """What the language model reads: (batch, length, width), each row's picture in its place.

    Args:
        model: a LLaVA with its processor; where it is adapted, its trained projector is applied.
        input_ids: (batch, length), from `batches.encode_text`, on the model's device.
        images: paths of pictures, one per row.
    """
    llava = llava_of(model)
    words = llava.get_input_embeddings()(input_ids)
    pictures = llava.multi_modal_projector(features(model, images)).to(words.dtype)
    picture_tokens = (input_ids == model.processor.image_token_id)[..., None]
    return words.masked_scatter(picture_tokens, pictures)


def features(model, images: Sequence[str]) -> Tensor:
    """The hidden states that the projector reads: (pictures, patches, width), in the tower's type
    and on its device. Each picture passes through the tower alone, whoever shares its batch."""
    llava = llava_of(model)
    seen = _SEEN.setdefault(llava.vision_tower, TensorCache(FEATURE_BYTES))
    found = [
        seen.get(file_signature(path), lambda path=path: _look(model, llava, path))
        for path in images
    ]
    return torch.stack(found).to(model.device)


def _look(model, llava: nn.Module, path: str) -> Tensor:
    like, config = next(llava.vision_tower.parameters()), llava.config
    picture = pixels(model.processor, path)[None].to(like)
    states = llava.vision_tower(picture, output_hidden_states=True).hidden_states
    first = 1 if config.vision_feature_select_strategy == "default" else 0  # 0 is the class token
    layers = config.vision_feature_layer
    chosen = [states[n][0, first:] for n in ([layers] if isinstance(layers, int) else layers)]
    return torch.cat(chosen, dim=-1).to(like.dtype)


def llava_of(model) -> nn.Module:
    """Tower, projector and language model, without the output head, adapted or not."""
    return (model.get_base_model() if hasattr(model, "get_base_model") else model).model


REFERENCE_BYTES = 2 * 2**30  # bytes; 140 words of LLaVA-1.5-7B take about 1.6 MB in half precision


@dataclass(frozen=True)
class Answers:
    """What a model says of a batch's answers, position by position.

    Attributes:
        logits: (batch, length, vocabulary); the prediction *for* the token at the same index.
        labels: (batch, length); the answer's tokens, -100 wherever there is no answer.
        step_tokens, step_rows: answer tokens and rows of the whole step, when this is one piece of
            it (gradient accumulation, several processes): a mean over pieces is not the mean over
            all tokens, so every piece is divided by the step's count.
    """

    logits: Tensor
    labels: Tensor
    step_tokens: int | None = None
    step_rows: int | None = None

    @property
    def mask(self) -> Tensor:
        return self.labels != -100

    @property
    def nll(self) -> Tensor:
        """(batch,) negative log-likelihood in nats, summed over each answer's tokens."""
        flat = F.cross_entropy(
            self.logits.float().flatten(0, 1),
            self.labels.flatten(),
            ignore_index=-100,
            reduction="none",
        )
        return flat.view(self.labels.shape).sum(-1)

    @property
    def tokens(self) -> int:
        """Answer tokens to average over."""
        return self.step_tokens or int(self.mask.sum())

    @property
    def rows(self) -> int:
        """Answers to average over."""
        return self.step_rows or len(self.labels)


class Reference:
    """The frozen model, as KL and NPO ask it. It is the same at every step, so a question is asked
    once in a run: kept are the hidden states that predict its answer, a width per token, and not
    the logits, a vocabulary per token.

    The last bits of what is said depend on what is asked in the same pass. So that a run taken up
    again is the run it would have been, a question is always asked with the same others, or alone.

    Args:
        model: from `load_model`, adapted.
        table: questions to come: asked `together` at a time, neighbours by length, if there is room
            to keep them all. Any other question is asked alone.
    """

    def __init__(self, model, table: pd.DataFrame | None = None, together: int = 1):
        self.model, self.states = model, TensorCache(REFERENCE_BYTES)
        rows = [] if table is None else sorted(set(_rows(table)), key=_length)
        if self._bytes(rows) > REFERENCE_BYTES:
            together = 1
        groups = [tuple(rows[i : i + together]) for i in range(0, len(rows), together)]
        self.company = {row: group for group in groups for row in group}

    def answers(self, table: pd.DataFrame) -> Answers:
        """What the frozen model says of a table's answers."""
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
        """(columns, width): what predicts the answer of a question stands in its last rows."""
        company = self.company.get(row, (row,))
        return self.states.get(company, lambda: self._ask(company))[company.index(row)]

    def _ask(self, rows: Sequence[tuple]) -> Tensor:
        """(rows, columns, width): what predicts each of an answer's tokens, the end token included,
        as many columns as the longest answer has tokens."""
        images, questions, answers = zip(*rows, strict=True)
        encoded = encode_text(self.model.processor, questions, answers)
        encoded = {key: value.to(self.model.device) for key, value in encoded.items()}
        columns = int((encoded["labels"] != IGNORED).sum(-1).max())
        with reference(self.model):
            states = answer_states(self.model, encoded, images, columns + 1)
        return states[:, :-1].to(self.model.get_output_embeddings().weight.dtype)

    def _bytes(self, rows: list[tuple]) -> int:
        """What they would take if every answer were as long as the longest."""
        head, processor = self.model.get_output_embeddings().weight, self.model.processor
        longest = max((len(answer_ids(processor, answer)) for _, _, answer in rows), default=0)
        return len(rows) * longest * head.shape[1] * head.itemsize


def _rows(table: pd.DataFrame) -> list[tuple]:
    return list(table[["image", "question", "answer"]].itertuples(index=False, name=None))


def _length(row: tuple) -> tuple:
    _, question, answer = row
    return len(question) + len(answer), row
