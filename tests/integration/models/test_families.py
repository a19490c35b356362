"""Every family of models does all that LLaVA does: a random one of each, small but complete."""

from pathlib import Path

import pandas as pd
import pytest
import random_families
import torch
from peft import PeftModel
from PIL import Image
from transformers import AutoModelForImageTextToText

import safeerase_lite as sl
from safeerase_lite.evaluation.generate import generate
from safeerase_lite.export import export
from safeerase_lite.models import hooks
from safeerase_lite.models.anatomy import FAMILIES, anatomy_of
from safeerase_lite.models.forward import answer_logits, layer_states, llava_of
from safeerase_lite.models.inputs import IGNORED, encode
from safeerase_lite.models.llava import load_adapter, load_model, reference
from safeerase_lite.unlearning.trainer import train

# The same float32 sums in another order, of states of order 10.
CLOSE = {"atol": 1e-4, "rtol": 1e-4}


@pytest.fixture(scope="module", params=sorted(random_families.BUILDERS))
def family(request):
    return request.param


@pytest.fixture(scope="module")
def folder(family, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / family
    random_families.write(folder, family)
    return folder


@pytest.fixture(scope="module")
def config_of(make_config, folder):
    """Settings of the family's model, any field overridden."""

    def config_of(**fields):
        return make_config(**({"model": str(folder), "steps": 2} | fields))

    return config_of


@pytest.fixture(scope="module")
def base(config_of):
    """The dense model without an adapter. Shared: never change it."""
    return load_model(config_of(), adapt=False)


@pytest.fixture(scope="module")
def rows(few, tmp_path_factory):
    """Questions and answers about two pictures, one of them wide."""
    wide = tmp_path_factory.mktemp("pictures") / "wide.png"
    with Image.open(few.forget["image"].iloc[0]) as square:
        square.resize((150, 50)).save(wide)
    rows = few.retain[few.retain["image"] == few.retain["image"].iloc[0]].head(2)
    plan = few.forget.head(1)
    return pd.concat([rows, plan.assign(image=str(wide)), rows.head(1).assign(image=str(wide))])


def alone(model, row):
    """The states that predict a row's answer, from the pixels, by the model's own forward pass on
    what its processor makes of them."""
    processor = model.processor
    inputs = encode(processor, [row["image"]], [row["question"]], [row["answer"]])
    labels = inputs.pop("labels")
    inputs |= anatomy_of(model.config).marks(processor, inputs["input_ids"], labels != IGNORED)
    with torch.no_grad():
        states = llava_of(model)(**inputs).last_hidden_state[0, :-1]
    return states[labels[0, 1:] != IGNORED]


def test_a_prompt_and_a_picture_are_what_the_processor_makes_of_them(base, rows):
    """Token for token and pixel for pixel, whatever the picture's shape."""
    processor = base.processor
    for _, row in rows.iterrows():
        content = [{"type": "image"}, {"type": "text", "text": row["question"]}]
        turn = [{"role": "user", "content": content}]
        text = processor.apply_chat_template(turn, add_generation_prompt=True)
        with Image.open(row["image"]) as image:
            theirs = processor(images=image.convert("RGB"), text=text, return_tensors="pt")
        mine = encode(processor, [row["image"]], [row["question"]])
        none = torch.zeros_like(mine["input_ids"], dtype=torch.bool)
        mine |= anatomy_of(base.config).marks(processor, mine["input_ids"], none)
        assert all(tensor.equal(theirs[name]) for name, tensor in mine.items())


@pytest.mark.parametrize("precision", ["dense", "nf4"])
def test_rows_that_are_read_together_have_the_states_that_they_have_alone(
    config_of, rows, precision
):
    model = load_model(config_of(precision=precision))
    states = layer_states(model, rows)
    for (_, row), given in zip(rows.iterrows(), states, strict=True):
        torch.testing.assert_close(given[:, 0], alone(model, row), **CLOSE)


def test_a_picture_matters(base, rows):
    plan, other = rows.iloc[[2]], rows.iloc[[2]].assign(image=rows["image"].iloc[0])
    assert not answer_logits(base, plan).nll.allclose(answer_logits(base, other).nll)


def test_answers_are_those_of_the_models_own_generation(base, rows, config_of):
    config = config_of(max_new_tokens=4)
    mine = generate(base, rows["image"], rows["question"], config)
    for (_, row), answer in zip(rows.iterrows(), mine, strict=True):
        inputs = encode(base.processor, [row["image"]], [row["question"]])
        none = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
        inputs |= anatomy_of(base.config).marks(base.processor, inputs["input_ids"], none)
        ids = base.generate(**inputs, max_new_tokens=4, do_sample=False)
        [text] = base.processor.tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :])
        assert text.removesuffix(base.processor.tokenizer.eos_token) == answer


