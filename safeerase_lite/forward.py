"""A LLaVA's forward pass, for those who look at the answers alone."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.llama.modeling_llama import LlamaModel, apply_rotary_pos_emb

from .vision import embed, llava_of


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
