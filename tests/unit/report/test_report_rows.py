"""Which rows a ledger has, what it may not mix, and what is missing from it."""

from pathlib import Path

import pandas as pd
import pytest
from synthetic_ledger import PARAMETERS, PO, answers, complete, fail, rewrite, vanilla

from safeerase_lite.config import config
from safeerase_lite.report.rows import (
    ALL_AT_ONCE,
    counterpart,
    expected_seeds,
    missing,
    read,
    views,
)
from safeerase_lite.runs import store as ledger
from safeerase_lite.runs import sweep
from safeerase_lite.utils import UserError

LESSON = Path(__file__).parents[3] / "notebooks" / "03_unlearn.ipynb"

# ---- rows ----


def test_a_row_is_an_objective_with_or_without_pd_and_its_runs_are_seeds(tmp_path):
    for decouple in ("placebo", "pd", "none"):
        for seed in (1, 0):
            complete(tmp_path, decouple=decouple, seed=seed)
    complete(tmp_path, objective="gd")
    vanilla(tmp_path, "gold", model="tiny-llava-gold", model_hash="m1")
    vanilla(tmp_path)
    grid = read(tmp_path)
    assert grid.keys == []
    assert list(zip(grid.rows["objective"], grid.rows["decouple"], strict=True)) == [
        ("vanilla", "none"), ("gold", "none"), ("gd", "none"),
        ("po", "none"), ("po", "pd"), ("po", "placebo"),
    ]  # fmt: skip
    assert list(grid.runs.loc[grid.runs["row"] == 4, "seed"]) == [0, 1]


def test_rates_tuned_for_each_objective_are_no_column(tmp_path):
    complete(tmp_path, learning_rate=6e-4)
    complete(tmp_path, learning_rate=5e-3, decouple="pd")
    assert read(tmp_path).keys == []


def test_a_rate_is_a_column_where_it_varies_for_one_objective(tmp_path):
    """Both rates of PD are still held against the one plain run, which has its own."""
    for rate in (1e-3, 5e-3):
        complete(tmp_path, decouple="pd", learning_rate=rate)
    complete(tmp_path)
    grid = read(tmp_path)
    assert grid.keys == ["learning_rate"]
    assert [counterpart(grid, row, "none") for row in (1, 2)] == [0, 0]


def test_the_weights_of_pd_mean_nothing_for_a_plain_run(tmp_path):
    complete(tmp_path)
    for weights in ("official", "matched"):
        complete(tmp_path, decouple="pd", weights=weights)
    grid = read(tmp_path)
    assert grid.keys == ["weights"]
    assert grid.rows["weights"].isna().tolist() == [True, False, False]
    assert [counterpart(grid, row, "none") for row in (1, 2)] == [0, 0]


def test_every_combination_of_settings_is_a_view_with_the_rows_it_means_nothing_to(tmp_path):
    vanilla(tmp_path)
    for projector in ("trained", "frozen"):
        complete(tmp_path, projector=projector)
    for weights in ("official", "matched"):
        complete(tmp_path, decouple="pd", weights=weights)
    grid = read(tmp_path)
    combinations = views(grid, "default world")
    named = [(settings["projector"], settings["weights"]) for settings, _ in combinations]
    assert sorted(named, key=str) == [
        ("frozen", None),
        ("trained", "matched"),
        ("trained", "official"),
    ]
    assert [len(rows) for _, rows in combinations] == [3, 3, 2]
    assert all(0 in rows for _, rows in combinations)


def test_a_setting_that_another_tells_is_no_second_column(tmp_path):
    complete(tmp_path, steps=PO.steps, projector="trained")
    complete(tmp_path, steps=96, projector="frozen")
    assert len(read(tmp_path).keys) == 1


def test_a_setting_younger_than_a_run_had_its_default(tmp_path):
    complete(tmp_path, decouple="pd", decouple_share=1.0)
    given = PARAMETERS | {"decouple": "pd", "seed": 1}
    del given["decouple_share"]
    old = ledger.open_run(tmp_path, given)
    old.write_answers(answers("pd", 1))
    old.write_metrics(pd.DataFrame({"metric": []}))
    old.commit()
    assert len(read(tmp_path).rows) == 1


def test_worlds_are_separate_and_the_default_comes_first(tmp_path):
    for seed, cue in ((3, 1.0), (7919, 1.0), (0, 0.0), (0, 1.0)):
        complete(tmp_path, world_seed=seed, cue=cue, data_hash=f"{seed} {cue}")
    worlds = ["default world", "default world, cue 0", "fresh world", "world 3"]
    assert list(read(tmp_path).rows["world"]) == worlds


