"""Another precision: does rounding the weights bring back what unlearning moved by little?

After Zhang et al., "Catastrophic Failure of LLM Unlearning via Quantization" (arXiv 2410.16454).
There the whole model is trained; here it is a LoRA adapter, so there are two ways to quantise: the
base under the adapter, and the adapter merged into its base.
"""

import pandas as pd
import torch
from torch import Tensor

from safeerase_lite.config import Config, config
from safeerase_lite.data.dataset import Data
from safeerase_lite.models.anatomy import anatomy_of
from safeerase_lite.models.llava import load_model, trainable, why_not_4bit

from .scores import ask, questions

BITS = {"dense": 32, "nf4": 4}
BLOCK = 64  # weights that share a scale, as where a model is loaded in NF4


def quantisation(model, data: Data, settings: Config) -> pd.DataFrame:
    """Scores of a run's model as it was unlearned, and in other precisions.

    Variants: "as unlearned"; "nf4 under the adapter" or, of a run in 4-bit, "dense under the
    adapter"; "merged, dense", "merged, int8" and "merged, nf4", the adapter in its dense base,
    whose language model is then rounded. Strength is the number of bits of a weight. What needs
    bitsandbytes is left out where that does not work.
    """
    table = questions(data)
    variants = {"as unlearned": lambda: model}
    other = {"nf4": "dense", "dense": "nf4"}[settings.precision]
    four_bit = not why_not_4bit()
    if four_bit:
        variants[f"{other} under the adapter"] = lambda: in_precision(model, settings, other)
    variants["merged, dense"] = lambda: merged(model, settings)
    variants["merged, int8"] = lambda: rounded(merged(model, settings), to_int8)
    if four_bit:
        variants["merged, nf4"] = lambda: rounded(merged(model, settings), to_nf4)
    bits = {
        "as unlearned": BITS[settings.precision],
        f"{other} under the adapter": BITS[other],
        "merged, dense": 32,
        "merged, int8": 8,
        "merged, nf4": 4,
    }
    parts = [
        ask(make(), table, settings, attack="quantisation", variant=name, strength=bits[name])
        for name, make in variants.items()
    ]
    return pd.concat(parts, ignore_index=True)


def in_precision(model, settings: Config, precision: str):
    """The same adapter on a base of another precision."""
    other = load_model(config(settings, precision=precision))
    with torch.no_grad():
        learned = trainable(model)
        for name, parameter in trainable(other).items():
            parameter.copy_(learned[name])
    return other


def merged(model, settings: Config):
    """A dense model without an adapter whose weights are W + BA."""
    adapted = in_precision(model, settings, "dense")
    processor = adapted.processor
    plain = adapted.merge_and_unload()
    plain.processor = processor
    return plain.eval()


def rounded(model, round_weight):
    """The model with every linear layer of its language model rounded, as `load_model` quantises
    them."""
    anatomy = anatomy_of(model.config)
    with torch.no_grad():
        for name, module in model.named_modules():
            if anatomy.is_adapted(name):
                module.weight.copy_(round_weight(module.weight))
    return model


def to_int8(weight: Tensor) -> Tensor:
    """Rounded to 8 bits with a scale for each row, as LLM.int8 does (arXiv 2208.07339). Weights
    alone; LLM.int8 rounds what a layer reads, too."""
    scale = weight.abs().amax(dim=1, keepdim=True) / 127
    return (weight / scale).round() * scale


def to_nf4(weight: Tensor) -> Tensor:
    """Rounded to NF4 with double quantisation (QLoRA, arXiv 2305.14314)."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    codes, state = quantize_4bit(
        weight.contiguous(), blocksize=BLOCK, compress_statistics=True, quant_type="nf4"
    )
    return dequantize_4bit(codes, state)
