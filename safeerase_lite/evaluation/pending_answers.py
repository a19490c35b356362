"""A model's answers, stored until they are judged: a judge that fails does not cost them.

They lie in the user's cache folder, closed to other users, and not in the ledger: on real data
some of them are harmful.
"""

import hashlib
from collections.abc import Callable

import torch
from pandas import DataFrame
from pandas.util import hash_pandas_object

from safeerase_lite.evaluation.cache import JsonCache
from safeerase_lite.utils import cached


def cached_answers(
    run_id: str, model, questions: DataFrame, answer: Callable[[], DataFrame]
) -> DataFrame:
    """The table that `answer` returns, or that it returned before to this model and questions.

    Args:
        run_id: one table is stored per run.
        model: the answering model; it is recognised by its trainable parameters.
        questions: a row per question.
    """
    cache, key = _cache(run_id), _hash(model, questions)
    columns = cache.read().get(key)
    if columns is not None:
        print("the answers are read from the cache; the model generates nothing again")
        return DataFrame(columns, index=questions.index)
    cache.delete()  # the answers of other weights, or to other questions
    answers = answer()
    cache.append(key, answers.to_dict("list"))
    return answers


def delete_answers(run_id: str) -> None:
    """Delete the stored answers of a run."""
    _cache(run_id).delete()


def _cache(run_id: str) -> JsonCache:
    return JsonCache(cached("pending_answers", f"{run_id}.jsonl"))


def _hash(model, questions: DataFrame) -> str:
    digest = hashlib.sha256(hash_pandas_object(questions, index=False).to_numpy().tobytes())
    for name, weights in model.named_parameters():
        if weights.requires_grad:
            digest.update(name.encode())
            digest.update(weights.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
