"""What is 4-bit, what is trained, and what the frozen reference really is."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from safeerase_lite.models import llava as models
from safeerase_lite.models.inputs import IGNORED, encode
from safeerase_lite.models.llava import load_adapter, load_model, reference, save_adapter
from safeerase_lite.utils import UserError

ROOT = Path(__file__).parents[1]
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
RATE = 1e-2


@pytest.fixture(scope="module")
def batch(world, make_profile):
    """Four forget questions of one step, with their answers."""
    processor = load_model(make_profile(), adapt=False).processor
    rows = world.forget.head(4)
    return encode(processor, rows["image"], rows["question"], rows["answer"])


def logits(model, batch):
    with torch.no_grad():
        return model(**{key: value for key, value in batch.items() if key != "labels"}).logits


def trainable(model):
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def awaken(model, seed=1):
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


def step(model, batch):
    """One plain gradient step; its gradients."""
    found = gradients(model, batch)
    with torch.no_grad():
        for name, parameter in trainable(model).items():
            parameter -= RATE * found[name]
    return found


def linear_names(model):
    """Every linear layer of the language model, by its suffix."""
    return {
        name
        for name, _ in model.named_modules()
        if ".language_model." in name and name.endswith(LINEARS)
    }


# ---- where a model goes ----


@pytest.mark.parametrize(("rank", "gpu"), [(None, 0), ("0", 0), ("1", 1), ("2", 0)])
def test_each_process_of_a_launch_loads_onto_its_own_gpu(make_profile, monkeypatch, rank, gpu):
    def no_gpu_here(*arguments, device_map, **named):
        raise OSError(f"onto {device_map['']}")

    monkeypatch.setattr(models.AutoModelForImageTextToText, "from_pretrained", no_gpu_here)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    with pytest.raises(UserError, match=f"onto {gpu}"):
        load_model(make_profile())


# ---- what is 4-bit ----


def test_in_nf4_exactly_the_language_models_linears_are_4_bit(make_profile):
    import bitsandbytes

    model = load_model(make_profile(precision="nf4"), adapt=False)
    found = {n for n, m in model.named_modules() if isinstance(m, bitsandbytes.nn.Linear4bit)}
    assert found == linear_names(model)
    assert len(found) == 2 * len(LINEARS)
    for name in found:
        weight = model.get_submodule(name).weight
        assert weight.quant_type == "nf4"
        assert weight.dtype == torch.uint8
        assert weight.quant_state.nested  # double quantisation: the scales are quantised too


def test_in_nf4_the_eyes_the_projector_and_the_head_are_as_they_were(make_profile):
    quantised = load_model(make_profile(precision="nf4"), adapt=False).state_dict()
    dense = load_model(make_profile(), adapt=False).state_dict()
    kept = [name for name in dense if "_proj.weight" not in name or "vision_tower" in name]
    for part in ("vision_tower", "multi_modal_projector", "lm_head", "embed_tokens", "norm"):
        assert any(part in name for name in kept)
    for name in kept:
        assert quantised[name].equal(dense[name]), name


def test_a_dense_model_has_no_4_bit_layer(make_profile):
    model = load_model(make_profile(), adapt=False)
    assert models._four_bit(model) == {}
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    "wrong",
    [
        ["vision_tower", "multi_modal_projector", "lm_head"],  # the names of transformers 4
        ["model.vision_tower", "model.multi_modal_projector"],
        ["model.language_model", "model.vision_tower", "model.multi_modal_projector", "lm_head"],
    ],
)
def test_a_skip_list_that_skips_something_else_is_caught(make_profile, monkeypatch, wrong):
    monkeypatch.setattr(models, "NOT_QUANTISED", wrong)
    with pytest.raises(UserError, match="quantisation did not take as asked"):
        load_model(make_profile(precision="nf4"), adapt=False)


def test_without_bitsandbytes_the_model_is_loaded_dense_with_a_warning(make_profile, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.warns(UserWarning, match="no working bitsandbytes here .*loading dense"):
        model = load_model(make_profile(precision="nf4"), adapt=False)
    assert models._four_bit(model) == {}


# ---- where LoRA sits, and what is trained ----


@pytest.mark.parametrize("precision", ["nf4", "dense"])
@pytest.mark.parametrize("projector", ["trained", "frozen"])
def test_lora_and_at_most_the_projector_are_trained(make_profile, precision, projector):
    model = load_model(make_profile(precision=precision, projector=projector))
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
def test_lora_that_lands_elsewhere_is_caught(make_profile, monkeypatch, wrong):
    monkeypatch.setattr(models, "LORA_TARGETS", wrong)
    with pytest.raises(UserError, match="LoRA did not land as asked"):
        load_model(make_profile())


def test_a_fresh_adapter_is_drawn_from_its_seed_and_changes_nothing_yet(make_profile, batch):
    base = load_model(make_profile(), adapt=False)
    one, same, other = (load_model(make_profile(), seed=seed) for seed in (0, 0, 1))
    assert logits(one, batch).equal(logits(base, batch))
    assert all(p.equal(trainable(same)[name]) for name, p in trainable(one).items())
    assert not all(p.equal(trainable(other)[name]) for name, p in trainable(one).items())


# ---- the frozen reference ----


@pytest.mark.parametrize("precision", ["nf4", "dense"])
@pytest.mark.parametrize("projector", ["trained", "frozen"])
def test_the_reference_is_the_base_whatever_was_learned(make_profile, batch, precision, projector):
    profile = make_profile(precision=precision, projector=projector)
    before = logits(load_model(profile, adapt=False), batch)
    model = load_model(profile)
    untouched = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    moved = trainable(model)
    start = {name: p.detach().clone() for name, p in moved.items()}
    for _ in range(3):
        step(model, batch)
    assert any(not moved[name].equal(start[name]) for name in moved if "projector" in name) == (
        projector == "trained"
    )
    after = logits(model.eval(), batch)
    with reference(model):
        assert logits(model, batch).equal(before)
    assert not after.equal(before)
    assert logits(model, batch).equal(after)
    assert all(p.equal(untouched[n]) for n, p in model.named_parameters() if n in untouched)


# ---- 4-bit training is right ----


def test_evaluate_then_train_equals_train_in_nf4(make_profile, batch):
    """An evaluation must leave no trace in the gradient: on a CPU with AVX512-BF16, bitsandbytes
    repacks what an evaluation reads, and the repacked layer has no gradient."""

    def trained(evaluating):
        model = load_model(make_profile(precision="nf4"))
        awaken(model)
        found = []
        for _ in range(2):
            if evaluating:
                asked = {key: value for key, value in batch.items() if key != "labels"}
                with torch.inference_mode():
                    model.eval().generate(**asked, max_new_tokens=3, do_sample=False)
            found.append(step(model, batch))
        return found, trainable(model)

    (plain, weights), (evaluated, weights_too) = trained(False), trained(True)
    for one, other in zip(plain, evaluated, strict=True):
        assert all(gradient.equal(other[name]) for name, gradient in one.items())
    assert all(weight.equal(weights_too[name]) for name, weight in weights.items())


def test_no_gradient_of_a_4_bit_model_is_missing_or_zero(make_profile, batch):
    model = load_model(make_profile(precision="nf4"))
    logits(model, batch)
    awaken(model)
    assert all(gradient.any() for gradient in gradients(model, batch).values())


def test_the_4_bit_gradient_is_that_of_the_dequantised_model(make_profile, batch):
    from bitsandbytes import nn
    from bitsandbytes.functional import dequantize_4bit

    four_bit, dense = load_model(make_profile(precision="nf4")), load_model(make_profile())
    with torch.no_grad():
        quantised = [(n, m) for n, m in four_bit.named_modules() if isinstance(m, nn.Linear4bit)]
        for name, layer in quantised:
            plain = dense.get_submodule(name)
            weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
            assert not weight.equal(plain.weight)  # quantisation did change something
            plain.weight.copy_(weight)
    for model in (four_bit, dense):
        awaken(model)
    expected = gradients(dense, batch)
    for name, gradient in gradients(four_bit, batch).items():
        difference = (gradient - expected[name]).norm() / expected[name].norm()
        assert difference < 1e-4, name


def test_4_bit_costs_some_precision_and_not_the_model(make_profile, batch):
    dense = logits(load_model(make_profile(), adapt=False), batch)
    four_bit = logits(load_model(make_profile(precision="nf4"), adapt=False), batch)
    said = batch["labels"] != IGNORED
    agreement = torch.nn.functional.cosine_similarity(dense[said], four_bit[said], dim=-1).mean()
    assert 0.8 < agreement < 1


# ---- adapters on disk ----


@pytest.fixture
def adapter(make_profile, batch, tmp_path):
    """A trained model and the folder its adapter was saved in."""
    model = load_model(make_profile())
    for _ in range(2):
        step(model, batch)
    save_adapter(model.eval(), tmp_path / "adapter")
    return model, tmp_path / "adapter"


def test_an_adapter_saved_and_loaded_says_the_same(adapter, make_profile, batch):
    trained, folder = adapter
    fresh = load_model(make_profile(), seed=5)
    assert not logits(fresh, batch).equal(logits(trained, batch))
    load_adapter(fresh, folder)
    assert logits(fresh, batch).equal(logits(trained, batch))


def test_nothing_pickled_is_written(adapter):
    names = {path.name for path in adapter[1].rglob("*") if path.is_file()}
    assert names == {"adapter_model.safetensors", "adapter_config.json"}


def test_a_missing_adapter_is_refused(make_profile, tmp_path):
    with pytest.raises(UserError, match="holds no adapter_model.safetensors"):
        load_adapter(load_model(make_profile()), tmp_path)


def test_an_untrained_adapter_is_refused(make_profile, tmp_path):
    save_adapter(load_model(make_profile()), tmp_path)
    with pytest.raises(UserError, match="untrained"):
        load_adapter(load_model(make_profile(), seed=1), tmp_path)


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


@pytest.mark.parametrize("change", [foreign_names, a_layer_less, another_rank, no_projector])
def test_an_adapter_of_another_model_is_refused_in_one_line(adapter, make_profile, change):
    _, folder = adapter
    path = folder / "adapter_model.safetensors"
    save_file(change(load_file(path)), path)
    with pytest.raises(UserError, match="does not fit this model") as caught:
        load_adapter(load_model(make_profile(), seed=1), folder)
    assert "\n" not in str(caught.value)


def test_an_adapter_with_a_projector_is_refused_where_it_is_frozen(adapter, make_profile):
    with pytest.raises(UserError, match="does not fit this model"):
        load_adapter(load_model(make_profile(projector="frozen")), adapter[1])


def test_an_adapter_under_the_names_of_an_older_transformers_is_loaded_whole(
    make_profile, batch, tmp_path
):
    trained, fresh = (load_model(make_profile(projector="frozen"), seed=seed) for seed in (0, 5))
    step(trained, batch)
    save_adapter(trained.eval(), tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    weights = load_file(path).items()
    older = "language_model.model.layers"
    save_file({key.replace("model.language_model.layers", older): w for key, w in weights}, path)
    load_adapter(fresh, tmp_path)
    assert logits(fresh, batch).equal(logits(trained, batch))


# ---- models that are not there, and the network ----


@pytest.mark.parametrize("made", [True, False])
def test_a_model_that_is_not_there_is_one_line(make_profile, tmp_path, made):
    folder = tmp_path / "no-such-model"
    if made:
        folder.mkdir()
    with pytest.raises(UserError, match="cannot load the model") as caught:
        load_model(make_profile(model=str(folder)))
    assert "\n" not in str(caught.value) and "no-such-model" in str(caught.value)


OFFLINE = """
import socket, sys
tried = []
def connect(self, address):
    tried.append(address)
    raise OSError("no network in this test")
socket.socket.connect = socket.socket.connect_ex = connect
socket.getaddrinfo = lambda host, *rest, **more: connect(None, host)
import torch
from safeerase_lite.models import load_model
from safeerase_lite.profiles import profile
model = load_model(profile("tiny", model=sys.argv[1], precision="nf4"))
ids = torch.tensor([[1, 6, 7]])
model.train()(input_ids=ids, labels=ids).loss.backward()
model.eval().generate(input_ids=ids, max_new_tokens=2)
print("tried", tried)
"""


@pytest.mark.slow
def test_nothing_of_a_local_model_goes_to_the_network(tiny_model_dir, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    command = [sys.executable, "-c", OFFLINE, str(tiny_model_dir)]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert answer.stdout.splitlines()[-1] == "tried []"


def test_loading_leaves_the_models_files_as_they_were(tiny_model_dir, make_profile):
    def content():
        return {path.name: path.read_bytes() for path in sorted(tiny_model_dir.iterdir())}

    before = copy.deepcopy(content())
    load_model(make_profile(precision="nf4"))
    assert content() == before
    stored = load_file(tiny_model_dir / "model.safetensors")
    assert {weight.dtype for weight in stored.values()} == {torch.float16}
