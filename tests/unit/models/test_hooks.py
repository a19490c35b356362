"""Hooks read the states that transformers itself reports, change what they say they change, and
leave nothing behind. Each statement is made of two LLaVAs of different shapes."""

import pandas as pd
import pytest
import torch

from safeerase_lite.config import config
from safeerase_lite.models import hooks
from safeerase_lite.models.forward import answer_logits, language_model, read
from safeerase_lite.models.inputs import encode
from safeerase_lite.models.llava import load_model
from safeerase_lite.utils import UserError

CLOSE = {"atol": 1e-4, "rtol": 1e-4}  # float32 sums in another order; states are of order 10


@pytest.fixture(scope="module", params=["tiny", "real format", "adapted"])
def model(request, base_model, make_config):
    """A dense random LLaVA: the tiny one, one in LLaVA-1.5's format, an adapted one."""
    if request.param == "tiny":
        return base_model
    if request.param == "adapted":
        return load_model(make_config())
    folder = request.getfixturevalue("real_format_model")
    return load_model(config("tiny", model=str(folder), precision="dense", learning_rate=1e-3),
                      adapt=False)  # fmt: skip


@pytest.fixture(scope="module")
def table(world):
    return world.forget.drop_duplicates("image").head(2)


@pytest.fixture(scope="module")
def direction(model):
    width = language_model(model).config.hidden_size
    return torch.randn(width, generator=torch.Generator().manual_seed(0))


def stream(model, table):
    """The residual stream of one pass: (places, rows, length, width)."""
    with torch.no_grad(), hooks.recorded_states(model) as states:
        for _ in read(model, table):
            pass
        return torch.stack(states)


def logits(model, table):
    with torch.no_grad():
        return answer_logits(model, table).logits


def count_hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_the_recorded_states_are_those_of_output_hidden_states(model, table):
    row = table.iloc[0]
    inputs = encode(model.processor, [row["image"]], [row["question"]], [row["answer"]])
    inputs.pop("labels")
    with torch.no_grad(), hooks.recorded_states(model) as states:
        expected = model(**inputs, output_hidden_states=True).hidden_states
        assert len(states) == len(expected) == len(hooks.blocks(model)) + 1
        for one, other in zip(states[:-1], expected[:-1], strict=True):
            torch.testing.assert_close(one, other, **CLOSE)
        torch.testing.assert_close(hooks.last_norm(model)(states[-1]), expected[-1], **CLOSE)


def test_recorded_attention_is_that_of_output_attentions_and_sums_to_one(model, table):
    row = table.iloc[0]
    inputs = encode(model.processor, [row["image"]], [row["question"]], [row["answer"]])
    inputs.pop("labels")
    with torch.no_grad(), hooks.recorded_attention(model) as weights:
        expected = model(**inputs, output_attentions=True).attentions
        assert len(weights) == len(hooks.blocks(model))
        for one, other in zip(weights, expected, strict=True):
            torch.testing.assert_close(one, other.mean(1), **CLOSE)
            torch.testing.assert_close(one.sum(-1), torch.ones_like(one.sum(-1)), **CLOSE)


def test_recording_attention_changes_no_prediction_and_puts_the_implementation_back(model, table):
    before, implementation = logits(model, table), language_model(model).config._attn_implementation
    with hooks.recorded_attention(model):
        torch.testing.assert_close(logits(model, table), before, **CLOSE)
    assert language_model(model).config._attn_implementation == implementation


def test_an_ablated_direction_has_no_component_at_any_place(model, table, direction):
    unit = direction / direction.norm()
    with hooks.ablated(model, direction):
        after = stream(model, table)
    before = stream(model, table)
    assert (before @ unit).abs().max() > 0.1 * before.abs().max()  # there was something to ablate
    assert (after @ unit).abs().max() < 1e-4 * after.abs().max()


def test_half_a_dose_of_ablation_leaves_half_of_what_enters(model, table, direction):
    unit = direction / direction.norm()
    before = stream(model, table)[0] @ unit
    with hooks.ablated(model, direction, 0.5):
        torch.testing.assert_close(stream(model, table)[0] @ unit, before / 2, **CLOSE)


def test_an_added_direction_is_there_at_its_place_and_not_before(model, table, direction):
    before = stream(model, table)
    for place in range(len(before)):
        with hooks.added(model, direction, place, 2.0):
            change = stream(model, table) - before
        expected = (2 * direction).expand_as(change[place])
        torch.testing.assert_close(change[place], expected, **CLOSE)
        assert not change[:place].any()


@pytest.mark.parametrize("intervention", ["added", "ablated"])
def test_dose_0_changes_nothing(model, table, direction, intervention):
    before = logits(model, table)
    places = (1,) if intervention == "added" else ()
    with getattr(hooks, intervention)(model, direction, *places, dose=0.0):
        assert torch.equal(logits(model, table), before)


def test_every_hook_is_gone_afterwards_even_after_an_error(model, table, direction):
    before, hooked = logits(model, table), count_hooks(model)
    for manager in (
        hooks.recorded_states(model),
        hooks.recorded_attention(model),
        hooks.added(model, direction, 1),
        hooks.ablated(model, direction),
    ):
        with pytest.raises(KeyError), manager:
            assert count_hooks(model) > hooked
            raise KeyError
        assert count_hooks(model) == hooked
    assert torch.equal(logits(model, table), before)


def test_a_place_that_is_not_there_is_refused_before_any_pass(model, direction):
    with (
        pytest.raises(UserError, match="has 0 to"),
        hooks.added(model, direction, len(hooks.blocks(model)) + 1),
    ):
        pass


def test_two_passes_leave_the_states_of_the_second(model, table):
    with torch.no_grad(), hooks.recorded_states(model) as states:
        for _, output in read(model, pd.concat([table.head(1), table.tail(1)])):
            last = output.last_hidden_state
            torch.testing.assert_close(hooks.last_norm(model)(states[-1]), last, **CLOSE)
