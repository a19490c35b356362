"""A run's id is what determines its result, and a mistake leaves nothing behind."""

import hashlib
import re
import shutil
import sys
from dataclasses import replace

import pytest

import safeerase_lite as sl
from safeerase_lite.data.dataset import read_data
from safeerase_lite.models.llava import load_model
from safeerase_lite.runs import experiment
from safeerase_lite.runs.experiment import model_hash, open_run, recorded_config, unlearn
from safeerase_lite.tinyworld import shipped_model
from safeerase_lite.tinyworld.world import World, write_world
from safeerase_lite.unlearning.objectives import OBJECTIVES
from safeerase_lite.utils import UserError


@pytest.fixture
def opened(world, make_config, tmp_path):
    """Open a run in a ledger of its own."""

    def opened(data=world, objective="po", decouple="pd", **fields):
        config = make_config(objective=objective, decouple=decouple, **fields)
        return open_run(config, data, runs_dir=tmp_path / "runs")

    return opened


@pytest.fixture
def refused(opened, tmp_path):
    """The error of a run that is not opened; nothing may be left on disk."""

    def refused(*arguments, **fields):
        with pytest.raises(UserError) as caught:
            opened(*arguments, **fields)
        assert not (tmp_path / "runs").exists()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return refused


# ---- what a run is ----


