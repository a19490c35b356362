"""The plain way to do a step and an evaluation, to compare the package's with.

A second model for the reference, a pass for each set, the pictures through the tower each time,
logits at every position; and answers one by one. The losses are the same.
"""

from collections.abc import Sequence

import pandas as pd
import torch

from safeerase_lite.config import Config
from safeerase_lite.evaluation.generate import decode
from safeerase_lite.models.inputs import encode
from safeerase_lite.unlearning.objectives import OBJECTIVES, Answers, Batch


def answers(model, processor, table: pd.DataFrame) -> Answers:
    """What a model predicts for a table's answers, at every position."""
    batch = encode(processor, table["image"], table["question"], table["answer"])
    batch = {key: value.to(model.device) for key, value in batch.items()}
    labels = batch.pop("labels")
    return Answers(model(**batch).logits[:, :-1], labels[:, 1:])


def predict(model, second, objective: str, tables: dict[str, pd.DataFrame]) -> Batch:
    """A step's groups, each by a pass of its own; `second` is the frozen model, loaded again."""
    groups = {name: answers(model, model.processor, table) for name, table in tables.items()}
    referred = OBJECTIVES[objective].reference
    if referred:
        with torch.no_grad():
            groups["reference"] = answers(second, model.processor, tables[referred])
    return Batch(**groups)


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
