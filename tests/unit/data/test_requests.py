"""Requests one after another: each category once, and what was asked so far counts as seen."""

import pytest

from safeerase_lite.data.requests import request_order, require_requests, so_far, trained_on
from safeerase_lite.utils import UserError


def trained(table):
    return set(table["category"][table["split"] == "train"])


def test_every_category_is_asked_once_and_the_seed_draws_the_order(world):
    orders = [request_order(world, seed) for seed in range(5)]
    assert all(sorted(order) == sorted(trained(world.forget)) for order in orders)
    assert len({tuple(order) for order in orders}) > 1
    assert request_order(world, 3) == orders[3]


@pytest.mark.parametrize("name", ["forget", "retain", "decouple", "placebo"])
def test_a_request_trains_on_its_category_alone_and_is_evaluated_on_all(world, name):
    first, second = request_order(world, 0)[:2]
    before, table = getattr(world, name), getattr(trained_on(world, [second]), name)
    assert trained(table) == {second}
    assert trained(getattr(so_far(world, 2, 0), name)) == {first, second}
    assert (table["split"] != "train").sum() == (before["split"] != "train").sum()


def test_hazards_asked_so_far_are_seen_and_those_to_come_are_not(world):
    asked = so_far(world, 2, 0).forget
    come = asked["category"].isin(request_order(world, 0)[:2])
    requested = world.forget.groupby("kind")["seen_kind"].first()
    assert (asked["seen_kind"] == (come & asked["kind"].map(requested))).all()


def test_after_the_last_request_the_data_are_those_of_all_at_once(world):
    number = len(request_order(world, 0))
    assert so_far(world, number, 0).forget.equals(world.forget)
    assert so_far(world, None, 0) is world


def test_more_requests_than_categories_are_refused(world):
    number = len(request_order(world, 0))
    require_requests(world, number, 0)
    with pytest.raises(UserError, match=f"requests is {number + 1}, and training has {number} cat"):
        require_requests(world, number + 1, 0)
