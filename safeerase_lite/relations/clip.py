"""A CLIP: loaded, adapted, and what it makes of pictures and captions.

The same code loads tiny-clip and `openai/clip-vit-base-patch32`.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from huggingface_hub.errors import HFValidationError
from peft import LoraConfig, get_peft_model
from PIL import Image
from torch import Tensor
from torch.nn import functional
from transformers import CLIPModel, CLIPProcessor
from transformers.utils import logging as transformers_logging

from safeerase_lite.models.llava import is_local, quiet_peft
from safeerase_lite.tinyworld import shipped_model
from safeerase_lite.utils import UserError

TOWERS = ("vision", "text")
LINEARS = "q_proj|k_proj|v_proj|out_proj|fc1|fc2"
_AT_ONCE = 256  # pictures or captions in one forward pass


def load_clip(name: str = "tiny-clip"):
    """A CLIP in evaluation mode, its processor at `.processor`.

    Raises:
        UserError: no such model.
    """
    path = str(shipped_model(name) or name)
    if Path(path).is_dir():
        transformers_logging.disable_progress_bar()
    try:
        local = is_local(path)
        processor = CLIPProcessor.from_pretrained(path, local_files_only=local, backend="pil")
        model = CLIPModel.from_pretrained(
            path, dtype=torch.float32, local_files_only=local, use_safetensors=True
        )
    except (OSError, HFValidationError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"cannot load the model {name!r}: {reason}") from None
    model.processor = processor
    return model.requires_grad_(False).eval()


def adapt(model: CLIPModel, towers: Iterable[str] = TOWERS, *, rank: int, alpha: int, seed: int):
    """Fresh LoRA on every linear layer of the towers named; nothing else is trained.

    `with model.disable_adapter():` is the frozen CLIP, exactly.
    """
    torch.manual_seed(seed)
    processor, chosen = model.processor, "|".join(f"{tower}_model" for tower in towers)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=rf".*({chosen})\..*\.({LINEARS})")
    with quiet_peft():
        model = get_peft_model(model, config)
    model.processor = processor
    return model.eval()


def pixels(model, pictures: Sequence[Image.Image]) -> Tensor:
    """What a CLIP is given of pictures: (pictures, 3, side, side)."""
    return model.processor.image_processor(images=list(pictures), return_tensors="pt")[
        "pixel_values"
    ]


def look(model, pictures: Tensor) -> Tensor:
    """The direction of every picture, of length one: (pictures, width).

    Source: Radford et al. 2021, figure 3.
    """
    return torch.cat(
        [
            functional.normalize(
                model.get_image_features(pixel_values=some.to(model.device)).pooler_output, dim=-1
            )
            for some in pictures.split(_AT_ONCE)
        ]
    )


def read(model, captions: Sequence[str]) -> Tensor:
    """The direction of every caption, of length one: (captions, width)."""
    tokens = model.processor.tokenizer(
        list(captions), padding=True, truncation=True, return_tensors="pt"
    ).to(model.device)
    found = [
        functional.normalize(model.get_text_features(ids, mask).pooler_output, dim=-1)
        for ids, mask in zip(
            tokens.input_ids.split(_AT_ONCE), tokens.attention_mask.split(_AT_ONCE), strict=True
        )
    ]
    return torch.cat(found)


def scores(model, looked: Tensor, captions: Tensor) -> Tensor:
    """How well captions fit pictures: CLIP's logits, its scale times the cosine; (pictures,
    captions)."""
    return model.logit_scale.exp() * looked @ captions.T
