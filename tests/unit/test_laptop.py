"""The hour of the profile `laptop` is counted as the sampler and the evaluation count it."""

import pytest
import torch
import transformers as hf
from random_smolvlm import WEIGHTS, configuration

from safeerase_lite.config import config
from safeerase_lite.data.dataset import load_data
from safeerase_lite.evaluation.evaluate import questions
from safeerase_lite.laptop import RATES, Rates, hour, minutes, seconds, teaching, unlearning
from safeerase_lite.unlearning.sampler import BatchSampler


@pytest.fixture(scope="module")
def data():
    """The profile's two categories, of pictures that cost less to draw."""
    return load_data(config("laptop", picture_size=48))


@pytest.mark.parametrize("decouple", ["none", "pd"])
def test_an_unlearning_is_counted_as_it_is_sampled_and_evaluated(data, decouple):
    settings = config("laptop", objective="po", decouple=decouple)
    work, sampler = unlearning(settings), BatchSampler(data, settings)
    batches = [sampler.batch_at(step) for step in range(settings.steps)]
    tables = [table for batch in batches for table in batch.values()]
    assert work.trained == sum(map(len, tables))
    asked = questions(data, settings.splits)
    assert work.asked == len(asked)
    assert work.scored == (asked["set"] == "forget").sum()
    trained_on = {image for table in tables for image in table["image"]}
    assert work.pictures == len(trained_on) + asked["image"].nunique()


def test_an_injection_is_counted_with_its_evaluation_on_val(data):
    settings = config("laptop")
    work = teaching(settings, steps=10)
    assert work.trained == 10 * settings.pictures * 9  # ten questions, and eight, by turns
    assert work.asked == len(questions(data, ("val",)))


@pytest.mark.parametrize("compute", RATES)
def test_the_hour_holds_at_the_measured_rates(compute):
    assert minutes(hour(RATES[compute])) <= 60


def test_minutes_are_those_of_the_stages_that_wait_for_each_other():
    rates = Rates(question=60.0, picture=0.0, token=0.0, gigabytes=1.0)
    stages = hour(rates).set_index("stage")
    assert minutes(hour(rates)) == stages.loc["teach", "minutes"] + stages.loc["PO + PD", "minutes"]
    work = unlearning(config("laptop", objective="po", decouple="pd"))
    assert stages.loc["PO + PD", "minutes"] == seconds(work, rates) / 60
    assert seconds(work, rates) == 60 * (work.trained + work.scored / 3)


def test_the_random_model_has_the_published_number_of_weights():
    with torch.device("meta"):
        model = hf.Idefics3ForConditionalGeneration(configuration())
    assert sum(p.numel() for p in model.parameters()) == WEIGHTS
    assert len(model.state_dict()) == 471
