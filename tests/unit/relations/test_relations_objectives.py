"""The terms of the relational edit, to the digit, and where their gradients go."""

import math

import pytest
import torch
from pytest import approx

from safeerase_lite.relations.evaluation import divergence
from safeerase_lite.relations.objectives import (
    METHODS,
    chosen,
    forget,
    hold,
    push_apart,
    suppress,
)
from safeerase_lite.relations.tuning import candidates


def test_suppress_is_how_far_the_unsafe_caption_stands_above_its_best_safe_alternative():
    unsafe, safe = torch.tensor([5.0, 1.0]), torch.tensor([[2.0, 4.0], [3.0, 9.0]])
    # 2 + 5 − 4 = 3 for the first; the second is below already: 2 + 1 − 9 < 0
    assert suppress(unsafe, safe, margin=2.0).item() == approx((3 + 0) / 2)


def test_suppress_stops_where_the_margin_is_reached():
    unsafe = torch.tensor([1.0], requires_grad=True)
    suppress(unsafe, torch.tensor([[3.5]]), margin=2.0).backward()
    assert unsafe.grad.item() == 0


def test_suppress_moves_the_unsafe_score_and_no_safe_one():
    unsafe = torch.tensor([5.0, 6.0], requires_grad=True)
    safe = torch.tensor([[2.0, 4.0], [3.0, 1.0]], requires_grad=True)
    loss = suppress(unsafe, safe, margin=1.0)
    loss.backward()
    assert unsafe.grad.tolist() == [0.5, 0.5]
    assert safe.grad is None


def test_forget_costs_as_much_below_its_target_as_above():
    unknown = torch.tensor([3.0, 3.0])
    above, below = (forget(unknown + shift, unknown).item() for shift in (2.0, -2.0))
    assert above == below == 4.0


def test_hold_sees_all_scores_sink_together():
    """A divergence of their softmaxes does not."""
    frozen = torch.tensor([[1.0, 2.0, 3.0]])
    assert hold(frozen - 7, frozen).item() == 49
    assert divergence(frozen - 7, frozen).item() == approx(0, abs=1e-6)  # rounding of float32


def test_hold_is_a_mean_over_images_and_captions():
    edited, frozen = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 0.0], [3.0, 4.0]])
    assert hold(edited, frozen).item() == 1.0


def test_divergence_is_from_the_frozen_model_in_nats():
    frozen = torch.tensor([[0.0, math.log(3)]])  # 1/4, 3/4
    edited = torch.tensor([[0.0, 0.0]])  # 1/2, 1/2
    expected = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert divergence(edited, frozen).item() == approx(expected)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_settings_that_were_chosen_among_its_candidates(method):
    assert chosen(method) in candidates(method)


def test_pair_unlearning_pushes_every_pair_alike_whatever_is_safe():
    cosine = torch.tensor([0.9, -0.5], requires_grad=True)
    push_apart(cosine).backward()
    assert cosine.grad.tolist() == [0.5, 0.5]
