"""Small models of random weights, one of each family, for want of the published ones.

Each has the classes of one published model, every part of its configuration, and the processor of
its class; only widths, depths, pictures and vocabulary are small. They are as narrow as NF4 on a
CPU allows: 64.
"""

import string
from collections.abc import Callable
from pathlib import Path

import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.trainers import BpeTrainer

from safeerase_lite.models.processors import without_videos
from safeerase_lite.tinyworld import facts

LARGE = 5  # times the weights of an initialisation, so that pictures matter
TEXT = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2}  # fmt: skip
VISION = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
          "num_attention_heads": 2}  # fmt: skip
SIGLIP = VISION | {"model_type": "siglip_vision_model", "image_size": 56, "patch_size": 14,
                   "vision_use_head": False}  # fmt: skip
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def write(folder: Path, family: str, seed: int = 0) -> None:
    """Write a random model of a family (a key of `BUILDERS`) and its processor to a folder."""
    model_class, config, processor = BUILDERS[family]()
    torch.manual_seed(seed)
    model = model_class(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(LARGE)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


# ---- text ----


def tokenizer(special: list[str], *, end: str, pad: str, begin: str | None = None, **named: str):
    """A byte-level tokenizer of the tiny world's words, as those of GPT-2's kind.

    special: the model's own tokens.  named: what its processor calls some of them.
    """
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=500,
        special_tokens=[],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([*sorted(facts.words()), *string.ascii_letters], trainer)
    core.add_special_tokens(special)
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=begin, eos_token=end, pad_token=pad,
        extra_special_tokens=named, padding_side="left",
    )  # fmt: skip


def chat(user: str, picture: str, after: str, assistant: str) -> str:
    """A chat template of one turn: its picture, if any, and its question."""
    return (
        "{% for message in messages %}" + user + "{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}" + picture + "{% else %}{{ part['text'] }}{% endif %}"
        "{% endfor %}" + after + "{% endfor %}"
        "{% if add_generation_prompt %}" + assistant + "{% endif %}"
    )


def im_chat(picture: str) -> str:
    """The template of Qwen and of what is built on it."""
    return chat("<|im_start|>user\n", picture, "<|im_end|>\n", "<|im_start|>assistant\n")


IM = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
IM_ENDS = {"end": "<|im_end|>", "pad": "<|endoftext|>"}


