"""What exercises of several notebooks share: random inputs, and what is compared of a loss."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .comparing import RESULT
from .exercise import Mistake, slip

PICTURE, END, PADDING, IGNORED = 4, 2, 0, -100  # token ids, as in the tiny model
VOCABULARY = 7
CERTAIN = 60.0  # a logit beside which the others are nothing
Group = tuple[Tensor, Tensor]  # aligned logits and labels


# ---- random inputs ----


def sample(rng: np.random.Generator, items: Sequence, count: int | None = None) -> list:
    """So many of them in random order; all when there is no count."""
    return [items[place] for place in rng.permutation(len(items))[:count]]


def repeated(items: Sequence, counts: Sequence[int]) -> list:
    """Each item as often as its count says."""
    return [item for item, count in zip(items, counts, strict=True) for _ in range(count)]


def answer_labels(rng: np.random.Generator, rows: int, length: int, longest: int) -> Tensor:
    """Answers flush on the right, of another length in every row; a prompt at the left."""
    labels = torch.full((rows, length), IGNORED)
    lengths = rng.choice(np.arange(1, longest + 1), size=rows, replace=False)
    for label, count in zip(labels, lengths, strict=True):
        label[length - count :] = torch.from_numpy(rng.integers(VOCABULARY, size=count))
    return labels


def logits_and_labels(rng: np.random.Generator) -> Group:
    """One answer token is certain: its loss is 0, and it counts all the same."""
    rows, length = int(rng.integers(2, 4)), int(rng.integers(5, 8))
    logits = torch.from_numpy(2 * rng.normal(size=(rows, length, VOCABULARY))).float()
    labels = answer_labels(rng, rows, length, longest=length - 2)
    row, place = (labels != IGNORED).nonzero()[-1]
    logits[row, place, labels[row, place]] = CERTAIN
    return logits, labels


# ---- what is compared of a loss ----


def trainable(answer: Callable, *inputs, only: slice = slice(None)) -> Any:
    """What an answer returns, and whether a gradient flows back to its inputs.

    Args:
        only: the inputs that may have a gradient.
    """
    for tensor in float_tensors(inputs[only]):
        tensor.requires_grad_()
    return learnable(answer(*inputs))


trainable_in_first = partial(trainable, only=slice(1))
trainable_in_second = partial(trainable, only=slice(1, 2))


def float_tensors(inputs: Any) -> list[Tensor]:
    """Every tensor in there that can have a gradient."""
    if isinstance(inputs, Tensor):
        return [inputs] if inputs.is_floating_point() else []
    if isinstance(inputs, list | tuple):
        return [tensor for part in inputs for tensor in float_tensors(part)]
    return []


def learnable(loss: Any) -> Any:
    """A loss, and whether one can train with it: `.item()` and `.detach()` are one mistake."""
    if loss is None:
        return None
    return {RESULT: loss, "its gradient": getattr(loss, "requires_grad", False)}


def with_gradients(answer: Callable, inputs: tuple, leaves: dict[str, Tensor], of: Callable) -> Any:
    """A loss, and what `of` says of its gradient by each of these inputs."""
    for tensor in leaves.values():
        tensor.requires_grad_()
    loss = answer(*inputs)
    seen = learnable(loss)
    if not seen or not seen["its gradient"]:
        return seen
    # The sum: of one number, or of what should have been one.
    gradients = torch.autograd.grad(loss.sum(), list(leaves.values()), allow_unused=True)
    return seen | {name: of(gradient) for name, gradient in zip(leaves, gradients, strict=True)}


def cut_off(reference: Callable, credit: float = 0.5) -> Mistake:
    """The right loss as a number that nothing can be learned from."""
    return slip(
        lambda *inputs: reference(*inputs).detach(),
        "no gradient flows through this: `.item()`, `.detach()` or NumPy cut it off. A loss stays "
        "a tensor.",
        credit,
    )
