"""What exercises of several notebooks share: random inputs, and what is compared of a loss."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .comparing import RESULT
from .exercise import Mistake, slip

IGNORED = -100  # the label of what is no answer
VOCABULARY = 7
Group = tuple[Tensor, Tensor]  # aligned logits and labels


# ---- random inputs ----


def sample(rng: np.random.Generator, items: Sequence, count: int | None = None) -> list:
    """So many of them in random order; all when there is no count."""
    return [items[place] for place in rng.permutation(len(items))[:count]]


def repeated(items: Sequence, counts: Sequence[int]) -> list:
    """Each item as often as its count says."""
    return [item for item, count in zip(items, counts, strict=True) for _ in range(count)]


def logits_and_labels(rng: np.random.Generator) -> Group:
    """Answers flush on the right, of another length in every row; a prompt at the left.

    One answer token is certain: its loss is 0, and it counts all the same.
    """
    rows, length = int(rng.integers(2, 4)), int(rng.integers(5, 8))
    logits = torch.from_numpy(2 * rng.normal(size=(rows, length, VOCABULARY))).float()
    labels = torch.from_numpy(rng.integers(VOCABULARY, size=(rows, length)))
    lengths = torch.from_numpy(1 + rng.permutation(length - 2)[:rows])
    labels[torch.arange(length) < length - lengths[:, None]] = IGNORED
    logits[-1, -1, labels[-1, -1]] = 60  # beside which the others are nothing
    return logits, labels


# ---- what is compared of a loss ----


def trainable(answer: Callable, *inputs, only: slice = slice(None)) -> Any:
    """A loss, and whether one can train with it: `.item()` and `.detach()` are one mistake.

    Args:
        only: of the tensors that can have a gradient, those that ask for one.
    """
    for tensor in float_tensors(inputs)[only]:
        tensor.requires_grad_()
    loss = answer(*inputs)
    if loss is None:
        return None
    return {RESULT: loss, "its gradient": getattr(loss, "requires_grad", False)}


def with_gradients(*names: str, of: Callable) -> Callable:
    """Observes a loss, and what `of` says of its gradient by each of the first tensors."""
    only = slice(len(names))

    def observe(answer: Callable, *inputs) -> Any:
        seen = trainable(answer, *inputs, only=only)
        if not seen or not seen["its gradient"]:
            return seen
        loss = seen[RESULT].sum()  # of one number, or of what should have been one
        gradients = torch.autograd.grad(loss, float_tensors(inputs)[only], allow_unused=True)
        return seen | dict(zip(names, map(of, gradients), strict=True))

    return observe


def float_tensors(inputs: Any) -> list[Tensor]:
    """Every tensor in there that can have a gradient."""
    if isinstance(inputs, Tensor):
        return [inputs] if inputs.is_floating_point() else []
    if isinstance(inputs, list | tuple):
        return [tensor for part in inputs for tensor in float_tensors(part)]
    return []


def cut_off(reference: Callable, credit: float = 0.5) -> Mistake:
    """The right loss as a number that nothing can be learned from."""
    return slip(
        lambda *inputs: reference(*inputs).detach(),
        "no gradient flows through this: `.item()`, `.detach()` or NumPy cut it off. A loss stays "
        "a tensor.",
        credit,
    )
