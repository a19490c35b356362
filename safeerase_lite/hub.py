"""The hub of models, asked once."""

from pathlib import Path

from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError


def on_this_machine(model: str) -> bool:
    """Whether a model is read from here alone: it is a folder, or a copy and no hub in sight.

    Without a network `from_pretrained` would ask the hub again and again, for minutes.

    Raises:
        FileNotFoundError: no such folder; or no copy of an earlier download, and the hub does not
            answer.
    """
    if Path(model).is_dir():
        return True
    if Path(model).is_absolute():
        raise FileNotFoundError(f"there is no folder {model}")
    try:
        HfApi().model_info(model, timeout=10)
    except (HfHubHTTPError, HFValidationError):
        return False  # it answers: whoever loads the model tells what it said
    except Exception:  # no network, under whatever name the hub's client has for that
        if not isinstance(try_to_load_from_cache(model, "config.json"), str):
            raise FileNotFoundError(
                f"there is no folder {model}, no copy of an earlier download, and the hub does "
                "not answer"
            ) from None
        return True
    return False
