"""Where the parts of a vision-language model are: one record for each family of models.

Everything that depends on a family derives from its record: which layers are quantised, where LoRA
goes, what a picture becomes, whether questions share a picture. A new family is one entry in
`FAMILIES`, which states no more than where it differs from LLaVA.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from safeerase_lite.utils import UserError

# ---- what some families do besides ----


def tiles_and_newlines(core: nn.Module, projected: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
    """LLaVA-OneVision: the whole picture, then its tiles row by row without their padding, and a
    learned token at the end of each row."""
    packed, _ = core.pack_image_features(
        [projected], tensors["image_sizes"], core.image_newline, core.config.vision_aspect_ratio
    )
    return packed[0]


def no_marks(processor: Any, ids: Tensor, answered: Tensor) -> dict[str, Tensor]:
    """Most models read nothing but tokens and pictures."""
    return {}


def mark_answers(processor: Any, ids: Tensor, answered: Tensor) -> dict[str, Tensor]:
    """PaliGemma: all tokens of a prompt attend to each other, those of the answer to what precedes
    them."""
    return {"token_type_ids": answered.long()}


def mark_pictures(processor: Any, ids: Tensor, answered: Tensor) -> dict[str, Tensor]:
    """Qwen-VL: a picture's tokens have a row and a column, by which they are rotated (M-RoPE)."""
    return {"mm_token_type_ids": (ids == processor.image_token_id).long()}


def nothing() -> None:
    """transformers knows what most families need."""


def register_lfm2_pictures() -> None:
    """LFM2-VL: transformers reads its pictures by torchvision alone."""
    from . import lfm2_pictures  # noqa: F401, registers itself


# ---- the record ----


@dataclass(frozen=True)
class Anatomy:
    """The parts of one family, by their names in transformers 5, inside `model.model`.

    Attributes:
        tower, projector, language_model: submodules of `model.model`.
        blocks, norm: of the language model, its transformer blocks and the norm after the last.
        attention: the part of a block that attends; a block may lack it.
        writers: the parts of a block whose outputs are added to the residual stream.
        linears: the linear layers of the language model's blocks: quantised, and adapted by LoRA.
        processor: the name of its processor class in transformers; "": the one registered for it.
        register: makes known to transformers what it lacks of this family; called before its
            processor is looked for, any number of times.
        template: the chat template of a family that was published without one.
        view: settings of the processor by which a picture is one view, not a view and many tiles.
        arrange: (`model.model`, what the projector makes of a picture, the picture's tensors) →
            (tokens, width), what takes its place among the words; None: all of it, view by view.
        packs: whether all questions about a picture can share one row. They cannot where a picture
            attends to the question, nor where a token's position is more than a number.
        marks: (processor, ids, whether each is of the answer) → what the model reads beside tokens
            and pictures, for families that do not pack.
    """

    tower: str = "vision_tower"
    projector: str = "multi_modal_projector"
    language_model: str = "language_model"
    blocks: str = "layers"
    norm: str = "norm"
    attention: str = "self_attn"
    writers: tuple[str, ...] = ("self_attn", "mlp")
    linears: tuple[str, ...] = (
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"
    )  # fmt: skip
    processor: str = ""
    register: Callable[[], None] = nothing
    template: str | None = None
    view: Mapping[str, Any] = field(default_factory=dict)
    arrange: Callable[[nn.Module, Tensor, Mapping[str, Tensor]], Tensor] | None = None
    packs: bool = True
    marks: Callable[[Any, Tensor, Tensor], dict[str, Tensor]] = no_marks

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
# notebook: `FAMILIES["vipllava"] = Anatomy()`.
SMOLVLM = {"tower": "vision_model", "projector": "connector", "language_model": "text_model",
           "view": {"do_image_splitting": False}}  # fmt: skip
PICTURE_AND_QUESTION = (
    "{% for part in messages[0]['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}"
)
QWEN_VL = {"tower": "visual", "projector": "visual.merger", "packs": False, "marks": mark_pictures}
FAMILIES: dict[str, Anatomy] = {
    "llava": LLAVA,
    "llava_onevision": Anatomy(arrange=tiles_and_newlines),
    "internvl": Anatomy(view={"crop_to_patches": False}),
    "idefics3": Anatomy(**SMOLVLM),
    "smolvlm": Anatomy(processor="Idefics3Processor", **SMOLVLM),  # as it reads pictures, so do we
    "paligemma": Anatomy(
        writers=("post_attention_layernorm", "post_feedforward_layernorm"),  # PaliGemma 2
        template=PICTURE_AND_QUESTION,
        packs=False,
        marks=mark_answers,
    ),
    "qwen2_5_vl": Anatomy(**QWEN_VL),
    "qwen3_vl": Anatomy(**QWEN_VL),
    "lfm2_vl": Anatomy(
        norm="embedding_norm",
        writers=("self_attn", "conv", "feed_forward"),  # a block attends or convolves
        linears=("q_proj", "k_proj", "v_proj", "out_proj", "in_proj", "w1", "w2", "w3"),
        register=register_lfm2_pictures,
        view={"do_image_splitting": False},
        packs=False,  # a convolution would read the question before
    ),
}


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


# ---- what a picture becomes ----


class _Reached(Exception):
    """A picture has come to the projector."""


def picture_features(core: nn.Module, tensors: Mapping[str, Tensor]) -> Tensor:
    """What the projector reads of one picture, by the model's own `get_image_features`:
    (views, patches, width).

    Args:
        core: `model.model`, adapted or not.
        tensors: from `inputs.picture`, or with a gradient.
    """

    def reached(_, inputs):
        raise _Reached(*inputs)

    projector = core.get_submodule(anatomy_of(core.config).projector)
    hook = projector.register_forward_pre_hook(reached)
    try:
        core.get_image_features(**on_tower(core, tensors))
    except _Reached as stopped:
        [features] = stopped.args
        return features.to(_weights(core).dtype)
    finally:
        hook.remove()
    raise UserError("its get_image_features does not pass through its projector: correct its entry")


def on_tower(core: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A picture's tensors on the tower's device, numbers in its type."""
    weights = _weights(core)
    return {
        name: tensor.to(weights) if tensor.is_floating_point() else tensor.to(weights.device)
        for name, tensor in tensors.items()
    }


def _weights(core: nn.Module) -> Tensor:
    return next(core.get_submodule(anatomy_of(core.config).tower).parameters())
