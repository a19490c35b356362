"""What one step on some questions does to the answers to others, to first order.

With L_i the loss of cell i (a set of questions with answers), g_i its gradient with respect to the
trained weights θ, and an update Δθ:  L_j(θ + Δθ) − L_j(θ) ≈ g_j · Δθ. A step of gradient descent
on cell i changes cell j by −η g_j · g_i. The matrix of these products is the *empirical neural
tangent kernel* of the losses, at θ (Jacot et al. 2018, arXiv 1806.07572; for one step of
fine-tuning: Ren and Sutherland 2024, arXiv 2407.10490).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pandas as pd
import torch
from torch import Tensor

from safeerase_lite.data.dataset import Data
from safeerase_lite.models.forward import answer_logits
from safeerase_lite.models.llava import trainable
from safeerase_lite.unlearning.objectives import nll
from safeerase_lite.utils import track

from .questions import crossed, of_other_pictures, refusing, shuffled_words

ADAM_EPSILON = 1e-8  # torch's


def gradient(model, table: pd.DataFrame) -> Tensor:
    """The gradient of L(table), nats per answer token, with respect to all trained weights: a
    vector (weights,) in float32. The model stays as it is."""
    parameters = list(trainable(model).values())
    with torch.enable_grad():
        loss = nll(answer_logits(model, table))
        parts = torch.autograd.grad(loss, parameters, allow_unused=True)
    flat = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, parts, strict=True)]
    return torch.cat([g.detach().float().flatten() for g in flat])


def cosine(first: Tensor, second: Tensor) -> float:
    """The cosine of two vectors; NaN where one is zero."""
    return float(first @ second / (first.norm() * second.norm()))


def similarities(gradients: Mapping[str, Tensor]) -> pd.DataFrame:
    """Every pair of cells: first, second, cosine, product (g · g', the kernel), norm (of first)."""
    rows = [
        {"first": a, "second": b, "cosine": cosine(g, h), "product": float(g @ h),
         "norm": float(g.norm())}
        for a, g in gradients.items() for b, h in gradients.items()
    ]  # fmt: skip
    return pd.DataFrame(rows)


def losses(model, cells: Mapping[str, pd.DataFrame]) -> pd.Series:
    """L of every cell, in nats per answer token."""
    with torch.no_grad():
        return pd.Series({name: float(nll(answer_logits(model, t))) for name, t in cells.items()})


def gradient_step(gradient: Tensor, rate: float) -> Tensor:
    """The update of one step of gradient descent: −η g."""
    return -rate * gradient


def adam_step(gradient: Tensor, rate: float) -> Tensor:
    """The update of Adam's first step, its moments corrected: −η g / (|g| + ε), so nearly its sign
    (Kingma and Ba 2015, arXiv 1412.6980)."""
    return -rate * gradient / (gradient.abs() + ADAM_EPSILON)


@contextmanager
def updated(model, update: Tensor) -> Iterator[None]:
    """The model with an update (weights,) added to its trained weights, then put back exactly."""
    parameters = list(trainable(model).values())
    before = [p.detach().clone() for p in parameters]
    parts = update.split([p.numel() for p in parameters])
    with torch.no_grad():
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.add_(part.view_as(parameter).to(parameter))
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)


def step_changes(
    model, cells: Mapping[str, pd.DataFrame], gradients: Mapping[str, Tensor], update: Tensor
) -> pd.DataFrame:
    """What an update does to each cell: cell, before (nats per token), predicted (g · Δθ), measured
    (the change of the loss)."""
    before = losses(model, cells)
    with updated(model, update):
        after = losses(model, cells)
    predicted = pd.Series({name: float(gradients[name] @ update) for name in cells})
    table = pd.DataFrame({"before": before, "predicted": predicted, "measured": after - before})
    return table.rename_axis("cell").reset_index()


def cells_and_gradients(
    model, data: Data, size: int, seed: int
) -> tuple[dict[str, pd.DataFrame], dict[str, Tensor]]:
    """What the lesson compares: refusing in the four cells of the 2×2, two controls, and the two
    losses that hold the rest still; a table and a gradient each.

    The controls: "other hazards" (the same templates and refusals about other hazards' pictures:
    the highest cosine to expect) and "shuffled" (the same pictures and templates, the words of the
    refusals in a random order).
    """
    questions = crossed(data, size, seed)
    cells = {f"refuse: {name}": refusing(t, data.refusals, seed) for name, t in questions.items()}
    here, train = cells["refuse: hazard, template"], data.forget[data.forget["split"] == "train"]
    cells["control: other hazards, template"] = of_other_pictures(here, train, seed)
    cells["control: shuffled refusals"] = shuffled_words(here, seed)
    for name, table in (("L(d)", data.decouple), ("L(r)", data.retain)):
        train = table[table["split"] == "train"]
        cells[name] = train.sample(min(size, len(train)), random_state=seed)
    return cells, {name: gradient(model, t) for name, t in track(cells.items(), "gradients")}
