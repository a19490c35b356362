"""A model's hidden states: where unlearning moves them, and what they would say, layer by layer."""

from collections.abc import Collection, Mapping
from itertools import combinations

import pandas as pd
import torch
from torch import Tensor

from safeerase_lite.models.forward import read
from safeerase_lite.models.hooks import last_norm, recorded_states
from safeerase_lite.models.inputs import answer_ids
from safeerase_lite.utils import track

from .gradients import cosine


def answer_stream(model, table: pd.DataFrame) -> list[Tensor]:
    """The residual stream at the tokens that predict each answer: (tokens, layers, width) for each
    row, in float32 on the CPU. A model of n blocks has n + 1 layers; see `models.hooks`."""
    found: dict[int, Tensor] = {}
    with torch.no_grad(), recorded_states(model) as states:
        for packed, _ in track(read(model, table), "hidden states"):
            stream = torch.stack(states, dim=2).float().cpu()
            for row, given in zip(packed, stream, strict=True):
                found |= {number: given[places] for number, places in row.predictors.items()}
    return [found[number] for number in range(len(table))]


def prompt_states(model, table: pd.DataFrame) -> Tensor:
    """The stream at the last token of each prompt: (rows, layers, width)."""
    return torch.stack([stream[0] for stream in answer_stream(model, table)])


# ---- shifts ----


def mean_shift(before: Tensor, after: Tensor) -> Tensor:
    """How far states (rows, layers, width) moved, on average: (layers, width)."""
    return (after - before).mean(0)


def shift_cosines(shifts: Mapping[str, Tensor], seed: int = 0) -> pd.DataFrame:
    """Whether groups of questions were moved the same way.

    Args:
        shifts: group → its mean shift (layers, width).

    Returns:
        A row per layer and pair of groups: layer, first, second, cosine, random: the mean absolute
        cosine of the first with 1,000 random directions, what chance gives.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for (a, of_a), (b, of_b) in combinations(shifts.items(), 2):
        for layer, (x, y) in enumerate(zip(of_a, of_b, strict=True)):
            if not (x.any() and y.any()):  # nothing moves the words' embeddings
                continue
            chance = torch.randn(1000, len(x), generator=generator)
            random = torch.cosine_similarity(chance, x[None], dim=1).abs().mean()
            rows.append((layer, a, b, cosine(x, y), float(random)))
    return pd.DataFrame(rows, columns=["layer", "first", "second", "cosine", "random"])


def principal_plane(states: Tensor) -> tuple[Tensor, list[float]]:
    """Principal components of states (rows, width): (rows, 2), and the two shares of variance."""
    centred = states - states.mean(0)
    _, spread, axes = torch.linalg.svd(centred, full_matrices=False)
    shares = spread.square() / spread.square().sum()
    return centred @ axes[:2].T, shares[:2].tolist()


# ---- the logit lens ----


def lens(model, stream: Tensor) -> Tensor:
    """What the model would say if it stopped at each layer: probabilities (…, vocabulary) of a
    stream (…, width), through the last norm and the output head (nostalgebraist 2020, "interpreting
    GPT: the logit lens"). At the last layer this is the model's own prediction."""
    head = model.get_output_embeddings()
    with torch.no_grad():
        normed = last_norm(model)(stream.to(head.weight.device, head.weight.dtype))
        return head(normed).float().softmax(-1).cpu()


def telling_tokens(processor, refusals: Collection[str], answers: Collection[str]) -> list[int]:
    """The tokens that occur in refusals and in none of the other answers."""
    of_refusals, of_answers = (
        {token for text in set(texts) for token in answer_ids(processor, text)}
        for texts in (refusals, answers)
    )
    return sorted(of_refusals - of_answers)


def logit_lens(model, table: pd.DataFrame, refusal_tokens: Collection[int]) -> pd.DataFrame:
    """A table's answers, put into the model's mouth token by token: is the next one on its tongue?

    Args:
        table: a row per answer, with the columns image, question and answer.
        refusal_tokens: as `telling_tokens` gives them.

    Returns:
        A row per answer, token and layer: row, token (its number, from 0), text, layer, answer (the
        probability of the answer's token), refusal (of all refusal tokens together).
    """
    processor, rows = model.processor, []
    refusing = torch.tensor(list(refusal_tokens))
    for row, stream in enumerate(answer_stream(model, table)):
        said = lens(model, stream)  # (tokens, layers, vocabulary)
        for number, token in enumerate(answer_ids(processor, table["answer"].iloc[row])):
            text = processor.tokenizer.decode([token])
            for layer, p in enumerate(said[number]):
                rows.append((row, number, text, layer, float(p[token]), float(p[refusing].sum())))
    return pd.DataFrame(rows, columns=["row", "token", "text", "layer", "answer", "refusal"])
