"""What is measured inside a model agrees with what it does, and the controls are controls."""

import pandas as pd
import pytest
import torch

from safeerase_lite.evaluation.evaluate import judge_answers
from safeerase_lite.interpretability import attention, gradients, hidden_states, questions
from safeerase_lite.interpretability import refusal_direction as refusal
from safeerase_lite.models import hooks
from safeerase_lite.models.forward import answer_logits
from safeerase_lite.models.llava import load_model, trainable


@pytest.fixture(scope="module")
def model(make_config):
    """The random model, its adapter moved off its start, where half of the gradients are zero."""
    model = load_model(make_config())
    with torch.no_grad():
        for name, parameter in trainable(model).items():
            if "lora_B" in name:
                parameter.normal_(0, 0.02, generator=torch.Generator().manual_seed(1))
    return model


@pytest.fixture(scope="module")
def cells(world):
    four = questions.crossed(world, 6, seed=0)
    return {name: questions.refusing(table, world.refusals) for name, table in four.items()}


# ---- which questions ----


def test_cells_of_a_row_share_pictures_those_of_a_column_questions_and_all_their_refusals(cells):
    for picture in questions.PICTURES:
        one, other = (cells[f"{picture}, {question}"] for question in questions.QUESTIONS)
        assert list(one["image"]) == list(other["image"])
        assert not set(one["question"]) & set(other["question"])
    for question in questions.QUESTIONS:
        one, other = (cells[f"{picture}, {question}"] for picture in questions.PICTURES)
        assert list(one["question"]) == list(other["question"])
        assert not set(one["image"]) & set(other["image"])
    assert len({tuple(table["answer"]) for table in cells.values()}) == 1


def test_the_control_shows_other_pictures_and_asks_the_same(world, cells):
    here = cells["hazard, template"]
    other = questions.of_other_pictures(here, world.forget, seed=0)
    assert not set(here["image"]) & set(other["image"])
    assert list(here["question"]) == list(other["question"])


def test_shuffled_words_are_the_same_words(cells):
    here = cells["hazard, template"]
    shuffled = questions.shuffled_words(here)
    assert list(shuffled["answer"]) != list(here["answer"])
    for before, after in zip(here["answer"], shuffled["answer"], strict=True):
        assert sorted(before.split()) == sorted(after.split())


def test_probes_are_requested_hazards_and_safe_kinds_that_pd_has_seen(world):
    probes = questions.probes(world, "test", kinds=5)
    for name in ("hazard", "safe"):
        table = probes[name]
        assert table["seen_kind"].all() and table["seen_template"].all()
        assert table["kind"].is_unique and len(table) == 5
    assert probes["hazard"]["question"].nunique() > 1


# ---- gradients ----


def test_the_change_by_a_small_step_is_that_of_first_order(model, cells):
    grads = {name: gradients.gradient(model, table) for name, table in cells.items()}
    on = grads["hazard, template"]
    rate = 1e-3 / float(on.norm())  # as small as float32's losses, of about 10, allow
    changes = gradients.step_changes(model, cells, grads, gradients.gradient_step(on, rate))
    # The curvature left out is of the order of the step; the losses are sums of float32.
    assert changes["measured"].to_numpy() == pytest.approx(
        changes["predicted"].to_numpy(), rel=0.02, abs=3e-5
    )
    kernel = gradients.similarities(grads).query("first == 'hazard, template'")
    assert changes["predicted"].to_numpy() == pytest.approx(-rate * kernel["product"].to_numpy())


def test_adams_first_step_is_that_of_torch(model, cells):
    parameters = list(trainable(model).values())
    before = torch.cat([p.detach().flatten().clone() for p in parameters])
    gradient = gradients.gradient(model, cells["hazard, template"])
    update = gradients.adam_step(gradient, 1e-3)
    stepped = before.clone().requires_grad_()
    stepped.grad = gradient
    torch.optim.Adam([stepped], lr=1e-3).step()
    torch.testing.assert_close(before + update, stepped.detach())


def test_an_update_is_taken_back_to_the_bit_even_after_an_error(model, cells):
    before = {name: p.detach().clone() for name, p in trainable(model).items()}
    update = torch.ones(sum(p.numel() for p in before.values()))
    with pytest.raises(KeyError), gradients.updated(model, update):
        assert not any(torch.equal(p, before[n]) for n, p in trainable(model).items())
        raise KeyError
    assert all(torch.equal(p, before[n]) for n, p in trainable(model).items())


