"""Random models with the configurations of two published ones, for want of their weights.

Files, their names and their fields are as their authors publish them, and so are the layers, the
ids of special tokens and the sizes of vocabulary, caption and picture. The widths are not: a
checkpoint of the true width takes 600 MB. Nor are the tokens, which are those of a few words.

Sources: openai/clip-vit-base-patch32 and google/siglip-base-patch16-224 on the Hugging Face Hub.
"""

import json
import math
import string
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer, UnigramTrainer
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer, SiglipConfig, SiglipModel

LARGE = 3  # times the weights of an initialisation, so that pictures and words matter
START, END = "<|startoftext|>", "<|endoftext|>"
WORDS = [
    "a", "of", "photo", "picture", "showing", "child", "woman", "dog", "drinking", "spilling",
    "holding", "wine", "juice", "milk", "in", "this", "there", "is",
]  # fmt: skip
CLIP_PICTURES = {
    "crop_size": 224, "do_center_crop": True, "do_normalize": True, "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor", "resample": 3, "size": 224,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}  # fmt: skip
SIGLIP_PICTURES = {
    "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [0.5] * 3,
    "image_processor_type": "SiglipImageProcessor", "image_std": [0.5] * 3,
    "processor_class": "SiglipProcessor", "resample": 3, "rescale_factor": 1 / 255,
    "size": {"height": 224, "width": 224},
}  # fmt: skip


def write_clip(folder: Path, *, layers: int = 12, vocabulary: int = 49408) -> Path:
    """`openai/clip-vit-base-patch32`, 64 and 96 wide instead of 512 and 768.

    Its configuration says that the end token is 2, which no tokenizer of it ever gives.
    """
    shared = {"hidden_act": "quick_gelu", "num_hidden_layers": layers, "projection_dim": 64}
    text = shared | {
        "hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 8,
        "max_position_embeddings": 77, "vocab_size": vocabulary,
        "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1,
    }  # fmt: skip
    vision = shared | {
        "hidden_size": 96, "intermediate_size": 384, "num_attention_heads": 12,
        "image_size": 224, "patch_size": 32,
    }  # fmt: skip
    config = CLIPConfig(
        text_config=text, vision_config=vision, projection_dim=64, logit_scale_init_value=4.6052
    )
    _clip_tokenizer(vocabulary).save_pretrained(folder)
    return _write(CLIPModel(config), folder, CLIP_PICTURES)


def write_siglip(folder: Path, *, layers: int = 12, vocabulary: int = 32000) -> Path:
    """`google/siglip-base-patch16-224`, 48 wide instead of 768."""
    shared = {"hidden_size": 48, "intermediate_size": 192, "num_hidden_layers": layers,
              "num_attention_heads": 12}  # fmt: skip
    text = shared | {"vocab_size": vocabulary, "max_position_embeddings": 64}
    vision = shared | {"image_size": 224, "patch_size": 16}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    with torch.no_grad():  # as the paper starts: 10 and -10
        model.logit_scale.fill_(math.log(10))
        model.logit_bias.fill_(-10.0)
    folder.mkdir(parents=True, exist_ok=True)
    _siglip_tokenizer().save(str(folder / "tokenizer.json"))
    special = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    named = {
        "do_lower_case": True, "model_input_names": ["input_ids"], "model_max_length": 64,
        "processor_class": "SiglipProcessor", "tokenizer_class": "SiglipTokenizer",
    }  # fmt: skip
    _write_json(folder / "tokenizer_config.json", special | named)
    _write_json(folder / "special_tokens_map.json", special)
    return _write(model, folder, SIGLIP_PICTURES)


def _write(model, folder: Path, pictures: dict) -> Path:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                spread = LARGE * parameter.std()
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    model.save_pretrained(folder)
    _write_json(folder / "preprocessor_config.json", pictures)
    return folder


def _clip_tokenizer(vocabulary: int) -> CLIPTokenizer:
    """Byte-pair encoding with both special tokens at the end of the vocabulary, as CLIP's has."""
    core = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    letters = list(string.ascii_lowercase)
    trainer = BpeTrainer(
        vocab_size=200, initial_alphabet=letters, end_of_word_suffix="</w>", show_progress=False
    )
    core.train_from_iterator(WORDS * 4, trainer)
    learned = json.loads(core.to_str())["model"]
    pieces = [*learned["vocab"], *(f"{letter}</w>" for letter in letters)]
    pieces = list(dict.fromkeys(pieces))
    pieces += [f"<{i}>" for i in range(vocabulary - len(pieces) - 2)]
    ids = {piece: i for i, piece in enumerate([*pieces, START, END])}
    merges = [tuple(pair) for pair in learned["merges"]]
    return CLIPTokenizer(vocab=ids, merges=merges, model_max_length=77)


def _siglip_tokenizer() -> Tokenizer:
    """Unigrams, the end token 1 and at the end of every caption, as SigLIP's has."""
    core = Tokenizer(models.Unigram())
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = UnigramTrainer(
        vocab_size=200, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>",
        initial_alphabet=list(string.ascii_lowercase), show_progress=False,
    )  # fmt: skip
    core.train_from_iterator(WORDS * 4, trainer)
    core.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return core


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
