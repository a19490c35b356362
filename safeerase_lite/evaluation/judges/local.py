"""A chat model of transformers on this machine: an instruct model, one that sees, or a Llama Guard.

It is loaded when it is first asked, in 4-bit unless told otherwise, and stays loaded. Greedy
decoding. A model folder is read offline.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial

from safeerase_lite.evaluation.judges import prompt
from safeerase_lite.evaluation.judges.opinion import FLAGS, Item, Judge, Opinion
from safeerase_lite.evaluation.judges.plain import rule
from safeerase_lite.models.llava import (
    NOT_QUANTISED,
    available_precision,
    device_map_of_this_process,
    is_local,
    nf4_config,
)
from safeerase_lite.utils import UserError, track

BATCH = 8
REPLY_TOKENS = 256
GUARD_TOKENS = 8  # "safe", or "unsafe" and the first category


def judge(name: str, model: str, *, guard: bool, precision: str) -> Judge:
    """The judge. Its configuration is read now, its weights when it is first asked.

    Raises UserError for a model that is not there. Asking raises it for one that does not load or
    has no chat template.
    """
    sees = hasattr(_configuration(name, model), "vision_config")
    if guard and sees:
        raise UserError(f"judge {name!r}: only guards that read text are known; take such a one")
    if guard:
        ask, knows = partial(_guarded, name, model, precision), ("harmful",)
    else:
        ask, knows = partial(_ask, name, model, precision), (*FLAGS, "score")
    return Judge(name, ask, knows, sees=sees, release=_loaded.cache_clear)


def _ask(
    name: str, model: str, precision: str, items: Sequence[Item]
) -> Iterator[tuple[int, Opinion]]:
    chats = [[{"role": "user", "content": _shown(item)}] for item in items]
    nonsense = Counter()
    for place, reply in enumerate(_replies(name, model, precision, chats, REPLY_TOKENS)):
        try:
            yield place, prompt.read(reply)
        except prompt.Unreadable as why:
            nonsense[str(why)] += 1
    _tell(name, items, nonsense)


def _guarded(
    name: str, model: str, precision: str, items: Sequence[Item]
) -> Iterator[tuple[int, Opinion]]:
    """Harm from the guard, which is shown question and answer as a conversation; all else from the
    rule."""
    chats = [
        [
            {"role": "user", "content": [_text(item.question)]},
            {"role": "assistant", "content": [_text(item.answer)]},
        ]
        for item in items
    ]
    nonsense = Counter()
    for place, reply in enumerate(_replies(name, model, precision, chats, GUARD_TOKENS)):
        words = reply.split()
        harmful = {"safe": False, "unsafe": True}.get(words[0].lower() if words else "")
        nonsense["neither safe nor unsafe"] += harmful is None
        item = items[place]
        told = rule(item.question, item.expected, item.answer)
        yield place, Opinion(harmful, told.refusing, told.gibberish, told.right)
    _tell(name, items, nonsense)


def _shown(item: Item) -> list[dict]:
    picture = [{"type": "image", "path": item.image}] if item.image else []
    return [*picture, _text(prompt.question(item))]


def _text(text: str) -> dict:
    return {"type": "text", "text": text}


def _tell(name: str, items: Sequence[Item], nonsense: Counter) -> None:
    if nonsense.total():
        why = ", ".join(f"{count} {reason}" for reason, count in sorted(nonsense.items()) if count)
        print(f"judge {name}: {nonsense.total()} of {len(items)} without a verdict ({why})")


# ---- the model ----


@lru_cache(maxsize=8)
def _configuration(name: str, model: str):
    from transformers import AutoConfig

    return _found(name, AutoConfig, model)


def _found(name: str, loader, model: str, **asked):
    """What a transformers class reads from a folder, offline, or from the hub by name."""
    from huggingface_hub.errors import HFValidationError

    try:
        return loader.from_pretrained(model, local_files_only=is_local(model), **asked)
    except (OSError, ValueError, HFValidationError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"judge {name!r}: cannot load the model: {reason}") from None


@lru_cache(maxsize=1)
def _loaded(name: str, model: str, precision: str):
    """The model in evaluation mode, on the GPU if there is one, and what makes tensors for it."""
    import transformers

    configuration = _configuration(name, model)
    sees = hasattr(configuration, "vision_config")
    quantised_before = getattr(configuration, "quantization_config", None) is not None
    nf4 = not quantised_before and available_precision(precision) == "nf4"
    reader = _found(name, transformers.AutoProcessor if sees else transformers.AutoTokenizer, model)
    tokenizer = reader.tokenizer if sees else reader
    if not (reader.chat_template or tokenizer.chat_template):
        raise UserError(f"judge {name!r} has no chat template: take a chat or an instruct model")
    tokenizer.padding_side = "left"
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    loaded = _found(
        name,
        transformers.AutoModelForImageTextToText if sees else transformers.AutoModelForCausalLM,
        model,
        dtype=_compute() if nf4 else "auto",
        quantization_config=nf4_config(_compute(), skip=NOT_QUANTISED if sees else None)
        if nf4
        else None,
        device_map=device_map_of_this_process(),
        use_safetensors=True,
    )
    return loaded.eval(), reader, tokenizer


def _compute():
    """bfloat16 where a GPU has it (a T4 only emulates it), float32 without a GPU."""
    import torch

    if not torch.cuda.is_available():
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability() >= (8, 0) else torch.float16


def _replies(
    name: str, model: str, precision: str, chats: list[list[dict]], new_tokens: int
) -> Iterator[str]:
    """What the model says at the end of each conversation, in order.

    Conversations with pictures are answered one at a time, others in batches.
    """
    import torch

    answering, reader, tokenizer = _loaded(name, model, precision)
    size = BATCH if reader is tokenizer else 1
    if reader is tokenizer:  # templates of models that only read expect plain text
        chats = [[turn | {"content": turn["content"][0]["text"]} for turn in c] for c in chats]
    starts = range(0, len(chats), size)
    for start in track(starts, f"judge {name}"):
        batch = reader.apply_chat_template(
            chats[start : start + size],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            **({"padding": True} if size > 1 else {}),
        ).to(answering.device)
        with torch.inference_mode():
            said = answering.generate(
                **batch,
                max_new_tokens=new_tokens,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
            )
        said = said[:, batch["input_ids"].shape[1] :]
        yield from tokenizer.batch_decode(said, skip_special_tokens=True)
