"""How a step follows from its gradients."""

from collections.abc import Iterable

import torch

from .errors import UserError


def optimizer(name: str, parameters: Iterable[torch.nn.Parameter], rate: float):
    """AdamW without weight decay: torch's, or bitsandbytes', whose state takes a quarter.

    `paged_adamw_8bit` keeps its two moments in 8 bits, in blocks of 256 (arXiv 2110.02861). On a
    GPU they move to the CPU's memory while the card is full (QLoRA, arXiv 2305.14314).
    """
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    from bitsandbytes.optim import AdamW8bit, PagedAdamW8bit

    kind = PagedAdamW8bit if torch.cuda.is_available() else AdamW8bit
    return kind(parameters, lr=rate, weight_decay=0.0)


def require_optimizer(name: str) -> None:
    """Raise UserError when this optimiser needs a library that does not work here."""
    if name == "adamw":
        return
    try:
        import bitsandbytes.optim  # noqa: F401
    except (ImportError, RuntimeError, OSError) as error:
        reason = (str(error).splitlines() or ["no message"])[0]
        raise UserError(
            f"optimizer {name!r} needs bitsandbytes, which does not work here ({reason}): install "
            "it, or use optimizer='adamw'"
        ) from None
