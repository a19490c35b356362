"""The objectives are the formulas they claim to be, to the digit."""

import math

import pytest
import torch

from safeerase_lite.config import config
from safeerase_lite.unlearning.objectives import (
    OBJECTIVES,
    Answers,
    Batch,
    LossWeights,
    Objective,
    divergence,
    label_of,
    loss,
    loss_weights,
    nll,
)
from safeerase_lite.utils import UserError

VOCABULARY = 4


def answers(probabilities, labels):
    """Answers whose model gives the labelled token that probability; the others share the rest."""
    labels = torch.tensor(labels)
    logits = torch.zeros(*labels.shape, VOCABULARY)
    for position, probability in zip(labels.ge(0).nonzero(), probabilities, strict=True):
        rest = math.log((1 - probability) / (VOCABULARY - 1))
        logits[tuple(position)] = rest
        logits[(*position, labels[tuple(position)])] = math.log(probability)
    return Answers(logits.requires_grad_(), labels)


@pytest.fixture
def batch():
    forget = answers([0.5, 0.25, 0.8], [[0, 1], [-100, 2]])
    return Batch(
        forget=forget,
        refuse=answers([0.1, 0.2], [[1, 1]]),
        retain=answers([0.9], [[3]]),
        decouple=answers([0.4], [[2]]),
        reference=Answers(forget.logits.detach(), forget.labels),
    )


F = -(math.log(0.5) + math.log(0.25) + math.log(0.8)) / 3
R = -math.log(0.9)
D = -math.log(0.4)


def plain(batch, **groups):
    return Batch(**(vars(batch) | {"decouple": None} | groups))


def value(objective, x, **weights):
    return loss(objective, x, LossWeights(**weights))[0].item()


# Float32 throughout: the sixth digit after the point is rounding, the fifth for losses of order 10
# (NPO, and differences of such losses).


def test_l_is_the_mean_over_answer_tokens_not_over_answers(batch):
    assert nll(batch.forget).item() == pytest.approx(F, abs=1e-6)


def test_ga_raises_the_forget_loss_and_gd_adds_the_retain_loss(batch):
    assert value("ga", plain(batch)) == pytest.approx(-F, abs=1e-6)
    assert value("gd", plain(batch)) == pytest.approx(-F + R, abs=1e-6)
    assert value("gd", plain(batch), retain=0.5) == pytest.approx(-F + R / 2, abs=1e-6)


def test_po_weighs_refusals_and_retain_answers_by_their_tokens(batch):
    expected = -(math.log(0.1) + math.log(0.2) + math.log(0.9)) / 3
    assert value("po", plain(batch)) == pytest.approx(expected, abs=1e-6)


def test_kl_is_from_the_reference_to_the_model_on_retain_answers(batch):
    q, p = answers([0.9], [[3]]), answers([0.6], [[3]])
    expected = 0.6 * math.log(0.6 / 0.9) + 0.4 * math.log(0.4 / 0.1)
    x = plain(batch, retain=q, reference=p)
    assert divergence(p, q).item() == pytest.approx(expected, abs=1e-6)
    assert value("kl", x) == pytest.approx(-F + expected, abs=1e-6)
    same = Answers(q.logits.detach(), q.labels)
    assert divergence(same, q).item() == 0


def test_npo_starts_at_the_constant_of_an_untrained_model(batch):
    """log p = log p_reference: −(2/β) log σ(0) = (2/β) log 2."""
    assert value("npo", plain(batch), beta=0.1) == pytest.approx(2 / 0.1 * math.log(2), abs=1e-5)


def test_npo_is_bounded_below_where_ga_is_not():
    reference = answers([0.9], [[0]])
    for probability in (1e-3, 1e-6, 1e-30):
        x = Batch(forget=answers([probability], [[0]]), reference=reference)
        assert value("npo", x, beta=0.1) >= 0
        assert value("ga", x) == pytest.approx(math.log(probability), rel=1e-6)


@pytest.mark.parametrize("objective", ["gd", "kl"])
def test_bounded_ascent_is_the_official_one_until_an_answer_is_forgotten(objective, batch):
    reference = batch.retain if objective == "kl" else None
    x = plain(batch, reference=reference)
    likely = value(f"{objective}_bounded", x, cap=1.5)  # nats: of both answers' means
    assert likely == pytest.approx(value(objective, x), abs=1e-6)


def test_a_forgotten_answer_is_pushed_no_further_and_the_others_are():
    forget = answers([0.5, 0.25, 0.01], [[0, 1], [-100, 2]])  # means of 1.04 and 4.6 nats
    x = Batch(forget=forget, retain=answers([0.9], [[3]]))
    total, _ = loss("gd_bounded", x, LossWeights(cap=4.0))
    total.backward()
    likely, forgotten = forget.logits.grad
    assert (likely != 0).any()
    assert (forgotten == 0).all()
    assert total.item() == pytest.approx((math.log(0.5) + math.log(0.25) - 4) / 3 + R, abs=1e-6)


def test_npo_rt_is_npo_and_the_retain_loss(batch):
    expected = value("npo", plain(batch)) + 0.5 * R
    assert value("npo_rt", plain(batch), retain=0.5) == pytest.approx(expected, abs=1e-5)


