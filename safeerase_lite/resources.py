"""What training a LLaVA holds in memory, counted from its configuration before anything is loaded.

Weights, adapters, gradients and optimiser state are counts, exact to the byte. Activations are an
estimate: what a forward pass keeps for the backward pass, not what a kernel needs in between.
"""

import math
import re
from collections.abc import Iterable

import torch
from pandas import DataFrame
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from safeerase_lite.config import Config as Profile
from safeerase_lite.models.anatomy import LLAVA

GB = 10**9
T4_BYTES = 15 * GB
GROUPS = ("4-bit weights", "dense weights", "what learns", "activations", "logits and workspace")

BLOCK, OUTER_BLOCK = 64, 256  # weights that share a scale, scales that share a scale (bitsandbytes)
CODE_BYTES = 16 * 4 + 256 * 4 + 4  # NF4's 16 levels, the scales' 256 levels and their mean: float32
SMALLEST_8_BIT = 4096  # weights of a tensor whose moments bitsandbytes keeps in 8 bits
SETS_TOGETHER = 3  # forget or refuse, retain, decouple pass through the model together


def _llava_1_5(width: int, feed_forward: int, layers: int) -> LlavaConfig:
    eyes = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        patch_size=14,
        image_size=336,
        projection_dim=768,
    )
    language = LlamaConfig(
        hidden_size=width,
        intermediate_size=feed_forward,
        num_hidden_layers=layers,
        num_attention_heads=width // 128,
        vocab_size=32064,
        max_position_embeddings=4096,
    )
    return LlavaConfig(vision_config=eyes, text_config=language)


# LLaVA-1.5: CLIP ViT-L/14 at 336 pixels, and Vicuna.
LLAVA_7B = _llava_1_5(width=4096, feed_forward=11008, layers=32)
LLAVA_13B = _llava_1_5(width=5120, feed_forward=13824, layers=40)


def account(
    config: LlavaConfig,
    profile: Profile,
    *,
    rows: int | None = None,
    prompt_tokens: int = 32,
    answer_tokens: int | None = None,
) -> DataFrame:
    """The memory of one training step of `unlearn`, part by part.

    Not counted: buffers, the CUDA context, fragmentation, gradients of activations, KL's and NPO's
    look at the reference (without gradients, so it is gone before the backward pass).

    Args:
        config: of a LLaVA; `LLAVA_7B`, `LLAVA_13B`, or one read by `AutoConfig`.
        profile: precision, compute type, adapter, checkpointing and micro-batch.
        rows: questions in one forward pass; by default those of the profile, three groups of
            batch / accumulation each.
        prompt_tokens: text tokens of a question with its template, beside the picture's.
        answer_tokens: by default the profile's `new_tokens`.

    Returns:
        A row per part: part, group (of `GROUPS`), bytes, how (they were computed).
    """
    model = _shapes(config)
    rows = rows or SETS_TOGETHER * math.ceil(profile.batch / profile.accumulation)
    answer = answer_tokens or profile.new_tokens
    length = image_tokens(config) + prompt_tokens + answer
    compute = _bytes_of(profile.compute)

    linears = _linears(model)
    in_linears = sum(weight.numel() for weight in linears.values())
    others = sum(p.numel() for p in model.parameters()) - in_linears
    lora = sum(profile.lora_rank * sum(weight.shape) for weight in linears.values())
    projector = list(model.model.multi_modal_projector.parameters())
    if profile.projector == "frozen":
        projector = []
    copied = sum(p.numel() for p in projector)
    trained = lora + copied
    tensors = [profile.lora_rank * side for weight in linears.values() for side in weight.shape]
    tensors += [p.numel() for p in projector]

    weights, dense, learns, activations, rest = GROUPS
    parts = []
    if profile.precision == "nf4":
        blocks = f"a byte per {BLOCK} weights, 4 per {OUTER_BLOCK} blocks, {CODE_BYTES} per layer"
        packed = sum(math.ceil(weight.numel() / 2) for weight in linears.values())
        parts += [
            ("packed weights", weights, packed, f"{in_linears:,} × ½ byte"),
            ("block constants", weights, _constants(linears.values()), blocks),
        ]
    else:
        how = f"{in_linears:,} × {compute} bytes"
        parts += [("linear layers", dense, in_linears * compute, how)]
    parts += [
        ("everything else", dense, others * compute, f"{others:,} × {compute} bytes"),
        ("LoRA adapters", learns, 4 * lora, f"{lora:,} × 4 bytes"),
        ("projector's copy", learns, 4 * copied, f"{copied:,} × 4 bytes"),
        ("gradients", learns, 4 * trained, f"{trained:,} × 4 bytes"),
        ("optimiser state", learns, *_optimiser_state(profile.optimizer, tensors)),
    ]
    how = f"estimate: {rows} × {length} tokens, " + (
        "each layer's input, and one layer whole"
        if profile.gradient_checkpointing
        else "every layer whole"
    )
    kept = activation_bytes(config, profile, rows, length)
    if compute < 4:
        kept += trained * compute
        how += ", and what learns once more in half precision"
    parts += [("activations", activations, kept, how)]
    said = rows * (answer + 1) * config.text_config.vocab_size
    how = f"{said:,} × ({compute} + 4 for log-probabilities + 4 for their gradient) bytes"
    parts += [("logits", rest, said * (compute + 8), how)]
    if profile.precision == "nf4":
        largest = max(weight.numel() for weight in linears.values())
        how = f"the largest layer, dequantised: {largest:,} × {compute} bytes"
        parts += [("workspace", rest, largest * compute, how)]
    return DataFrame(parts, columns=["part", "group", "bytes", "how"])


