"""Which questions a step trains on."""

from dataclasses import replace

import pandas as pd
import pytest

from safeerase_lite.unlearning.objectives import OBJECTIVES, Objective, nll
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
        assert len(partners) == len(own) and set(partners["split"]) == {"train"}
        assert list(partners["record"][own]) == list(groups["forget"]["record"][own])


def test_a_smaller_share_of_pd_is_fewer_pictures_of_every_kind_and_as_many_questions(
    world, sampler
):
    def partners(share):
        batches = sampler(world, objective="ga", decouple="pd", decouple_share=share)
        epoch = range(len(batches.shown) // batches.pictures)
        return pd.concat([batches.batch_at(step)["decouple"] for step in epoch])

    everything, least = partners(1.0), partners(0.01)
    assert len(everything) == len(least)
    assert set(least["image"]) < set(everything["image"])
    assert set(least["kind"]) == set(everything["kind"])
    assert (least.groupby("kind")["image"].nunique() == 1).all()


@pytest.mark.parametrize("pictures", [4, 5])
def test_an_epoch_has_every_picture_once_with_all_questions_about_it(world, sampler, pictures):
    train = {name: getattr(world, name).query("split == 'train'") for name in ("forget", "retain")}
    size = train["forget"]["image"].nunique()
    batches = sampler(world, pictures=pictures)
    steps = [batches.batch_at(step) for step in range(2 * size // pictures)]
    drawn = [image for groups in steps for image in groups["forget"]["image"].unique()]
    first, second = drawn[:size], drawn[size : 2 * size]
    assert sorted(first) == sorted(train["forget"]["image"].unique())
    assert len(set(second)) == len(second)
    assert first[: len(second)] != second
    for groups in steps:
        images = groups["forget"]["image"].unique()
        for name, table in train.items():
            expected = sorted(table[table["image"].isin(images)]["question"])
            assert sorted(groups[name]["question"]) == expected


def test_a_picture_without_retain_questions_brings_anothers(world, sampler):
    """As in data of one's own; a picture may have fewer questions, too."""
    shown = world.retain["image"].isin(world.retain["image"].unique()[:3])
    groups = sampler(replace(world, retain=world.retain[shown].iloc[1:])).batch_at(0)
    assert list(groups["retain"]["turn"].unique()) == list(groups["forget"]["turn"].unique())
    assert set(groups["retain"]["image"]) <= set(world.retain[shown]["image"])


def test_what_is_only_taught_comes_in_pictures_of_the_retain_questions(world, sampler, monkeypatch):
    taught = Objective(lambda x, w: nll(x.retain), ("retain",))
    monkeypatch.setitem(OBJECTIVES, "taught", taught)
    batches = sampler(replace(world, retain=world.specificity.assign(split="train")), "taught")
    seen = [image for step in range(40) for image in batches.batch_at(step)["retain"]["image"]]
    assert set(seen) <= set(world.specificity["image"]) and len(set(seen)) > 40


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("decouple", ["none", "pd", "placebo"])
def test_a_batch_is_what_the_objective_reads_from_train_a_function_of_seed_and_step(
    world, sampler, objective, decouple
):
    if OBJECTIVES[objective].negated and decouple != "none":
        pytest.skip("plain only")
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


def test_text_alone_asks_po_questions_in_words_and_pd_keeps_its_picture(world, sampler):
    text, po = sampler(world, "text", "pd"), sampler(world, "po", "pd")
    for step in range(5):
        words, shown = text.batch_at(step), po.batch_at(step)
        for name in ("refuse", "retain"):
            assert set(words[name]["image"]) == {""}
            named = shown[name]["kind"] + ": " + shown[name]["question"]
            assert list(words[name]["question"]) == list(named)
            assert words[name]["answer"].equals(shown[name]["answer"])
        assert words["decouple"].equals(shown["decouple"])


@pytest.mark.parametrize("objective", ["dpo", "text", "npo_rt"])
def test_every_answer_of_the_steps_is_among_those_to_come(world, sampler, objective):
    batches, steps = sampler(world, objective), 9
    columns = ["image", "question", "answer"]
    for name in batches.needs:
        to_come = set(map(tuple, batches.answers_to_come(name, steps)[columns].to_numpy()))
        for step in range(steps):
            assert set(map(tuple, batches.batch_at(step)[name][columns].to_numpy())) <= to_come


def test_fewer_kinds_for_pd_are_part_of_more_and_as_many_questions(world, sampler):
    def partners(number):
        batches = sampler(world, objective="ga", decouple="pd", decouple_kinds=number)
        return pd.concat([batches.batch_at(step)["decouple"] for step in range(48)])

    few, more, everything = (partners(number) for number in (2, 4, None))
    assert few["kind"].nunique() == 2 and more["kind"].nunique() == 4
    assert set(few["kind"]) < set(more["kind"]) < set(everything["kind"])
    assert len(few) == len(more) == len(everything)
