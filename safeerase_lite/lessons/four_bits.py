"""What lesson 01 looks up in a 4-bit LLaVA: its weights on disk and in memory, which layers are
rounded, where LoRA lands, and how many tokens a picture has."""

import logging
import warnings
from pathlib import Path

import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn

from safeerase_lite.config import Config, config
from safeerase_lite.models.llava import reference
from safeerase_lite.resources import LLAVA_7B, LLAVA_13B, account
from safeerase_lite.tinyworld import shipped_model
from safeerase_lite.utils import UserError

PARTS = ["vision_tower", "multi_modal_projector", "language_model", "lm_head"]
OLD_NAMES = ["vision_tower", "multi_modal_projector", "lm_head"]  # of transformers 4
ARCHITECTURES = {"7B": LLAVA_7B, "13B": LLAVA_13B}


def path_of(config: Config) -> str:
    """The folder of a shipped model, or the name that is configured."""
    return str(shipped_model(config.model) or config.model)


def stored_weight(config: Config, ending: str) -> Tensor:
    """The unrounded weight of the language model whose name ends so, in float32.

    Raises:
        UserError: the model's files hold none of that name.
    """
    from safetensors import safe_open
    from transformers.utils import cached_file

    folder = Path(cached_file(path_of(config), "config.json")).parent
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                if "language_model" in name and name.endswith(ending):
                    return tensors.get_tensor(name).float()
    raise UserError(f"{config.model}: no weight of the language model ends in {ending!r}")


def stored_codes(layer) -> Tensor:
    """The 4-bit codes of a loaded layer: a byte holds two, the first one high."""
    packed = layer.weight.data.cpu().flatten()
    return torch.stack([packed >> 4, packed & 15], 1).flatten()


def linear_layers(model) -> pd.DataFrame:
    """How many linear layers of each part are in NF4 (Linear4bit) and dense (Linear)."""
    linears = {n: type(m).__name__ for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    return pd.DataFrame(
        {
            kind: {part: sum(part in n and k == kind for n, k in linears.items()) for part in PARTS}
            for kind in ("Linear4bit", "Linear")
        }
    )


def loaded_with_old_names(config: Config, model) -> tuple[nn.Module | None, str]:
    """The same model loaded in 4-bit with a skip list of transformers 4, and what the library said
    of it: an error, a warning, or not a word."""
    from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

    old = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=model.dtype,
        llm_int8_skip_modules=OLD_NAMES,
    )  # fmt: skip
    warned: list = []
    listener = logging.Handler(logging.WARNING)
    listener.emit = warned.append
    logger = logging.getLogger("transformers")
    logger.addHandler(listener)
    try:
        wrong = AutoModelForImageTextToText.from_pretrained(
            path_of(config), dtype=model.dtype, device_map={"": model.device},
            quantization_config=old,
        )  # fmt: skip
    except (ValueError, KeyError):
        return None, "an error"
    finally:
        logger.removeHandler(listener)
    wrong.processor = model.processor
    return wrong.eval(), "a warning" if warned else "not a word"


def lora_lands(architecture, **target) -> dict[str, int]:
    """How many layers of each part LoRA adapts when asked for so, tried on a model without memory.

    Args:
        architecture: a LLaVA's configuration.
        target: as for `peft.LoraConfig`, such as target_modules.
    """
    from peft import LoraConfig, get_peft_model
    from transformers import LlavaForConditionalGeneration

    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        skeleton = LlavaForConditionalGeneration(architecture)
        wrapped = get_peft_model(skeleton, LoraConfig(r=4, **target)).get_base_model()
    names = [name for name, m in wrapped.named_modules() if hasattr(m, "lora_A")]
    return {part: sum(part in name for name in names) for part in PARTS}


def prompt(processor, question: str) -> str:
    """A question about a picture in the model's chat template."""
    content = [{"type": "image"}, {"type": "text", "text": question}]
    turn = {"role": "user", "content": content}
    return processor.apply_chat_template([turn], add_generation_prompt=True)


def image_tokens(model, processor, image, question: str, **cut) -> str:
    """How many image tokens a prompt has, and whether model and processor accept it; `cut` goes to
    the processor, such as truncation."""
    picture, base = Image.open(image).convert("RGB"), model.get_base_model()
    try:
        batch = processor(
            images=picture, text=prompt(processor, question), return_tensors="pt", **cut
        )
        count = (batch["input_ids"] == processor.image_token_id).sum().item()
        with torch.no_grad(), reference(model):  # the adapter off
            model(**batch.to(model.device, base.dtype))
        return f"{count} image tokens of {batch['input_ids'].shape[1]} in all: accepted"
    except ValueError as problem:
        return f"refused: {str(problem).splitlines()[0]}"


def without_class_token(processor):
    """The same processor, built without the number of additional image tokens."""
    from transformers import LlavaProcessor

    return LlavaProcessor(
        processor.image_processor, processor.tokenizer, patch_size=processor.patch_size,
        vision_feature_select_strategy="default", chat_template=processor.chat_template,
    )  # fmt: skip


def bills(model: str, questions: int, checkpointing: bool) -> dict[str, pd.DataFrame]:
    """What a step of training takes in fp16 and in NF4, of 7B or 13B (see `resources.account`)."""
    return {
        f"{model} {name}": account(
            ARCHITECTURES[model],
            config("t4", precision=precision, gradient_checkpointing=checkpointing),
            rows=[(1, questions)],
        )
        for name, precision in (("fp16", "dense"), ("NF4", "nf4"))
    }


def share_left(checkpointing: bool, parts: str = "", *, model: str = "7B", questions: int = 4):
    """What NF4 leaves of fp16's bytes, of the groups whose name contains `parts`."""
    fp16, four_bit = (
        table.loc[table["group"].str.contains(parts), "bytes"].sum()
        for table in bills(model, questions, checkpointing).values()
    )
    return four_bit / fp16