def test_the_same_experiment_is_the_same_run(opened):
    assert opened().id == opened().id


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"objective": "gd"},
        {"decouple": "none"},
        {"decouple": "placebo"},
        {"weights": "matched"},
        {"learning_rate": 2e-3},
        {"steps": 5},
        {"pictures": 8},
        {"precision": "nf4"},
        {"projector": "frozen"},
        {"lora_rank": 8},
        {"judge": "rule"},
        {"max_new_tokens": 9},
        {"optimizer": "paged_adamw_8bit"},
        {"picture_size": 336},
        {"decouple_share": 0.5},
        {"splits": ("test",)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_changes_the_result_changes_the_id(opened, change):
    assert opened(**change).id != opened().id


@pytest.mark.parametrize(
    "change",
    [
        {"checkpoint_every": 1},
        {"judge": "oracle"},
        {"judge_consent": True},
        {"dedupe": "val"},
        {"categories": ["Corrosive"]},
        {"data_dir": "/elsewhere", "judge": "oracle"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_where_things_lie_and_how_often_they_are_saved_does_not_change_the_id(opened, change):
    assert opened(**change).id == opened().id


@pytest.mark.parametrize(
    ("objective", "decouple", "change"),
    [
        ("vanilla", "none", {"learning_rate": 2e-3, "steps": 9, "lora_rank": 8, "pictures": 2}),
        ("po", "none", {"decouple_share": 0.5}),
    ],
)
def test_what_a_run_never_looks_at_is_recorded_as_none(opened, objective, decouple, change):
    plain = opened(objective=objective, decouple=decouple)
    assert opened(objective=objective, decouple=decouple, **change).id == plain.id
    assert all(plain.parameters[name] is None for name in change)


def test_data_that_are_no_tiny_world_have_no_world_seed(opened, world, tmp_path, monkeypatch):
    elsewhere = replace(world, root=tmp_path)
    run = opened(data=elsewhere, judge="rule")
    assert run.parameters["world_seed"] is run.parameters["cue"] is None
    assert opened(data=elsewhere, judge="rule", world_seed=5).id == run.id


def test_other_data_is_another_run(opened, world, tmp_path):
    other = read_data(write_world(World(1, 1.0, 1, 1), tmp_path / "other"))
    assert opened(data=other).id != opened().id
    assert opened(data=replace(world, digest="0" * 16)).id != opened().id


def test_which_part_of_the_data_was_read_is_recorded_from_the_data(opened, world):
    part = opened(data=replace(world, dedupe="val", left_out=("Privacy", "Sex")))
    assert part.id != opened().id and "dedupe" not in opened().parameters
    assert part.parameters["dedupe"] == "val" and part.parameters["left_out"] == "Privacy, Sex"


def test_a_tuned_rate_and_the_same_rate_stated_are_one_run(opened):
    tuned = OBJECTIVES["po"].learning_rates["tiny"]
    assert opened(learning_rate=None).id == opened(learning_rate=tuned).id


@pytest.mark.parametrize(("objective", "decouple"), [("vanilla", "none"), ("kl", "placebo")])
def test_the_settings_come_back_from_what_was_recorded(opened, objective, decouple):
    run = opened(objective=objective, decouple=decouple, seed=3, splits=("val",))
    recorded = recorded_config(run.parameters)
    assert recorded.label == run.config.label
    recorded_fields = {k: v for k, v in run.parameters.items() if v is not None}
    for name in recorded_fields.keys() & type(recorded).model_fields.keys():
        assert getattr(recorded, name) == getattr(run.config, name), name


def test_the_type_that_is_recorded_is_the_one_that_is_computed_in(opened, monkeypatch):
    """Without a GPU float16 is bfloat16, and bfloat16 float32 where a CPU is slow in it."""
    for gpu, recorded in ((True, "float16"), (False, "bfloat16")):
        monkeypatch.setattr("torch.cuda.is_available", lambda gpu=gpu: gpu)
        run = opened(compute="float16")
        assert run.parameters["compute"] == recorded
        assert recorded_config(run.parameters).compute == recorded
    for fast, recorded in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr("safeerase_lite.models.llava.cpu_has_bfloat16", lambda fast=fast: fast)
        assert opened(compute="bfloat16").parameters["compute"] == recorded
    assert opened().parameters["compute"] == "float32"


@pytest.mark.parametrize(
    "file",
    ["model.safetensors", "config.json", "generation_config.json", "processor_config.json",
     "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
     "special_tokens_map.json", "preprocessor_config.json", "merges.txt", "adapter_config.json"],
)  # fmt: skip
def test_a_model_with_another_file_that_decides_is_another_model(tiny_model_dir, tmp_path, file):
    copy = shutil.copytree(tiny_model_dir, tmp_path / "copy")
    before = model_hash(str(copy))
    with (copy / file).open("ab") as stream:
        stream.write(b" ")
    assert model_hash(str(copy)) != before
    (copy / file).unlink()
    assert model_hash(str(copy)) != before or not (tiny_model_dir / file).exists()


def test_what_a_result_does_not_depend_on_is_no_part_of_a_model(tiny_model_dir, tmp_path):
    copy = shutil.copytree(tiny_model_dir, tmp_path / "copy")
    (copy / "README.md").write_text("Other words.")
    (copy / ".gitattributes").write_text("")
    assert model_hash(str(copy)) == model_hash(str(tiny_model_dir))
    assert model_hash("llava-hf/llava-1.5-7b-hf") == "llava-hf/llava-1.5-7b-hf"


def test_the_shipped_clip_has_the_id_of_earlier_ledgers():
    weights = (shipped_model("tiny-clip") / "model.safetensors").read_bytes()
    assert model_hash("tiny-clip") == hashlib.sha256(weights).hexdigest()[:16]


def test_a_run_on_a_repaired_model_is_another_run(tiny_model_dir, opened, tmp_path):
    copy = shutil.copytree(tiny_model_dir, tmp_path / "copy")
    path = copy / "processor_config.json"
    right = path.read_text()
    path.write_text(right.replace('"rescale_factor": 0.00392', '"rescale_factor": 0.392'))
    broken = opened(model=str(copy))
    path.write_text(right)
    assert opened(model=str(copy)).id != broken.id


def test_a_judge_that_is_a_function_adds_nothing_but_its_name_to_a_run(opened):
    parameters = opened(judge="oracle", judge_consent=True).parameters
    assert [name for name in parameters if name.startswith("judge")] == ["judge"]


def test_another_rule_is_another_run(opened, monkeypatch):
    before = opened(judge="rule")
    monkeypatch.setattr(experiment, "REFUSAL", re.compile("never"))
    assert opened(judge="rule").id != before.id


def test_without_a_folder_the_run_goes_where_the_environment_says(
    world, make_config, tmp_path, monkeypatch
):
    monkeypatch.setenv("SAFEERASE_RUNS", str(tmp_path / "mine"))
    run = open_run(make_config(objective="ga"), world)
    assert run.runs_dir == tmp_path / "mine"


# ---- a model of other settings ----


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"lora_rank": 2}, {"precision": "nf4"}, {"projector": "frozen"},
     {"compute": "bfloat16"}, {"gradient_checkpointing": True}],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_a_model_loaded_with_other_settings_is_refused_before_anything_is_written(
    world, make_config, tmp_path, change
):
    model = load_model(make_config(**change))
    [(name, value)] = change.items()
    with pytest.raises(UserError, match=f"was loaded with {name}={value!r}, and the config has"):
        unlearn(model, world, make_config(objective="ga"), runs_dir=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_model_without_an_adapter_is_refused_where_it_would_be_trained(
    base_model, world, make_config, tmp_path
):
    with pytest.raises(UserError, match="no adapter to train"):
        unlearn(base_model, world, make_config(objective="po"), runs_dir=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


# ---- mistakes ----


@pytest.mark.parametrize("decouple", ["pd", "placebo"])
def test_data_without_pairs_are_refused(refused, world, decouple):
    poor = {name: getattr(world, name).iloc[:0] for name in ("decouple", "placebo")}
    assert "decouple='none'" in refused(data=replace(world, **poor), decouple=decouple)


def test_an_optimizer_without_its_library_is_refused(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    message = refused(optimizer="paged_adamw_8bit")
    assert "needs bitsandbytes" in message and "optimizer='adamw'" in message


def test_a_judge_that_does_not_exist_or_does_not_know_the_data_is_refused(refused, world, tmp_path):
    assert "orakel" in refused(judge="orakel")
    real = replace(world, root=tmp_path)
    assert "the oracle knows the tiny world alone" in refused(data=real, judge="oracle")


def test_steps_that_are_warm_up_alone_are_refused(refused, opened):
    assert "steps=1 with warmup=0.06 is warm-up alone" in refused(steps=1, warmup=0.06)
    opened(steps=1, warmup=0.0), opened(steps=2, warmup=0.06)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda c, d: sl.load_data("tiny"), "config is a str, not a Config: call load_data(config"),
        (lambda c, d: sl.load_model("tiny"), "config is a str, not a Config: call load_model("),
        (
            lambda c, d: sl.open_run(d, c),
            "config is a Data, not a Config: call open_run(config, d",
        ),
        (
            lambda c, d: sl.unlearn(None, c, d),
            "data is a Config, not a Data: call unlearn(model, ",
        ),
        (lambda c, d: sl.evaluate(None, d, c), "run is a Config, not a Run: call evaluate(model, "),
        (lambda c, d: sl.generate(None, "a.png", ["?"], c), "images is a str, not a list of texts"),
        (lambda c, d: sl.generate(None, ["a.png"], "?", c), "questions is a str, not a list of te"),
    ],
)
def test_an_argument_in_the_wrong_place_is_one_line(make_config, world, call, says):
    with pytest.raises(UserError) as caught:
        call(make_config(), world)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_a_run_shows_its_id_label_and_state(opened):
    run = opened()
    assert repr(run) == f"Run({run.id}, {run.config.label}, open)"


def test_data_without_a_split_that_is_evaluated_are_refused_before_any_training(refused, world):
    train = {n: getattr(world, n).query("split == 'train'") for n in ("forget", "retain")}
    message = refused(data=replace(world, **train), splits=("val", "test"))
    assert "none of the splits ('val', 'test') is here; train is" in message