def text(words, **fields) -> dict:
    """A language model's configuration that fits a tokenizer."""
    ids = {name: getattr(words, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    size = -(-(len(words) + fields.pop("room", 0)) // 64) * 64
    return TEXT | ids | {"vocab_size": size} | fields


# ---- the families ----


def llava_interleave():
    """llava-hf/llava-interleave-qwen-0.5b-hf: LLaVA with a SigLIP tower and Qwen2."""
    words = tokenizer([*IM, "<image>"], **IM_ENDS, image_token="<image>")
    config = hf.LlavaConfig(
        vision_config=SIGLIP,
        text_config=text(words, model_type="qwen2"),
        image_token_id=words.image_token_id,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    processor = hf.LlavaProcessor(
        hf.SiglipImageProcessorPil(size={"height": 56, "width": 56}, **HALF),
        words,
        patch_size=14,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,
        chat_template=im_chat("<image>\n"),
    )
    return hf.LlavaForConditionalGeneration, config, processor


def idefics3():
    """HuggingFaceTB/SmolVLM-256M-Instruct: Idefics3 with a small Llama."""
    special = ["<|endoftext|>", "<|im_start|>", "<end_of_utterance>", "<fake_token_around_image>",
               "<image>", "<global-img>"]  # fmt: skip
    words = tokenizer(special, begin="<|im_start|>", end="<end_of_utterance>", pad="<|im_start|>")
    config = hf.Idefics3Config(
        vision_config=VISION | {"image_size": 64, "patch_size": 8},
        text_config=text(words, model_type="llama"),
        scale_factor=4,
        image_token_id=words.convert_tokens_to_ids("<image>"),
    )
    processor = hf.Idefics3Processor(
        hf.Idefics3ImageProcessorPil(
            size={"longest_edge": 128}, max_image_size={"longest_edge": 64}, **HALF
        ),
        words,
        image_seq_len=4,
        chat_template=chat("<|im_start|>User:", "<image>", "<end_of_utterance>\n", "Assistant:"),
    )
    return hf.Idefics3ForConditionalGeneration, config, processor


def smolvlm():
    """HuggingFaceTB/SmolVLM2-500M-Video-Instruct: as SmolVLM, of a class that also reads videos."""
    _, config, processor = idefics3()
    fields = config.to_dict() | {"model_type": "smolvlm"}
    fields["vision_config"] |= {"model_type": "smolvlm_vision"}
    edges = {"size": {"longest_edge": 128}, "max_image_size": {"longest_edge": 64}}
    processor.image_processor = hf.SmolVLMImageProcessorPil(**edges, **HALF)
    return hf.SmolVLMForConditionalGeneration, hf.SmolVLMConfig.from_dict(fields), processor


def llava_onevision():
    """llava-hf/llava-onevision-qwen2-0.5b-ov-hf: a picture and its tiles, side by side."""
    words = tokenizer([*IM, "<image>", "<video>"], **IM_ENDS, image_token="<image>",
                      video_token="<video>")  # fmt: skip
    grid = [[56, 56], [56, 112], [112, 56], [112, 112]]
    config = hf.LlavaOnevisionConfig(
        vision_config=SIGLIP,
        text_config=text(words, model_type="qwen2", tie_word_embeddings=True),
        image_token_index=words.image_token_id,
        video_token_index=words.video_token_id,
        image_grid_pinpoints=grid,
    )
    processor = without_videos(hf.LlavaOnevisionProcessor)(
        hf.LlavaOnevisionImageProcessorPil(
            size={"height": 56, "width": 56}, image_grid_pinpoints=grid, **HALF
        ),
        words,
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=chat(
            "<|im_start|>user ", "<image>\n", "<|im_end|>", "<|im_start|>assistant\n"
        ),
    )
    return hf.LlavaOnevisionForConditionalGeneration, config, processor


def internvl():
    """OpenGVLab/InternVL3-1B-hf: InternViT and Qwen2."""
    named = {"start_image_token": "<img>", "end_image_token": "</img>",
             "context_image_token": "<IMG_CONTEXT>", "video_token": "<video>"}  # fmt: skip
    words = tokenizer([*IM, *named.values()], **IM_ENDS, **named)
    config = hf.InternVLConfig(
        vision_config=VISION | {"image_size": 56, "patch_size": 14},
        text_config=text(words, model_type="qwen2"),
        image_token_id=words.context_image_token_id,
        image_seq_length=4,
        tie_word_embeddings=False,
    )
    processor = without_videos(hf.InternVLProcessor)(
        hf.GotOcr2ImageProcessorPil(size={"height": 56, "width": 56}, crop_to_patches=True, **HALF),
        words,
        image_seq_length=4,
        chat_template=im_chat("<IMG_CONTEXT>\n"),
    )
    return hf.InternVLForConditionalGeneration, config, processor


def paligemma():
    """google/paligemma2-3b-mix-224: SigLIP and Gemma 2, no chat template."""
    words = tokenizer(
        ["<pad>", "<eos>", "<bos>", "<image>"], begin="<bos>", end="<eos>", pad="<pad>",
        image_token="<image>",
    )  # fmt: skip
    images = hf.SiglipImageProcessorPil(size={"height": 56, "width": 56}, **HALF)
    images.image_seq_length = 16
    processor = hf.PaliGemmaProcessor(images, words)  # adds tokens of places and segments
    config = hf.PaliGemmaConfig(
        vision_config=SIGLIP,
        text_config=text(words, model_type="gemma2", head_dim=32, query_pre_attn_scalar=32),
        image_token_index=words.image_token_id,
        projection_dim=64,
        hidden_size=64,
    )
    return hf.PaliGemmaForConditionalGeneration, config, processor


QWEN_TOKENS = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}
QWEN_PICTURE = "<|vision_start|><|image_pad|><|vision_end|>"


def qwen2_5_vl():
    """Qwen/Qwen2.5-VL-3B-Instruct: a picture of any size, positions by row and column."""
    vision = {"depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 2,
              "out_hidden_size": 64, "fullatt_block_indexes": [1]}  # fmt: skip
    mrope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e6}
    return _qwen(hf.Qwen2_5_VLProcessor, hf.Qwen2_5_VLConfig, vision, mrope, patch=14, head_dim=16)


def qwen3_vl():
    """Qwen/Qwen3-VL-2B-Instruct: the picture enters several blocks of the language model."""
    vision = {"depth": 3, "hidden_size": 64, "intermediate_size": 128, "num_heads": 2,
              "out_hidden_size": 64, "num_position_embeddings": 64,
              "deepstack_visual_indexes": [0]}  # fmt: skip
    mrope = {"rope_type": "default", "mrope_section": [4, 6, 6], "mrope_interleaved": True,
             "rope_theta": 5e6}  # fmt: skip
    return _qwen(hf.Qwen3VLProcessor, hf.Qwen3VLConfig, vision, mrope, patch=16, head_dim=32)


def _qwen(processor_class, config_class, vision, mrope, *, patch: int, head_dim: int):
    words = tokenizer([*IM, *QWEN_TOKENS.values()], **IM_ENDS, **QWEN_TOKENS)
    own_width = {"head_dim": head_dim} if config_class is hf.Qwen3VLConfig else {}
    config = config_class(
        vision_config=vision | {"patch_size": patch},
        text_config=text(words, rope_parameters=mrope, **own_width),
        tie_word_embeddings=True,
        **{f"{name}_id": getattr(words, f"{name}_id") for name in QWEN_TOKENS},
    )
    side = 2 * patch
    processor = without_videos(processor_class)(
        hf.Qwen2VLImageProcessorPil(
            size={"shortest_edge": 2 * side**2, "longest_edge": 16 * side**2},
            patch_size=patch,
            **HALF,
        ),
        words,
        chat_template=im_chat(QWEN_PICTURE),
    )
    name = config_class.__name__.replace("Config", "ForConditionalGeneration")
    return getattr(hf, name), config, processor


def lfm2_vl():
    """LiquidAI/LFM2-VL-450M: SigLIP 2 and a model of which most blocks convolve."""
    from safeerase_lite.models.lfm2_pictures import Lfm2VlImageProcessor

    special = ["<|pad|>", "<|startoftext|>", "<|im_start|>", "<|im_end|>", "<image>",
               "<|image_start|>", "<|image_end|>", "<|img_thumbnail|>"]  # fmt: skip
    words = tokenizer(special, begin="<|startoftext|>", end="<|im_end|>", pad="<|pad|>")
    config = hf.Lfm2VlConfig(
        vision_config=VISION
        | {"model_type": "siglip2_vision_model", "patch_size": 16, "num_patches": 16,
           "vision_use_head": False},
        text_config=text(words, model_type="lfm2", layer_types=["conv", "full_attention"],
                         block_auto_adjust_ff_dim=False),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        projector_hidden_size=64,
    )  # fmt: skip
    processor = hf.Lfm2VlProcessor(
        Lfm2VlImageProcessor(min_image_tokens=2, max_image_tokens=6, **HALF),
        words,
        chat_template="{{ bos_token }}" + im_chat("<image>"),
    )
    return hf.Lfm2VlForConditionalGeneration, config, processor


BUILDERS: dict[str, Callable] = {
    "llava": llava_interleave,
    "llava_onevision": llava_onevision,
    "internvl": internvl,
    "idefics3": idefics3,
    "smolvlm": smolvlm,
    "paligemma": paligemma,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
    "lfm2_vl": lfm2_vl,
}
