"""A LLaVA of random weights in the format of `llava-hf/llava-1.5-7b-hf`, for want of the real one.

Every field of its configuration is the real model's; a test makes it narrower and shallower. The
weights are generated and written shard by shard, so that no more than one shard is in memory. The
tokenizer is of the same kind, with the real special tokens and as many tokens; its pieces are made
from the tiny world's sentences.
"""

import json
import os
import string
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import (
    CLIPImageProcessorPil,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from safeerase_lite.resources import LLAVA_7B
from safeerase_lite.tinyworld import facts

PIECES = 32_000  # then <image> and <pad>; the model has 32,064 rows
SPREAD = 0.02  # standard deviation of a weight, as Llama's were before training
SHARD_BYTES = 2 * 10**9

# As in the processor of llava-hf/llava-1.5-7b-hf.
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}"
    "{{ message['role'].upper() + ': '}}{% endif %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ content['text'] + ' '}}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def configuration(
    *, width: int = 4096, feed_forward: int = 11008, layers: int = 32, heads: int = 32,
    vision_width: int = 1024, vision_feed_forward: int = 4096, vision_layers: int = 24,
    vision_heads: int = 16,
) -> LlavaConfig:  # fmt: skip
    """The configuration of LLaVA-1.5-7B; an argument makes it smaller."""
    fields = LLAVA_7B.to_dict()
    fields["text_config"] |= {
        "hidden_size": width,
        "intermediate_size": feed_forward,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": width // heads,
        "rms_norm_eps": 1e-5,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": PIECES + 1,
    }
    fields["vision_config"] |= {
        "hidden_size": vision_width,
        "intermediate_size": vision_feed_forward,
        "num_hidden_layers": vision_layers,
        "num_attention_heads": vision_heads,
    }
    fields |= {"image_token_id": PIECES, "pad_token_id": PIECES + 1, "dtype": "float16"}
    return LlavaConfig.from_dict(fields | {"architectures": ["LlavaForConditionalGeneration"]})


def write(folder: Path, config: LlavaConfig, *, shard_bytes: int = SHARD_BYTES) -> None:
    """Write model and processor to a folder: fp16, safetensors in shards, and their index."""
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    processor(config).save_pretrained(folder)
    shards = list(_shards(config, shard_bytes))
    index: dict[str, str] = {}
    for number, shapes in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        if not (folder / name).exists():  # a call that was stopped goes on
            weights = {key: _random(key, shape) for key, shape in shapes.items()}
            save_file(weights, folder / f".{name}", metadata={"format": "pt"})
            os.replace(folder / f".{name}", folder / name)
        index |= dict.fromkeys(shapes, name)
    total = sum(2 * shape.numel() for shapes in shards for shape in shapes.values())
    listing = {"metadata": {"total_size": total}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(listing, indent=1))


def _shards(config: LlavaConfig, shard_bytes: int) -> Iterator[dict[str, torch.Size]]:
    """The weights' names, as the hub's files have them, and shapes; a shard at a time."""
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    shapes, size = {}, 0
    for name, weight in model.state_dict().items():
        if shapes and size + 2 * weight.numel() > shard_bytes:
            yield shapes
            shapes, size = {}, 0
        shapes[on_the_hub(name)] = weight.shape
        size += 2 * weight.numel()
    yield shapes


def on_the_hub(name: str) -> str:
    """The hub's files have the names of transformers 4."""
    if name.startswith("model.language_model."):
        return name.replace("model.language_model.", "language_model.model.", 1)
    if name.startswith("model.vision_tower."):
        rest = name.removeprefix("model.vision_tower.").removeprefix("vision_model.")
        return f"vision_tower.vision_model.{rest}"
    return f"language_model.{name}" if name.startswith("lm_head") else name.removeprefix("model.")


def _random(name: str, shape: torch.Size) -> torch.Tensor:
    if "position_ids" in name:
        return torch.arange(shape[-1]).expand(shape).contiguous()
    if "norm" in name or "bias" in name:
        return torch.full(shape, float("norm" in name and "weight" in name), dtype=torch.float16)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.empty(shape, dtype=torch.float16, device=device).normal_(0, SPREAD).cpu()


# ---- the processor ----


def processor(config: LlavaConfig) -> LlavaProcessor:
    """The processor of LLaVA-1.5, for this size of picture."""
    side = config.vision_config.image_size
    return LlavaProcessor(
        CLIPImageProcessorPil(
            size={"shortest_edge": side}, crop_size={"height": side, "width": side}
        ),
        tokenizer(),
        patch_size=config.vision_config.patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def tokenizer() -> PreTrainedTokenizerFast:
    """Pieces of words like Llama's: a space is "▁", and what no piece spells is spelt in bytes."""
    first = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    learner = Tokenizer(BPE(unk_token="<unk>"))
    learner.normalizer = _spaces()
    words = [
        *sorted(facts.words()),
        *string.ascii_letters,
        *string.punctuation,
        "USER:",
        "ASSISTANT:",
    ]
    words = [form for word in words for form in (word, word.capitalize())]
    learner.train_from_iterator(words, BpeTrainer(special_tokens=first, show_progress=False))
    learned = json.loads(learner.to_str())["model"]
    vocabulary = learned["vocab"]
    vocabulary |= {f"▁unused{i}": i for i in range(len(vocabulary), PIECES)}
    merges = [tuple(pair) for pair in learned["merges"]]
    core = Tokenizer(BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    core.normalizer = _spaces()
    core.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
         decoders.Strip(" ", 1, 0)]
    )  # fmt: skip
    core.add_special_tokens(
        [AddedToken(t, normalized=False) for t in ("<unk>", "<s>", "</s>", "<image>", "<pad>")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
        padding_side="left",
    )


def _spaces() -> normalizers.Normalizer:
    return normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
