"""Which questions a step trains on."""

from dataclasses import replace

import pandas as pd
import pytest

from safeerase_lite.unlearning.objectives import OBJECTIVES
from safeerase_lite.unlearning.sampler import BatchSampler


@pytest.fixture
def sampler(make_config):
    def sampler(data, objective="gd", decouple="none", **fields):
        return BatchSampler(data, make_config(objective=objective, decouple=decouple, **fields))

    return sampler


@pytest.mark.parametrize("decouple", ["pd", "placebo"])
def test_a_partner_shows_the_safe_picture_of_the_same_record(world, sampler, decouple):
    batches = sampler(world, decouple=decouple)
    safe = world.decouple[world.decouple["split"] == "train"].groupby("record")["image"].first()
    for step in range(20):
        groups = batches.batch_at(step)
        assert list(groups["decouple"]["record"]) == list(groups["forget"]["record"])
        assert list(groups["decouple"]["image"]) == list(safe[groups["forget"]["record"]])
        assert set(groups["decouple"]["split"]) == {"train"}


def test_pd_asks_the_forget_question_unchanged_and_the_placebo_never_does(world, sampler):
    pd_, placebo = sampler(world, decouple="pd"), sampler(world, decouple="placebo")
    templates = set(world.forget["question"])
    for step in range(20):
        groups = pd_.batch_at(step)
        assert list(groups["decouple"]["question"]) == list(groups["forget"]["question"])
        assert not set(groups["decouple"]["answer"]) & set(groups["forget"]["answer"])
        control = placebo.batch_at(step)
        assert not set(control["decouple"]["question"]) & templates
        assert control["forget"].equals(groups["forget"])


def test_a_record_without_a_safe_picture_takes_anothers(world, sampler):
    """As on real data, where some have none."""
    gaps = replace(world, decouple=world.decouple[world.decouple["record"] > 2])
    batches = sampler(gaps, decouple="pd")
    for step in range(12):
        groups = batches.batch_at(step)
        own = groups["forget"]["record"].to_numpy() > 2
        partners = groups["decouple"]
        assert len(partners) == 4 and set(partners["split"]) == {"train"}
        assert list(partners["record"][own]) == list(groups["forget"]["record"][own])


def test_a_smaller_share_of_pd_is_fewer_pictures_of_every_kind_and_as_many_questions(
    world, sampler
):
    def partners(share):
        batches = sampler(world, objective="ga", decouple="pd", decouple_share=share)
        return pd.concat([batches.batch_at(step)["decouple"] for step in range(epoch)])

    epoch = int((world.forget["split"] == "train").sum()) // 4  # in steps of four questions
    everything, least = partners(1.0), partners(0.01)
    assert len(everything) == len(least)
    assert set(least["image"]) < set(everything["image"])
    assert set(least["kind"]) == set(everything["kind"])
    assert (least.groupby("kind")["image"].nunique() == 1).all()


@pytest.mark.parametrize("group", ["forget", "retain"])
@pytest.mark.parametrize("batch", [4, 5])
def test_an_epoch_has_every_question_once(world, sampler, group, batch):
    size = int((getattr(world, group)["split"] == "train").sum())
    batches = sampler(world, batch=batch)
    tables = [batches.batch_at(step)[group] for step in range(2 * size // batch)]
    order = list(pd.concat(tables).index)
    first, second = order[:size], order[size : 2 * size]
    assert sorted(first) == list(range(size))
    assert len(set(second)) == len(second)
    assert first[: len(second)] != second


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("decouple", ["none", "pd", "placebo"])
def test_a_batch_is_what_the_objective_reads_from_train_a_function_of_seed_and_step(
    world, sampler, objective, decouple
):
    one, again, other = (sampler(world, objective, decouple, seed=seed) for seed in (0, 0, 1))
    pairs = {"decouple"} if decouple != "none" else set()
    for step in (7, 3):
        groups = one.batch_at(step)
        assert groups.keys() == {*OBJECTIVES[objective].needs} | pairs
        for name, table in groups.items():
            assert set(table["split"]) == {"train"}
            assert table.equals(again.batch_at(step)[name])
            assert not table.equals(other.batch_at(step)[name])


def test_a_refusal_answers_the_forget_question(world, sampler):
    po, ga = sampler(world, "po"), sampler(world, "ga")
    for step in range(5):
        forget, refuse = ga.batch_at(step)["forget"], po.batch_at(step)["refuse"]
        assert refuse[["image", "question"]].equals(forget[["image", "question"]])
        assert set(refuse["answer"]) <= set(world.refusals)
