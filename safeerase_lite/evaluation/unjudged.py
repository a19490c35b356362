"""What a model answered, kept until it is judged: a judge that fails, or a kill, does not cost it.

It lies in the cache folder, for its owner's eyes alone, and not in the ledger: on real data some
answers are harmful.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import torch
from pandas import DataFrame, read_parquet
from pandas.util import hash_pandas_object

from safeerase_lite.utils import cache_dir


def kept(run: str, model, asked: DataFrame, answer: Callable[[], DataFrame]) -> DataFrame:
    """What `answer` returns; or what it returned before, if the same weights were asked the same.

    Args:
        run: its id; of each run one table is kept.
        model: what answers; the parameters that it would train tell it from another.
        asked: a row per question.
    """
    path = _folder() / f"{run}-{_hash(model, asked)}.parquet"
    if path.exists():
        print("the answers are kept from before; the model is not asked again")
        return read_parquet(path)
    drop(run)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    answers = answer()
    answers.to_parquet(draft)
    os.replace(draft, path)
    return answers


def drop(run: str) -> None:
    """Delete what is kept of a run."""
    for path in _folder().glob(f"{run}-*"):
        path.unlink(missing_ok=True)


def _folder() -> Path:
    return cache_dir() / "unjudged"


def _hash(model, asked: DataFrame) -> str:
    digest = hashlib.sha256(hash_pandas_object(asked, index=False).to_numpy().tobytes())
    for name, weights in model.named_parameters():
        if weights.requires_grad:
            digest.update(name.encode())
            digest.update(weights.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
