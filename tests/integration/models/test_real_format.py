"""A model and data in the format of the real ones are loaded completely, unlearned and measured."""

import pytest
import random_llava
import torch
from safetensors.torch import load_file

import safeerase_lite as sl
from safeerase_lite.data.dataset import read_data
from safeerase_lite.models.inputs import encode, image_tokens
from safeerase_lite.models.llava import load_model
from safeerase_lite.resources import LLAVA_7B


@pytest.fixture(scope="module")
def written(real_format_model):
    """The weights on disk, by name."""
    weights = {}
    for shard in real_format_model.glob("*.safetensors"):
        weights |= load_file(shard)
    return weights


def test_the_checkpoint_is_of_the_real_format(real_format_model, written):
    assert len(list(real_format_model.glob("*.safetensors"))) > 2
    assert {weight.dtype for weight in written.values()} == {torch.float16}
    assert {
        "language_model.model.layers.0.self_attn.q_proj.weight",
        "language_model.lm_head.weight",
        "multi_modal_projector.linear_1.bias",
        "vision_tower.vision_model.embeddings.class_embedding",
        "vision_tower.vision_model.pre_layrnorm.weight",
    } < written.keys()


def test_the_configuration_is_that_of_the_real_model():
    made = random_llava.configuration()
    for part in ("text_config", "vision_config"):
        theirs, ours = getattr(LLAVA_7B, part), getattr(made, part)
        for size in ("hidden_size", "intermediate_size", "num_hidden_layers"):
            assert getattr(ours, size) == getattr(theirs, size)
    assert (made.text_config.vocab_size, made.image_token_id) == (32064, 32000)
    assert (made.vision_feature_layer, made.image_seq_length) == (-2, 576)


def test_every_weight_is_loaded_and_the_prompt_is_the_real_ones(
    real_format_model, real_format_data, written
):
    config = sl.config("t4", model=str(real_format_model), precision="dense", compute="float32")
    model = load_model(config, adapt=False)
    loaded = {random_llava.on_the_hub(name): w for name, w in model.state_dict().items()}
    assert loaded.keys() == written.keys()
    assert all(loaded[name].equal(written[name].float()) for name in written)
    rows = read_data(real_format_data).forget.head(1)
    batch = encode(model.processor, rows["image"], ["Who?"])
    assert image_tokens(model.processor) == 576
    prompt = model.processor.tokenizer.decode(batch["input_ids"][0])
    picture = "<image>" * 576
    assert prompt.replace(" ", "") == f"<s>USER:{picture}\nWho?ASSISTANT:"


def test_the_profile_t4_unlearns_and_measures_the_real_format(small_t4, real_format_data, tmp_path):
    config = sl.config("t4", objective="kl", decouple="pd", data_dir=str(real_format_data))
    data, model = sl.load_data(config), sl.load_model(config)
    run = sl.unlearn(model, data, config, runs_dir=tmp_path)
    report = sl.evaluate(model, data, run)
    assert (config.precision, config.judge, run.done) == ("nf4", "rule", True)
    assert len(run.history) == 2
    assert set(report.metrics["split"]) == {"train", "val"}
