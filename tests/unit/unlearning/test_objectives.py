"""The objectives are the formulas they claim to be, to the digit."""

import math

import pytest
import torch

from safeerase_lite.models.forward import Answers
from safeerase_lite.unlearning.objectives import (
    OBJECTIVES,
    Batch,
    Weights,
    divergence,
    loss,
    nll,
    weights,
)

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


def test_l_is_the_mean_over_answer_tokens_not_over_answers(batch):
    assert nll(batch.forget).item() == pytest.approx(F, abs=1e-6)


def test_ga_climbs_the_forget_loss(batch):
    assert loss("ga", plain(batch), Weights())[0].item() == pytest.approx(-F, abs=1e-6)


def test_gd_adds_the_retain_loss(batch):
    assert loss("gd", plain(batch), Weights())[0].item() == pytest.approx(-F + R, abs=1e-6)


def test_po_weighs_refusals_and_retain_answers_by_their_tokens(batch):
    expected = -(math.log(0.1) + math.log(0.2) + math.log(0.9)) / 3
    assert loss("po", plain(batch), Weights())[0].item() == pytest.approx(expected, abs=1e-6)


def test_kl_is_from_the_reference_to_the_model_on_retain_answers(batch):
    q, p = answers([0.9], [[3]]), answers([0.6], [[3]])
    expected = 0.6 * math.log(0.6 / 0.9) + 0.4 * math.log(0.4 / 0.1)
    x = plain(batch, retain=q, reference=p)
    assert divergence(p, q).item() == pytest.approx(expected, abs=1e-6)
    assert loss("kl", x, Weights())[0].item() == pytest.approx(-F + expected, abs=1e-6)


def test_kl_of_a_model_with_itself_is_zero(batch):
    same = Answers(batch.retain.logits.detach(), batch.retain.labels)
    assert divergence(same, batch.retain).item() == pytest.approx(0, abs=1e-7)


def test_npo_starts_at_the_constant_of_an_untrained_model(batch):
    """log p = log p_reference: −(2/β) log σ(0) = (2/β) log 2."""
    value = loss("npo", plain(batch), Weights(beta=0.1))[0].item()
    assert value == pytest.approx(2 / 0.1 * math.log(2), abs=1e-4)


def test_npo_is_bounded_below_where_ga_is_not():
    reference = answers([0.9], [[0]])
    for probability in (1e-3, 1e-6, 1e-30):
        x = Batch(forget=answers([probability], [[0]]), reference=reference)
        assert loss("npo", x, Weights(beta=0.1))[0].item() >= 0
        assert loss("ga", x, Weights())[0].item() == pytest.approx(math.log(probability), rel=1e-4)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_pd_is_one_added_term(objective, batch):
    x = batch
    if objective == "kl":
        x = Batch(**(vars(batch) | {"reference": batch.retain}))
    w = Weights(decouple=0.7)
    with_pd, without = loss(objective, x, w)[0], loss(objective, plain(x), w)[0]
    assert (with_pd - without).item() == pytest.approx(0.7 * D, abs=1e-5)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_gradient_of_pd_is_its_own_term_and_nothing_else(objective, batch):
    x = batch
    if objective == "kl":
        detached = Answers(batch.retain.logits.detach(), batch.retain.labels)
        x = Batch(**(vars(batch) | {"reference": detached}))
    leaves = {name: getattr(x, name).logits for name in (*OBJECTIVES[objective].needs, "decouple")}

    def gradients(total):
        found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        return dict(zip(leaves, found, strict=True))

    with_pd = gradients(loss(objective, x, Weights(decouple=0.7))[0])
    without = gradients(loss(objective, plain(x), Weights())[0])
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
    loss(objective, x, Weights())[0].backward()
    for name in (*OBJECTIVES[objective].needs, "decouple"):
        gradient = groups[name].logits.grad
        assert (gradient[groups[name].labels == -100] == 0).all()
        assert (gradient[groups[name].labels != -100] != 0).any()


def test_official_weights_are_those_of_the_code():
    assert weights("ga", "official", "pd") == Weights(1.0, 0.5)
    assert weights("gd", "official", "pd") == Weights(0.5, 0.5)
    assert weights("kl", "official", "pd") == Weights(1.0, 1.0)
    assert weights("po", "official", "pd") == Weights(1.0, 1.0)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_matched_weights_change_nothing_but_the_added_term(objective):
    assert weights(objective, "matched", "pd") == weights(objective, "matched", "none")
    assert weights(objective, "official", "none") == weights(objective, "matched", "none")


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_pieces_of_a_step_add_up_to_the_step(objective):
    """Gradient accumulation is exact: pieces divide by the step's counts, not by their own."""
    whole_labels = [[0, 1, 2], [-100, -100, 3]]
    probabilities = {"forget": [0.5, 0.3, 0.2, 0.4], "refuse": [0.1, 0.3, 0.5, 0.9],
                     "retain": [0.7, 0.6, 0.5, 0.4], "decouple": [0.2, 0.2, 0.2, 0.8]}  # fmt: skip
    groups = {name: answers(p, whole_labels) for name, p in probabilities.items()}
    reference = answers([0.5, 0.5, 0.6, 0.7], whole_labels)

    def rows(group, index):
        return Answers(group.logits[index], group.labels[index], 4, 2)

    whole = loss(objective, Batch(**groups, reference=reference), Weights())[0]
    pieces = [
        loss(
            objective,
            Batch(
                **{name: rows(group, slice(i, i + 1)) for name, group in groups.items()},
                reference=rows(reference, slice(i, i + 1)),
            ),
            Weights(),
        )[0]
        for i in (0, 1)
    ]
    assert sum(pieces).item() == pytest.approx(whole.item(), rel=1e-6)