def test_real_data_is_named_by_its_hash(tmp_path):
    complete(tmp_path, profile="t4")
    assert list(read(tmp_path).rows["world"]) == ["data d0"]


def test_an_untrained_model_evaluated_twice_counts_once(tmp_path):
    for weights in ("official", "matched"):
        vanilla(tmp_path, weights=weights)
    assert len(read(tmp_path).runs) == 1


# ---- what is refused ----


def test_two_runs_of_one_row_and_seed_are_refused(tmp_path):
    for samples in (1, 3):
        complete(tmp_path, samples=samples)
    message = "both po, decouple none, seed 0 in the default world, and differ in samples alone"
    with pytest.raises(UserError, match=message):
        read(tmp_path)


def test_versions_that_decide_results_are_mixed(tmp_path):
    runs = [complete(tmp_path, seed=seed) for seed in range(3)]
    rewrite(runs[0], versions={"torch": "2.0.0", "transformers": "5", "peft": None, "python": "3"})
    mixed = " ".join(read(tmp_path).mixed)
    assert "2 versions of torch (2.0.0: 1 runs," in mixed and "peft" in mixed
    assert "python" not in mixed


def test_data_is_mixed_within_a_world_and_not_between_worlds(tmp_path):
    complete(tmp_path)
    complete(tmp_path, world_seed=7919, data_hash="d7919")
    assert read(tmp_path).mixed == []
    complete(tmp_path, seed=1, data_hash="d1")
    assert read(tmp_path).mixed == ["2 data sets in the default world (d0: 1 runs, d1: 1 runs)"]


def test_another_base_model_is_another_row(tmp_path):
    for seed, model in enumerate(("m0", "m9")):
        complete(tmp_path, seed=seed, model_hash=model)
    grid = read(tmp_path)
    assert grid.keys == ["model_hash"] and len(grid.rows) == 2


# ---- what is missing ----


def test_every_trained_row_is_expected_to_have_every_seed_of_its_world(tmp_path):
    for seed in (0, 4):
        complete(tmp_path, seed=seed)
    complete(tmp_path, decouple="pd", seed=0)
    complete(tmp_path, world_seed=7919, seed=1, data_hash="d7919")
    vanilla(tmp_path)
    grid = read(tmp_path)
    (gap,) = missing(expected_seeds(grid), grid.runs)
    assert (gap["decouple"], gap["world"], gap["seed"]) == ("pd", "default world", 4)


def test_a_failed_run_is_not_usable_and_says_why_in_one_line(tmp_path):
    complete(tmp_path)
    fail(tmp_path, objective="kl")
    (run,) = read(tmp_path).unusable.to_dict("records")
    assert (run["objective"], run["error"]) == (
        "kl",
        "FloatingPointError: the loss is NaN at step 7",
    )


def test_a_run_that_lacks_the_split_or_its_answers_is_not_usable(tmp_path):
    complete(tmp_path)
    complete(tmp_path, seed=1, table=answers("none", 1).assign(split="train"))
    lost = complete(tmp_path, seed=2).folder / "answers.parquet"
    lost.unlink()
    errors = read(tmp_path).unusable.set_index("seed")["error"].to_dict()
    assert errors == {
        1: "asked nothing on test",
        2: f"{lost} is missing: move {lost.parent} away and run it again",
    }


def test_a_complete_run_under_the_record_of_an_open_one_is_named(tmp_path):
    run = complete(tmp_path)
    rewrite(run, status="partial")
    with pytest.raises(UserError, match=rf"{run.folder / 'run.json'} is damaged: move"):
        read(tmp_path)


RUNS = pd.DataFrame({"objective": ["po", "po", "vanilla"], "seed": [0, 1, 0],
                     "steps": [PO.steps, PO.steps, None], "splits": [("test",)] * 3})  # fmt: skip


@pytest.mark.parametrize(
    ("given", "there"),
    [
        ({"objective": "po", "seed": 1}, True),
        ({"objective": "po", "seed": 2}, False),
        ({"objective": "po", "seed": 0, "steps": PO.steps + 1}, False),
        ({"objective": "po", "steps": 0, "projector": ""}, True),  # the profile's own
        ({"objective": "vanilla", "steps": PO.steps}, True),  # a setting that means nothing to it
        ({"objective": "po", "runs_dir": "elsewhere", "splits": ["test"]}, True),
        ({"objective": "po", "splits": ["val"]}, False),
        ({"objective": "po", "seed": 1.0, "steps": None}, True),
        ({}, True),
    ],
)
def test_a_planned_run_is_there_when_all_it_states_agrees(given, there):
    assert missing([given], RUNS) == ([] if there else [given])


