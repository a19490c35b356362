"""What the loop's economies are worth on the tiny profile: the package and the plain way, turn by
turn in one process, on one CPU thread.

`python benchmarks/loop.py` writes `loop.csv` and a section of RESULTS.md. Ratios are medians over
turns; seconds are CPU seconds of the machine it ran on.
"""

import argparse
import statistics
import time
from pathlib import Path

import pandas as pd
import plain
import sections
import torch

import safeerase_lite as sl
from safeerase_lite.evaluation.evaluate import computing, generate, questions
from safeerase_lite.models.forward import Reference, features
from safeerase_lite.unlearning.objectives import OBJECTIVES, loss, weights
from safeerase_lite.unlearning.trainer import BatchSampler, answered, step_counts

HERE = Path(__file__).parent


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


def step(profile, data, objective: str, decouple: str, turns: int) -> list[dict]:
    """A step forward and back, the package's way and the plain way, whose second model is loaded
    for it alone. What a run does once, look at each picture and ask the reference each question, is
    done before, as it is at most steps of a run; in a second row each step bears its share."""
    model = sl.load_model(profile).train()
    second = sl.load_model(profile, adapt=False)
    needs, referred = OBJECTIVES[objective].needs, OBJECTIVES[objective].reference
    draws = BatchSampler(data, needs, decouple, 0, profile.batch)
    weighing = weights(objective, "official", decouple)
    expected = getattr(draws, str(referred), None)
    before = Reference(model, expected, profile.batch)

    def once():
        with computing(profile, model.device):
            features(model, pictures)
            if referred:
                before.answers(expected)

    def ours(asked):
        counts = step_counts(model.processor, asked)
        with computing(profile, model.device):
            batch = answered(model, asked, counts, referred, before)
        loss(objective, batch, weighing)[0].backward()

    def plainly(asked):
        with computing(profile, model.device):
            batch = plain.batch(model, second, objective, asked)
        loss(objective, batch, weighing)[0].backward()

    run = [draws.at(turn) for turn in range(profile.steps)]
    pictures = pd.concat(table for asked in run for table in asked.values())["image"].unique()
    share = seconds(once) / profile.steps
    ours(run[0]), plainly(run[0])
    taken = [(seconds(ours, asked), seconds(plainly, asked)) for asked in run[1 : turns + 1]]
    name = f"{objective}+{decouple} step"
    return [
        row(name, profile, taken),
        row(f"{name}, with its share", profile, [(mine + share, theirs) for mine, theirs in taken]),
    ]


def evaluation(profile, data, turns: int) -> dict:
    """Seconds a question: in a run's batches, and the same questions one by one."""
    model = sl.load_model(profile)
    asked = questions(data, ["val"])
    pairs = []
    for turn in range(turns):
        some = asked.sample(profile.evaluation_batch, random_state=turn)
        together = seconds(generate, model, some["image"], some["question"], profile=profile)
        singly = seconds(plain.ask, model, some["image"], some["question"], profile)
        pairs.append((together / len(some), singly / len(some)))
    return row("evaluation, a question", profile, pairs)


def row(what: str, profile, pairs: list[tuple[float, float]]) -> dict:
    return {
        "what": what,
        "precision": profile.precision,
        "turns": len(pairs),
        "package_s": statistics.median(ours for ours, _ in pairs),
        "plain_s": statistics.median(theirs for _, theirs in pairs),
        "ratio": statistics.median(theirs / ours for ours, theirs in pairs),
        "least": min(theirs / ours for ours, theirs in pairs),
        "most": max(theirs / ours for ours, theirs in pairs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=9)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for precision in ("dense", "nf4"):
        profile = sl.profile("tiny", precision=precision)
        data = sl.load_data(profile)
        for objective, decouple in (("kl", "none"), ("kl", "pd"), ("po", "pd")):
            rows += step(profile, data, objective, decouple, asked.turns)
            print(*rows[-2:], sep="\n", flush=True)
        rows.append(evaluation(profile, data, asked.turns))
        print(rows[-1], flush=True)
    table = pd.DataFrame(rows).round(3)
    table.to_csv(HERE / "loop.csv", index=False)
    about = (
        f"CPU seconds on one thread, medians of {asked.turns} turns. {sections.versions()}. At "
        "most steps of a run each picture was seen before, and each question asked of the "
        "reference. *With its share*: what that took, over the steps of a run, is added to each."
    )
    sections.write(
        "The loop on the tiny profile", f"{about}\n\n{sections.markdown(table.to_dict('records'))}"
    )


if __name__ == "__main__":
    main()