def needed(config: LlavaConfig, profile: Profile, *, rows: int | None = None) -> int:
    """Bytes of a run: of training, or of answering where that takes more.

    While it answers, a batch holds weights and adapters, and of every token keys and values.
    `rows` are those of `account`.
    """
    parts = account(config, profile, rows=rows).set_index("part")["bytes"]
    held = parts.drop(["gradients", "optimiser state", "activations", "logits"]).sum()
    text = config.text_config
    tokens = profile.evaluation_batch * (image_tokens(config) + 32 + profile.new_tokens)
    width = text.num_key_value_heads * (text.hidden_size // text.num_attention_heads)
    kept = tokens * 2 * width * text.num_hidden_layers * _bytes_of(profile.compute)
    return int(max(parts.sum(), held + kept))


def language_linears(config: LlavaConfig) -> list[tuple[int, int]]:
    """(outputs, inputs) of every linear layer of the language model, its output head aside."""
    return [tuple(weight.shape) for weight in _linears(_shapes(config)).values()]


def _shapes(config: LlavaConfig) -> LlavaForConditionalGeneration:
    """The model without its weights."""
    with torch.device("meta"):
        return LlavaForConditionalGeneration(config)


def _linears(model: LlavaForConditionalGeneration) -> dict[str, torch.Tensor]:
    target = re.compile(LLAVA.lora_targets)
    return {name: m.weight for name, m in model.named_modules() if target.fullmatch(name)}


def activation_bytes(config: LlavaConfig, profile: Profile, rows: int, length: int) -> int:
    """An estimate of what a forward pass keeps for the backward pass, logits aside.

    Per token a layer of width h and feed-forward width f keeps: the two normalisations' inputs
    (2 h, in float32); queries, keys, values and what attention makes of them (4 h); gate, its
    activation, up, and their product (4 f); LoRA's inputs (2 h, shared; in half precision or with
    dropout a copy for each of six layers, 6 h; dropout's masks a byte for each of 6 h + f) and its
    seven thin outputs (7 r). A frozen layer keeps no input: its weights have no gradient. Per row,
    a mask of length². With gradient checkpointing each layer keeps its input alone, and the layer
    being recomputed is whole. The way of counting is that of Korthikanti et al. (arXiv
    2205.05198), the terms are those of a Llama with LoRA; on the CPU and without dropout they were
    held against the tensors autograd really saves.

    Args:
        rows: questions in one forward pass.
        length: tokens of a row: picture, prompt and answer.
    """
    text, compute = config.text_config, _bytes_of(profile.compute)
    h, f, r = text.hidden_size, text.intermediate_size, profile.lora_rank
    tokens = rows * length
    token = 2 * h * 4 + (4 * h + 4 * f + 7 * r) * compute + (text.num_attention_heads + 2) * 4
    shared = compute == 4 and not profile.lora_dropout
    token += (2 if shared else 6) * h * compute
    if profile.lora_dropout:
        token += 6 * h + f
    layer = tokens * token + rows * length**2 * compute
    if profile.gradient_checkpointing:
        kept = text.num_hidden_layers * tokens * h * compute + layer
    else:
        kept = text.num_hidden_layers * layer
    kept += tokens * (h + 1) * 4  # the last normalisation
    if profile.projector == "trained":
        seen = config.vision_config.hidden_size
        kept += rows * image_tokens(config) * (seen + 2 * h) * compute
    return kept


def image_tokens(config: LlavaConfig) -> int:
    """How many tokens a picture takes: one per patch, and the class token where it is kept."""
    side = config.vision_config.image_size // config.vision_config.patch_size
    return side**2 + (config.vision_feature_select_strategy == "full")


def _optimiser_state(optimizer: str, tensors: list[int]) -> tuple[int, str]:
    """Bytes of two moments for each weight of these tensors, and how they were counted."""
    if optimizer == "adamw":
        count = sum(tensors)
        return 8 * count + 4 * len(tensors), f"AdamW: {count:,} × 2 × 4 bytes"
    large = [size for size in tensors if size >= SMALLEST_8_BIT]
    small = sum(tensors) - sum(large)
    scales = sum(2 * 4 * math.ceil(size / OUTER_BLOCK) for size in large)
    levels = 2 * 256 * 4 if large else 0
    how = f"AdamW in 8 bits: {sum(large):,} × 2 bytes, 4 per {OUTER_BLOCK}; {small:,} × 8 bytes"
    return 2 * sum(large) + scales + levels + 8 * small, how


def _constants(linears: Iterable[torch.Tensor]) -> int:
    """Bytes that bitsandbytes keeps beside packed weights under double quantisation."""
    blocks = [math.ceil(weight.numel() / BLOCK) for weight in linears]
    return sum(n + 4 * math.ceil(n / OUTER_BLOCK) + CODE_BYTES for n in blocks)


def _bytes_of(dtype: str) -> int:
    return getattr(torch, dtype).itemsize


# Dense half-precision operations a second with sums in float32, from the makers' data sheets.
PEAK = {
    "T4": 65e12,
    "V100": 112e12,
    "L4": 121e12,
    "A10": 125e12,
    "A100": 312e12,
    "H100": 756e12,  # PCIe; SXM has 989
    "H200": 989e12,
}
USABLE = 0.25  # of the peak: an assumption, not yet measured


def step_flops(
    config: LlavaConfig,
    profile: Profile,
    *,
    prompt_tokens: int = 32,
    answer_tokens: int | None = None,
) -> int:
    """Operations of one step of `unlearn`, a multiplication and an addition being two.

    A token passes forward through every linear layer (2 per weight) and attends to every position
    (4 per position and unit of width; what a causal kernel saves is not taken off). The way back
    costs the linear layers as much again, for frozen weights have no gradient, and attention twice
    as much; LoRA and its gradients 6 per weight; gradient checkpointing one more way forward. The
    output head sees the answers alone; the last layer does too, and is counted whole. Not counted:
    the vision tower, once a picture, and what KL and NPO ask of the reference.

    Args:
        prompt_tokens: text tokens of a question with its template, beside the picture's.
        answer_tokens: by default the profile's `new_tokens`, so that this is an upper bound.
    """
    text, rows = config.text_config, SETS_TOGETHER * profile.batch
    answer = answer_tokens or profile.new_tokens
    length = image_tokens(config) + prompt_tokens + answer
    shapes = language_linears(config)
    linear = 2 * sum(height * width for height, width in shapes)
    attention = 4 * length * text.hidden_size * text.num_hidden_layers
    lora = 2 * sum(profile.lora_rank * (height + width) for height, width in shapes)
    ways = 2 if profile.gradient_checkpointing else 1  # forward
    token = (ways + 1) * linear + (ways + 2) * attention + (ways + 2) * lora
    head = 2 * 2 * text.hidden_size * text.vocab_size  # forward and back
    return rows * (length * token + (answer + 1) * head)


def training_hours(config: LlavaConfig, profile: Profile, card: str) -> float | None:
    """Hours of a whole training on a card of this name, `USABLE` of its peak assumed; None where
    the card's peak is not known here."""
    known = [peak for name, peak in PEAK.items() if re.search(rf"\b{name}\b", card)]
    if not known:
        return None
    return profile.steps * step_flops(config, profile) / (USABLE * known[0]) / 3600
