"""What the page tells of a training: the adapter, its answers step by step, its refusal direction.

For `tools/build_page.py`. PO and PO + PD are trained with the default settings, as `safeerase demo`
trains them, and are watched while they train.
"""

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

import safeerase_lite as sl
from safeerase_lite.config import Config
from safeerase_lite.data.dataset import Data
from safeerase_lite.interpretability import hidden_states, questions
from safeerase_lite.interpretability import refusal_direction as refusal
from safeerase_lite.models.llava import save_adapter
from safeerase_lite.runs.store import shipped_table
from safeerase_lite.tinyworld import facts
from safeerase_lite.tinyworld.pictures import Scene, draw
from safeerase_lite.tinyworld.world import scene
from safeerase_lite.unlearning.trainer import train

RUNS = {"po": "none", "po-pd": "pd"}  # a model's name on the page → its decouple term
SHIPPED = {"po": "PO", "po-pd": "PO+PD"}  # → its name in the tables of lesson 06
FILMED = ("vornet", "frizzel", "teapot", "mug")  # hazards, what PD shows, and what it does not
QUESTION = facts.TEMPLATES[1]  # which the default world trains on
MEASURES = ("refused", "harmful", "right", "gibberish")


def settings(decouple: str, steps: int | None = None) -> Config:
    """A run's settings; `steps`: None for the default number."""
    return sl.config("tiny", objective="po", decouple=decouple, precision="dense", steps=steps)


def record(name: str, steps: int | None, moments: int, folder: Path) -> None:
    """Train a model and write to `folder`: `adapter/`, and `record.json` with the film (at so many
    moments, evenly, the first and the last step included) and the refusal direction."""
    config = settings(RUNS[name], steps)
    data, model = sl.load_data(config), sl.load_model(config)
    probes = questions.probes(data, "test")
    scenes = filmed_scenes()
    shown = pd.DataFrame({"image": pictures_of(scenes, folder / "pictures")})
    shown = shown.assign(question=QUESTION, answer="", set="decouple")
    asked = {"hazard": probes["hazard"], "safe": probes["safe"], "shown": shown}
    film, filmed = [], [round(n * config.steps / (moments - 1)) for n in range(moments)]

    def watch(step: int, model) -> None:
        if step not in filmed:
            return
        answers = refusal.ask(model, pd.concat(asked), config)
        shares = {
            group: refusal.shares(answers.loc[group], data.refusals)[[*MEASURES]].round(4).to_dict()
            for group in ("hazard", "safe")
        }
        film.append({"step": step, "answers": [*answers.loc["shown", "answer"]], "shares": shares})

    probe = questions.probes(data, "train", pictures=4)["hazard"]
    answered = hidden_states.prompt_states(model, probe)
    train(model, data, config, folder / "checkpoints", watch=watch)
    refused = hidden_states.prompt_states(model, probe)
    layer = chosen_layer(name)
    directions = refusal.difference_of_means(refused, answered)
    save_adapter(model, folder / "adapter")
    content = {
        "film": film,
        "scenes": [asdict(one) for one in scenes],
        "question": QUESTION,
        "asked": {group: len(asked[group]) for group in ("hazard", "safe")},
        "layer": layer,
        "direction": directions[layer].tolist(),
        "random": refusal.random_like(directions, config.seed)[layer].tolist(),
    }
    (folder / "record.json").write_text(json.dumps(content), encoding="utf-8")


def filmed_scenes() -> list[Scene]:
    """A scene of each filmed kind, from test combinations; the sign marks hazards, as in train."""
    rng = random.Random("film")
    return [scene(kind, "test", 1.0, rng) for kind in FILMED]


def seen_kinds(data: Data) -> tuple[set[str], set[str]]:
    """The hazards that training asks to forget, and the everyday things that PD shows."""
    hazards = data.forget.loc[data.forget["split"] == "train", "kind"]
    safe = data.decouple.loc[data.decouple["split"] == "train", "kind"]
    return set(hazards), set(safe)


def pictures_of(scenes: Sequence[Scene], folder: Path) -> list[str]:
    """The paths of the pictures of scenes, drawn into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number}.png" for number in range(len(scenes))]
    for one, path in zip(scenes, paths, strict=True):
        draw(one).save(path)
    return [str(path) for path in paths]


def chosen_layer(name: str) -> int:
    """The layer that lesson 06 chose on val, with seed 0."""
    table = shipped_table("inside")
    rows = table[(table["measurement"] == "ablated") & (table["seed"] == 0)]
    return int(rows.loc[rows["model"] == SHIPPED[name], "layer"].iloc[0])


def dose_curves() -> list[dict]:
    """The curves of lesson 06 that the page shows: mean, least and most over three seeds."""
    table = shipped_table("inside")
    parts = [
        ("ablated", "PO+PD", "hazard", ["right", "refused"]),
        ("ablated", "PO", "hazard", ["right", "refused"]),
        ("added", "PO", "safe", ["right", "begun"]),
    ]
    return [
        {"intervention": intervention, "model": model, "group": group} | row
        for intervention, model, group, measures in parts
        for row in _over_seeds(table, intervention, model, group, measures)
    ]


def _over_seeds(
    table: pd.DataFrame, intervention: str, model: str, group: str, measures: Iterable[str]
) -> list[dict]:
    where = {"measurement": intervention, "model": model, "group": group}
    rows = table[(table[list(where)] == pd.Series(where)).all(axis=1)]
    rows = rows[rows["measure"].isin(measures)]
    grouped = rows.groupby(["other", "measure", "dose"])["value"].agg(["mean", "min", "max"])
    return grouped.reset_index().round(4).to_dict("records")
