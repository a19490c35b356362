"""One gradient step, and what it does to four answers: the machinery of lesson 04."""

from collections.abc import Callable

import pandas as pd
import torch
from torch import Tensor

from safeerase_lite.config import Config
from safeerase_lite.data.dataset import Data
from safeerase_lite.models.forward import answer_logits, autocast
from safeerase_lite.models.llava import reference, reset_adapter
from safeerase_lite.unlearning.objectives import OBJECTIVES, Answers, Batch, nll

# How an answer reads → the group of rows it belongs to.
LOOK = {
    "harmful": "forget",
    "retain": "retain",
    "safe": "decouple",
    "a refusal, safe picture": "refusal",
}
GROUPS = ("forget", "refuse", "retain", "decouple")
ADAM_EPSILON = 1e-8  # torch's


def step_rows(data: Data, config: Config, seed: int) -> dict[str, pd.DataFrame]:
    """Training rows of each set, as many as one pass trains on but at least four; `refuse` and
    `refusal` are the forget and the decouple questions with a refusal as their answer."""
    few = max(4, 4 * config.pictures // config.accumulation)
    rows = {
        name: getattr(data, name).query("split == 'train'").sample(few, random_state=seed)
        for name in ("forget", "retain", "decouple")
    }
    refusals = (data.refusals * few)[:few]
    return rows | {
        "refuse": rows["forget"].assign(answer=refusals),
        "refusal": rows["decouple"].assign(answer=refusals),
    }


def learned(model) -> list[Tensor]:
    """What a step changes."""
    return [p for p in model.parameters() if p.requires_grad]


def answers(model, rows: dict, config: Config, group: str) -> Answers:
    """What the model predicts for a group's answers."""
    with autocast(config, model.device):
        return answer_logits(model, rows[group])


def batch(model, rows: dict, config: Config, objective: str) -> Batch:
    """The groups that an objective needs, and those of PD."""
    needs = OBJECTIVES[objective]
    groups = {g: answers(model, rows, config, g) for g in dict.fromkeys((*needs.needs, "decouple"))}
    with torch.no_grad(), reference(model):
        frozen = {g: answers(model, rows, config, g) for g in needs.reference}
    return Batch(**groups, reference=Batch(**frozen))


def probabilities(model, rows: dict, config: Config) -> dict[str, float]:
    """The mean probability of each answer's tokens (the exponential of −L)."""
    with torch.no_grad():
        return {
            what: float(torch.exp(-nll(answers(model, rows, config, group))))
            for what, group in LOOK.items()
        }


def gradient(model, loss: Callable[[], Tensor]) -> Tensor:
    """The gradient of a loss by all that is learned, as one vector."""
    model.train()
    grads = torch.autograd.grad(loss(), learned(model), allow_unused=True)
    model.eval()
    parts = [
        torch.zeros_like(p) if g is None else g for p, g in zip(learned(model), grads, strict=True)
    ]
    return torch.cat([part.flatten().float() for part in parts])


def adam_direction(gradient: Tensor) -> Tensor:
    """Adam's first step at rate 1: its averages are the gradient itself and its square."""
    return -gradient / (gradient.abs() + ADAM_EPSILON)


def stepped(
    model, rows: dict, config: Config, loss: Callable[[], Tensor], rate: float, steps: int = 1
) -> dict[str, float]:
    """How probable each answer is after so many steps of Adam; the model is then put back."""
    optimizer = torch.optim.Adam(learned(reset_adapter(model)), lr=rate)
    model.train()
    for _ in range(steps):
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    after = probabilities(model, rows, config)
    reset_adapter(model)
    return after


def random_batch(seed: int) -> Batch:
    """Three random answers of ragged lengths to each group, and a reference's predictions."""
    generator = torch.Generator().manual_seed(seed)
    labels = {group: torch.randint(50, (3, 6), generator=generator) for group in GROUPS}
    for n, group in enumerate(labels.values()):
        group[n % 3, : n + 1] = -100
    groups, frozen = (
        {
            name: Answers(torch.randn(3, 6, 50, generator=generator), of)
            for name, of in labels.items()
        }
        for _ in range(2)
    )
    return Batch(**groups, reference=Batch(**frozen))
