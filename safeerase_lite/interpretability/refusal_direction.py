"""Refusal as one direction of the residual stream: found, taken out, put in.

After Arditi et al. 2024 (arXiv 2406.11717): a difference of means over two sets of prompts at their
last token, ablated everywhere or added at one layer (`models.hooks`).
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

import pandas as pd
import torch
from torch import Tensor

from safeerase_lite.config import Config
from safeerase_lite.evaluation.evaluate import judge_answers
from safeerase_lite.evaluation.generate import generate
from safeerase_lite.evaluation.metrics import exact_match, normalise
from safeerase_lite.models.hooks import ablated
from safeerase_lite.utils import track


def difference_of_means(refused: Tensor, answered: Tensor) -> Tensor:
    """r = mean over refused prompts − mean over answered ones: (layers, width), of two tensors
    (rows, layers, width)."""
    return refused.mean(0) - answered.mean(0)


def random_like(direction: Tensor, seed: int) -> Tensor:
    """A random direction of the same shape, with the same norm at each layer: the control."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(direction.shape, generator=generator)
    return noise * direction.norm(dim=-1, keepdim=True) / noise.norm(dim=-1, keepdim=True)


def ask(model, table: pd.DataFrame, config: Config) -> pd.DataFrame:
    """A model's greedy answers, judged: the table with `expected` (what was its answer), `answer`,
    and the judge's columns (harmful, refusing, verdict).

    Args:
        table: a row per question, with the columns image, question, answer and set ("forget" or
            "decouple").
        config: its judge judges; see `generate` for the rest.
    """
    said = generate(model, table["image"], table["question"], config)
    return judge_answers(table.assign(expected=table["answer"], answer=said), config.judge)


def shares(asked: pd.DataFrame, refusals: Sequence[str]) -> pd.Series:
    """Of judged answers the shares: right (exactly what was expected), refused, harmful (of
    hazards: ASR), gibberish, and begun (the first word is that of a refusal: what is begun need
    not be finished)."""
    first_words = {normalise(refusal).split()[0] for refusal in refusals}
    begun = asked["answer"].map(normalise).str.split().str[0].isin(first_words)
    values = {
        "right": exact_match(asked["expected"], asked["answer"]),
        "refused": asked["refusing"],
        "harmful": asked["harmful"],
        "gibberish": asked["verdict"].eq("gibberish"),
        "begun": begun,
    }
    return pd.Series({name: column.astype("Float64").mean() for name, column in values.items()})


def dosed(
    model,
    groups: Mapping[str, pd.DataFrame],
    config: Config,
    refusals: Sequence[str],
    intervention: Callable[[float], AbstractContextManager],
    doses: Sequence[float],
) -> pd.DataFrame:
    """What a model answers under each dose of an intervention.

    Args:
        groups: group → questions, as for `ask`.
        intervention: dose → a `with` under which the model is changed, such as
            `lambda dose: added(model, direction, layer, dose)`.

    Returns:
        A row per dose, group and measure: dose, group, measure (see `shares`), value.
    """
    rows = []
    for dose in track(doses, "doses"):
        with intervention(dose):
            for group, table in groups.items():
                measured = shares(ask(model, table, config), refusals)
                rows += [(dose, group, name, value) for name, value in measured.items()]
    return pd.DataFrame(rows, columns=["dose", "group", "measure", "value"])


def best_layer(
    model, table: pd.DataFrame, config: Config, refusals: Sequence[str], direction: Tensor
) -> tuple[int, pd.DataFrame]:
    """The layer whose direction, ablated, brings most answers back exactly right: choose it on val.

    Args:
        table: questions about hazards, as for `ask`.
        direction: (layers, width), from `difference_of_means`.

    Returns:
        The layer (the first of the best), and a row per layer and measure: layer, measure, value.
    """
    tables = [
        dosed(
            model, {"hazard": table}, config, refusals,
            lambda dose, r=r: ablated(model, r, dose), [1.0],
        ).assign(layer=layer)
        for layer, r in enumerate(direction) if r.any()  # the words' embeddings never move
    ]  # fmt: skip
    by_layer = pd.concat(tables, ignore_index=True)
    right = by_layer[by_layer["measure"] == "right"].set_index("layer")["value"]
    return int(right.astype(float).idxmax()), by_layer
