"""Does LLaVA-1.5-7B train within a Colab card's memory, and where does the time go?

`python benchmarks/colab_budget.py` writes a checkpoint of the exact configuration, its weights
chosen at random, loads it as the profile `t4` says, and under a hard cap of 15 GiB trains PO+PD and
KL+PD on pictures of 336 × 336 with answers of 140 words, then lets it answer. Beside it, in the
same process and under the same cap, the plain way (`plain.py`). What memory and time a weight costs
does not depend on its value; what the model says means nothing.

Without a GPU it runs on a model of about a hundredth of the weights, as a check of this script
alone. Writes `colab_budget.csv` and a section of RESULTS.md. `--full --folder DIR` takes the whole
model through one step and one answer on a CPU of 24 GB instead (`full_on_cpu.py`).
"""

import argparse
import gc
import resource
import statistics
import tempfile
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import full_on_cpu
import loop
import pandas as pd
import plain
import random_llava
import sections
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from invented import invented_data
from loop import now

import safeerase_lite as sl
from safeerase_lite.models import forward
from safeerase_lite.models.forward import Reference, autocast
from safeerase_lite.models.inputs import encode_text
from safeerase_lite.unlearning import trainer
from safeerase_lite.unlearning.objectives import OBJECTIVES, loss, loss_weights
from safeerase_lite.unlearning.sampler import BatchSampler

HERE = Path(__file__).parent
CAP = 15 * 2**30
ON_GPU = torch.cuda.is_available()
PICTURES = 2  # a step's harmful ones; a part holds one of them, as in `t4`
PARTS = ("vision", "forward", "reference", "backward", "optimizer")


# ---- what is measured ----


class Clock:
    """Seconds by part; a part that runs within another is taken off that one."""

    def __init__(self):
        self.spent, self.running = defaultdict(float), []

    def __call__(self, part: str, do):
        def timed(*arguments, **named):
            begin = now()
            self.running.append(0.0)
            try:
                return do(*arguments, **named)
            finally:
                took = now() - begin
                self.spent[part] += took - self.running.pop()
                if self.running:
                    self.running[-1] += took

        return timed


@contextmanager
def clocked():
    """The parts of `unlearn`, timed where they happen."""
    clock = Clock()
    places = [(forward, "_tower_output", "vision"), (trainer, "predict", "forward"),
              (Reference, "answers", "reference"), (Accelerator, "backward", "backward"),
              (AcceleratedOptimizer, "step", "optimizer")]  # fmt: skip
    with ExitStack() as stack:
        for owner, name, part in places:
            timed = clock(part, getattr(owner, name))
            stack.enter_context(patch.object(owner, name, timed))
        yield clock


def fresh() -> None:
    gc.collect()
    if ON_GPU:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak() -> float:
    """GB: what the allocator took from the card; without one, the process's resident memory."""
    if ON_GPU:
        return torch.cuda.max_memory_reserved() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def card() -> dict[str, float]:
    """GB in use on the GPU now, by CUDA itself and paged moments too, which no cap limits."""
    if not ON_GPU:
        return {}
    free, total = torch.cuda.mem_get_info()
    return {"card_gb": (total - free) / 1e9}


def length(model, tables) -> int:
    """Tokens of these questions: picture, prompt and answer."""
    return sum(
        int(encode_text(model.processor, t["question"], t["answer"])["attention_mask"].sum())
        for t in tables
    )


# ---- the package's way, and the plain one ----


def train(config, data, runs_dir: Path) -> dict:
    """`unlearn` as a user calls it."""
    fresh()
    model = sl.load_model(config)
    loaded = peak()
    with clocked() as clock:
        begin = now()
        sl.unlearn(model, data, config, runs_dir=runs_dir)
        took = now() - begin
    sampler = BatchSampler(data, config)
    tokens = sum(length(model, sampler.batch_at(step).values()) for step in range(config.steps))
    parts = {part: clock.spent[part] / took for part in PARTS}
    parts["else"] = 1 - sum(parts.values())
    speed = {"tokens_per_s": tokens / took, "seconds_a_step": took / config.steps}
    return {"loaded_gb": loaded, "peak_gb": peak()} | card() | speed | parts


def train_plainly(config, data, steps: int) -> dict:
    """Forward and back the plain way; where the cap is too low, that is the result."""
    fresh()
    objective = config.objective
    try:
        model = sl.load_model(config).train()
        referred = OBJECTIVES[objective].reference
        second = sl.load_model(config, adapt=False) if referred else None
        sampler = BatchSampler(data, config)
        factors, speeds = loss_weights(config), []
        for step in range(steps):
            begin, tables = now(), sampler.batch_at(step)
            for n in range(min(map(len, tables.values()))):  # a question of each set
                part = {name: table.iloc[n : n + 1] for name, table in tables.items()}
                with autocast(config, model.device):
                    batch = plain.predict(model, second, objective, part)
                loss(objective, batch, factors)[0].backward()
            speeds.append(length(model, tables.values()) / (now() - begin))
    except torch.cuda.OutOfMemoryError:
        return {"peak_gb": f"more than {CAP / 1e9:.1f}", "tokens_per_s": "none"}
    return {"peak_gb": peak(), "tokens_per_s": statistics.median(speeds)}


