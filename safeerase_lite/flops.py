"""What an unlearning run computes, counted before it starts, and how long a card may take for it.

Operations are counted from the configuration. Hours rest on one assumption besides, stated in
`USABLE`: no run of the real model was timed for it.
"""

import re

from transformers import LlavaConfig

from .memory import SETS_TOGETHER, image_tokens, language_linears
from .profiles import Profile

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
