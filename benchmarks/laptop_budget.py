"""Does the profile `laptop` hold its hour on two free cores?

`python benchmarks/laptop_budget.py` writes a checkpoint of the exact shape of SmolVLM-256M, its
weights chosen at random (`random_smolvlm.py`), and measures what a picture, a question of training
and a token of an answer cost on one thread, in bfloat16 and in float32; the hour follows from the
counts of `safeerase_lite/laptop.py`. `--questions N` is the size of each measurement.

Rates are CPU seconds. The seconds of the clock stand beside them: where those are many more, other
work was on the machine. Writes a section of RESULTS.md and `laptop_budget.csv`.
"""

import argparse
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import random_smolvlm
import sections
import torch

import safeerase_lite as sl
from safeerase_lite import laptop
from safeerase_lite.models import llava
from safeerase_lite.models.forward import autocast, vision_features
from safeerase_lite.tinyworld.world import World, write_world
from safeerase_lite.unlearning.objectives import loss, loss_weights
from safeerase_lite.unlearning.sampler import BatchSampler
from safeerase_lite.unlearning.trainer import predict, step_counts

HERE = Path(__file__).parent
ABOUT = 12  # questions about a picture and its safe partner, in PO + PD
FREE = 1.2  # seconds of the clock to a CPU second, at most, on a free machine


@contextmanager
def timed(into: dict, name: str, count: float):
    """CPU and clock seconds of each of `count` things."""
    cpu, clock = time.process_time(), time.perf_counter()
    yield
    into[name] = (time.process_time() - cpu) / count, (time.perf_counter() - clock) / count
    print(f"{name}: {into[name][0]:.3f} CPU seconds, {into[name][1]:.3f} of the clock", flush=True)


def measure(config, data, questions: int) -> dict[str, tuple[float, float]]:
    """what → CPU and clock seconds of one."""
    measured: dict[str, tuple[float, float]] = {}
    model = sl.load_model(config).train()
    sampler, factors = BatchSampler(data, config), loss_weights(config)

    def step(tables):
        counts = step_counts(model.processor, tables)
        with autocast(config, model.device):
            batch = predict(model, tables, counts)
        loss(config.objective, batch, factors)[0].backward()

    pictures = max(1, questions // ABOUT)
    batches = [sampler.batch_at(n) for n in range(pictures)]
    shown = pd.concat(table for tables in batches for table in tables.values())["image"].unique()
    with timed(measured, "a picture", len(shown)), autocast(config, model.device):
        vision_features(model, shown)
    with timed(measured, "a question of training", ABOUT * pictures):
        for tables in batches:
            step(tables)
    rows = data.forget.head(questions)
    new = laptop.plan_tokens()
    # Pictures count apart, so they are seen before answers are timed.
    sl.generate(
        model, rows["image"], rows["question"], config.model_copy(update={"max_new_tokens": 1})
    )
    longer = config.model_copy(update={"max_new_tokens": new + 1})
    with timed(measured, "an answer", len(rows)):
        sl.generate(model, rows["image"], rows["question"], longer)
    return measured


def measured_in(compute: str, folder: Path, world: Path, questions: int) -> tuple[dict, float]:
    """`measure`, and the most memory that this process held, GB."""
    torch.set_num_threads(1)
    config = sl.config("laptop", model=str(folder), data_dir=str(world), compute=compute,
                       objective="po", decouple="pd", pictures=1)  # fmt: skip
    torch.manual_seed(0)
    with patch.object(llava, "cpu_has_bfloat16", lambda: True):  # measured where it is not
        measured = measure(config, sl.load_data(config), questions)
    return measured, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def rates(measured: dict[str, tuple[float, float]], peak: float) -> laptop.Rates:
    cpu = {name: seconds for name, (seconds, _) in measured.items()}
    token = cpu["an answer"] / (laptop.plan_tokens() + 1)
    return laptop.Rates(cpu["a question of training"], cpu["a picture"], token, peak)


def apart(function, *arguments):
    """What a function returns that runs in a process of its own, so that its memory is its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as one:
        return one.submit(function, *arguments).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=96, help="in each measurement")
    parser.add_argument("--computes", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--model", help="a checkpoint written before; else one is written")
    parser.add_argument("--layers", type=int, help="a shallower model: a check of this script")
    given = parser.parse_args()
    shape = {"layers": given.layers, "vision_layers": given.layers} if given.layers else {}
    rows, found = [], {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(given.model or temporary) / ("" if given.model else "smolvlm")
        if not (folder / "config.json").exists():
            apart(random_smolvlm.write, folder, random_smolvlm.configuration(**shape))
        small = World(train_pictures=1, eval_pictures=1, side=512)
        world = write_world(small, Path(temporary) / "world")
        for compute in given.computes:
            measured, peak = apart(measured_in, compute, folder, world, given.questions)
            found[compute] = rates(measured, peak)
            rows += [
                {"compute": compute, "what": what, "cpu_s": cpu, "clock_s": clock}
                for what, (cpu, clock) in measured.items()
            ]
    table = pd.DataFrame(rows).round(4)
    print(table.to_string(index=False))
    for compute, each in found.items():
        print(compute, each, f"{laptop.minutes(laptop.hour(each)):.0f} minutes")
    if not given.layers:
        table.to_csv(HERE / "laptop_budget.csv", index=False)
        sections.write("An hour on a laptop", report(table, found, given.questions))


def report(table: pd.DataFrame, found: dict[str, laptop.Rates], questions: int) -> str:
    stretch = table["clock_s"].sum() / table["cpu_s"].sum()
    free = (
        "The machine was free."
        if stretch < FREE
        else f"The machine was **not free**: the clock ran {stretch:.1f} times as long."
    )
    amx = "with" if llava.cpu_has_bfloat16() else "without"
    parts = [
        "SmolVLM-256M at its exact shape, weights chosen at random, on one thread of a CPU "
        f"{amx} AMX; {questions} questions a measurement. CPU seconds. {free} "
        f"{sections.versions()}. A word of the tiny world is one token here; the published "
        "tokenizer cuts invented names into several, so the real model takes somewhat longer. "
        "Whether the real model learns the world in so many steps is *not yet measured*.",
        sections.markdown(table.to_dict("records")),
    ]
    for compute, each in found.items():
        stages = laptop.hour(each)
        parts.append(
            f"The hour in {compute}, from counts: {laptop.minutes(stages):.0f} minutes on two free "
            f"cores (PO and PO + PD at a time, a core each), {each.gigabytes:.1f} GB a process."
        )
        parts.append(sections.markdown(stages.round(1).to_dict("records")))
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
