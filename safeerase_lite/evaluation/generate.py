"""A model's own answers, and how likely it finds given ones."""

from collections.abc import Callable, Sequence
from functools import partial

import pandas as pd
import torch

from safeerase_lite.config import Config
from safeerase_lite.models.forward import answer_logits, autocast
from safeerase_lite.models.prefix import Prefixes, whole_inputs
from safeerase_lite.utils import expects, track

GREEDY = {"do_sample": False}
SAMPLED = {"do_sample": True, "temperature": 1.0, "top_p": 0.9, "top_k": 0}  # the paper's


@expects
def generate(
    model,
    images: Sequence[str],
    questions: Sequence[str],
    config: Config,
    *,
    seed: int | None = None,
    begun: Sequence[tuple[int, ...]] | None = None,
) -> list[str]:
    """A model's answers to questions about pictures.

    Args:
        model: from `load_model`.
        images: a picture's path for each question; "" asks it in words alone.
        questions: texts, without the chat template.
        config: `max_new_tokens` cuts an answer; `eval_batch_size` questions at a time.
        seed: None: greedy decoding; a number: seeded samples, as in the paper (T = 1, top-p 0.9).
        begun: the tokens with which each answer has begun; the text is what follows them.

    Returns:
        One text per question, in their order, without special tokens.
    """
    table = pd.DataFrame({"image": list(images), "question": list(questions)})
    table["begun"] = [()] * len(table) if begun is None else list(begun)
    decoding, prefixes = GREEDY if seed is None else SAMPLED, Prefixes(model)
    pictured = (table["image"] != "").all()  # a question in words alone shares nothing
    read = prefixes.inputs if prefixes.shared and pictured else partial(whole_inputs, model)
    if seed is not None:
        torch.manual_seed(seed)

    def answers(batch: pd.DataFrame) -> list[str]:
        with torch.inference_mode(), autocast(config, model.device):
            inputs = read(batch["image"], batch["question"], batch["begun"])
            ids = model.generate(**inputs, max_new_tokens=config.max_new_tokens, **decoding)
        return decode(model.processor.tokenizer, ids[:, inputs["input_ids"].shape[1] :])

    # As many pictures as are cached come one after the other; of their questions those of one text
    # together, since their answers are of similar length.
    chunk = pd.Series(pd.factorize(table["image"])[0] // prefixes.limit)
    order = table.assign(chunk=chunk, length=table["question"].str.len())
    order = order.sort_values(["chunk", "length", "question"], kind="stable").index
    return _in_batches(answers, table, order, config.eval_batch_size, "generate")


def answer_nll(model, table: pd.DataFrame, config: Config) -> list[float]:
    """Negative log-likelihood of each row's answer, in nats per token, the end token included.

    Args:
        model, config: as for `generate`.
        table: a row per answer; the columns image, question and answer.
    """

    def nll(batch: pd.DataFrame) -> list[float]:
        with torch.inference_mode(), autocast(config, model.device):
            answers = answer_logits(model, batch)
        return (answers.nll / answers.mask.sum(-1)).tolist()

    order = pd.factorize(table["image"])[0].argsort(kind="stable")
    return _in_batches(nll, table, order, config.eval_batch_size, "likelihood")


def _in_batches(
    compute: Callable[[pd.DataFrame], list],
    table: pd.DataFrame,
    order: Sequence[int],
    size: int,
    task: str,
) -> list:
    """`compute` of every row, in the table's order, `size` at a time in the order given."""
    results = {}
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    for rows in track(batches, task):
        results |= zip(rows, _halving(compute, table.iloc[rows]), strict=True)
    return [results[i] for i in range(len(table))]


def _halving(compute: Callable[[pd.DataFrame], list], batch: pd.DataFrame) -> list:
    """`compute` of a batch; of half of it at a time where it does not fit the GPU's memory.

    Half a batch gives the same greedy answers; sampled ones differ.
    """
    try:
        return compute(batch)
    except torch.cuda.OutOfMemoryError:
        if len(batch) == 1:
            raise
    torch.cuda.empty_cache()
    half = len(batch) // 2
    return _halving(compute, batch.iloc[:half]) + _halving(compute, batch.iloc[half:])


def decode(tokenizer, ids: torch.Tensor) -> list[str]:
    """Texts of generated ids, up to the end token.

    A language model can have more rows than the tokenizer has tokens (padding to a multiple of 64),
    and a collapsed one emits them. They are decoded as the unknown token.
    """
    unknown = tokenizer.unk_token_id
    ids = ids.masked_fill(
        ids >= len(tokenizer), tokenizer.eos_token_id if unknown is None else unknown
    )
    ended = (ids == tokenizer.eos_token_id).cumsum(-1) > 0
    return [
        tokenizer.decode(row[~end], skip_special_tokens=False)
        for row, end in zip(ids, ended, strict=True)
    ]
