"""A run's id is what determines its result, and a mistake leaves nothing behind."""

import sys
from dataclasses import replace

import pytest

from safeerase_lite.config import profile
from safeerase_lite.data.dataset import read_data
from safeerase_lite.runs import experiment
from safeerase_lite.runs.experiment import fingerprint, open_run
from safeerase_lite.tinyworld.world import World, write_world
from safeerase_lite.utils import UserError


@pytest.fixture
def opened(world, make_profile, tmp_path):
    """Open a run in a ledger of its own; its id."""

    def opened(data=world, objective="po", decouple="pd", weights="official", seed=0, **fields):
        return open_run(
            make_profile(**fields), data, objective=objective, decouple=decouple,
            weights=weights, seed=seed, runs_dir=tmp_path / "runs",
        )  # fmt: skip

    return opened


@pytest.fixture
def refused(opened, tmp_path):
    """What is said when a run is not opened; and nothing may be left on disk."""

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
        {"batch": 8},
        {"precision": "nf4"},
        {"projector": "frozen"},
        {"lora_rank": 8},
        {"judge": "rule"},
        {"new_tokens": 9},
        {"optimizer": "paged_adamw_8bit"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_changes_the_result_changes_the_id(opened, change):
    assert opened(**change).id != opened().id


def test_other_data_is_another_run(opened, world, tmp_path):
    other = read_data(write_world(World(1, 1.0, 1, 1), tmp_path / "other"))
    assert opened(data=other).id != opened().id
    assert opened(data=replace(world, digest="0" * 16)).id != opened().id


def test_a_picture_size_joins_the_id_only_where_it_is_not_the_usual_one(opened):
    assert "picture_size" not in opened().parameters
    larger = opened(picture_size=336)
    assert larger.parameters["picture_size"] == 336 and larger.id != opened().id


def test_where_things_lie_and_how_often_they_are_saved_is_not_part_of_a_run(opened, world):
    here = opened().id
    assert opened(data_dir=str(world.root)).id == here
    assert opened(data_dir="/elsewhere", judge="oracle").id == here
    assert opened(checkpoint_every=1).id == here


def test_what_part_of_the_data_was_read_is_said_by_the_data_not_by_the_profile(opened, world):
    here = opened()
    assert opened(dedupe="val", categories=["Corrosive"]).id == here.id
    part = opened(data=replace(world, dedupe="val", left_out=("Privacy", "Sex")))
    assert part.id != here.id and "dedupe" not in here.parameters
    assert part.parameters["dedupe"] == "val" and part.parameters["left_out"] == "Privacy, Sex"


def test_a_field_that_profiles_did_not_always_have_leaves_old_runs_their_ids(
    world, tmp_path, monkeypatch
):
    """The ids under which version 0.1.0 kept these runs."""
    monkeypatch.setattr(experiment, "fingerprint", lambda model: "714c0626cbf2d2f1")
    data = replace(world, digest="b1ec52664aafc9db")
    numbers = profile("tiny", precision="dense")
    for objective, known in {"po": "4a0a6a9011c2", "kl": "5bbe1c277539"}.items():
        assert open_run(numbers, data, objective=objective, runs_dir=tmp_path).id == known


def test_only_the_rate_a_run_takes_counts_not_the_table_it_was_taken_from(opened):
    rates = {"po": 3e-3, "po+pd": 2e-3, "ga": 1e-5}
    tuned = opened(learning_rate=None, rates=rates)
    assert tuned.settings.learning_rate == 2e-3
    assert tuned.id == opened(learning_rate=2e-3).id
    assert tuned.id == opened(learning_rate=None, rates=rates | {"ga": 1e-4}).id
    for decouple, rate in {"placebo": 2e-3, "none": 3e-3}.items():
        run = opened(learning_rate=None, rates=rates, decouple=decouple)
        assert run.settings.learning_rate == rate


def test_a_models_weights_are_part_of_a_run_and_its_place_is_not(tiny_model_dir, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    content = (tiny_model_dir / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(content)
    assert fingerprint(str(copy)) == fingerprint(str(tiny_model_dir))
    (copy / "model.safetensors").write_bytes(content[:-1] + b"\x7f")
    assert fingerprint(str(copy)) != fingerprint(str(tiny_model_dir))
    assert fingerprint("llava-hf/llava-1.5-7b-hf") == "llava-hf/llava-1.5-7b-hf"


def test_a_judge_that_is_a_function_adds_nothing_but_its_name_to_a_run(opened):
    parameters = opened(judge="rule", judge_consent=True).parameters
    assert [name for name in parameters if name.startswith("judge")] == ["judge"]


def test_a_run_names_itself(opened):
    assert opened(seed=3).settings.label == "PO+PD seed 3"
    assert opened(objective="npo", decouple="none").settings.label == "NPO seed 0"
    assert opened(objective="vanilla", decouple="none").settings.label == "vanilla seed 0"


def test_without_a_folder_the_run_goes_where_the_environment_says(
    world, make_profile, tmp_path, monkeypatch
):
    monkeypatch.setenv("SAFEERASE_RUNS", str(tmp_path / "mine"))
    run = open_run(make_profile(), world, objective="ga")
    assert run.runs_dir == tmp_path / "mine"


# ---- mistakes ----


@pytest.mark.parametrize(("typed", "meant"), [("gdd", "gd"), ("vanila", "vanilla"), ("np0", "npo")])
def test_an_unknown_objective_names_the_near_miss(refused, typed, meant):
    message = refused(objective=typed)
    assert f"unknown objective {typed!r}" in message
    assert f"did you mean {meant!r}?" in message


def test_an_objective_like_none_lists_what_there_is(refused):
    message = refused(objective="zzz")
    assert "choose one of vanilla, gold, ga, gd, kl, po, npo" in message
    assert "did you mean" not in message


def test_unknown_words_are_refused(refused):
    assert "did you mean 'placebo'?" in refused(decouple="placbo")
    assert "did you mean 'matched'?" in refused(weights="match")


@pytest.mark.parametrize("objective", ["vanilla", "gold"])
@pytest.mark.parametrize("decouple", ["pd", "placebo"])
def test_what_is_not_unlearned_has_nothing_to_decouple(refused, objective, decouple):
    message = refused(objective=objective, decouple=decouple)
    assert message == f"{objective} is not unlearned, so decouple must be 'none'"


@pytest.mark.parametrize("decouple", ["pd", "placebo"])
def test_data_that_cannot_serve_is_refused(refused, world, decouple):
    poor = {name: getattr(world, name).iloc[:0] for name in ("decouple", "placebo")}
    message = refused(data=replace(world, **poor), decouple=decouple)
    assert "decouple='none'" in message


def test_gold_is_refused_for_a_model_that_has_none(refused):
    assert "has no gold model" in refused(objective="gold", decouple="none")


def test_gold_is_refused_where_only_the_other_model_was_built(refused, monkeypatch, tiny_model_dir):
    """`safeerase tiny build --no-gold`"""
    shipped = {"tiny-llava": tiny_model_dir}.get
    monkeypatch.setattr(experiment, "shipped_model", shipped)
    message = refused(objective="gold", decouple="none", model="tiny-llava")
    assert "gold model" in message


def test_gold_takes_the_gold_model(opened, monkeypatch, tiny_model_dir):
    monkeypatch.setattr(experiment, "shipped_model", lambda name: tiny_model_dir)
    run = opened(objective="gold", decouple="none", model="tiny-llava")
    assert run.settings.profile.model == "tiny-llava-gold"


def test_an_optimiser_without_its_library_is_refused(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    message = refused(optimizer="paged_adamw_8bit")
    assert "needs bitsandbytes" in message and "optimizer='adamw'" in message


def test_of_other_data_the_judge_is_the_rule_unless_one_is_named(world, tmp_path):
    assert profile("tiny", data_dir=str(world.root)).judge == "oracle"
    assert profile("tiny", data_dir=str(tmp_path)).judge == "rule"
    assert profile("tiny", data_dir=str(tmp_path), judge="local:mine").judge == "local:mine"


def test_steps_that_only_warm_up_are_refused(opened):
    with pytest.raises(UserError, match="steps=1 with warmup=0.06 is warm-up alone"):
        opened(steps=1, warmup=0.06)
    opened(steps=1, warmup=0.0), opened(steps=2, warmup=0.06)


def test_data_without_a_split_that_is_evaluated_is_refused_before_any_training(opened, world):
    train = {n: getattr(world, n).query("split == 'train'") for n in ("forget", "retain")}
    with pytest.raises(UserError, match=r"no split of \('val', 'test'\)"):
        opened(data=replace(world, **train), splits=("val", "test"))