def a_pass(config, data, turns: int) -> dict:
    """Seconds forward and back for a picture with all its questions, both ways in one process."""
    fresh()
    try:
        row, _ = loop.step(sl.config(config, pictures=1, accumulation=1), data, turns)
    except torch.cuda.OutOfMemoryError:
        return {"ratio": f"none: both ways together need more than {CAP / 1e9:.1f} GB"}
    return {name: row[name] for name in ("package_s", "plain_s", "ratio", "least", "most")}


def generate(config, data) -> dict:
    """Tokens a second: a batch together, and question by question, turn by turn."""
    fresh()
    model, ours, theirs = sl.load_model(config), [], []
    rows = data.forget.head(config.eval_batch_size)
    for turn in range(3):
        begin = now()
        sl.generate(model, rows["image"], rows["question"], config)
        ours.append(len(rows) * config.max_new_tokens / (now() - begin))
        one = rows.iloc[[turn]]
        begin = now()
        with autocast(config, model.device):
            plain.generate(model, one["image"], one["question"], config)
        theirs.append(config.max_new_tokens / (now() - begin))
    return {"peak_gb": peak(), "tokens_per_s": statistics.median(ours),
            "one_by_one_tokens_per_s": statistics.median(theirs)}  # fmt: skip


# ---- the report ----


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20 if ON_GPU else 2)
    parser.add_argument("--folder", help="where the checkpoint is written, 14 GB, and stays")
    parser.add_argument("--full", action="store_true", help="all of it on a CPU; needs --folder")
    parser.add_argument("--small", action="store_true", help="--full with a hundredth of it")
    given = parser.parse_args()
    if given.full:
        if not given.folder:
            parser.error("--full needs --folder, where a run that was stopped goes on")
        done = full_on_cpu.run(Path(given.folder), given.small)
        if not given.small:
            sections.write(full_on_cpu.SECTION, full_on_cpu.report(done))
        return
    if ON_GPU:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, CAP / total))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(given.folder or temporary) / "llava"
        if not (folder / "model.safetensors.index.json").exists():
            sizes = {} if ON_GPU else full_on_cpu.HUNDREDTH
            random_llava.write(folder, random_llava.configuration(**sizes))
        pictures = Path(temporary) / "pictures"
        pictures.mkdir()
        data = invented_data(pictures, records=PICTURES * given.steps)  # none comes twice
        max_new_tokens = 256 if ON_GPU else 32
        config = sl.config("t4", model=str(folder), pictures=PICTURES, accumulation=PICTURES,
                           steps=given.steps, checkpoint_every=given.steps + 1,
                           max_new_tokens=max_new_tokens, judge="rule")  # fmt: skip
        rows = []
        for objective in ("po", "kl"):
            paired, name = sl.config(config, objective=objective, decouple="pd"), objective.upper()
            rows += tidy(f"{name}+PD", train(paired, data, Path(temporary)))
            plainly = train_plainly(paired, data, min(5, given.steps))
            rows += tidy(f"{name}+PD, the plain way", plainly)
        rows += tidy("KL+PD, a pass, turn by turn", a_pass(paired, data, 5 if ON_GPU else 3))
        rows += tidy("generation", generate(config, data))
    table = pd.DataFrame(rows)
    table.to_csv(HERE / "colab_budget.csv", index=False)
    sections.write("LLaVA-1.5-7B under 15 GiB", report(rows, given.steps))
    print(table.to_string(index=False))


def tidy(what: str, results: dict) -> list[dict]:
    """Rows: what, measure, value; printed as they come."""
    rows = [
        {"what": what, "measure": name, "value": v if isinstance(v, str) else f"{v:.3g}"}
        for name, v in results.items()
    ]
    print(sections.markdown(rows), flush=True)
    return rows


def report(rows: list[dict], steps: int) -> str:
    table = f"{sections.versions()}.\n\n{sections.markdown(rows)}"
    if ON_GPU:
        name = torch.cuda.get_device_name()
        return f"{name}, capped at 15 GiB; {steps} steps of {PICTURES} pictures. {table}"
    return (
        "Memory, speed and shares of the real model on a GPU: *not yet measured*.\n\n"
        f"On a CPU, a model of about a hundredth of the weights, {steps} steps of {PICTURES} "
        "pictures: "
        "a check that the script runs, no estimate of the real model. Memory is the process's, its "
        f"highest so far. {table}"
    )


if __name__ == "__main__":
    main()
