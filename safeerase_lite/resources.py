"""Memory and operations of a training step, counted from a LLaVA's configuration alone.

Weights, adapters, gradients and optimiser state are exact to the byte. Activations are an estimate:
what a forward pass saves for the backward pass, without the temporary buffers of its kernels.
Operations are counted by torch, on tensors without data.
"""

import copy
import math
import re
from collections.abc import Callable

import torch
from pandas import DataFrame
from peft import LoraConfig, inject_adapter_in_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from safeerase_lite.config import Config
from safeerase_lite.models.anatomy import LLAVA
from safeerase_lite.models.prefix import PREFIX_BYTES

GB = 10**9
T4_BYTES = 15 * GB
GROUPS = ("4-bit weights", "dense weights", "what learns", "activations", "logits and workspace")

BLOCK, OUTER_BLOCK = 64, 256  # weights that share a scale, scales that share a scale (bitsandbytes)
CODE_BYTES = 16 * 4 + 256 * 4 + 4  # NF4's 16 levels, the scales' 256 levels and their mean: float32
MIN_8BIT_SIZE = 4096  # bitsandbytes stores the moments of smaller tensors in 32 bits
QUESTIONS = 4  # of each set about a picture, in the benchmark and in the tiny world


def _llava_1_5(width: int, feed_forward: int, layers: int) -> LlavaConfig:
    vicuna = LlamaConfig(
        hidden_size=width,
        intermediate_size=feed_forward,
        num_hidden_layers=layers,
        num_attention_heads=width // 128,
        vocab_size=32064,
        max_position_embeddings=4096,
    )
    return LlavaConfig(text_config=vicuna)  # its vision tower is LLaVA-1.5's: ViT-L/14 at 336 px


LLAVA_7B = _llava_1_5(width=4096, feed_forward=11008, layers=32)
LLAVA_13B = _llava_1_5(width=5120, feed_forward=13824, layers=40)


Rows = list[tuple[int, int]]  # of a pass each: how many, and questions in each, beside its picture


def rows_of_part(config: Config, taught: int = 0) -> Rows:
    """What one part of a step reads: with PD harmful pictures, with forget and retain questions,
    and safe ones, with half as many; or pictures with `taught` questions each, cut into pieces."""
    slices = min(math.ceil(config.accumulation / config.pictures), taught or QUESTIONS)
    pictures, each = math.ceil(config.pictures / config.accumulation), math.ceil(QUESTIONS / slices)
    if taught:
        return [(pictures, math.ceil(taught / slices))]
    return [(pictures, 2 * each), (pictures, each)]


# ---- memory ----


def account(
    llava: LlavaConfig,
    config: Config,
    *,
    rows: Rows | None = None,
    prompt_tokens: int = 32,
    answer_tokens: int | None = None,
) -> DataFrame:
    """The memory of one training step of `unlearn`, part by part.

    Not counted: buffers, the CUDA context, fragmentation, and gradients of activations. Nor the
    reference pass of KL and NPO: it has no gradients and its memory is free before the backward
    pass.

    Args:
        llava: the model; `LLAVA_7B`, `LLAVA_13B`, or a configuration read by `AutoConfig`.
        config: precision, compute type, adapter, checkpointing and micro-batch.
        rows: of the forward passes of one micro-batch; by default `rows_of_part`.
        prompt_tokens: text tokens of a question with its template, without the image's tokens.
        answer_tokens: by default the config's `max_new_tokens`.

    Returns:
        A row per part: part, group (of `GROUPS`), bytes, how (they were computed).
    """
    rows = rows or rows_of_part(config)
    answer = answer_tokens or config.max_new_tokens
    passes = [(n, _row_length(llava, asked, prompt_tokens + answer)) for n, asked in rows]
    itemsize = _itemsize(config)

    model = _meta_model(llava)
    target = re.compile(LLAVA.lora_targets)
    linears = [m.weight for name, m in model.named_modules() if target.fullmatch(name)]
    in_linears = sum(weight.numel() for weight in linears)
    in_others = sum(p.numel() for p in model.parameters()) - in_linears
    adapter_sizes = [config.lora_rank * side for weight in linears for side in weight.shape]
    projector_sizes = []
    if config.projector == "trained":
        projector_sizes = [p.numel() for p in model.model.multi_modal_projector.parameters()]
    in_adapter, in_projector = sum(adapter_sizes), sum(projector_sizes)
    trained = in_adapter + in_projector
    state, state_how = _optimizer_state(config.optimizer, adapter_sizes + projector_sizes)

    activations = activation_bytes(llava, config, passes)
    tokens = " + ".join(f"{n} × {length}" for n, length in passes)
    activations_how = f"estimate: {tokens} tokens, "
    if config.gradient_checkpointing:
        activations_how += "each layer's input, and one complete layer"
    else:
        activations_how += "every layer in full"
    if itemsize < 4:
        activations += trained * itemsize
        activations_how += ", and a half-precision copy of what learns"
    logits = sum(n * asked for n, asked in rows) * answer * llava.text_config.vocab_size

    weight_group, dense_group, trained_group, activation_group, rest_group = GROUPS
    parts = []
    if config.precision == "nf4":
        packed = sum(math.ceil(weight.numel() / 2) for weight in linears)
        blocks = [math.ceil(weight.numel() / BLOCK) for weight in linears]
        constants = sum(n + 4 * math.ceil(n / OUTER_BLOCK) + CODE_BYTES for n in blocks)
        how = f"a byte per {BLOCK} weights, 4 per {OUTER_BLOCK} blocks, {CODE_BYTES} per layer"
        parts += [
            ("packed weights", weight_group, packed, f"{in_linears:,} × ½ byte"),
            ("block constants", weight_group, constants, how),
        ]
    else:
        how = f"{in_linears:,} × {itemsize} bytes"
        parts += [("linear layers", dense_group, in_linears * itemsize, how)]
    dense = in_others * itemsize
    logits_how = f"{logits:,} × ({itemsize} + 4 for log-probabilities + 4 for their gradient) bytes"
    parts += [
        ("everything else", dense_group, dense, f"{in_others:,} × {itemsize} bytes"),
        ("LoRA adapters", trained_group, 4 * in_adapter, f"{in_adapter:,} × 4 bytes"),
        ("projector's copy", trained_group, 4 * in_projector, f"{in_projector:,} × 4 bytes"),
        ("gradients", trained_group, 4 * trained, f"{trained:,} × 4 bytes"),
        ("optimiser state", trained_group, state, state_how),
        ("activations", activation_group, activations, activations_how),
        ("logits", rest_group, logits * (itemsize + 8), logits_how),
    ]
    if config.precision == "nf4":
        largest = max(weight.numel() for weight in linears)
        how = f"the largest layer, dequantised: {largest:,} × {itemsize} bytes"
        parts += [("workspace", rest_group, largest * itemsize, how)]
    return DataFrame(parts, columns=["part", "group", "bytes", "how"])


