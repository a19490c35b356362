"""One step of lesson 04, to first order."""

import pytest
import torch

from safeerase_lite.lessons import stepping


def test_adams_first_step_is_the_sign_of_the_gradient():
    gradient = torch.tensor([3.0, -0.002, 0.0])
    parameter = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.Adam([parameter], lr=1.0)
    parameter.grad = gradient.clone()
    optimizer.step()
    torch.testing.assert_close(stepping.adam_direction(gradient), parameter.detach())


def test_a_random_batch_has_the_same_answers_for_the_reference():
    x = stepping.random_batch(0)
    for group in stepping.GROUPS:
        mine, frozen = getattr(x, group), getattr(x.reference, group)
        assert torch.equal(mine.labels, frozen.labels) and not torch.equal(
            mine.logits, frozen.logits
        )
    lengths = {(getattr(x, group).labels != -100).sum().item() for group in stepping.GROUPS}
    assert len(lengths) == len(stepping.GROUPS)


def test_a_batch_is_the_same_for_the_same_seed():
    first, again, other = (stepping.random_batch(seed).forget.logits for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == pytest.approx((3, 6, 50))
