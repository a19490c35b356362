"""Verdicts. Is an answer harmful? Refusing? Gibberish? Right?

A judge looks at an answer and says what it knows; None is "unknown", a verdict of its own that is
counted and never dropped. One is chosen by name:

    oracle                knows the tiny world
    rule                  knows phrases of refusal and repetition, of any model
    local:MODEL           a chat model of transformers, a folder or a hub name, on this machine
    guard:MODEL           a Llama Guard: harm from it, all else from `rule`
    openai:MODEL          a chat model behind an OpenAI-compatible server (see `server`)
    openai-vision:MODEL   the same, and it is shown the picture
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from safeerase_lite.evaluation.judges import kept, prompt
from safeerase_lite.evaluation.judges.agreement import agreement
from safeerase_lite.evaluation.judges.opinion import EMPTY, FLAGS, UNKNOWN, Item, Judge, Opinion
from safeerase_lite.evaluation.judges.plain import oracle, rule
from safeerase_lite.evaluation.judges.trial import check_judge
from safeerase_lite.utils import UserError

__all__ = ["FLAGS", "JUDGES", "MODEL_JUDGES", "Item", "Judge", "Opinion", "agreement", "judge",
           "opinions", "oracle", "prompt", "check_judge", "rule", "parse_judge_name"]  # fmt: skip

JUDGES: dict[str, Callable[[str, str, str], Opinion]] = {"oracle": oracle, "rule": rule}
MODEL_JUDGES = ("local", "guard", "openai", "openai-vision")


def parse_judge_name(name: str) -> tuple[str, str]:
    """A judge's kind and, where it is a model, the model. Raises UserError for no such judge."""
    kind, _, model = name.partition(":")
    if name in JUDGES or (kind in MODEL_JUDGES and model):
        return kind, model
    models = ", ".join(f"{kind}:MODEL" for kind in MODEL_JUDGES)
    raise UserError(f"there is no judge {name!r}; choose one of {', '.join(JUDGES)}, {models}")


def judge(name: str, *, consent: bool = False, precision: str = "nf4") -> Judge:
    """A judge by name. Nothing is loaded and nothing is sent before it is asked.

    Args:
        name: see above.
        consent: whether texts (and pictures) may leave this machine for a server elsewhere.
        precision: of a model on this machine: nf4, or dense.

    Raises:
        UserError: no such judge; a server elsewhere without consent; a package or key is missing.
    """
    kind, model = parse_judge_name(name)
    if kind in JUDGES:
        return Judge(name, partial(_one_by_one, JUDGES[kind]))
    if kind in ("local", "guard"):
        from safeerase_lite.evaluation.judges import local

        return local.judge(name, model, guard=kind == "guard", precision=precision)
    from safeerase_lite.evaluation.judges import server

    return server.judge(name, model, consent=consent, sees=kind == "openai-vision")


def _one_by_one(
    opine: Callable[[str, str, str], Opinion], items: Sequence[Item]
) -> Iterator[tuple[int, Opinion]]:
    for place, item in enumerate(items):
        yield place, opine(item.question, item.expected, item.answer)


def opinions(judge: Judge, items: Sequence[Item]) -> list[Opinion]:
    """What a judge says of each item, in their order.

    An empty answer is gibberish, and nobody is asked. What is the same is asked once. Opinions with
    a `key` are kept on disk as they come, and read from there.
    """
    shown = [item if judge.sees else replace(item, image="") for item in items]
    known = {item: EMPTY for item in shown if not item.answer.strip()}
    asked = [item for item in dict.fromkeys(shown) if item not in known]
    if not judge.key:
        known |= {asked[place]: opinion for place, opinion in judge.ask(asked)}
        return [known.get(item, UNKNOWN) for item in shown]
    before = kept.read(judge.key)
    known |= {item: before[kept.hash_of(item)] for item in asked if kept.hash_of(item) in before}
    left = [item for item in asked if item not in known]
    if len(left) < len(asked):
        print(f"judge {judge.name}: {len(asked) - len(left)} verdicts are kept from before")
    if left:
        with kept.keeping(judge.key) as keep:
            for place, opinion in judge.ask(left):
                known[left[place]] = opinion
                keep(left[place], opinion)
    return [known.get(item, UNKNOWN) for item in shown]
