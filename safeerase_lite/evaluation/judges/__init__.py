"""Judges. Is an answer harmful? Refusing? Gibberish? Right?

Each is yes, no or None, which means unknown. An unknown is counted, never dropped. A judge is
chosen by its name:

    oracle                knows the tiny world
    rule                  knows phrases of refusal and repetition, of any model
    local:MODEL           a chat model of transformers, a folder or a Hub name, on this machine
    guard:MODEL           a Llama Guard: harm from it, all else from `rule`
    openai:MODEL          a chat model behind an OpenAI-compatible server (see `server`)
    openai-vision:MODEL   the same, and it is shown the picture

A judge of your own is a function of question, expected answer and answer:

    sl.judges.JUDGES["mine"] = lambda question, expected, answer: sl.judges.Judgment(...)

One that needs the picture, or many answers at once, is a `Judge` in the same dictionary. One that
takes a model by name is a `ModelJudge` in `MODEL_JUDGES`.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, astuple, replace
from functools import lru_cache, partial
from pathlib import Path

from safeerase_lite.evaluation.cache import JsonCache
from safeerase_lite.evaluation.judges import prompt
from safeerase_lite.evaluation.judges.agreement import agreement
from safeerase_lite.evaluation.judges.records import (
    EMPTY_ANSWER,
    FLAGS,
    UNKNOWN,
    Judge,
    JudgeFunction,
    JudgeItem,
    Judgment,
    ModelJudge,
)
from safeerase_lite.evaluation.judges.rules import (
    JUDGES,
    MODEL_JUDGES,
    oracle,
    parse_judge_name,
    rule,
)
from safeerase_lite.evaluation.judges.sanity_check import check_judge
from safeerase_lite.utils import UserError, cached

__all__ = ["FLAGS", "JUDGES", "MODEL_JUDGES", "Judge", "JudgeItem", "Judgment", "ModelJudge",
           "agreement", "check_judge", "get_judge", "judge_items", "oracle", "parse_judge_name",
           "prompt", "rule"]  # fmt: skip


def get_judge(name: str, *, consent: bool = False, precision: str = "nf4") -> Judge:
    """The judge of that name. No weights are loaded and nothing is sent before it is used.

    Args:
        name: see above.
        consent: whether texts (and pictures) may leave this machine for a server elsewhere.
        precision: of a model on this machine: nf4, or dense.

    Raises:
        UserError: no such judge; a server elsewhere without consent; a package or key is missing.
    """
    kind, model = parse_judge_name(name)
    if model:
        return MODEL_JUDGES[kind].create(name, model, consent=consent, precision=precision)
    judge = JUDGES[name]
    return judge if isinstance(judge, Judge) else Judge(name, partial(_one_by_one, name, judge))


def _one_by_one(
    name: str, function: JudgeFunction, items: Sequence[JudgeItem]
) -> Iterator[tuple[int, Judgment]]:
    for index, item in enumerate(items):
        judgment = function(item.question, item.expected, item.answer)
        if not isinstance(judgment, Judgment):
            returned = type(judgment).__name__
            raise UserError(f"judge {name!r} must return a Judgment, and returned a {returned}")
        yield index, judgment


def judge_items(judge: Judge, items: Sequence[JudgeItem]) -> list[Judgment]:
    """The judgment of each item, in their order.

    An empty answer is gibberish, and the judge does not see it. Equal items are judged once. The
    judgments of a judge with a `cache_key` are stored on disk as they come, and read from there.
    """
    items = items if judge.uses_images else [replace(item, image="") for item in items]
    judgments = {item: EMPTY_ANSWER for item in items if not item.answer.strip()}
    pending = [item for item in dict.fromkeys(items) if item not in judgments]
    cache = None
    if judge.cache_key:
        cache = JsonCache(cached("verdicts", f"{_sha256(judge.cache_key)[:16]}.jsonl"))
        keys, stored = {item: _item_key(item) for item in pending}, cache.read()
        for item, key in keys.items():
            with suppress(KeyError, TypeError):  # not stored, or something else is
                judgments[item] = Judgment(**stored[key])
        asked, pending = pending, [item for item in pending if item not in judgments]
        if known := len(asked) - len(pending):
            print(f"judge {judge.name}: {known} verdicts are read from the cache")
    for index, judgment in judge.iter_judgments(pending) if pending else ():
        judgments[pending[index]] = judgment
        if cache and not judgment.problem:
            cache.append(keys[pending[index]], asdict(judgment))
    return [judgments.get(item, UNKNOWN) for item in items]


def _item_key(item: JudgeItem) -> str:
    """A hash of the item, with the picture's content. The cache holds no text, harmful or not."""
    picture = _picture_hash(item.image) if item.image else ""
    return _sha256(json.dumps(astuple(replace(item, image=picture, refusal=False))))


@lru_cache(maxsize=4096)
def _picture_hash(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        raise UserError(
            f"the judge cannot see {path}: give answers with the full path of each picture"
        ) from None


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
