"""What the loop's economies are worth, on the tiny profile and on a slice of LLaVA-1.5-7B: the
package and the plain way, turn by turn in one process, on one CPU thread.

`python benchmarks/loop.py` writes `loop.csv` and a section of RESULTS.md. Ratios are medians over
turns; seconds are CPU seconds of the machine it ran on.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import pandas as pd
import plain
import random_llava
import sections
import torch
from invented import invented_data

import safeerase_lite as sl
from safeerase_lite.evaluation.evaluate import questions
from safeerase_lite.models.forward import Reference, autocast, vision_features
from safeerase_lite.unlearning.objectives import OBJECTIVES, loss, loss_weights
from safeerase_lite.unlearning.sampler import BatchSampler
from safeerase_lite.unlearning.trainer import predict, step_counts

HERE = Path(__file__).parent
PICTURES = 16  # harmful ones with their safe ones, of which an evaluation has many times as many


def now() -> float:
    """Seconds: of the clock once the GPU is done; without one, of this process's CPU time, which
    other work on the machine does not lengthen."""
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def seconds(do, *arguments, **named) -> float:
    begin = now()
    do(*arguments, **named)
    return now() - begin


def step(config, data, turns: int) -> list[dict]:
    """A step forward and back, the package's way and the plain way, whose second model is loaded
    for it alone.

    What a run does once (encode each picture, compute the reference of each answer) is done before,
    as it is at most steps of a run; in a second row each step bears its share of that.
    """
    model = sl.load_model(config).train()
    referred = OBJECTIVES[config.objective].reference
    second = sl.load_model(config, adapt=False) if referred else None
    sampler = BatchSampler(data, config)
    factors = loss_weights(config)
    expected = [sampler.answers_to_come(group, config.steps) for group in referred]
    reference = Reference(model, pd.concat(expected), config.pictures) if referred else None

    def once():
        with autocast(config, model.device):
            vision_features(model, pictures)
            if referred:
                reference.answers(pd.concat(expected))

    def with_package(tables):
        counts = step_counts(model.processor, tables)
        with autocast(config, model.device):
            batch = predict(model, tables, counts, referred, reference)
        loss(config.objective, batch, factors)[0].backward()

    def plainly(tables):
        with autocast(config, model.device):
            batch = plain.predict(model, second, config.objective, tables)
        loss(config.objective, batch, factors)[0].backward()

    batches = [sampler.batch_at(turn) for turn in range(config.steps)]
    pictures = pd.concat(table for tables in batches for table in tables.values())["image"].unique()
    share = seconds(once) / config.steps
    with_package(batches[0]), plainly(batches[0])
    pairs = [
        (seconds(with_package, tables), seconds(plainly, tables))
        for tables in batches[1 : turns + 1]
    ]
    name = f"{config.objective}+{config.decouple} step"
    return [
        row(name, config, pairs),
        row(f"{name}, with its share", config, [(mine + share, theirs) for mine, theirs in pairs]),
    ]


def evaluation(config, data, turns: int) -> dict:
    """Seconds a question: a few pictures with all that an evaluation asks about them, and the same
    questions one by one."""
    model = sl.load_model(config)
    table = questions(data, ["val"])
    pairs = []
    for turn in range(turns):
        records = table["record"].drop_duplicates().sample(PICTURES, random_state=turn)
        rows = table[table["record"].isin(records)]
        arguments = (model, rows["image"], rows["question"], config)
        together, singly = seconds(sl.generate, *arguments), seconds(plain.generate, *arguments)
        pairs.append((together / len(rows), singly / len(rows)))
    return row("evaluation, a question", config, pairs)


def slice_of_7b(turns: int) -> list[dict]:
    """A step on two layers of LLaVA-1.5-7B with random weights: its width, its 576 tokens of a
    picture, its words; one picture a step, answers of 140 words."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        random_llava.write(folder / "llava", random_llava.configuration(layers=2))
        config = sl.config(
            "full", model=str(folder / "llava"), objective="po", decouple="pd", judge="rule",
            gradient_checkpointing=False, pictures=1, accumulation=1, steps=turns + 1,
        )  # fmt: skip
        data = invented_data(folder, records=turns + 1)
        seen, new = step(config, data, turns)  # as many records as steps: each picture comes once
        what = "po+pd step, two layers of LLaVA-1.5-7B"
        return [seen | {"what": what}, new | {"what": f"{what}, each picture new"}]


def row(what: str, config, pairs: list[tuple[float, float]]) -> dict:
    ratios = [theirs / ours for ours, theirs in pairs]
    return {
        "what": what,
        "precision": config.precision,
        "turns": len(pairs),
        "package_s": statistics.median(ours for ours, _ in pairs),
        "plain_s": statistics.median(theirs for _, theirs in pairs),
        "ratio": statistics.median(ratios),
        "least": min(ratios),
        "most": max(ratios),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=9)
    turns = parser.parse_args().turns
    torch.set_num_threads(1)
    rows = []
    for precision in ("dense", "nf4"):
        config = sl.config("tiny", precision=precision)
        data = sl.load_data(config)
        for objective, decouple in (("kl", "none"), ("kl", "pd"), ("po", "pd")):
            rows += step(sl.config(config, objective=objective, decouple=decouple), data, turns)
            print(*rows[-2:], sep="\n", flush=True)
        rows.append(evaluation(config, data, turns))
        print(rows[-1], flush=True)
    rows += slice_of_7b(min(turns, 3))
    print(*rows[-2:], sep="\n", flush=True)
    table = pd.DataFrame(rows).round(3)
    table.to_csv(HERE / "loop.csv", index=False)
    conditions = (
        f"CPU seconds on one thread, medians over turns. {sections.versions()}. At "
        "most steps of a run each picture was seen before, and each answer's reference computed. "
        "*With its share*: what that took, over the steps of a run, is added to each. The slice of "
        "LLaVA-1.5-7B is computed in bfloat16, with random weights; *each picture new*: as in a "
        "run's first pass over the data."
    )
    sections.write(
        "The loop",
        f"{conditions}\n\n{sections.markdown(table.to_dict('records'))}",
    )


if __name__ == "__main__":
    main()
