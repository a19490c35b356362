"""4-bit weights, made once and kept.

Quantising a model of 7 billion weights takes minutes, on two cores more than twenty. Reading what
is left of them, a quarter of the bytes, is all that a kept one needs.
"""

from pathlib import Path

from safeerase_lite.config import Config
from safeerase_lite.utils import UserError, atomic_directory, require_new

from .llava import load_model


def save_quantised(config: Config, folder: Path | str) -> Path:
    """Load a config's model in NF4 and write its 4-bit weights and its processor to a folder, which
    `model=` of a config then names.

    The folder is a model of its own in the ledger: runs on it have other ids. It computes the same.

    Raises:
        UserError: as `load_model`; injected knowledge; no NF4 here; a folder that is not empty.
    """
    folder = Path(folder).expanduser()
    require_new(folder)
    model = load_model(config.model_copy(update={"precision": "nf4"}), adapt=False)
    if getattr(model, "peft_config", None):
        raise UserError(f"{config.model} is injected knowledge: name its base model")
    if not getattr(model, "is_quantized", False):
        raise UserError("nothing is 4-bit on this machine: see `safeerase doctor`")
    with atomic_directory(folder) as draft:
        model.save_pretrained(draft)
        model.processor.save_pretrained(draft)
    return folder
