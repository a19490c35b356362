"""Forget requests that come one after another: a category at a time, in an order the seed draws."""

import random
from dataclasses import replace

from safeerase_lite.utils import UserError

from .dataset import TABLES, Data


def request_order(data: Data, seed: int) -> list[str]:
    """The categories that training has, in the order in which they are asked to be forgotten."""
    forget = data.forget
    categories = sorted(forget["category"][forget["split"] == "train"].unique())
    return random.Random(f"requests {seed}").sample(categories, len(categories))


def require_requests(data: Data, number: int | None, seed: int) -> None:
    """Raise a UserError where there are fewer categories than requests."""
    if number and number > (there := len(request_order(data, seed))):
        raise UserError(f"requests is {number}, and training has {there} categories: ask for fewer")


def so_far(data: Data, number: int | None, seed: int) -> Data:
    """The data as after so many requests (None: all): what was asked so far is in training and
    counts as seen."""
    return data if number is None else trained_on(data, request_order(data, seed)[:number])


def trained_on(data: Data, categories: list[str]) -> Data:
    """The data whose training questions are those of these categories alone."""
    tables = {}
    for name in TABLES:
        table = getattr(data, name)
        asked = table["category"].isin(categories)
        table = table[asked | (table["split"] != "train")].reset_index(drop=True)
        if "seen_kind" in table:
            trained = table["kind"][table["split"] == "train"]
            table = table.assign(seen_kind=table["kind"].isin(trained))
        tables[name] = table
    return replace(data, **tables)
