"""Make the table of lesson 06: `python tools/inside.py`.

What the lesson measures inside vanilla, PO, PO+PD, PO+placebo and gold, for three seeds, on the
default tiny world. Runs are stored in `output/inside` (or the ledger that is named) and not
repeated.
"""

import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
import transformers
import typer

import safeerase_lite as sl
from safeerase_lite.interpretability import attention, gradients, hidden_states, questions
from safeerase_lite.interpretability import refusal_direction as refusal
from safeerase_lite.models import hooks

TARGET = Path(sl.__file__).parent / "tinyworld" / "assets" / "inside"
SEEDS = (0, 1, 2)
DOSES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of ablation: 1 takes all of the direction out
ADDED_DOSES = (*DOSES, 1.5, 2.0)
MODELS = {"vanilla": ("vanilla", "none"), "PO": ("po", "none"), "PO+PD": ("po", "pd"),
          "PO+placebo": ("po", "placebo"), "gold": ("gold", "none")}  # fmt: skip
COLUMNS = ["measurement", "model", "group", "other", "layer", "dose", "measure", "seed", "value"]


def settings(seed: int, model: str) -> sl.config:
    objective, decouple = MODELS[model]
    return sl.config("tiny", precision="dense", objective=objective, decouple=decouple, seed=seed)


def measured(seed: int, runs: Path) -> Iterator[pd.DataFrame]:
    """Every measurement of one seed, tidy."""
    config = settings(seed, "PO")
    data, model = sl.load_data(config), sl.load_model(config)
    yield from of_gradients(model, data, seed)
    probes = questions.probes(data, "test")
    before = {}
    for name in MODELS:
        chosen = settings(seed, name)
        if name == "gold":
            model = sl.load_model(chosen)
        else:
            sl.unlearn(model, data, chosen, runs_dir=runs)
        yield of_attention(model, probes).assign(model=name)
        states = {g: hidden_states.prompt_states(model, table) for g, table in probes.items()}
        before = before or states
        if name in ("PO", "PO+PD", "PO+placebo"):
            shifts = {g: hidden_states.mean_shift(before[g], states[g]) for g in probes}
            yield of_shifts(shifts).assign(model=name)
    model = sl.load_model(config)
    for name in ("PO", "PO+PD"):
        yield from of_direction(model, data, settings(seed, name), runs, name)


def of_gradients(model, data, seed: int) -> Iterator[pd.DataFrame]:
    cells, gradient = gradients.cells_and_gradients(model, data, 64, seed)
    table = gradients.similarities(gradient)
    yield pd.concat(
        table.rename(columns={"first": "group", "second": "other"}).assign(
            measurement="gradient", measure=measure, value=table[measure]
        )
        for measure in ("cosine", "norm")
    )
    on = gradient["refuse: hazard, template"]
    for measure, step in (("gradient descent", gradients.gradient_step),
                          ("Adam", gradients.adam_step)):  # fmt: skip
        for rate in (1e-4, 1e-3, 1e-2):
            changes = gradients.step_changes(model, cells, gradient, step(on, rate))
            tidy = changes.melt("cell", ["predicted", "measured"], "other")
            yield tidy.rename(columns={"cell": "group"}).assign(
                measurement="step", measure=measure, dose=rate
            )


def of_attention(model, probes: dict[str, pd.DataFrame]) -> pd.DataFrame:
    parts = [attention.picture_attention(model, t).assign(group=g) for g, t in probes.items()]
    means = pd.concat(parts).groupby(["group", "layer"])[["picture", "words"]].mean().reset_index()
    tidy = means.melt(["group", "layer"], var_name="measure")
    return tidy.assign(measurement="attention")


def of_shifts(shifts: dict[str, torch.Tensor]) -> pd.DataFrame:
    table = hidden_states.shift_cosines(shifts).rename(
        columns={"first": "group", "second": "other"}
    )
    tidy = table.melt(["layer", "group", "other"], ["cosine", "random"], "measure")
    return tidy.assign(measurement="shift")


def of_direction(model, data, config, runs: Path, name: str) -> Iterator[pd.DataFrame]:
    train = questions.probes(data, "train", pictures=4)["hazard"]
    val, test = (questions.probes(data, s, pictures=2) for s in ("val", "test"))
    vanilla = sl.config(config, objective="vanilla", decouple="none")
    sl.unlearn(model, data, vanilla, runs_dir=runs)
    answered = hidden_states.prompt_states(model, train)
    sl.unlearn(model, data, config, runs_dir=runs)
    refused = hidden_states.prompt_states(model, train)
    direction = refusal.difference_of_means(refused, answered)
    layer, by_layer = refusal.best_layer(model, val["hazard"], config, data.refusals, direction)
    yield by_layer.assign(measurement="layer", model=name)
    asked = {group: test[group] for group in ("hazard", "safe")}
    control = refusal.random_like(direction, config.seed)
    chosen = {"refusal": direction[layer], "random": control[layer]}

    def curve(intervention, doses) -> pd.DataFrame:
        return refusal.dosed(model, asked, config, data.refusals, intervention, doses)

    for who, r in chosen.items():
        table = curve(lambda dose, r=r: hooks.ablated(model, r, dose), DOSES)
        yield table.assign(measurement="ablated", model=name, other=who, layer=layer)
    sl.unlearn(model, data, vanilla, runs_dir=runs)
    for who, r in chosen.items():
        table = curve(lambda dose, r=r: hooks.added(model, r, layer, dose), ADDED_DOSES)
        yield table.assign(measurement="added", model=name, other=who, layer=layer)


def main(runs: Annotated[Path, typer.Option(help="The ledger.")] = Path("output/inside")) -> None:
    tables = [table.assign(seed=seed) for seed in SEEDS for table in measured(seed, runs)]
    TARGET.mkdir(exist_ok=True)
    pd.concat(tables)[COLUMNS].to_csv(TARGET / "metrics.csv", index=False, float_format="%.4g")
    digest = sl.load_data(settings(0, "PO")).digest
    about = (
        f"`python tools/inside.py`: seeds {', '.join(map(str, SEEDS))}, dense, tiny world "
        f"({digest}); safeerase-lite {sl.__version__}, torch {torch.__version__}, transformers "
        f"{transformers.__version__}, Python {platform.python_version()}\n"
    )
    (TARGET / "about.txt").write_text(about, encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
