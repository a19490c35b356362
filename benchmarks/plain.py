"""The plain way to do a step and an evaluation, to hold the package's against.

A second model for the reference, a pass for each set, the pictures through the tower each time,
logits at every position; and answers one by one. The losses are the same.
"""

from collections.abc import Sequence

import pandas as pd
import torch

from safeerase_lite.config import Profile
from safeerase_lite.evaluation.evaluate import decode
from safeerase_lite.models.forward import Answers
from safeerase_lite.models.inputs import encode
from safeerase_lite.unlearning.objectives import OBJECTIVES, Batch


def answers(model, processor, table: pd.DataFrame) -> Answers:
    """What a model says of a table's answers, at every position."""
    batch = encode(processor, table["image"], table["question"], table["answer"])
    batch = {key: value.to(model.device) for key, value in batch.items()}
    labels = batch.pop("labels")
    return Answers(model(**batch).logits[:, :-1], labels[:, 1:])


def batch(model, second, objective: str, asked: dict[str, pd.DataFrame]) -> Batch:
    """A step's groups, each by a pass of its own; `second` is the frozen model, loaded again."""
    groups = {name: answers(model, model.processor, table) for name, table in asked.items()}
    referred = OBJECTIVES[objective].reference
    if referred:
        with torch.no_grad():
            groups["reference"] = answers(second, model.processor, asked[referred])
    return Batch(**groups)


def ask(model, images: Sequence[str], questions: Sequence[str], profile: Profile) -> list[str]:
    """Greedy answers, one question after the other."""
    said = []
    for image, question in zip(images, questions, strict=True):
        asked = encode(model.processor, [image], [question])
        asked = {key: value.to(model.device) for key, value in asked.items()}
        with torch.inference_mode():
            ids = model.generate(**asked, max_new_tokens=profile.new_tokens, do_sample=False)
        new = ids[:, asked["input_ids"].shape[1] :]
        said += decode(model.processor.tokenizer, new)
    return said
