"""A model's files: loaded completely or refused in one line, and identified by their content.

LLaVAs, CLIPs and local judges are all loaded by this.
"""

import hashlib
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from safetensors import SafetensorError, safe_open

from safeerase_lite.config import read_injected
from safeerase_lite.tinyworld import shipped_model
from safeerase_lite.utils import UserError

# What transformers reads of a model's folder, so what a result depends on.
READ = (
    "**/*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json",
    "preprocessor_config.json", "processor_config.json", "chat_template*",
    "additional_chat_templates/*", "tokenizer*", "special_tokens_map.json", "added_tokens.json",
    "vocab*", "merges.txt", "*.model", "adapter_config.json",
)  # fmt: skip

# The shipped CLIP keeps the id that it had when an id covered the weights alone.
EARLIER_IDS = {"ff30a97e1f706d9a": "83416b933221b5ed"}


def is_local(model: str) -> bool:
    """Whether a model is read from this machine alone: it is a folder, or a copy of an earlier
    download while the hub does not answer.

    Without a network `from_pretrained` would ask the hub again and again, for minutes.

    Raises:
        FileNotFoundError: no such folder; and no name on the Hub, or no copy while it does not
            answer.
    """
    if Path(model).is_dir():
        return True
    if Path(model).is_absolute():
        raise FileNotFoundError(f"there is no folder {model}")
    try:
        HfApi().model_info(model, timeout=10)
    except HFValidationError:
        raise FileNotFoundError(
            f"there is no folder {model}, and it is no name on the Hub"
        ) from None
    except HfHubHTTPError:
        return False  # it answers: loading will repeat what it says
    except Exception:  # no network, by whatever exception the hub's client raises
        if not isinstance(try_to_load_from_cache(model, "config.json"), str):
            raise FileNotFoundError(
                f"there is no folder {model}, no copy of an earlier download, and the hub does "
                "not answer"
            ) from None
        return True
    return False


@contextmanager
def one_line(what: str) -> Iterator[None]:
    """Whatever the libraries raise on malformed files, as a UserError that begins with `what`."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):
        raise  # not the files' fault
    except Exception as error:
        kind = "" if isinstance(error, (OSError, ValueError)) else f"{type(error).__name__}: "
        first = (str(error).strip().splitlines() or ["no message"])[0]
        raise UserError(f"{what}: {kind}{first}") from None


def load_weights(model_class, path: str, **options):
    """A model with every weight from its checkpoint, and every one a finite number.

    transformers draws missing weights at random and goes on.

    Args:
        model_class: a class of transformers.
        path: a folder, whose files are checked before anything is loaded, or a name on the Hub.
        options: of `from_pretrained`.

    Raises:
        UserError: a weight is missing, of another shape, NaN or infinite; a file is cut off; the
            model comes with an adapter.
    """
    dtype = options.get("dtype")
    for file in _files(Path(path)):
        check_file(file, dtype if isinstance(dtype, torch.dtype) else None)
    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(_is_no_report)
    try:
        model, info = model_class.from_pretrained(
            path, output_loading_info=True, ignore_mismatched_sizes=True, use_safetensors=True,
            **options,
        )  # fmt: skip
    finally:
        logger.removeFilter(_is_no_report)
    if getattr(model, "_hf_peft_config_loaded", False):  # then `info` is the adapter's, not its own
        raise UserError("it holds an adapter beside its weights: merge the adapter into them")
    misshapen = {name for name, *_ in info["mismatched_keys"]}
    for fault, names in (("missing", info["missing_keys"]), ("of another shape", misshapen)):
        if names:
            raise UserError(f"{_some(names)} {fault} in its checkpoint: get the complete model")
    if names := info["unexpected_keys"]:
        warnings.warn(f"{path}: {_some(names)} not part of the model, and ignored", stacklevel=3)
    return model


def _is_no_report(record: logging.LogRecord) -> bool:
    """Not transformers' table of missing and unexpected weights: here they are one line."""
    return "LOAD REPORT" not in record.getMessage()


def _some(names: set[str]) -> str:
    first, *others = sorted(names)
    return f"{first} and {len(others)} more weights are" if others else f"{first} is"


def check_file(file: Path, dtype: torch.dtype | None = None) -> None:
    """Raise a UserError unless a file is whole: JSON, or weights that are numbers in `dtype`.

    One weight at a time, so it takes no more memory than the largest. transformers reads malformed
    generation settings as none.
    """
    try:
        if file.suffix == ".json":
            json.loads(file.read_text(encoding="utf-8"))
        if file.suffix != ".safetensors":
            return
        with safe_open(file, "pt") as weights:
            for name in weights.keys():  # noqa: SIM118, it is no dictionary
                weight = weights.get_tensor(name)
                floats = weight.is_floating_point() and weight.itemsize > 1 and weight.numel()
                ends = weight.aminmax() if floats else ()
                if not all(end.to(dtype or end.dtype).isfinite() for end in ends):
                    raise UserError(f"{file.name}: {name} holds NaN or infinity")
    except (SafetensorError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{file.name} is cut off or malformed ({error})") from None


def _files(folder: Path) -> list[Path]:
    """The files of a model's folder that transformers reads."""
    files = {file for pattern in READ for file in folder.glob(pattern)}
    return sorted(file for file in files if file.is_file())


def model_hash(model: str) -> str:
    """What identifies a model: a hash of the files that a result depends on, or its hub name.
    Injected knowledge includes its base's."""
    folder = shipped_model(model) or Path(model)
    if not folder.is_dir():
        return model
    knowledge = read_injected(model)
    digest = hashlib.sha256(model_hash(knowledge.base).encode() if knowledge else b"")
    for file in _files(folder):
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{file.relative_to(folder).as_posix()} {content}\n".encode())
    found = digest.hexdigest()[:16]
    return EARLIER_IDS.get(found, found)
