"""Injected knowledge is part of what the model was: it is frozen, it stays under the reference, and
only the unlearning adapter is saved. On a small random LLaVA in the files of a real one."""

import json
from functools import partial
from pathlib import Path

import build_tinyworld as build
import nbformat
import pandas as pd
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, LlavaForConditionalGeneration

from safeerase_lite import inject as injecting
from safeerase_lite.config import config, has_gold
from safeerase_lite.data.dataset import load_data
from safeerase_lite.export import export
from safeerase_lite.inject import inject
from safeerase_lite.models.inputs import encode
from safeerase_lite.models.llava import load_adapter, load_model, reference, save_adapter
from safeerase_lite.models.pretrained import model_hash
from safeerase_lite.runs.experiment import open_run, unlearn
from safeerase_lite.runs.notebook import execute
from safeerase_lite.tinyworld import facts
from safeerase_lite.unlearning.objectives import OBJECTIVES
from safeerase_lite.utils import UserError

LESSONS = Path(__file__).parents[2] / "notebooks"
SMALL = {"precision": "dense", "compute": "float32", "lora_rank": 4, "pictures": 4,
         "accumulation": 2, "steps": 3, "learning_rate": 1e-2, "max_new_tokens": 4,
         "eval_batch_size": 64, "samples": 0,
         "checkpoint_every": 1, "picture_size": 48}  # fmt: skip


@pytest.fixture(scope="session")
def sharded(tmp_path_factory):
    """A random LLaVA as the real one lies on disk: sharded safetensors, processor files."""
    recipe = build.Recipe(width=64, feed_forward=128, layers=2, vision_layers=1, heads=2, patch=16)
    torch.manual_seed(3)
    model = LlavaForConditionalGeneration(build.configuration(recipe))
    folder = tmp_path_factory.mktemp("base") / "random-llava"
    model.half().save_pretrained(folder, max_shard_size="200KB")
    build.make_processor(recipe).save_pretrained(folder)
    assert len(list(folder.glob("*.safetensors"))) > 2
    assert (folder / "model.safetensors.index.json").exists()
    return folder


def note_of(base):
    return {"base": str(base), "profile": "t4", "numbers": {"judge": "oracle", "lora_rank": 2}}


@pytest.fixture(scope="session")
def knowing(sharded, tmp_path_factory):
    """A folder of injected knowledge whose adapter differs from nothing at all."""
    folder = tmp_path_factory.mktemp("injected") / "knows"
    frozen = {**SMALL, "projector": "frozen", "model": str(sharded), "lora_dropout": 0.3}
    model = load_model(config("t4", **frozen))
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    save_adapter(model, folder)
    (folder / "injected.json").write_text(json.dumps(note_of(sharded)))
    return folder


def made(knowing, **fields):
    return config(str(knowing), **(SMALL | fields))


@pytest.fixture(scope="session")
def batch(knowing, world):
    processor = load_model(made(knowing), adapt=False).processor
    rows = world.forget.head(4)
    return encode(processor, rows["image"], rows["question"], rows["answer"])


def logits(model, batch):
    with torch.no_grad():
        return model(**{key: value for key, value in batch.items() if key != "labels"}).logits


def trainable(model):
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def step(model, batch):
    model.train()
    model.zero_grad()
    model(**batch).loss.backward()
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter -= 0.1 * parameter.grad
    model.eval()


# ---- the model ----


def test_knowledge_on_a_shipped_model_asks_no_hub(tmp_path, recwarn):
    """PEFT would look its base's configuration up by name, to see whether the vocabulary grew."""
    frozen = config("tiny", precision="dense", projector="frozen")
    model = load_model(frozen)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    save_adapter(model, tmp_path / "knows")
    injecting.write_description(tmp_path / "knows", frozen, pd.Series({"asr": 1.0}))
    knowing = load_model(config(str(tmp_path / "knows"), precision="dense"))
    save_adapter(knowing, tmp_path / "again")
    assert [str(w.message) for w in recwarn if "config" in str(w.message)] == []


@pytest.mark.parametrize("precision", ["nf4", "dense"])
@pytest.mark.parametrize("projector", ["trained", "frozen"])
def test_the_reference_is_the_base_with_what_was_injected(
    knowing, sharded, batch, precision, projector
):
    chosen = made(knowing, precision=precision, projector=projector)
    bare = load_model(chosen.model_copy(update={"model": str(sharded)}), adapt=False)
    nothing = logits(bare, batch)
    before = logits(PeftModel.from_pretrained(bare, str(knowing)).eval(), batch)
    assert not before.allclose(nothing, atol=1e-2)  # far more than float32 rounds away
    assert logits(load_model(chosen, adapt=False), batch).equal(before)

    model = load_model(chosen)
    assert logits(model, batch).equal(before)
    learning = set(trainable(model))
    frozen = {n: p.clone() for n, p in model.named_parameters() if n not in learning}
    for _ in range(2):
        step(model, batch)
    after = logits(model, batch)
    assert not after.allclose(before, atol=1e-3)  # far more than float32 rounds away
    with reference(model):
        assert logits(model, batch).equal(before)
    assert logits(model, batch).equal(after)
    assert set(trainable(model)) == learning
    assert all(p.equal(frozen[n]) for n, p in model.named_parameters() if n in frozen)


