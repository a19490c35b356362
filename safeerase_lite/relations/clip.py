"""A CLIP: load it, adapt it with LoRA, encode images and texts, score them.

The same code loads tiny-clip, `openai/clip-vit-base-patch32` and `google/siglip-base-patch16-224`.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from torch import Tensor
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModel,
    CLIPModel,
    CLIPProcessor,
    PreTrainedTokenizerFast,
    SiglipProcessor,
)
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.utils import logging as transformers_logging

from safeerase_lite.models.llava import quiet_peft
from safeerase_lite.models.pretrained import is_local, load_weights, one_line
from safeerase_lite.tinyworld import shipped_model
from safeerase_lite.utils import UserError

TOWERS = ("vision", "text")
_LINEAR_LAYERS = "q_proj|k_proj|v_proj|out_proj|fc1|fc2"
_BATCH_SIZE = 256  # images or texts in one forward pass


def load_clip(name: str = "tiny-clip") -> CLIPModel:
    """A frozen CLIP or SigLIP in evaluation mode, its processor at `.processor`.

    Weights are read from safetensors alone, and no code of a checkpoint is run.
    """
    path = str(shipped_model(name) or name)
    if Path(path).is_dir():
        transformers_logging.disable_progress_bar()
    with one_line(f"cannot load the model {name!r}"):
        local = is_local(path)
        options = {"local_files_only": local, "trust_remote_code": False}
        family = AutoConfig.from_pretrained(path, **options).model_type
        if family not in _PROCESSORS:
            raise UserError(f"it is a {family}, neither a CLIP nor a SigLIP: name one of these")
        processor = _PROCESSORS[family](path, local)
        model = load_weights(AutoModel, path, dtype=torch.float32, **options)
    model.processor = processor
    return model.requires_grad_(False).eval()


def _clip_processor(path: str, local: bool) -> CLIPProcessor:
    return CLIPProcessor.from_pretrained(path, local_files_only=local, backend="pil")


def _siglip_processor(path: str, local: bool) -> SiglipProcessor:
    # `SiglipProcessor.from_pretrained` takes the tokenizer from spiece.model, which needs the
    # library sentencepiece; the same tokenizer lies in tokenizer.json beside it.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(path, local_files_only=local)
    pictures = SiglipImageProcessorPil.from_pretrained(path, local_files_only=local)
    return SiglipProcessor(pictures, tokenizer)


# A model's type in its configuration → what loads its processor.
_PROCESSORS = {"clip": _clip_processor, "siglip": _siglip_processor}


def adapt(
    model: CLIPModel,
    parts: Iterable[str] = TOWERS,
    *,
    rank: int,
    alpha: int,
    seed: int,
):
    """Add fresh LoRA matrices to every linear layer of the parts; nothing else is trainable.

    parts: towers ("text"), or single layers of them, counted from 0 ("text.1").

    Inside `with frozen(model):` it is the CLIP it was, bit for bit.
    """
    torch.manual_seed(seed)
    towers = [tower.partition(".")[::2] for tower in parts]
    layers = "|".join(rf"{t}_model\.encoder\..*\.{n or '[0-9]+'}" for t, n in towers)
    # Not SigLIP's head, whose attention reads the weight of its `out_proj` and never calls it.
    target_modules = rf".*({layers})\..*({_LINEAR_LAYERS})"
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=target_modules)
    with quiet_peft():
        return get_peft_model(model, config).eval()


def frozen(model):
    """A context in which the model's adapter, if it has one, is off."""
    return model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext()


def preprocess(model, images: Iterable[Image.Image]) -> Tensor:
    """The pixel values that a CLIP is given for images: (images, 3, side, side)."""
    processed = model.processor.image_processor(images=list(images), return_tensors="pt")
    return processed["pixel_values"]


def encode_images(model, pixel_values: Tensor) -> Tensor:
    """Image features of length one: (images, width). Source: Radford et al. 2021, figure 3."""
    return _encode(model, model.get_image_features, pixel_values)


def encode_texts(model, texts: Sequence[str]) -> Tensor:
    """Text features of length one: (texts, width)."""
    shape = {"truncation": True, "return_tensors": "pt"}
    if model.config.model_type == "siglip":
        # It reads the last position, was trained on captions of full length, and masks nothing.
        length = model.config.text_config.max_position_embeddings
        shape |= {"padding": "max_length", "max_length": length, "return_attention_mask": False}
        tokens = model.processor.tokenizer(list(texts), **shape)
        return _encode(model, model.get_text_features, tokens.input_ids)
    tokens = model.processor.tokenizer(list(texts), padding=True, **shape)
    return _encode(model, model.get_text_features, tokens.input_ids, tokens.attention_mask)


def _encode(model, encoder: Callable, *inputs: Tensor) -> Tensor:
    batches = zip(*(values.to(model.device).split(_BATCH_SIZE) for values in inputs), strict=True)
    features = [encoder(*batch).pooler_output for batch in batches]
    return torch.cat([functional.normalize(batch, dim=-1) for batch in features])


def scores(model, image_features: Tensor, text_features: Tensor) -> Tensor:
    """Its logits, scale times cosine, and SigLIP's bias added: (images, texts)."""
    logits = model.logit_scale.exp() * image_features @ text_features.T
    return logits + model.logit_bias if model.config.model_type == "siglip" else logits
