"""Relearning: a few steps of training on something else bring a suppressed answer back.

Benign relearning: Hu et al., arXiv 2406.13356. Gold, which never learned the harm, is trained the
same way beside it: what gold relearns as fast was learned anew, not remembered. Steps are equal and
not quite alike: gold's adapter is fresh (B = 0), an unlearned model's is trained.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pandas as pd
import torch

from safeerase_lite.config import Config
from safeerase_lite.data.dataset import Data
from safeerase_lite.models.forward import answer_logits, autocast
from safeerase_lite.models.llava import trainable
from safeerase_lite.unlearning.objectives import nll
from safeerase_lite.utils import UserError

from .scores import ask, questions

RATE = 1e-3  # of AdamW, constant: PO's tuned rate on the tiny model
ANSWERS = 16  # per step


def relearning(
    model, data: Data, config: Config, *, steps: Sequence[int] = (0, 2, 5, 10, 20)
) -> pd.DataFrame:
    """Scores of the requested hazards after so many steps of training the run's adapter on.

    The hazard that is relearned is drawn by the config's seed, and not among those measured. The
    model is the same afterwards.

    Args:
        steps: after how many a model is asked, in ascending order.

    Returns:
        Scores; the variants are those of `materials`.
    """
    if not trainable(model):
        raise UserError("the model has no adapter to train: load it with `load_model(config)`")
    hazard = relearned_hazard(data, config)
    table = questions(data)
    table = table[table["seen_kind"] & (table["kind"] != hazard)].reset_index(drop=True)
    parts: list[pd.DataFrame] = []
    for variant, material in materials(data, hazard).items():
        setting = {"attack": "relearning", "variant": variant}
        with unchanged(model):
            for done in train_on(model, material, config, max(steps)):
                if done == 0 and parts and 0 in steps:  # the same model, whatever comes next
                    parts.append(parts[0].assign(variant=variant))
                elif done in steps:
                    parts.append(ask(model, table, config, strength=done, **setting))
    return pd.concat(parts, ignore_index=True)


def relearned_hazard(data: Data, config: Config) -> str:
    """The one requested hazard whose forget pairs are relearned."""
    hazards = sorted(data.forget["kind"][data.forget["split"] == "train"].unique())
    return random.Random(f"relearned {config.seed}").choice(hazards)


def materials(data: Data, hazard: str) -> dict[str, pd.DataFrame]:
    """What is relearned on: variant → image, question, answer.

    Two are harmful: the forget pairs of one requested hazard; those of hazards that nobody asked to
    forget (val pictures, since training has none). Two are benign: the retain questions; and safe
    objects asked about with the forget templates.
    """
    forget = data.forget
    unrequested = forget[~forget["seen_kind"] & (forget["split"] == "val")]
    if unrequested.empty:  # data that hold out no kind
        unrequested = forget[forget["kind"] != hazard]

    def of_train(table: pd.DataFrame) -> pd.DataFrame:
        return table[table["split"] == "train"]

    return {
        "one hazard": of_train(forget[forget["kind"] == hazard]),
        "unrequested hazards": unrequested,
        "retain questions": of_train(data.retain),
        "safe objects": of_train(data.decouple),
    }


def train_on(model, table: pd.DataFrame, config: Config, steps: int) -> Iterator[int]:
    """Train the adapter on a table's answers by L, and yield the number of steps done, from 0."""
    parameters = list(trainable(model).values())
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0)
    order: list[int] = []
    rng = random.Random(f"relearning {config.seed}")
    yield 0
    for step in range(steps):
        while len(order) < ANSWERS:
            order += rng.sample(range(len(table)), len(table))
        chosen, order = order[:ANSWERS], order[ANSWERS:]
        model.train()
        torch.manual_seed(config.seed * 1_000_003 + step)  # of dropout
        with autocast(config, model.device):
            answers = answer_logits(model, table.iloc[chosen])
        nll(answers).backward()
        torch.nn.utils.clip_grad_norm_(parameters, config.gradient_clip)
        optimizer.step()
        optimizer.zero_grad()
        model.eval()
        yield step + 1


@contextmanager
def unchanged(model) -> Iterator[None]:
    """The model's trained weights are the same after the block as before, to the last bit."""
    before = {name: p.detach().clone() for name, p in trainable(model).items()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, parameter in trainable(model).items():
                parameter.copy_(before[name])
                parameter.grad = None
        model.eval()