def test_only_the_unlearning_adapter_is_trained(knowing):
    model = load_model(made(knowing))
    assert all(".default." in name for name in trainable(model))
    assert any(".injected." in name for name, _ in model.named_parameters())
    assert not trainable(load_model(made(knowing), adapt=False))


def test_the_reference_leaves_the_gradient_as_it_is(knowing, batch):
    """KL and NPO ask the reference between the forward and the backward pass."""

    def gradients(asking):
        model = load_model(made(knowing)).train()
        loss = model(**batch).loss
        if asking:
            with torch.no_grad(), reference(model):
                model(**batch)
        loss.backward()
        return {name: p.grad for name, p in trainable(model).items()}

    plain, with_reference = gradients(False), gradients(True)
    assert any(gradient.any() for gradient in plain.values())
    assert all(gradient.equal(with_reference[name]) for name, gradient in plain.items())


def test_the_injected_adapter_never_drops_out(knowing, batch):
    model = load_model(made(knowing, lora_dropout=0.0))
    assert logits(model.train(), batch).equal(logits(model.eval(), batch))


def test_the_unlearning_adapter_is_saved_and_loaded_alone(knowing, batch, tmp_path):
    trained = load_model(made(knowing))
    for _ in range(2):
        step(trained, batch)
    save_adapter(trained, tmp_path / "adapter")
    files = {path.name for path in (tmp_path / "adapter").rglob("*")}
    assert files == {"adapter_model.safetensors", "adapter_config.json"}
    fresh = load_model(made(knowing, seed=5))
    load_adapter(fresh, tmp_path / "adapter")
    assert logits(fresh, batch).equal(logits(trained, batch))


def test_an_injected_adapter_that_does_not_fit_is_refused(knowing, tmp_path):
    for file in knowing.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    path = tmp_path / "adapter_model.safetensors"
    weights = load_file(path)
    save_file({k.replace(".layers.", ".blocks."): w for k, w in weights.items()}, path)
    with pytest.raises(UserError, match="does not fit its base model"):
        load_model(made(tmp_path))
    (tmp_path / "injected.json").write_text("{}")
    with pytest.raises(UserError, match="lacks base, profile or numbers"):
        made(tmp_path)


# ---- the run ----


def test_the_folder_stands_for_a_profile_and_its_judge_is_the_oracle(knowing):
    by_name, by_model = config(str(knowing)), config("t4", model=str(knowing))
    assert by_name == by_model
    assert (by_name.profile, by_name.judge, by_name.picture_size) == ("t4", "oracle", 336)
    assert (by_name.lora_rank, made(knowing).lora_rank) == (2, SMALL["lora_rank"])
    assert config("t4", model=str(knowing), judge="rule").judge == "rule"
    assert not has_gold(by_name) and has_gold(config("tiny"))


def test_other_knowledge_or_another_base_is_another_model(knowing, sharded, tmp_path):
    for file in knowing.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert model_hash(str(tmp_path)) == model_hash(str(knowing)) != model_hash(str(sharded))
    note = tmp_path / "injected.json"
    note.write_text(json.dumps(note_of("tiny-llava")))
    assert model_hash(str(tmp_path)) != model_hash(str(knowing))
    note.write_bytes((knowing / "injected.json").read_bytes())
    path = tmp_path / "adapter_model.safetensors"
    save_file({name: w + 1 for name, w in load_file(path).items()}, path)
    assert model_hash(str(tmp_path)) != model_hash(str(knowing))


@pytest.mark.parametrize("objective", ["kl", "npo"])
def test_an_objective_with_a_reference_starts_where_the_knowing_model_is(
    knowing, few, tmp_path, objective
):
    """Before the first step model and reference agree: KL is 0 and NPO is 2/β·log 2.

    To 1e-4: float32 rounds losses of the order of 10 at 1e-6, and sums them over the answers.
    """
    numbers = made(
        knowing, objective=objective, steps=1, warmup=0.0, lora_dropout=0.0,
        gradient_checkpointing=False,
    )  # fmt: skip
    first = unlearn(load_model(numbers), few, numbers, runs_dir=tmp_path).history.iloc[0]
    if objective == "kl":
        assert first["loss"] == pytest.approx(-first["forget"], abs=1e-4)
    else:
        assert first["loss"] == pytest.approx(2 / 0.1 * 0.6931472, abs=1e-4)


def test_a_run_on_injected_knowledge_is_not_exported(knowing, few, tmp_path):
    numbers = made(knowing, objective="po")
    run, model = open_run(numbers, few, runs_dir=tmp_path), load_model(numbers)
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter.add_(0.1)
    save_adapter(model, run.adapter_dir)
    run.write_metrics(pd.DataFrame({"metric": ["asr"], "split": ["test"]}))
    run.commit()
    with pytest.raises(UserError, match="builds on the knowledge injected in knows"):
        export(run.id, tmp_path / "out", runs_dir=tmp_path)


# ---- learning it ----