def peak_bytes(llava: LlavaConfig, config: Config, *, rows: Rows | None = None) -> int:
    """Bytes of a complete run: of training, or of generation where that takes more.

    Generation holds weights and adapters, the keys and values of every token of a batch, and those
    of the pictures that its questions share. `rows` are those of `account`.
    """
    parts = account(llava, config, rows=rows).set_index("part")["bytes"]
    loaded = parts.drop(["gradients", "optimiser state", "activations", "logits"]).sum()
    text, picture = llava.text_config, image_tokens(llava)
    width = text.num_key_value_heads * (text.hidden_size // text.num_attention_heads)
    of_token = 2 * width * text.num_hidden_layers * _itemsize(config)
    questions = config.eval_batch_size
    key_values = questions * (picture + 32 + config.max_new_tokens) * of_token
    shared = min(PREFIX_BYTES, questions * picture * of_token)
    return int(max(parts.sum(), loaded + key_values + shared))


def activation_bytes(llava: LlavaConfig, config: Config, passes: list[tuple[int, int]]) -> int:
    """An estimate of what forward passes save for the backward pass, logits not included.

    Per token, a layer of width h and feed-forward width f saves: the inputs of both normalisations
    (2 h, in float32); queries, keys, values and the attention's output (4 h); gate, its activation,
    up, and their product (4 f); LoRA's inputs (2 h, shared; in half precision or with dropout a
    copy for each of six layers, 6 h; dropout's masks a byte for each of 6 h + f); LoRA's seven
    low-rank outputs (7 r). A frozen layer saves no input: its weights have no gradient. Per row, a
    mask of length². With gradient checkpointing each layer saves its input alone, and the one layer
    that is recomputed is complete.

    The method is that of Korthikanti et al. (arXiv 2205.05198), the terms are those of a Llama with
    LoRA. A test compares the result with the tensors that autograd saves on the CPU.

    Args:
        passes: (rows, tokens of a row) of each forward pass before the backward one.
    """
    text, itemsize = llava.text_config, _itemsize(config)
    h, f, r = text.hidden_size, text.intermediate_size, config.lora_rank
    per_token = 2 * h * 4 + (4 * h + 4 * f + 7 * r) * itemsize + (text.num_attention_heads + 2) * 4
    shared_inputs = itemsize == 4 and not config.lora_dropout
    per_token += (2 if shared_inputs else 6) * h * itemsize
    if config.lora_dropout:
        per_token += 6 * h + f
    layers = [rows * (length * per_token + length**2 * itemsize) for rows, length in passes]
    tokens = sum(rows * length for rows, length in passes)
    if config.gradient_checkpointing:
        total = text.num_hidden_layers * tokens * h * itemsize + max(layers)
    else:
        total = text.num_hidden_layers * sum(layers)
    total += tokens * (h + 1) * 4  # the last normalisation
    if config.projector == "trained":
        vision_width, pictures = llava.vision_config.hidden_size, sum(rows for rows, _ in passes)
        total += pictures * image_tokens(llava) * (vision_width + 2 * h) * itemsize
    return total


def _row_length(llava: LlavaConfig, questions: int, tokens: int) -> int:
    """Tokens of a row: a picture, and a number of questions of so many tokens, answers included."""
    return image_tokens(llava) + questions * tokens


def image_tokens(llava: LlavaConfig) -> int:
    """How many tokens an image takes: one per patch, and the class token under strategy `full`."""
    side = llava.vision_config.image_size // llava.vision_config.patch_size
    return side**2 + (llava.vision_feature_select_strategy == "full")


def _optimizer_state(optimizer: str, sizes: list[int]) -> tuple[int, str]:
    """Bytes of two moments for each weight of tensors of these sizes, and how they were counted."""
    if optimizer == "adamw":
        count = sum(sizes)
        return 8 * count + 4 * len(sizes), f"AdamW: {count:,} × 2 × 4 bytes"
    large = [size for size in sizes if size >= MIN_8BIT_SIZE]
    small = sum(sizes) - sum(large)
    scales = sum(2 * 4 * math.ceil(size / OUTER_BLOCK) for size in large)
    levels = 2 * 256 * 4 if large else 0
    how = f"AdamW in 8 bits: {sum(large):,} × 2 bytes, 4 per {OUTER_BLOCK}; {small:,} × 8 bytes"
    return 2 * sum(large) + scales + levels + 8 * small, how


def _itemsize(config: Config) -> int:
    return getattr(torch, config.compute).itemsize


def _meta_model(llava: LlavaConfig) -> LlavaForConditionalGeneration:
    """The model's shapes, without its weights."""
    with torch.device("meta"):
        return LlavaForConditionalGeneration(llava)


# ---- operations ----

# Dense half-precision operations a second with sums in float32, from the makers' data sheets.
PEAK_FLOPS = {
    "T4": 65e12,
    "V100": 112e12,
    "L4": 121e12,
    "A10": 125e12,
    "A100": 312e12,
    "H100": 756e12,  # PCIe; SXM has 989
    "H200": 989e12,
}
UTILISATION = 0.25  # of the peak: an assumption, not yet measured


def step_flops(
    llava: LlavaConfig,
    config: Config,
    *,
    rows: Rows | None = None,
    prompt_tokens: int = 32,
    answer_tokens: int | None = None,
) -> int:
    """Operations of one step of `unlearn`; a multiplication and an addition are two.

    torch counts one layer of the language model with its LoRA, and the output head. Every layer is
    counted alike, on every position; the head sees the answers alone. Gradient checkpointing costs
    one more forward pass through the layers. Not counted: the vision tower, which runs once an
    image, the projector, and the reference pass of KL and NPO.

    Args:
        rows: of the passes of one micro-batch; by default `rows_of_part`.
        prompt_tokens: text tokens of a question with its template, without the image's tokens.
        answer_tokens: by default the config's `max_new_tokens`, so that this is an upper bound.
    """
    answer = answer_tokens or config.max_new_tokens
    layers, width = llava.text_config.num_hidden_layers, llava.text_config.hidden_size
    one_layer = copy.deepcopy(llava)
    one_layer.text_config.num_hidden_layers = one_layer.vision_config.num_hidden_layers = 1
    one_layer._attn_implementation = "eager"  # torch cannot count the fused kernels
    model = _meta_model(one_layer).requires_grad_(False)
    with torch.device("meta"):
        lora = LoraConfig(r=config.lora_rank, target_modules=LLAVA.lora_targets)
        language = inject_adapter_in_model(lora, model).model.language_model

    def of_row(questions: int) -> int:
        length = _row_length(llava, questions, prompt_tokens + answer)
        with torch.device("meta"):
            embeddings = torch.zeros(1, length, width, requires_grad=True)
            mask = torch.zeros(1, 1, length, length)  # given, for it cannot be made from no data
            inputs = {"attention_mask": mask, "position_ids": torch.arange(length)[None]}
            forward, backward = _flops(
                lambda: (
                    language(inputs_embeds=embeddings, **inputs, use_cache=False).last_hidden_state
                )
            )
            states = torch.zeros(questions, answer, width, requires_grad=True)
            head = sum(_flops(lambda: model.lm_head(states)))
        passes = 2 if config.gradient_checkpointing else 1
        return layers * (passes * forward + backward) + head

    parts = max(config.pictures, config.accumulation)  # a picture, or a piece of one, each
    return sum(parts * of_row(asked) for _, asked in rows or rows_of_part(config))


def training_hours(
    llava: LlavaConfig, config: Config, gpu: str, *, rows: Rows | None = None
) -> float | None:
    """Hours of a complete training on a GPU of this name, at `UTILISATION` of its peak.

    None where the GPU's peak is not in `PEAK_FLOPS`.
    """
    for name, peak in PEAK_FLOPS.items():
        if re.search(rf"\b{name}\b", gpu):
            flops = config.steps * step_flops(llava, config, rows=rows)
            return flops / (UTILISATION * peak) / 3600
    return None


def _flops(forward: Callable[[], torch.Tensor]) -> tuple[int, int]:
    """Operations of a forward pass, and of the backward pass from its output."""
    with FlopCounterMode(display=False) as ahead:
        output = forward()
    with FlopCounterMode(display=False) as back:
        output.sum().backward()
    return ahead.get_total_flops(), back.get_total_flops()
