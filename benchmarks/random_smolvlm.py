"""A SmolVLM of random weights in the format of `HuggingFaceTB/SmolVLM-256M-Instruct`, for want of
the real one.

Every field that decides a shape or a token is the published one, of `config.json` and the files
beside it at revision 7e3e67edbbed1bf9888184d9df282b700a323964: 256,484,928 weights. A test makes it
narrower and shallower. The tokenizer has the published special tokens in their places and as many
tokens; its pieces are made from the tiny world's words. Model and chat template are Hugging Face's,
under the Apache License 2.0.
"""

import json
import string
from pathlib import Path

import torch
import transformers as hf
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.trainers import BpeTrainer

from safeerase_lite.tinyworld import facts

WEIGHTS = 256_484_928
PIECES = 49_152
ROWS = 49_280  # of the embedding: the pieces and 128 added tokens
GRID = 6  # tiles to a side, at most, that have a token of their own
SPREAD = 0.02  # standard deviation of a weight, Llama's `initializer_range`
ADDED = [
    "<global-img>",
    *(f"<row_{row}_col_{col}>" for row in range(1, GRID + 1) for col in range(1, GRID + 1)),
    "<fake_token_around_image>",
    "<image>",
    *(f"<|reserved_special_token_{n}|>" for n in range(88)),
    "<end_of_utterance>",
]
CHAT_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


def configuration(
    *, width: int = 576, feed_forward: int = 1536, layers: int = 30, heads: int = 9,
    key_value_heads: int = 3, vision_width: int = 768, vision_feed_forward: int = 3072,
    vision_layers: int = 12, vision_heads: int = 12, side: int = 512,
) -> hf.Idefics3Config:  # fmt: skip
    """The configuration of SmolVLM-256M; an argument makes it smaller."""
    return hf.Idefics3Config(
        vision_config={
            "hidden_size": vision_width,
            "intermediate_size": vision_feed_forward,
            "num_hidden_layers": vision_layers,
            "num_attention_heads": vision_heads,
            "image_size": side,
            "patch_size": 16,
        },
        text_config={
            "model_type": "llama",
            "hidden_size": width,
            "intermediate_size": feed_forward,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": key_value_heads,
            "head_dim": width // heads,
            "max_position_embeddings": 8192,
            "rope_parameters": {"rope_type": "default", "rope_theta": 100_000.0},
            "rms_norm_eps": 1e-5,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 2,
            "vocab_size": ROWS,
        },
        image_token_id=PIECES + ADDED.index("<image>"),
        pad_token_id=2,
        scale_factor=4,
        tie_word_embeddings=False,
    )


def write(folder: Path, config: hf.Idefics3Config, seed: int = 0) -> None:
    """Write model and processor to a folder, the weights in bfloat16 as published."""
    torch.manual_seed(seed)
    model = hf.AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, SPREAD)
    model.save_pretrained(folder)
    processor(config).save_pretrained(folder)


def processor(config: hf.Idefics3Config) -> hf.Idefics3Processor:
    """The processor of SmolVLM-256M, for this size of picture."""
    side, patch = config.vision_config.image_size, config.vision_config.patch_size
    images = hf.Idefics3ImageProcessorPil(
        size={"longest_edge": 4 * side},
        max_image_size={"longest_edge": side},
        resample=1,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    tokens = (side // patch // config.scale_factor) ** 2
    return hf.Idefics3Processor(
        images, tokenizer(), image_seq_len=tokens, chat_template=CHAT_TEMPLATE
    )


def tokenizer() -> hf.PreTrainedTokenizerFast:
    """A byte-level one like GPT-2's, whose pieces are the tiny world's words."""
    first = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(special_tokens=first, initial_alphabet=alphabet, show_progress=False)
    words = [*sorted(facts.words()), *string.ascii_letters]
    words = [form for word in words for form in (word, f" {word}", f" {word.capitalize()}")]
    learner.train_from_iterator(words, trainer)
    learned = json.loads(learner.to_str())["model"]
    vocabulary = learned["vocab"]
    vocabulary |= {f"<unused{i}>": i for i in range(len(vocabulary), PIECES)}
    core = Tokenizer(models.BPE(vocabulary, [tuple(pair) for pair in learned["merges"]]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, normalized=False) for token in (*first, *ADDED)])
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<|im_start|>",
        eos_token="<end_of_utterance>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        padding_side="left",
    )