def test_the_history_has_each_groups_loss_and_the_total(batch):
    total, terms = loss("gd", batch, LossWeights(retain=0.5, decouple=0.5))
    expected = {"loss": -F + R / 2 + D / 2, "forget": F, "retain": R, "decouple": D}
    assert {name: terms[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert terms["loss"] == total.item()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_pd_is_one_added_term(objective, batch):
    x = batch
    if OBJECTIVES[objective].reference == "retain":
        x = Batch(**(vars(batch) | {"reference": batch.retain}))
    w = LossWeights(decouple=0.7)
    with_pd, without = loss(objective, x, w)[0], loss(objective, plain(x), w)[0]
    assert (with_pd - without).item() == pytest.approx(0.7 * D, abs=1e-5)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_gradient_of_pd_is_its_own_term_and_nothing_else(objective, batch):
    x = batch
    if OBJECTIVES[objective].reference == "retain":
        detached = Answers(batch.retain.logits.detach(), batch.retain.labels)
        x = Batch(**(vars(batch) | {"reference": detached}))
    leaves = {name: getattr(x, name).logits for name in (*OBJECTIVES[objective].needs, "decouple")}

    def gradients(total):
        computed = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        return dict(zip(leaves, computed, strict=True))

    with_pd = gradients(loss(objective, x, LossWeights(decouple=0.7))[0])
    without = gradients(loss(objective, plain(x), LossWeights())[0])
    alone = gradients(0.7 * nll(x.decouple))
    assert torch.equal(with_pd["decouple"], alone["decouple"])
    for name in OBJECTIVES[objective].needs:
        assert torch.equal(with_pd[name], without[name])
        assert alone[name] is None


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_positions_without_an_answer_get_no_gradient(objective):
    labels = [[-100, 0, 1], [-100, -100, 2]]
    groups = {
        name: answers([0.5, 0.3, 0.2], labels)
        for name in ("forget", "refuse", "retain", "decouple")
    }
    reference = answers([0.6, 0.1, 0.2], labels)
    x = Batch(**groups, reference=Answers(reference.logits.detach(), reference.labels))
    loss(objective, x, LossWeights())[0].backward()
    for name in (*OBJECTIVES[objective].needs, "decouple"):
        gradient = groups[name].logits.grad
        assert (gradient[groups[name].labels == -100] == 0).all()
        assert (gradient[groups[name].labels != -100] != 0).any()


@pytest.mark.parametrize(
    ("objective", "retain", "decouple"),
    [("ga", 1, 0.5), ("gd", 0.5, 0.5), ("kl", 1, 1), ("po", 1, 1), ("npo", 1, 0.5),
     ("gd_bounded", 0.5, 0.5), ("kl_bounded", 1, 1), ("npo_rt", 1, 0.5)],
)  # fmt: skip
@pytest.mark.parametrize("pairs", ["pd", "placebo"])
def test_official_weights_are_those_of_the_code(objective, retain, decouple, pairs):
    given = config(objective=objective, decouple=pairs, npo_beta=0.3, forget_cap=2.0)
    assert loss_weights(given) == LossWeights(retain, decouple, 0.3, 2.0)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_matched_weights_change_nothing_but_the_added_term(objective):
    for preset, decouple in (("matched", "pd"), ("matched", "none"), ("official", "none")):
        given = config(objective=objective, decouple=decouple, weights=preset, forget_cap=2.0)
        assert loss_weights(given) == LossWeights(cap=2.0)


def test_every_objective_has_a_label_and_one_of_ones_own_its_name():
    assert [label_of(name) for name in (*OBJECTIVES, "vanilla", "mine")] == [
        "GA", "GD", "KL", "GD bounded", "KL bounded", "PO", "NPO", "NPO+RT", "vanilla", "mine"
    ]  # fmt: skip


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_parts_of_a_step_add_up_to_the_step(objective):
    """Gradient accumulation is exact: parts divide by the step's counts, not by their own."""
    labels = [[0, 1, 2], [-100, -100, 3]]
    probabilities = {"forget": [0.5, 0.3, 0.2, 0.4], "refuse": [0.1, 0.3, 0.5, 0.9],
                     "retain": [0.7, 0.6, 0.5, 0.4], "decouple": [0.2, 0.2, 0.2, 0.8]}  # fmt: skip
    groups = {name: answers(p, labels) for name, p in probabilities.items()}
    reference = answers([0.5, 0.5, 0.6, 0.7], labels)

    def rows(group, index):
        return Answers(group.logits[index], group.labels[index], 4, 2)

    step = loss(objective, Batch(**groups, reference=reference), LossWeights())[0]
    parts = [
        loss(
            objective,
            Batch(
                **{name: rows(group, slice(i, i + 1)) for name, group in groups.items()},
                reference=rows(reference, slice(i, i + 1)),
            ),
            LossWeights(),
        )[0]
        for i in (0, 1)
    ]
    assert sum(parts).item() == pytest.approx(step.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"needs": ("forgett",)}, "unknown group in needs 'forgett': .*did you mean 'forget'"),
        ({"needs": "forget"}, "needs is 'forget': name groups"),
        ({"needs": ()}, "name groups"),
        (
            {"needs": ("forget",), "reference": "forgett"},
            "reference .*did you mean 'forget'",
        ),
        ({"needs": ("forget",), "reference": "retain"}, "unknown reference .*choose one of forget"),
        ({"needs": ("refuse", "retain"), "reference": "refuse"}, "choose one of retain"),
    ],
)
def test_a_group_that_an_objective_cannot_have_is_named_when_it_is_made(fields, says):
    with pytest.raises(UserError, match=says):
        Objective(lambda x, w: 0, **fields)