def test_a_share_of_pd_pairs_that_was_never_run_is_missing(tmp_path):
    complete(tmp_path, decouple="pd")
    half = {"objective": "po", "decouple": "pd", "decouple_share": 0.5}
    every = half | {"decouple_share": 1.0}
    assert missing([half, every], read(tmp_path).runs) == [half]


def test_real_data_are_worlds_by_their_hash_under_any_profile(tmp_path):
    """Two data sets are two worlds, whose seeds are not those of one row."""
    for profile, seed, data in (("t4", 0, "a"), ("t4", 1, "b"), ("tiny", 0, "mine")):
        real = {"world_seed": None, "cue": None} if profile == "tiny" else {}
        complete(tmp_path, profile=profile, seed=seed, data_hash=data, **real)
    complete(tmp_path)
    grid = read(tmp_path)
    assert sorted(grid.rows["world"]) == ["data a", "data b", "data mine", "default world"]
    assert grid.mixed == []


def planned(**grid):
    return [run.settings for run in sweep.Sweep(notebook=LESSON, grid=[grid]).runs()]


def test_what_a_notebook_does_not_name_is_what_the_profile_says(tmp_path):
    """A run of other steps is not the planned one, and one without samples no twin of it."""
    wanted = planned(objective="po", decouple="none")
    complete(tmp_path, pictures=8)
    with pytest.raises(UserError, match="holds no run of this sweep"):
        read(tmp_path, planned=wanted)
    complete(tmp_path)
    complete(tmp_path, samples=0)
    assert read(tmp_path, planned=wanted).runs["samples"].tolist() == [3]


def test_of_a_plan_without_them_runs_of_few_kinds_or_of_requests_in_turn_are_no_part(tmp_path):
    wanted = planned(objective="po", decouple="pd")
    ours = {"decouple": "pd", "steps": PO.steps}
    for change in ({}, {"decouple_kinds": 2}, {"requests": 2}):
        complete(tmp_path, **ours, **change)
    assert len(read(tmp_path).runs) == 3
    [only] = read(tmp_path, planned=wanted).runs.to_dict("records")
    assert only["requests"] == ALL_AT_ONCE and only["decouple_kinds"] == "all"


def test_a_planned_run_is_there_whatever_its_machine_computed_in(tmp_path):
    """The profile says float16, and without a GPU that is bfloat16."""
    t4 = {"profile": "t4", "model": config("t4").model, "steps": 900, "learning_rate": 1e-4}
    complete(tmp_path, compute="bfloat16", **t4)
    assert len(read(tmp_path, planned=planned(profile="t4", decouple="none")).runs) == 1


def test_without_a_test_split_a_report_is_about_val(tmp_path):
    complete(tmp_path, table=answers("none", 0).replace({"split": {"test": "val"}}))
    assert read(tmp_path).split == "val"
    complete(tmp_path, seed=1)
    grid = read(tmp_path)
    assert grid.split == "test" and grid.unusable["error"].tolist() == ["asked nothing on test"]


def test_what_is_zero_and_not_by_default_is_said(tmp_path):
    """Lesson 03's cue is 1 unless one says 0; its steps are the profile's unless one says some."""
    for cue in (0.0, 1.0):
        complete(tmp_path, cue=cue)
    wanted = planned(cue=[0.0, 1.0], objective="po", decouple="none")
    assert [given["cue"] for given in wanted] == [0, 1] and wanted[0]["steps"] == PO.steps
    assert set(read(tmp_path, planned=wanted).runs["cue"]) == {0, 1}
    assert set(read(tmp_path, planned=wanted[:1]).runs["cue"]) == {0}


def test_seed_0_is_a_seed(tmp_path):
    complete(tmp_path, seed=3)
    wanted = planned(objective="po", decouple="none", seed=[0, 3])
    assert [given["seed"] for given in missing(wanted, read(tmp_path).runs)] == [0]


def test_another_model_folder_is_another_run(tmp_path):
    complete(tmp_path, model="a")
    wanted = planned(model_dir=["a", "b"], objective="po", decouple="none")
    assert [given["model"] for given in missing(wanted, read(tmp_path).runs)] == ["b"]


def test_a_ledger_of_other_runs_is_said_to_be_one(tmp_path):
    run = ledger.open_run(tmp_path, {"seed": 1})
    run.write_metrics(pd.DataFrame({"metric": []}))
    run.commit()
    with pytest.raises(UserError, match="have no objective, decouple and seed"):
        read(tmp_path)
