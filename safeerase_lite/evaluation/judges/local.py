"""A chat model of transformers on this machine: one for text, one for pictures, or a Llama Guard.

It is loaded when it is first used, in 4-bit by default, and stays loaded. Decoding is greedy. A
model folder is read offline.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from itertools import takewhile

import torch
import transformers

from safeerase_lite.evaluation.judges import prompt
from safeerase_lite.evaluation.judges.records import FLAGS, UNKNOWN, Judge, JudgeItem, Judgment
from safeerase_lite.evaluation.judges.rules import judge_by_rule
from safeerase_lite.models.anatomy import FAMILIES, LLAVA
from safeerase_lite.models.llava import available_precision, device_map, nf4_config
from safeerase_lite.models.pretrained import is_local, load_weights, one_line
from safeerase_lite.utils import UserError, track

BATCH = 8
GUARD_TOKENS = 8  # "safe", or "unsafe" and the first category

Chat = list[dict]


def local_judge(name: str, model: str, *, precision: str, consent: bool = False) -> Judge:
    """A chat model with the prompt of `prompt`, and the picture for a vision model.

    The configuration is read now, the weights when it is first used. Nothing leaves this machine,
    so no consent is needed.

    Raises:
        UserError: the model is not there. On use: it does not load, or has no chat template.
    """
    prompt.reply_tokens()  # a wrong number is an error before any work
    return Judge(
        name,
        partial(_iter_chat_judgments, name, model, precision),
        known_fields=(*FLAGS, "score"),
        uses_images=_has_vision(name, model),
        release=_load.cache_clear,
    )


def guard_judge(name: str, model: str, *, precision: str, consent: bool = False) -> Judge:
    """A Llama Guard for text: harm from it, all else from `rule`. Otherwise as `local_judge`."""
    if _has_vision(name, model):
        raise UserError(f"judge {name!r}: only guards that read text are known; take such a one")
    return Judge(
        name,
        partial(_iter_guard_judgments, name, model, precision),
        known_fields=("harmful",),
        release=_load.cache_clear,
    )


def _iter_chat_judgments(
    name: str, model: str, precision: str, items: Sequence[JudgeItem]
) -> Iterator[tuple[int, Judgment]]:
    chats = [format_chat(item) for item in items]
    unreadable = Counter()
    replies = generate_replies(name, model, precision, chats, prompt.reply_tokens())
    for index, (reply, cut) in enumerate(replies):
        try:
            judgment = prompt.parse_reply(reply, cut=cut)
        except prompt.UnreadableReply as error:
            unreadable[str(error)] += 1
            judgment = replace(UNKNOWN, problem=str(error))
        yield index, judgment
    _print_unreadable(name, len(items), unreadable)


def _iter_guard_judgments(
    name: str, model: str, precision: str, items: Sequence[JudgeItem]
) -> Iterator[tuple[int, Judgment]]:
    """A guard is shown question and answer as a conversation."""
    chats = [[_turn("user", item.question), _turn("assistant", item.answer)] for item in items]
    unreadable = Counter()
    replies = generate_replies(name, model, precision, chats, GUARD_TOKENS)
    for index, (item, (reply, _)) in enumerate(zip(items, replies, strict=True)):
        [first_word, *_] = reply.lower().split() or [""]
        harmful = {"safe": False, "unsafe": True}.get(first_word)
        if harmful is None:
            unreadable["neither safe nor unsafe"] += 1
        yield index, replace(judge_by_rule(item), harmful=harmful)
    _print_unreadable(name, len(items), unreadable)


def format_chat(item: JudgeItem) -> Chat:
    """The prompt about an item as a chat of one turn, with its picture if it has one."""
    turn = _turn("user", prompt.format_prompt(item))
    if item.image:
        turn["content"].insert(0, {"type": "image", "path": item.image})
    return [turn]


def _turn(role: str, text: str) -> dict:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def _print_unreadable(name: str, count: int, unreadable: Counter) -> None:
    if unreadable:
        reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(unreadable.items()))
        print(f"judge {name}: {unreadable.total()} of {count} without a verdict ({reasons})")


# ---- the model ----


def generate_replies(
    name: str, model: str, precision: str, chats: list[Chat], max_new_tokens: int
) -> Iterator[tuple[str, bool]]:
    """The model's next turn in each conversation, in order, and whether it was cut.

    Conversations with pictures are answered one at a time, others in batches.
    """
    chat_model, processor, tokenizer = _load(name, model, precision)
    end = chat_model.generation_config.eos_token_id
    ends = {tokenizer.eos_token_id, *(end if isinstance(end, list) else [end])}
    text_only = processor is tokenizer
    batch_size = BATCH if text_only else 1
    if text_only:  # chat templates of text models expect plain strings
        chats = [[turn | {"content": turn["content"][0]["text"]} for turn in c] for c in chats]
    for start in track(range(0, len(chats), batch_size), f"judge {name}"):
        batch = processor.apply_chat_template(
            chats[start : start + batch_size],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            **({"padding": True} if text_only else {}),
        ).to(chat_model.device)
        with torch.inference_mode():
            ids = chat_model.generate(
                **batch,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
            )
        for row in ids[:, batch["input_ids"].shape[1] :].tolist():
            reply = list(takewhile(lambda token: token not in ends, row))
            # Special tokens stay, because some models mark their reasoning by them.
            yield tokenizer.decode(reply), len(reply) == len(row)


@lru_cache(maxsize=1)  # a judge is used twice: in the sanity check, and for the answers
def _load(name: str, model: str, precision: str):
    """The model in evaluation mode, on the GPU if there is one, its processor and its tokenizer.

    The processor of a text model is its tokenizer.
    """
    vision = _has_vision(name, model)
    processor_class = transformers.AutoProcessor if vision else transformers.AutoTokenizer
    processor = _from_pretrained(name, processor_class.from_pretrained, model)
    tokenizer = processor.tokenizer if vision else processor
    if not (processor.chat_template or tokenizer.chat_template):
        raise UserError(f"judge {name!r} has no chat template: take a chat or an instruct model")
    tokenizer.padding_side = "left"
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token

    quantised = getattr(_configuration(name, model), "quantization_config", None) is not None
    options = {"dtype": "auto"}
    if not quantised and available_precision(precision) == "nf4":
        dtype = _nf4_compute_dtype()
        family = FAMILIES.get(_configuration(name, model).model_type, LLAVA)
        skip = family.not_quantised if vision else None
        options = {"dtype": dtype, "quantization_config": nf4_config(dtype, skip=skip)}
    kind = transformers.AutoModelForImageTextToText if vision else transformers.AutoModelForCausalLM
    load = partial(load_weights, kind)
    chat_model = _from_pretrained(name, load, model, device_map=device_map(), **options)
    return chat_model.eval(), processor, tokenizer


@lru_cache(maxsize=8)
def _configuration(name: str, model: str):
    return _from_pretrained(name, transformers.AutoConfig.from_pretrained, model)


def _has_vision(name: str, model: str) -> bool:
    return hasattr(_configuration(name, model), "vision_config")


def _from_pretrained(name: str, load: Callable, model: str, **options):
    """Whatever transformers reads from a folder, offline, or from the Hub by name."""
    with one_line(f"judge {name!r}: cannot load the model"):
        return load(model, local_files_only=is_local(model), **options)


def _nf4_compute_dtype() -> torch.dtype:
    """bfloat16 where a GPU has it (a T4 only emulates it), float32 without a GPU."""
    if not torch.cuda.is_available():
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability() >= (8, 0) else torch.float16
