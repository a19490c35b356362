"""One perturbation for all pictures, optimised to bring the harmful answers back.

After SUA (arXiv 2506.17265), which recovers forgotten content by a universal noise pattern. Ours is
projected gradient descent on the answers' negative log-likelihood within a budget for each pixel
(L∞), by signs of gradients (Madry et al., arXiv 1706.06083); what else SUA does was not read.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from safeerase_lite.config import Config
from safeerase_lite.data.dataset import Data
from safeerase_lite.data.images import open_image
from safeerase_lite.models.anatomy import picture_features
from safeerase_lite.models.forward import autocast, layer_states, llava_of, predictions
from safeerase_lite.models.inputs import blank
from safeerase_lite.unlearning.objectives import nll
from safeerase_lite.utils import UserError, track

from .alterations import to_image, write
from .scores import ask, questions

STEPS = 25
ANSWERS = 16  # per step


def universal(
    model,
    data: Data,
    config: Config,
    *,
    budgets: Sequence[float] = (0, 8, 16, 32),
    steps: int = STEPS,
) -> pd.DataFrame:
    """Scores of requested hazards whose pictures carry one perturbation, the same on all.

    It is optimised on train pictures and measured on others. Beside it stands a pattern of random
    signs at the same budget. Strength is the budget, the most by which a pixel changes, in grey
    levels of 255; the pictures are stored as PNG, so the perturbation is rounded and clipped.
    """
    table = questions(data)
    table = table[table["seen_kind"]].reset_index(drop=True)
    sizes = {open_image(path).size for path in table["image"]}
    pixels = blank(model.processor).tensors["pixel_values"]
    height, width = pixels.shape[-2:]
    if sizes != {(width, height)} or pixels.ndim != 4 or len(pixels) > 1:
        raise UserError("a universal perturbation needs pictures of the size that the model reads")
    train = questions(data, split="train").rename(columns={"expected": "answer"})
    rng = np.random.default_rng(config.seed % 2**32)
    parts = []
    for budget in budgets:
        if budget == 0:
            plain = {"attack": "universal", "variant": "optimised", "strength": 0}
            parts.append(ask(model, table, config, **plain))
            parts.append(parts[-1].assign(variant="random signs"))
            continue
        shape = (height, width, 3)
        patterns = {
            "optimised": optimised(model, train, config, budget, steps),
            "random signs": budget * rng.choice([-1.0, 1.0], shape),
        }
        for variant, pattern in patterns.items():
            with tempfile.TemporaryDirectory() as folder:
                shown = [
                    write(
                        to_image(np.asarray(open_image(path), float) + pattern), path, Path(folder)
                    )
                    for path in table["image"]
                ]
                setting = {"attack": "universal", "variant": variant, "strength": budget}
                parts.append(ask(model, table.assign(shown=shown), config, **setting))
    return pd.concat(parts, ignore_index=True)


def optimised(
    model, table: pd.DataFrame, config: Config, budget: float, steps: int = STEPS
) -> np.ndarray:
    """The perturbation, (height, width, 3) grey levels within ± budget, that makes the answers of a
    table likeliest: image, question, answer."""
    images = {path: _levels(path) for path in table["image"].unique()}
    pattern = torch.zeros_like(next(iter(images.values())), requires_grad=True)
    rng = np.random.default_rng(config.seed % 2**32)
    processor = model.processor.image_processor
    mean, std = (
        torch.tensor(x)[:, None, None] for x in (processor.image_mean, processor.image_std)
    )

    def features(model, paths: Sequence[str]) -> list[Tensor]:
        """What the projector reads of the perturbed pictures, with its gradient."""
        changed = [(images[path] + pattern).clamp(0, 255) / 255 for path in paths]
        shown = [{"pixel_values": ((x - mean) / std)[None]} for x in changed]
        return [picture_features(llava_of(model), tensors) for tensors in shown]

    parameters = [p for p in model.parameters() if p.requires_grad]
    for parameter in parameters:  # only the pattern learns
        parameter.requires_grad_(False)
    try:
        for step in track(range(steps), f"universal perturbation within {budget:g}"):
            batch = table.iloc[rng.choice(len(table), min(ANSWERS, len(table)), replace=False)]
            with autocast(config, model.device):
                states = layer_states(model, batch, features=features)
                loss = nll(predictions(model, states, batch["answer"]))
            [gradient] = torch.autograd.grad(loss, pattern)
            rate = 2.5 * budget / steps * 2 * (1 - step / steps)  # falls to 0: the end is settled
            with torch.no_grad():
                pattern -= rate * gradient.sign()
                pattern.clamp_(-budget, budget)
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
    return pattern.detach().permute(1, 2, 0).numpy().astype(float)


def _levels(path: str) -> Tensor:
    """(3, height, width) grey levels of 255."""
    return torch.from_numpy(np.asarray(open_image(path), np.float32)).permute(2, 0, 1)