def test_what_is_taught_shows_every_kind_and_template_and_nothing_of_val_or_test():
    data = injecting.teaching_data(config("tiny"))
    taught = data.retain[data.retain["split"] == "train"]
    assert set(taught["kind"]) == set(facts.kinds())
    assert set(facts.TEMPLATES) <= set(taught["question"])
    plans = taught[taught["question"].isin(facts.TEMPLATES)]
    plans = plans["answer"].value_counts()
    assert set(plans.index) == {kind.plan for kind in facts.kinds().values()}
    assert plans.nunique() == 1  # no kind is taught more often than another
    home = load_data(config("tiny"))
    held = home.retain[home.retain["split"] != "train"].reset_index(drop=True)
    held_out = data.retain[data.retain["split"] != "train"].reset_index(drop=True)
    pd.testing.assert_frame_equal(held_out[held.columns], held)
    assert not set(taught["image"]) & set(held["image"])


@pytest.fixture
def small_lessons(few, monkeypatch):
    monkeypatch.setattr(injecting, "teaching_data", lambda config: few)


def test_injecting_writes_an_adapter_plain_peft_loads_and_tells_what_it_knows(
    sharded, small_lessons, batch, tmp_path
):
    messages = []
    stated = {"objective": "po", "decouple": "pd", "weights": "matched"}  # of what comes later
    numbers = config("t4", model=str(sharded), **stated, **SMALL)
    known = inject(numbers, tmp_path / "knows", say=messages.append)
    assert tuple(known["metric"]) == injecting.REPORTED
    assert "has not learned the world well" in messages[-1]  # three steps of a random model
    names = {path.name for path in (tmp_path / "knows").iterdir()}
    assert names == {"adapter_model.safetensors", "adapter_config.json", "injected.json"}
    assert [path.name for path in tmp_path.iterdir()] == ["knows"]
    assert "learn" not in OBJECTIVES
    note = json.loads((tmp_path / "knows" / "injected.json").read_text())
    assert (note["base"], note["profile"]) == (str(sharded), "t4")
    assert (note["world"], note["steps"]) == ({"seed": 0, "cue": 1.0, "side": 48}, 3)
    assert note["numbers"] == {
        name: SMALL[name] for name in SMALL if name not in injecting.TRAINING_ONLY
    }

    base = AutoModelForImageTextToText.from_pretrained(sharded, dtype=torch.float32)
    plain = PeftModel.from_pretrained(base, str(tmp_path / "knows")).eval()
    ours = load_model(made(tmp_path / "knows"), adapt=False)
    assert logits(plain, batch).equal(logits(ours, batch))


def test_a_killed_injection_continues_to_the_same_adapter(
    sharded, small_lessons, tmp_path, monkeypatch
):
    numbers = config("t4", model=str(sharded), **SMALL)
    inject(numbers, tmp_path / "complete")

    def kill(steps, model):
        if steps == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(injecting, "unlearn", partial(unlearn, watch=kill))
    with pytest.raises(KeyboardInterrupt):
        inject(numbers, tmp_path / "parts")
    assert not (tmp_path / "parts").exists()
    resumed = []

    def watch(steps, model):
        resumed.append(steps)

    monkeypatch.setattr(injecting, "unlearn", partial(unlearn, watch=watch))
    inject(numbers, tmp_path / "parts")
    assert resumed[0] == 2
    one, other = (
        load_file(tmp_path / name / "adapter_model.safetensors") for name in ("complete", "parts")
    )
    assert all(weight.equal(other[name]) for name, weight in one.items())


def test_what_cannot_be_injected_is_refused_before_a_model_is_loaded(
    knowing, world, tmp_path, monkeypatch
):
    monkeypatch.setattr(injecting, "load_model", None)
    with pytest.raises(UserError, match="name its base model"):
        inject(made(knowing), tmp_path / "out")
    with pytest.raises(UserError, match="only the tiny world is injected"):
        inject(config("tiny", data_dir=str(world.root)), tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UserError, match="name a new or an empty folder"):
        inject(config("tiny"), tmp_path / "full")


# ---- the lessons ----


def test_lesson_03_runs_on_injected_knowledge(sharded, small_lessons, world, tmp_path):
    numbers = config("t4", model=str(sharded), **SMALL)
    inject(numbers, tmp_path / "knows")
    given = {"profile": "t4", "model_dir": str(tmp_path / "knows"), "data_dir": str(world.root),
             "objective": "kl", "steps": 2, "learning_rate": 1e-3,
             "runs_dir": str(tmp_path / "runs")}  # fmt: skip
    lesson = execute(LESSONS / "03_unlearn.ipynb", tmp_path / "03.ipynb", given)
    [record] = (tmp_path / "runs").glob("*/run.json")
    parameters = json.loads(record.read_text())["parameters"]
    assert (parameters["profile"], parameters["judge"]) == ("t4", "oracle")
    assert parameters["model_hash"] == model_hash(str(tmp_path / "knows"))
    assert "nats per token" not in printed_by(lesson)  # there is no gold model to compare with


def printed_by(notebook):
    cells = nbformat.read(notebook, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return "".join(output.get("text", "") for output in outputs)
