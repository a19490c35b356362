"""What is 4-bit, what is trained, and what the frozen reference really is."""

import copy
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from safeerase_lite.models import anatomy, llava
from safeerase_lite.models.inputs import IGNORED, encode
from safeerase_lite.models.llava import (
    load_adapter,
    load_model,
    negate_adapter,
    reference,
    reset_adapter,
    save_adapter,
    trainable,
)
from safeerase_lite.utils import UserError

LINEARS = anatomy.LLAVA.linears
RATE = 1e-2


@pytest.fixture(scope="module")
def batch(world, base_model):
    """Four forget questions of one step, with their answers."""
    rows = world.forget.head(4)
    return encode(base_model.processor, rows["image"], rows["question"], rows["answer"])


def logits(model, batch):
    with torch.no_grad():
        return model(**{key: value for key, value in batch.items() if key != "labels"}).logits


def fill_lora_b(model, seed=1):
    """Give every LoRA B some weight, so that every part of the adapter has a gradient."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in trainable(model).items():
            if "lora_B" in name:
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))


def gradients(model, batch):
    model.train()
    model.zero_grad()
    model(**batch).loss.backward()
    return {name: p.grad.clone() for name, p in trainable(model).items()}


def take_step(model, batch):
    """One plain gradient step; its gradients."""
    computed = gradients(model, batch)
    with torch.no_grad():
        for name, parameter in trainable(model).items():
            parameter -= RATE * computed[name]
    return computed


def linear_names(model):
    """Every linear layer of the language model."""
    return {
        name
        for name, _ in model.named_modules()
        if ".language_model." in name and name.endswith(LINEARS)
    }


def four_bit_names(model):
    from bitsandbytes.nn import Linear4bit  # PEFT has another class of this name

    return {name for name, module in model.named_modules() if isinstance(module, Linear4bit)}


# ---- where a model goes ----


@pytest.mark.parametrize(("rank", "gpu"), [(None, 0), ("0", 0), ("1", 1), ("2", 0)])
def test_each_process_of_a_launch_loads_onto_its_own_gpu(make_config, monkeypatch, rank, gpu):
    def no_gpu_here(*arguments, device_map, **named):
        raise OSError(f"onto {device_map['']}")

    monkeypatch.setattr(llava.AutoModelForImageTextToText, "from_pretrained", no_gpu_here)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    with pytest.raises(UserError, match=f"onto {gpu}"):
        load_model(make_config())


# ---- what is 4-bit ----


def test_in_nf4_exactly_the_language_models_linears_are_4_bit(make_config):
    model = load_model(make_config(precision="nf4"), adapt=False)
    assert four_bit_names(model) == linear_names(model)
    assert len(linear_names(model)) == 2 * len(LINEARS)
    for name in linear_names(model):
        weight = model.get_submodule(name).weight
        assert weight.quant_type == "nf4"
        assert weight.dtype == torch.uint8
        assert weight.quant_state.nested  # double quantisation: the scales are quantised too


def test_in_nf4_tower_projector_and_head_stay_as_they_were(make_config, base_model):
    quantised = load_model(make_config(precision="nf4"), adapt=False).state_dict()
    dense = base_model.state_dict()
    unchanged = [name for name in dense if "_proj.weight" not in name or "vision_tower" in name]
    for part in ("vision_tower", "multi_modal_projector", "lm_head", "embed_tokens", "norm"):
        assert any(part in name for name in unchanged)
    for name in unchanged:
        assert quantised[name].equal(dense[name]), name


def test_a_dense_model_has_no_4_bit_layer(base_model):
    assert not four_bit_names(base_model)
    assert {p.dtype for p in base_model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    "wrong",
    [
        ["vision_tower", "multi_modal_projector", "lm_head"],  # the names of transformers 4
        ["model.vision_tower", "model.multi_modal_projector"],
        ["model.language_model", "model.vision_tower", "model.multi_modal_projector", "lm_head"],
    ],
)
def test_a_skip_list_that_skips_something_else_is_refused(make_config, monkeypatch, wrong):
    monkeypatch.setattr(anatomy.Anatomy, "not_quantised", wrong)
    with pytest.raises(UserError, match="quantisation did not take effect as asked"):
        load_model(make_config(precision="nf4"), adapt=False)


def test_without_bitsandbytes_the_model_is_loaded_dense_with_a_warning(make_config, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.warns(UserWarning, match="no working bitsandbytes here .*loading dense"):
        model = load_model(make_config(precision="nf4"), adapt=False)
    monkeypatch.undo()
    assert not four_bit_names(model)


# ---- where LoRA is, and what is trained ----


@pytest.mark.parametrize("precision", ["nf4", "dense"])
@pytest.mark.parametrize("projector", ["trained", "frozen"])
def test_lora_and_at_most_the_projector_are_trained(make_config, precision, projector):
    model = load_model(make_config(precision=precision, projector=projector))
    base = model.base_model.model
    assert {n for n, m in base.named_modules() if hasattr(m, "lora_A")} == linear_names(base)
    others = {name for name in trainable(model) if "lora_" not in name}
    assert all("multi_modal_projector.modules_to_save" in name for name in others)
    assert len(others) == (4 if projector == "trained" else 0)
    assert not any("vision_tower" in name or "lm_head" in name for name in trainable(model))
    assert {p.dtype for p in trainable(model).values()} == {torch.float32}


@pytest.mark.parametrize(
    "wrong",
    [
        ["q_proj", "v_proj"],  # hits the vision tower too
        "all-linear",
        rf".*\.({'|'.join(LINEARS)})",
        r"model\.language_model\..*\.(q_proj|v_proj)",  # misses most
    ],
)
def test_lora_in_other_places_is_refused(make_config, monkeypatch, wrong):
    def lora_config(target_modules, **named):
        return real(target_modules=wrong, **named)

    real = llava.LoraConfig
    monkeypatch.setattr(llava, "LoraConfig", lora_config)
    with pytest.raises(UserError, match="LoRA did not take effect as asked"):
        load_model(make_config())


def test_a_fresh_adapter_depends_on_the_seed_alone_and_changes_nothing_yet(
    make_config, base_model, batch
):
    one, same, other = (load_model(make_config(seed=seed)) for seed in (0, 0, 1))
    assert logits(one, batch).equal(logits(base_model, batch))
    assert all(p.equal(trainable(same)[name]) for name, p in trainable(one).items())
    assert not all(p.equal(trainable(other)[name]) for name, p in trainable(one).items())


@pytest.mark.parametrize("projector", ["trained", "frozen"])
def test_a_negated_adapter_takes_away_what_it_added(make_config, projector):
    """Of every adapted layer: the change of its weight changes its sign, and nothing else."""
    model = load_model(make_config(projector=projector))

    def changes():
        base = load_model(make_config(), adapt=False)
        merged = copy.deepcopy(model).merge_and_unload()
        before = dict(base.named_parameters())
        return {name: p - before[name] for name, p in merged.named_parameters()}

    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter.add_(torch.randn_like(parameter) * 0.01)
    added = changes()
    negate_adapter(model)
    moved = {name for name, change in added.items() if change.any()}
    assert any("q_proj" in name for name in moved)
    assert any("projector" in name for name in moved) == (projector == "trained")
    for name, change in changes().items():
        # Weights of order 1 to 10 in float32, from which the change is a difference.
        torch.testing.assert_close(change, -added[name], atol=1e-5, rtol=0)


@pytest.mark.parametrize("precision", ["nf4", "dense"])
def test_a_reset_adapter_is_a_fresh_one(make_config, batch, precision):
    config = make_config(precision=precision)
    fresh, model = load_model(config), load_model(config)
    take_step(model, batch), take_step(model, batch)
    assert reset_adapter(model) is model
    assert all(p.equal(trainable(fresh)[name]) for name, p in trainable(model).items())
    assert logits(model.eval(), batch).equal(logits(fresh, batch))


def test_a_model_of_an_unknown_family_is_refused_with_the_entry_it_needs(make_config, monkeypatch):
    monkeypatch.delitem(anatomy.FAMILIES, "llava")
    with pytest.raises(UserError, match=r"type 'llava' are not known .*FAMILIES\['llava'\] = "):
        load_model(make_config())


# ---- the frozen reference ----


@pytest.mark.parametrize("precision", ["nf4", "dense"])
@pytest.mark.parametrize("projector", ["trained", "frozen"])
def test_the_reference_is_the_base_model_whatever_was_learned(
    make_config, batch, precision, projector
):
    config = make_config(precision=precision, projector=projector)
    before = logits(load_model(config, adapt=False), batch)
    model = load_model(config)
    untouched = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    for _ in range(3):
        take_step(model, batch)
    moved = {n for n, p in trainable(model).items() if not p.equal(model.initial_adapter[n])}
    assert any("projector" in name for name in moved) == (projector == "trained")
    after = logits(model.eval(), batch)
    with reference(model):
        assert logits(model, batch).equal(before)
    assert not after.equal(before)
    assert logits(model, batch).equal(after)
    assert all(p.equal(untouched[n]) for n, p in model.named_parameters() if n in untouched)


# ---- 4-bit training is right ----


def test_evaluate_then_train_equals_train_in_nf4(make_config, batch):
    """An evaluation must leave no trace in the gradient: on a CPU with AVX512-BF16, bitsandbytes
    repacks what an evaluation reads, and the repacked layer has no gradient."""

    def trained(evaluating):
        model = load_model(make_config(precision="nf4"))
        fill_lora_b(model)
        steps = []
        for _ in range(2):
            if evaluating:
                prompts = {key: value for key, value in batch.items() if key != "labels"}
                with torch.inference_mode():
                    model.eval().generate(**prompts, max_new_tokens=3, do_sample=False)
            steps.append(take_step(model, batch))
        return steps, trainable(model)

    (plain, weights), (evaluated, other_weights) = trained(False), trained(True)
    for one, other in zip(plain, evaluated, strict=True):
        assert all(gradient.equal(other[name]) for name, gradient in one.items())
    assert all(weight.equal(other_weights[name]) for name, weight in weights.items())


def test_no_gradient_of_a_4_bit_model_is_missing_or_zero(make_config, batch):
    model = load_model(make_config(precision="nf4"))
    logits(model, batch)
    fill_lora_b(model)
    assert all(gradient.any() for gradient in gradients(model, batch).values())


def test_the_4_bit_gradient_is_that_of_the_dequantised_model(make_config, batch):
    from bitsandbytes.functional import dequantize_4bit

    four_bit, dense = load_model(make_config(precision="nf4")), load_model(make_config())
    with torch.no_grad():
        for name in four_bit_names(four_bit):
            layer, plain = four_bit.get_submodule(name), dense.get_submodule(name)
            weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
            assert not weight.equal(plain.weight)  # quantisation did change something
            plain.weight.copy_(weight)
    for model in (four_bit, dense):
        fill_lora_b(model)
    expected = gradients(dense, batch)
    for name, gradient in gradients(four_bit, batch).items():
        difference = (gradient - expected[name]).norm() / expected[name].norm()
        assert difference < 1e-4, name  # float32 sums of a few hundred terms in another order


def test_4_bit_costs_some_precision_and_not_the_model(make_config, base_model, batch):
    four_bit = logits(load_model(make_config(precision="nf4"), adapt=False), batch)
    answered = batch["labels"] != IGNORED
    dense = logits(base_model, batch)[answered]
    agreement = torch.nn.functional.cosine_similarity(dense, four_bit[answered], dim=-1).mean()
    assert 0.8 < agreement < 1  # NF4 of random weights is off by about a tenth of their spread


# ---- adapters on disk ----


@pytest.fixture(scope="module")
def trained(make_config, batch):
    """A model after two steps."""
    model = load_model(make_config())
    for _ in range(2):
        take_step(model, batch)
    return model.eval()


@pytest.fixture
def adapter(trained, tmp_path):
    """The folder that the trained adapter was saved in."""
    save_adapter(trained, tmp_path / "adapter")
    return tmp_path / "adapter"


def test_an_adapter_saved_and_loaded_gives_the_same_logits(trained, adapter, make_config, batch):
    fresh = load_model(make_config(seed=5))
    assert not logits(fresh, batch).equal(logits(trained, batch))
    load_adapter(fresh, adapter)
    assert logits(fresh, batch).equal(logits(trained, batch))


def test_nothing_pickled_is_written(adapter):
    names = {path.name for path in adapter.rglob("*") if path.is_file()}
    assert names == {"adapter_model.safetensors", "adapter_config.json"}


def test_an_absent_or_untrained_adapter_is_refused(make_config, tmp_path):
    model = load_model(make_config())
    with pytest.raises(UserError, match="holds no adapter_model.safetensors"):
        load_adapter(model, tmp_path)
    save_adapter(model, tmp_path)
    with pytest.raises(UserError, match="untrained"):
        load_adapter(model, tmp_path)


def foreign_names(weights):
    return {key.replace(".layers.", ".blocks."): weight for key, weight in weights.items()}


def a_layer_less(weights):
    return {key: weight for key, weight in weights.items() if ".layers.1." not in key}


def another_rank(weights):
    return {
        key: weight[:2] if "lora_A" in key else weight[:, :2].clone() if "lora_B" in key else weight
        for key, weight in weights.items()
    }


def no_projector(weights):
    return {key: weight for key, weight in weights.items() if "projector" not in key}


@pytest.mark.parametrize(
    ("change", "projector"),
    [
        (foreign_names, "trained"),
        (a_layer_less, "trained"),
        (another_rank, "trained"),
        (no_projector, "trained"),
        (dict, "frozen"),  # its projector would be dropped silently
    ],
)
def test_an_adapter_of_another_model_is_refused_in_one_line(
    adapter, make_config, change, projector
):
    path = adapter / "adapter_model.safetensors"
    save_file(change(load_file(path)), path)
    with pytest.raises(UserError, match="does not fit this model") as caught:
        load_adapter(load_model(make_config(seed=1, projector=projector)), adapter)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_adapter_that_is_not_finite_is_refused(adapter, make_config, value):
    path = adapter / "adapter_model.safetensors"
    weights = load_file(path)
    weights[min(weights)].view(-1)[0] = value
    save_file(weights, path)
    with pytest.raises(UserError, match="holds NaN or infinity"):
        load_adapter(load_model(make_config()), adapter)


@pytest.mark.parametrize("field", [{"lora_alpha": 4}, {"lora_rank": 8}])
def test_an_adapter_of_another_scale_is_refused(adapter, make_config, field):
    with pytest.raises(UserError, match="does not fit this model: its (lora_alpha is 32|r is 4)"):
        load_adapter(load_model(make_config(**field)), adapter)


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "adapter_config.json"])
def test_an_adapter_whose_file_is_cut_off_or_gone_is_refused(adapter, make_config, file):
    (adapter / file).write_bytes((adapter / file).read_bytes()[:-9])
    with pytest.raises(UserError, match="cannot load the adapter in"):
        load_adapter(load_model(make_config()), adapter)
    (adapter / file).unlink()
    with pytest.raises(UserError, match=f"holds no {file}"):
        load_adapter(load_model(make_config()), adapter)


def test_an_adapter_under_the_names_of_an_older_transformers_is_loaded_completely(
    make_config, batch, tmp_path
):
    trained, fresh = (load_model(make_config(projector="frozen", seed=seed)) for seed in (0, 5))
    take_step(trained, batch)
    save_adapter(trained.eval(), tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    weights = load_file(path).items()
    older = "language_model.model.layers"
    save_file({key.replace("model.language_model.layers", older): w for key, w in weights}, path)
    load_adapter(fresh, tmp_path)
    assert logits(fresh, batch).equal(logits(trained, batch))


# ---- models that are not there, and files that are ----


@pytest.mark.parametrize("made", [True, False])
def test_a_model_that_is_not_there_is_one_line(make_config, tmp_path, made):
    folder = tmp_path / "no-such-model"
    if made:
        folder.mkdir()
    with pytest.raises(UserError, match="cannot load the model") as caught:
        load_model(make_config(model=str(folder)))
    assert "\n" not in str(caught.value) and "no-such-model" in str(caught.value)


def test_loading_leaves_the_models_files_as_they_were(tiny_model_dir, make_config):
    def content():
        return {path.name: path.read_bytes() for path in sorted(tiny_model_dir.iterdir())}

    before = content()
    load_model(make_config(precision="nf4"))
    assert content() == before
    stored = load_file(tiny_model_dir / "model.safetensors")
    assert {weight.dtype for weight in stored.values()} == {torch.float16}