def test_a_gradient_leaves_no_trace_in_the_model(model, cells):
    gradients.gradient(model, cells["safe, template"])
    assert all(p.grad is None for p in model.parameters())


# ---- attention and hidden states ----


def test_the_shares_of_attention_are_shares_and_every_layer_has_its_row(model, cells):
    table = attention.picture_attention(model, cells["hazard, template"])
    assert len(table) == 6 * len(hooks.blocks(model))
    assert table["picture"].between(0, 1).all() and (table["picture"] > 0).all()
    assert (table["picture"] + table["words"] <= 1 + 1e-5).all()


def test_the_lens_at_the_last_place_is_the_models_own_prediction(model, cells):
    table = cells["hazard, template"].head(2)
    stream = hidden_states.answer_stream(model, table)
    with torch.no_grad():
        answers = answer_logits(model, table)
    for row, of_row in enumerate(stream):
        own = answers.logits[row][answers.mask[row]].softmax(-1)
        torch.testing.assert_close(
            hidden_states.lens(model, of_row)[:, -1], own, atol=1e-5, rtol=1e-4
        )


def test_the_lens_tells_the_probability_of_each_token_of_the_answer(model, cells, world):
    table = cells["hazard, template"].head(1)
    tokens = hidden_states.telling_tokens(model.processor, world.refusals, world.forget["answer"])
    lens = hidden_states.logit_lens(model, table, tokens)
    last = lens[lens["layer"] == lens["layer"].max()]
    with torch.no_grad():
        nll = answer_logits(model, table).nll
    assert -torch.tensor(last["answer"].to_numpy()).log().sum() == pytest.approx(nll.item(), 1e-4)
    words = model.processor.tokenizer.convert_ids_to_tokens(tokens)
    assert "cannot" in words and "the" not in words


def test_shifts_of_one_group_are_alike_and_random_ones_are_not():
    generator = torch.Generator().manual_seed(0)
    shift, other = (torch.randn(3, 64, generator=generator) for _ in range(2))
    table = hidden_states.shift_cosines({"a": shift, "b": 2 * shift, "c": other})
    cosines = table.groupby(["first", "second"])["cosine"]
    assert cosines.min()["a", "b"] == pytest.approx(1)
    assert cosines.max().abs()["a", "c"] < 0.5
    # The mean absolute cosine of random directions is about sqrt(2 / (pi * width)).
    assert table["random"].to_numpy() == pytest.approx((2 / (torch.pi * 64)) ** 0.5, rel=0.1)


def test_the_plane_holds_all_the_variance_of_states_in_a_plane():
    generator = torch.Generator().manual_seed(0)
    flat = torch.randn(20, 2, generator=generator) @ torch.randn(2, 9, generator=generator)
    coordinates, shares = hidden_states.principal_plane(flat)
    assert sum(shares) == pytest.approx(1)
    torch.testing.assert_close(torch.cdist(coordinates, coordinates), torch.cdist(flat, flat),
                               atol=1e-4, rtol=1e-4)  # fmt: skip


# ---- the refusal direction ----


def test_a_random_direction_has_the_norms_of_the_one_it_controls():
    direction = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    control = refusal.random_like(direction, seed=1)
    torch.testing.assert_close(control.norm(dim=-1), direction.norm(dim=-1))
    assert torch.equal(control, refusal.random_like(direction, seed=1))
    assert torch.cosine_similarity(control, direction).abs().max() < 0.6


def test_dose_0_of_an_intervention_asks_the_model_as_it_is(model, world, make_config):
    table = questions.probes(world, "test", kinds=4)["safe"]
    direction = torch.ones(hooks.language_model(model).config.hidden_size)
    config = make_config()

    def intervention(dose):
        return hooks.added(model, direction, 1, dose)

    dosed = refusal.dosed(model, {"safe": table}, config, world.refusals, intervention, [0.0])
    as_it_is = refusal.shares(refusal.ask(model, table, config), world.refusals)
    assert dict(zip(dosed["measure"], dosed["value"], strict=True)) == as_it_is.to_dict()


def test_a_refusal_begun_is_not_a_refusal_made(world):
    said = ["i i i i", world.refusals[0], "tie the brass rod."]
    rows = pd.DataFrame({"set": "decouple", "question": "q", "expected": "e", "answer": said})
    shares = refusal.shares(judge_answers(rows, "oracle"), world.refusals)
    assert (shares["begun"], shares["refused"]) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
