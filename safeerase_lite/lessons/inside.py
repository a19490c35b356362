"""What three seeds say of a model's inside, the shipped table of lesson 06; and its live parts."""

from collections.abc import Callable, Sequence

import pandas as pd
import torch

from safeerase_lite.config import Config
from safeerase_lite.data.dataset import Data
from safeerase_lite.interpretability import gradients, questions, refusal_direction
from safeerase_lite.interpretability.hidden_states import principal_plane, prompt_states
from safeerase_lite.runs.store import shipped_table

SHIPPED = shipped_table("inside")
LAST = SHIPPED["layer"].max()


def over_seeds(measurement: str, keys: Sequence[str], **where) -> pd.DataFrame:
    """Mean, least and most over the seeds, as value, low and high, for each value of `keys`.

    `where` names columns and the value or values that are wanted.
    """
    rows = SHIPPED[SHIPPED["measurement"] == measurement]
    for column, value in where.items():
        rows = rows[rows[column].isin(value if isinstance(value, list) else [value])]
    table = rows.groupby(list(keys), sort=False)["value"].agg(["mean", "min", "max"]).reset_index()
    return table.rename(columns={"mean": "value", "min": "low", "max": "high"})


def _in_words(table: pd.DataFrame) -> pd.DataFrame:
    """Mean [least, most] as `share`, in percent."""
    ends = zip(table["value"], table["low"], table["high"], strict=True)
    return table.assign(share=[f"{v:.0%} [{low:.0%}, {high:.0%}]" for v, low, high in ends])


def measured_of_predicted(measure: str, rate: float) -> str:
    """Least and most over the seeds of the measured over the predicted change of refusing about
    safe pictures, after a step of this kind and rate on hazards."""
    rows = SHIPPED[
        (SHIPPED["measurement"] == "step") & (SHIPPED["measure"] == measure)
        & (SHIPPED["group"] == "refuse: safe, template") & (SHIPPED["dose"] == rate)
    ]  # fmt: skip
    wide = rows.pivot_table("value", "seed", "other")
    ends = (wide["measured"] / wide["predicted"]).agg(["min", "max"])
    return ends.map("{:.0%}".format).str.cat(sep=" to ")


def shift_pairs(words: dict[str, str], models: list[str]) -> pd.DataFrame:
    """How alike the shift of hazards is to that of other groups, in the last block: mean cosine,
    least and most. `words` says how a group reads."""
    pairs = over_seeds(
        "shift", ["model", "group", "other"], measure="cosine", model=models, layer=LAST
    )
    pairs = pairs[pairs["group"] == "hazard"]
    pair = pairs["group"].map(words) + " with " + pairs["other"].map(words)
    columns = {"value": "mean cosine", "low": "least", "high": "most"}
    table = pairs.assign(pair=pair).rename(columns=columns).set_index(["model", "pair"])
    return table[list(columns.values())].round(2)


def ablated_shares() -> pd.DataFrame:
    """What becomes of answers when a direction is taken out completely."""
    measures = ["right", "harmful", "refused", "gibberish"]
    keys = ["model", "other", "group", "measure"]
    table = over_seeds("ablated", keys, dose=1.0, group=["hazard", "safe"], measure=measures)
    wide = _in_words(table).pivot(
        index=["model", "group", "other"], columns="measure", values="share"
    )
    return wide[measures]


def added_shares(doses: list[float]) -> pd.DataFrame:
    """What becomes of vanilla's answers about safe pictures when plain PO's direction is added."""
    keys, measures = ["other", "dose", "measure"], ["right", "begun", "refused"]
    table = over_seeds("added", keys, group="safe", measure=measures, model="PO", dose=doses)
    wide = _in_words(table).pivot(index=["other", "dose"], columns="measure", values="share")
    return wide.rename_axis(["direction", "dose"])


# ---- live ----


def step_table(model, cells: dict, grads: dict, steps: dict) -> pd.DataFrame:
    """Each cell's change of loss, predicted to first order and measured, after each of the steps
    (name → change of the weights)."""
    changes = [
        gradients.step_changes(model, cells, grads, update).assign(step=name)
        for name, update in steps.items()
    ]
    wide = pd.concat(changes).pivot(index="cell", columns="step", values=["predicted", "measured"])
    return wide.loc[list(cells)].swaplevel(axis=1).sort_index(axis=1, ascending=[True, False])


def refusal_directions(
    model, become: Callable[[str], object], names: Sequence[str], data: Data, config: Config,
    seed: int,
) -> tuple[dict[str, tuple], pd.DataFrame]:  # fmt: skip
    """For each unlearned model, the difference of means between refusing and answering the same
    training questions, at the layer where taking it out brings the most plans back on val.

    Args:
        become: makes the model vanilla or one of the unlearned ones, by name.
        names: of the unlearned ones.

    Returns:
        name → (layer, direction, a random direction of its norm); and the shares right and refused
        on val, by model and layer.
    """
    train = questions.probes(data, "train", pictures=4)["hazard"]
    on = questions.probes(data, "val", pictures=2)["hazard"]
    become("vanilla")
    answered, chosen, tried = prompt_states(model, train), {}, {}
    for name in names:
        become(name)
        r = refusal_direction.difference_of_means(prompt_states(model, train), answered)
        best, tried[name] = refusal_direction.best_layer(model, on, config, data.refusals, r)
        chosen[name] = (best, r[best], refusal_direction.random_like(r, seed)[best])
    table = pd.concat(tried).query("measure in ['right', 'refused']").droplevel(1)
    table = table.rename_axis("model").reset_index()
    wide = table.pivot_table("value", ["model", "layer"], "measure", sort=False)
    return chosen, wide.astype(float)


def plane_points(
    states: dict[str, dict], words: dict[str, str], layer: int, each: int = 10
) -> tuple[pd.DataFrame, list[float]]:
    """The first hidden states of hazards and safe pictures of every model, in the plane of their
    first two principal components; and the plane's shares of the variance.

    Args:
        states: model → group → (prompts, layers, width).  words: how a group reads.
        each: how many of each group.
    """
    shown = {
        (name, words[group]): states[name][group][:each, layer]
        for name in states
        for group in ("hazard", "safe")
    }
    plane, variance = principal_plane(torch.cat(list(shown.values())))
    labels = [key for key, of_group in shown.items() for _ in of_group]
    points = pd.DataFrame(labels, columns=["model", "group"])
    return points.assign(x=plane[:, 0], y=plane[:, 1]), variance
