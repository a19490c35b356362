"""The plain way to do a step and an evaluation, to compare the package's with.

A second model for the reference, a pass for each set, the pictures through the tower each time,
logits at every position; and answers one by one. The losses are the same.
"""

from collections.abc import Sequence

import pandas as pd
import torch

from safeerase_lite.config import Config
from safeerase_lite.evaluation.generate import decode
from safeerase_lite.models.inputs import encode, encode_text
from safeerase_lite.unlearning.losses import Answers, Batch
from safeerase_lite.unlearning.objectives import OBJECTIVES
from safeerase_lite.unlearning.trainer import layers_read


def answers(model, processor, table: pd.DataFrame, layer: int = -1) -> Answers:
    """What a model predicts for a table's answers at every position; a layer's states there."""
    if table["image"].any():
        batch = encode(processor, table["image"], table["question"], table["answer"])
    else:
        batch = encode_text(processor, table["question"], table["answer"], table["image"])
    batch = {key: value.to(model.device) for key, value in batch.items()}
    labels = batch.pop("labels")
    output = model(**batch, output_hidden_states=True)
    return Answers(output.logits[:, :-1], labels[:, 1:], hidden=output.hidden_states[layer][:, :-1])


def predict(model, second, objective: str, tables: dict[str, pd.DataFrame]) -> Batch:
    """A step's groups, each by a pass of its own; `second` is the frozen model, loaded again."""
    layer = layers_read(model, OBJECTIVES[objective])[-1]
    processor, referred = model.processor, OBJECTIVES[objective].reference
    groups = {name: answers(model, processor, table, layer) for name, table in tables.items()}
    with torch.no_grad():
        frozen = {name: answers(second, processor, tables[name], layer) for name in referred}
    return Batch(**groups, reference=Batch(**frozen))


def generate(model, images: Sequence[str], questions: Sequence[str], config: Config) -> list[str]:
    """Greedy answers, one question after the other."""
    texts = []
    for image, question in zip(images, questions, strict=True):
        prompt = encode(model.processor, [image], [question])
        prompt = {key: value.to(model.device) for key, value in prompt.items()}
        with torch.inference_mode():
            ids = model.generate(**prompt, max_new_tokens=config.max_new_tokens, do_sample=False)
        texts += decode(model.processor.tokenizer, ids[:, prompt["input_ids"].shape[1] :])
    return texts
