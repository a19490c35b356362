"""CLIP and SigLIP as published, but narrow and of random weights: loaded, encoded, adapted."""

import pytest
import torch
from PIL import Image
from random_clips import write_clip, write_siglip

from safeerase_lite.relations import clip
from safeerase_lite.utils import UserError

TEXTS = ["a photo of child drinking wine", "dog", "a picture showing wine spilling in this milk"]
WRITERS = {"clip": write_clip, "siglip": write_siglip}
CLOSE = {"rtol": 1e-4, "atol": 1e-4}  # float32, sums in another order


@pytest.fixture(scope="module", params=WRITERS)
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return clip.load_clip(str(WRITERS[request.param](folder, layers=2, vocabulary=600)))


@pytest.fixture
def pixels(model):
    images = [Image.linear_gradient("L").convert("RGB"), Image.new("RGB", (90, 40), "red")]
    return clip.preprocess(model, images)


def test_scores_are_the_models_own_logits(model, pixels):
    tokenizer, family = model.processor.tokenizer, model.config.model_type
    how = {"padding": "max_length", "max_length": 64} if family == "siglip" else {"padding": True}
    tokens = tokenizer(TEXTS, return_tensors="pt", return_attention_mask=family == "clip", **how)
    with torch.no_grad():
        theirs = model(pixel_values=pixels, **tokens).logits_per_image
        features = clip.encode_images(model, pixels), clip.encode_texts(model, TEXTS)
        torch.testing.assert_close(clip.scores(model, *features), theirs, **CLOSE)


def test_a_caption_reads_the_same_beside_a_longer_one(model):
    with torch.no_grad():
        together = clip.encode_texts(model, TEXTS)
        alone = torch.cat([clip.encode_texts(model, [text]) for text in TEXTS])
    torch.testing.assert_close(together, alone, **CLOSE)


def test_a_captions_last_word_is_read(model):
    """With the end token 2 transformers' CLIP reads the highest id, which is the end's there too;
    SigLIP reads the last of 64 positions."""
    with torch.no_grad():
        one, other = clip.encode_texts(model, ["child drinking wine", "child drinking juice"])
    assert not torch.allclose(one, other, atol=1e-3)
    if model.config.model_type == "clip":
        ids = model.processor.tokenizer(TEXTS).input_ids
        assert model.config.text_config.eos_token_id == 2
        assert all(row.index(max(row)) == len(row) - 1 for row in ids)


def test_every_linear_layer_of_both_encoders_learns_and_nothing_else(model, pixels):
    family, trained = model.config.model_type, {}
    adapted = clip.adapt(model, rank=2, alpha=4, seed=0)
    try:
        features = clip.encode_images(adapted, pixels), clip.encode_texts(adapted, TEXTS)
        clip.scores(adapted, *features).square().sum().backward()
        trained = {name: p.grad for name, p in adapted.named_parameters() if p.requires_grad}
        assert all(".encoder.layers." in name for name in trained), family
        assert len(trained) == 2 * 2 * 2 * 6  # A and B, towers, layers, linear layers of each
        assert all(grad.any() for name, grad in trained.items() if "lora_B" in name)
    finally:
        adapted.unload()


def test_another_kind_of_model_is_refused_by_its_name():
    with pytest.raises(UserError, match="it is a llava, neither a CLIP nor a SigLIP"):
        clip.load_clip("tiny-llava")
