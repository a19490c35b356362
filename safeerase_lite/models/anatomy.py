"""Where the parts of a vision-language model are: one record for each family of models.

Everything that depends on a family derives from its record: which layers are quantised, where LoRA
goes, what a picture becomes. A new family is one entry in `FAMILIES`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from safeerase_lite.utils import UserError


def patch_features(tower: nn.Module, config: Any, pixels: Tensor) -> Tensor:
    """What LLaVA's projector reads of one picture: hidden states of the chosen layers, patch by
    patch, (1, side, side) pixels → (patches, width).

    The class token, at place 0, is left out unless the strategy is "full".
    """
    states = tower(pixels, output_hidden_states=True).hidden_states
    first = 1 if config.vision_feature_select_strategy == "default" else 0
    layers = config.vision_feature_layer
    layers = [layers] if isinstance(layers, int) else layers
    return torch.cat([states[n][0, first:] for n in layers], dim=-1)


def patch_tokens(processor: Any) -> int:
    """How many tokens a picture takes in LLaVA's prompt."""
    if not processor.patch_size:
        raise UserError("its processor has no patch_size: add the vision tower's")
    crop = processor.image_processor.crop_size
    patches = (crop["height"] // processor.patch_size) * (crop["width"] // processor.patch_size)
    dropped = 1 if processor.vision_feature_select_strategy == "default" else 0
    return patches + processor.num_additional_image_tokens - dropped


@dataclass(frozen=True)
class Anatomy:
    """The parts of one family, by their names in transformers 5, inside `model.model`.

    Attributes:
        tower, projector, language_model: attributes of `model.model`.
        blocks, norm: of the language model, its transformer blocks and the norm after the last.
        attention, feed_forward: the two parts of a block that write to the residual stream.
        linears: the linear layers of a block of the language model: quantised, and adapted by LoRA.
        processor: the name of its processor class in transformers.
        features: (tower, config, pixels of one picture) → what the projector reads of it.
        image_tokens: processor → how many tokens a picture takes in a prompt.
    """

    tower: str = "vision_tower"
    projector: str = "multi_modal_projector"
    language_model: str = "language_model"
    blocks: str = "layers"
    norm: str = "norm"
    attention: str = "self_attn"
    feed_forward: str = "mlp"
    linears: tuple[str, ...] = (
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"
    )  # fmt: skip
    processor: str = "LlavaProcessor"
    features: Callable[[nn.Module, Any, Tensor], Tensor] = patch_features
    image_tokens: Callable[[Any], int] = patch_tokens

    @property
    def lora_targets(self) -> str:
        """A regular expression for PEFT. Plain names such as "q_proj" would hit the tower too."""
        return rf"model\.{self.language_model}\..*\.({'|'.join(self.linears)})"

    @property
    def not_quantised(self) -> list[str]:
        """The modules that stay dense. transformers 5 skips nothing by a name that it does not
        know, without a warning, so `llava.load_model` checks the outcome."""
        return [f"model.{self.tower}", f"model.{self.projector}", "lm_head"]

    def is_adapted(self, name: str) -> bool:
        """Whether a module is a linear layer of the language model."""
        return re.fullmatch(self.lora_targets, name) is not None


LLAVA = Anatomy()

# model_type of a transformers configuration → its anatomy. Your own family joins here, or in a
# notebook: `FAMILIES["vipllava"] = Anatomy(features=…)`.
FAMILIES: dict[str, Anatomy] = {"llava": LLAVA}


def anatomy_of(config: Any) -> Anatomy:
    """The anatomy of a model, by its transformers configuration.

    Raises:
        UserError: an unknown family; the message shows an example of an entry.
    """
    if config.model_type in FAMILIES:
        return FAMILIES[config.model_type]
    raise UserError(
        f"models of type {config.model_type!r} are not known here; known: {', '.join(FAMILIES)}. "
        f"Add an entry: safeerase_lite.models.anatomy.FAMILIES[{config.model_type!r}] = "
        'Anatomy(tower="…", projector="…", language_model="…") (docs/bring_your_own.md)'
    )


def picture_features(llava: nn.Module, pixels: Tensor) -> Tensor:
    """What the projector reads of one picture: (3, side, side) → (patches, width)."""
    anatomy = anatomy_of(llava.config)
    tower = getattr(llava, anatomy.tower)
    weights = next(tower.parameters())
    return anatomy.features(tower, llava.config, pixels[None].to(weights)).to(weights.dtype)


def image_tokens(processor: Any) -> int:
    """How many tokens a picture takes in a prompt, by the processor's class."""
    name = type(processor).__name__
    family = next((a for a in FAMILIES.values() if a.processor == name), LLAVA)
    return family.image_tokens(processor)
