"""A model's processor, for pictures and text: what makes tensors of pictures and tokens of prompts.

Its class is the one that `AutoProcessor` would take. `AutoProcessor` itself also loads what a class
has for videos, which needs torchvision, and hands `backend` on to it, which raises.
"""

from typing import Any

import transformers
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

from safeerase_lite.utils import UserError

from .anatomy import anatomy_of


def load_processor(path: str, config: Any, *, local_files_only: bool):
    """The processor of a model of a known family; pictures are read by Pillow, each as one view.

    Args:
        path: the model's folder, or its name on the Hub.
        config: its transformers configuration.

    Raises:
        UserError: its pictures need torchvision, or it does not say how large a patch is.
    """
    anatomy = anatomy_of(config)
    anatomy.register()
    named = getattr(transformers, anatomy.processor, None)
    processor_class = without_videos(named or PROCESSOR_MAPPING[type(config)])
    processor = processor_class.from_pretrained(
        path, local_files_only=local_files_only, backend="pil"
    )
    if getattr(processor, "patch_size", 1) is None:
        raise UserError("its processor has no patch_size: add the vision tower's")
    processor.images_kwargs = {**getattr(processor, "images_kwargs", {}), **anatomy.view}
    processor.chat_template = processor.chat_template or anatomy.template
    tokenizer = processor.tokenizer
    tokenizer.padding_side = "left"
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return processor


def without_videos(processor_class: type) -> type:
    """The class of a processor without its part for videos."""
    parts = processor_class.get_attributes()
    if "video_processor" not in parts:
        return processor_class
    kept = [part for part in parts if part != "video_processor"]
    changed = {"get_attributes": classmethod(lambda _: kept)}
    return type(processor_class.__name__, (processor_class,), changed)
