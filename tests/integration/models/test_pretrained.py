"""A model that is not whole, or whose processor does not fit it, is one error, before any work."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from safeerase_lite.evaluation.generate import generate
from safeerase_lite.models.forward import embed
from safeerase_lite.models.inputs import encode_text
from safeerase_lite.models.llava import load_model, save_adapter
from safeerase_lite.models.pretrained import model_hash
from safeerase_lite.relations.clip import load_clip
from safeerase_lite.tinyworld import shipped_model
from safeerase_lite.utils import UserError


@pytest.fixture
def copy(tiny_model_dir, tmp_path):
    """A copy of the random LLaVA, to be altered."""
    return shutil.copytree(tiny_model_dir, tmp_path / "copy")


@pytest.fixture
def refused(make_config, copy):
    """The error of loading the copy."""

    def refused(precision="dense"):
        with pytest.raises(UserError) as caught:
            load_model(make_config(model=str(copy), precision=precision))
        assert "\n" not in str(caught.value) and str(copy) in str(caught.value)
        return str(caught.value)

    return refused


def alter_json(file, **fields):
    """Set fields of a JSON file; None removes one."""
    content = json.loads(file.read_text()) | fields
    file.write_text(json.dumps({name: v for name, v in content.items() if v is not None}))


def alter_weights(folder, change):
    file = folder / "model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file, {"format": "pt"})


# ---- the pictures' places ----


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_additional_image_tokens": None}, "gives a picture 8 tokens, and its vision tower 9"),
        ({"vision_feature_select_strategy": "full"}, "gives a picture 10 tokens"),
        ({"vision_feature_select_strategy": "middle"}, "gives a picture 10 tokens"),
        ({"patch_size": 8}, "gives a picture 36 tokens, and its vision tower 9"),
        ({"patch_size": None}, "has no patch_size"),
    ],
)
def test_a_processor_that_gives_a_picture_other_places_is_refused(copy, refused, fields, message):
    alter_json(copy / "processor_config.json", **fields)
    assert message in refused()


def test_a_model_that_selects_other_features_than_its_processor_is_refused(copy, refused):
    alter_json(copy / "config.json", vision_feature_select_strategy="full")
    assert "gives a picture 9 tokens, and its vision tower 10" in refused()


def test_a_chat_template_without_a_picture_or_none_at_all_is_refused(copy, refused):
    template = copy / "chat_template.jinja"
    template.write_text("{{ messages[0]['content'][1]['text'] }}")
    assert "0 tokens of pictures, and 1 picture takes 9" in refused()
    template.unlink()
    assert "chat template" in refused()


def test_a_question_with_a_pictures_token_is_refused_and_in_an_answer_it_is_text(base_model):
    with pytest.raises(UserError, match="has 18 tokens of pictures"):
        encode_text(base_model.processor, ["What?", "What is <image>?"])
    ids = encode_text(base_model.processor, ["What?"], ["An <image>."])["input_ids"]
    assert (ids == base_model.processor.image_token_id).sum() == 9


@pytest.mark.parametrize("name, value", [("image_std", [0, 0, 0]), ("rescale_factor", 1e38)])
def test_a_processor_that_makes_a_picture_no_numbers_is_refused(copy, refused, name, value):
    file = copy / "processor_config.json"
    content = json.loads(file.read_text())
    content["image_processor"][name] = value
    file.write_text(json.dumps(content))
    assert "gives NaN or infinity: correct image_mean" in refused()


def test_a_token_without_an_embedding_is_refused(copy, refused):
    file = copy / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["vocab"]["extra"] = 500
    file.write_text(json.dumps(content))
    assert "has tokens up to 500, and the model embeds" in refused()


def test_answers_do_not_depend_on_a_models_own_generation_settings(copy, make_config, few):
    config, rows = make_config(model=str(copy)), few.forget.head(2)
    before = generate(load_model(config, adapt=False), rows["image"], rows["question"], config)
    odd = {"num_beams": 2, "num_return_sequences": 2, "stop_strings": ["a"], "max_time": 1e-4}
    alter_json(copy / "generation_config.json", return_dict_in_generate=True, **odd)
    after = generate(load_model(config, adapt=False), rows["image"], rows["question"], config)
    assert after == before


def test_a_row_reads_its_own_picture_whatever_rows_are_beside_it(base_model, world):
    rows = world.forget.drop_duplicates("image").head(12)
    ids = encode_text(base_model.processor, rows["question"])["input_ids"]
    together = embed(base_model, ids, rows["image"])
    for i, path in enumerate(rows["image"]):
        assert together[i].equal(embed(base_model, ids[i : i + 1], [path])[0])


# ---- the weights ----


@pytest.mark.parametrize("precision", ["dense", "nf4"])
@pytest.mark.parametrize(
    ("part", "count"), [("multi_modal_projector", 4), ("layers.1.mlp.up_proj", 1)]
)
def test_missing_weights_are_refused_by_name(copy, refused, precision, part, count):
    def remove(weights):
        for name in [name for name in weights if part in name and "vision" not in name]:
            del weights[name]

    alter_weights(copy, remove)
    message = refused(precision)
    assert part in message and "missing in its checkpoint" in message
    assert ("and 3 more weights are" in message) == (count == 4)


@pytest.mark.parametrize("precision", ["dense", "nf4"])
def test_a_weight_of_another_shape_is_refused_by_name(copy, refused, precision):
    alter_weights(copy, lambda w: w.update({k: t[:-1] for k, t in w.items() if "lm_head" in k}))
    assert "lm_head.weight is of another shape" in refused(precision)


def test_weights_that_have_no_place_are_told_in_one_line(copy, make_config, caplog):
    alter_weights(copy, lambda weights: weights.update({"other.weight": torch.zeros(2)}))
    with pytest.warns(UserWarning, match="other.weight is not part of the model") as told:
        load_model(make_config(model=str(copy)), adapt=False)
    assert ["\n" in str(w.message) for w in told if "other" in str(w.message)] == [False]
    assert not caplog.text  # nor transformers' table


@pytest.mark.parametrize("precision", ["dense", "nf4"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", ["lm_head", "layers.0.mlp.up_proj"])
def test_a_weight_that_is_no_finite_number_is_refused_by_name(
    copy, refused, precision, value, part
):
    def spoil(weights):
        next(w for name, w in weights.items() if part in name).view(-1)[5] = value

    alter_weights(copy, spoil)
    message = refused(precision)
    assert "model.safetensors: " in message and f"{part}.weight holds NaN or infinity" in message


@pytest.mark.parametrize("kept", [0, 5, 2000, -7])
def test_a_file_that_is_cut_off_is_refused_by_name(copy, refused, kept):
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    assert "model.safetensors is cut off or malformed" in refused()


@pytest.mark.parametrize(
    "file", ["config.json", "processor_config.json", "tokenizer.json", "generation_config.json"]
)
@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_an_empty_or_malformed_file_is_refused(copy, refused, file, content):
    (copy / file).write_text(content)
    assert "cannot load the model" in refused()


HEAD = "language_model.lm_head.weight"


def test_weights_in_a_folder_of_their_own_are_checked_and_part_of_the_id(copy, refused):
    (copy / "w").mkdir()
    (copy / "model.safetensors").rename(copy / "w" / "model.safetensors")
    names = load_file(copy / "w" / "model.safetensors")
    index = {"weight_map": dict.fromkeys(names, "w/model.safetensors")}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    before = model_hash(str(copy))
    alter_weights(copy / "w", lambda weights: weights[HEAD].fill_(float("nan")))
    assert model_hash(str(copy)) != before
    assert f"{HEAD} holds NaN" in refused()


def test_a_weight_that_is_infinite_in_the_type_that_is_computed_in_is_refused(
    copy, make_config, monkeypatch
):
    monkeypatch.setattr("safeerase_lite.models.llava.cpu_has_bfloat16", lambda: True)

    def enlarge(weights):
        weights[HEAD] = torch.full_like(weights[HEAD], 3.4028e38, dtype=torch.float32)

    alter_weights(copy, enlarge)
    with pytest.raises(UserError, match="holds NaN or infinity"):
        load_model(make_config(model=str(copy), compute="bfloat16"))


def test_a_model_with_an_adapter_beside_its_weights_is_refused(copy, refused, make_config):
    """Ours would take the adapter's name, and the reference would be without it."""
    save_adapter(load_model(make_config(projector="frozen")), copy)
    assert "holds an adapter beside its weights" in refused()


# ---- a CLIP, by the same rules ----


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("logit_scale"), "logit_scale is missing"),
        (lambda weights: weights["logit_scale"].fill_(float("nan")), "logit_scale holds NaN"),
    ],
)
def test_a_clip_that_is_not_whole_is_refused(tmp_path, change, message):
    folder = shutil.copytree(shipped_model("tiny-clip"), tmp_path / "clip")
    alter_weights(folder, change)
    with pytest.raises(UserError, match=message):
        load_clip(str(folder))