@pytest.fixture(scope="module")
def learned(config_of, few, tmp_path_factory):
    """A run in NF4, its projector trained, and the model after it."""
    small = {"splits": ("val",), "max_new_tokens": 2, "precision": "nf4"}
    config = config_of(objective="kl", decouple="pd", weights="matched", **small)
    model = load_model(config)
    return model, sl.unlearn(model, few, config, runs_dir=tmp_path_factory.mktemp("runs")), config


def test_a_model_unlearns_and_without_its_adapter_it_is_as_before(learned, rows, config_of):
    model, run, config = learned
    assert len(run.history) == 2 and run.history["loss"].notna().all()
    untrained = load_model(config, adapt=False)
    before = answer_logits(untrained, rows).logits
    assert not answer_logits(model, rows).logits.equal(before)
    with reference(model):
        assert answer_logits(model, rows).logits.equal(before)


def test_a_stopped_training_ends_as_one_that_was_not(config_of, few, tmp_path, monkeypatch):
    config = config_of(objective="po", decouple="pd", checkpoint_every=1)
    whole = load_model(config)
    train(whole, few, config, tmp_path / "whole")

    class Stopped(Exception):
        pass

    def stop(steps, model):
        if steps == 1:
            raise Stopped

    halves = load_model(config)
    with pytest.raises(Stopped):
        train(halves, few, config, tmp_path / "halves", watch=stop)
    halves = load_model(config)
    train(halves, few, config, tmp_path / "halves")
    after = dict(halves.named_parameters())
    assert all(p.equal(after[name]) for name, p in whole.named_parameters() if p.requires_grad)


def test_an_evaluation_and_an_export_that_plain_peft_loads(learned, few, rows, tmp_path, folder):
    model, run, config = learned
    report = sl.evaluate(model, few, run)
    assert {"asr", "sarr", "exact_match"} <= set(report.metrics["metric"])
    exported = export(str(run.folder), tmp_path / "exported", data_dir=str(few.root))
    plain = AutoModelForImageTextToText.from_pretrained(folder)
    plain = PeftModel.from_pretrained(plain, exported).eval()
    mine = load_model(sl.config(config, precision="dense"))
    load_adapter(mine, run.adapter_dir)
    plain.processor = mine.processor
    row = rows.iloc[0]
    torch.testing.assert_close(alone(plain, row), alone(mine, row), **CLOSE)


def test_the_hooks_of_lesson_06_find_every_part(base, rows):
    rows = rows.head(1)
    plain = answer_logits(base, rows).logits
    with torch.no_grad(), hooks.recorded_states(base) as states:
        answer_logits(base, rows)
    assert len(states) == len(hooks.blocks(base)) + 1
    direction = torch.randn(states[0].shape[-1], generator=torch.Generator().manual_seed(0))
    unit = direction / direction.norm()
    with torch.no_grad(), hooks.ablated(base, direction), hooks.recorded_states(base) as without:
        answer_logits(base, rows)
    assert all((one @ unit).abs().max() < 1e-3 * one.abs().max() for one in without)
    assert answer_logits(base, rows).logits.equal(plain)


def test_every_family_has_a_model_here():
    assert set(random_families.BUILDERS) == set(FAMILIES)
