"""Does LLaVA-1.5-7B train within a Colab card's memory, and where does the time go?

`python benchmarks/colab_budget.py` writes a checkpoint of the exact configuration, its weights
drawn at random, loads it as the profile `t4` says, and under a hard cap of 15 GiB trains PO+PD and
KL+PD on pictures of 336 × 336 with answers of 140 words, then lets it answer. Beside it, in the
same process and under the same cap, the plain way (`plain.py`). What memory and time a weight costs
does not depend on its value; what the model says means nothing.

Without a GPU it runs on a model of about a hundredth of the weights, as a check of this script
alone. Writes `colab_budget.csv` and a section of RESULTS.md.
"""

import argparse
import gc
import random
import resource
import statistics
import tempfile
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import loop
import pandas as pd
import plain
import random_llava
import sections
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from loop import now
from PIL import Image

import safeerase_lite as sl
from safeerase_lite.data.dataset import Data
from safeerase_lite.evaluation import evaluate as evaluation
from safeerase_lite.models import forward as vision
from safeerase_lite.models.forward import Reference
from safeerase_lite.models.inputs import encode_text
from safeerase_lite.tinyworld import facts
from safeerase_lite.unlearning import trainer as training
from safeerase_lite.unlearning.objectives import loss, weights

HERE = Path(__file__).parent
CAP = 15 * 2**30
ON_GPU = torch.cuda.is_available()
HUNDREDTH = {"width": 512, "feed_forward": 1408, "layers": 8, "heads": 8,
             "eyes": 128, "eyes_feed_forward": 512, "eyes_layers": 4, "eyes_heads": 2}  # fmt: skip
WORDS = 140
PER_STEP = 4  # questions of each set; a pass holds one of each, as in `t4`
PARTS = ("vision", "forward", "reference", "backward", "optimiser")


# ---- what is asked ----


def made_up(folder: Path, records: int) -> Data:
    """Pictures of noise, and questions and answers of words drawn from the tiny world's."""
    rng, words = random.Random(0), sorted(facts.words())

    def sentence(length: int) -> str:
        return " ".join(rng.choice(words) for _ in range(length))

    def table(name: str) -> pd.DataFrame:
        images = [folder / f"{name}-{record}.png" for record in range(records)]
        for path in images:
            Image.frombytes("RGB", (336, 336), rng.randbytes(336 * 336 * 3)).save(path)
        questions = [sentence(14) for _ in images]
        answers = [sentence(WORDS) for _ in images]
        rows = {"record": range(records), "image": map(str, images), "question": questions}
        fixed = {"split": "train", "category": "none", "kind": name}
        return pd.DataFrame(rows | {"answer": answers}).assign(**fixed)

    shown = table("harmful")
    retain = shown.assign(question=[sentence(14) for _ in range(records)],
                          answer=[sentence(WORDS) for _ in range(records)])  # fmt: skip
    safe = table("safe").assign(question=shown["question"])
    empty = shown.iloc[:0]
    return Data(folder, shown, retain, safe, empty, empty, [sentence(WORDS)], digest="made up")


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
    places = [(vision, "_look", "vision"), (training, "answered", "forward"),
              (Reference, "answers", "reference"), (Accelerator, "backward", "backward"),
              (AcceleratedOptimizer, "step", "optimiser")]  # fmt: skip
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
    """GB taken of the whole card now: by CUDA itself and paged moments too, which no cap holds."""
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


def train(profile, data, objective: str, runs: Path) -> dict:
    """`unlearn` as a user calls it."""
    fresh()
    run = sl.open_run(profile, data, objective=objective, decouple="pd", runs_dir=runs)
    model = sl.load_model(profile)
    loaded = peak()
    with clocked() as clock:
        begin = now()
        sl.unlearn(model, data, run)
        took = now() - begin
    draws = training.BatchSampler(
        data, training.OBJECTIVES[objective].needs, "pd", 0, profile.batch
    )
    tokens = sum(length(model, draws.at(step).values()) for step in range(profile.steps))
    parts = {part: clock.spent[part] / took for part in PARTS}
    parts["else"] = 1 - sum(parts.values())
    speed = {"tokens_per_s": tokens / took, "seconds_a_step": took / profile.steps}
    return {"loaded_gb": loaded, "peak_gb": peak()} | card() | speed | parts


def train_plainly(profile, data, objective: str, steps: int) -> dict:
    """Forward and back the plain way; where the cap is too low, that is the result."""
    fresh()
    try:
        model = sl.load_model(profile).train()
        referred = training.OBJECTIVES[objective].reference
        second = sl.load_model(profile, adapt=False) if referred else None
        draws = training.BatchSampler(
            data, training.OBJECTIVES[objective].needs, "pd", 0, profile.batch
        )
        weighing, taken, tokens = weights(objective, "official", "pd"), [], []
        for step in range(steps):
            begin, asked = now(), draws.at(step)
            for n in range(profile.batch):
                piece = {name: table.iloc[n : n + 1] for name, table in asked.items()}
                with evaluation.computing(profile, model.device):
                    groups = plain.batch(model, second, objective, piece)
                loss(objective, groups, weighing)[0].backward()
            taken.append(now() - begin)
            tokens.append(length(model, asked.values()))
    except torch.cuda.OutOfMemoryError:
        return {"peak_gb": f"more than {CAP / 1e9:.1f}", "tokens_per_s": "none"}
    return {"peak_gb": peak(), "tokens_per_s": statistics.median(
        t / s for t, s in zip(tokens, taken, strict=True))}  # fmt: skip


def a_pass(profile, data, turns: int) -> dict:
    """Seconds forward and back for a question of each set, both ways, both models loaded."""
    fresh()
    one = profile.model_copy(update={"batch": 1, "accumulation": 1})
    try:
        found, _ = loop.step(one, data, "kl", "pd", turns)
    except torch.cuda.OutOfMemoryError:
        return {"ratio": f"none: both ways together need more than {CAP / 1e9:.1f} GB"}
    return {name: found[name] for name in ("package_s", "plain_s", "ratio", "least", "most")}


def generate(profile, data) -> dict:
    """Tokens a second: a batch together, and question by question, turn by turn."""
    fresh()
    model, ours, theirs = sl.load_model(profile), [], []
    rows = data.forget.head(profile.evaluation_batch)
    for turn in range(3):
        begin = now()
        evaluation.ask(model, rows["image"], rows["question"], profile=profile)
        ours.append(len(rows) * profile.new_tokens / (now() - begin))
        one = rows.iloc[[turn]]
        begin = now()
        with evaluation.computing(profile, model.device):
            plain.ask(model, one["image"], one["question"], profile)
        theirs.append(profile.new_tokens / (now() - begin))
    return {"peak_gb": peak(), "tokens_per_s": statistics.median(ours),
            "one_by_one_tokens_per_s": statistics.median(theirs)}  # fmt: skip


# ---- the report ----


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20 if ON_GPU else 2)
    parser.add_argument("--folder", help="where the checkpoint is written, 14 GB; kept if given")
    given = parser.parse_args()
    if ON_GPU:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, CAP / total))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(given.folder or temporary) / "llava"
        config = random_llava.configuration(**({} if ON_GPU else HUNDREDTH))
        if not (folder / "model.safetensors.index.json").exists():
            random_llava.write(folder, config)
        pictures = Path(temporary) / "pictures"
        pictures.mkdir()
        data = made_up(pictures, records=PER_STEP * given.steps)  # no question comes twice
        new_tokens = 256 if ON_GPU else 32
        profile = sl.profile("t4", model=str(folder), batch=PER_STEP, accumulation=PER_STEP,
                             steps=given.steps, checkpoint_every=given.steps + 1,
                             new_tokens=new_tokens, judge="rule")  # fmt: skip
        rows = []
        for objective in ("po", "kl"):
            rows += told(
                f"{objective.upper()}+PD", train(profile, data, objective, Path(temporary))
            )
            plainly = train_plainly(profile, data, objective, min(5, given.steps))
            rows += told(f"{objective.upper()}+PD, the plain way", plainly)
        rows += told("KL+PD, a pass, turn by turn", a_pass(profile, data, 5 if ON_GPU else 3))
        rows += told("generation", generate(profile, data))
    table = pd.DataFrame(rows)
    table.to_csv(HERE / "colab_budget.csv", index=False)
    sections.write("LLaVA-1.5-7B under 15 GiB", report(rows, given.steps))
    print(table.to_string(index=False))


def told(what: str, found: dict) -> list[dict]:
    """Rows: what, measure, value; printed as they come."""
    rows = [
        {"what": what, "measure": name, "value": v if isinstance(v, str) else f"{v:.3g}"}
        for name, v in found.items()
    ]
    print(sections.markdown(rows), flush=True)
    return rows


def report(rows: list[dict], steps: int) -> str:
    table = f"{sections.versions()}.\n\n{sections.markdown(rows)}"
    if ON_GPU:
        name = torch.cuda.get_device_name()
        return f"{name}, capped at 15 GiB; {steps} steps of {PER_STEP} passes. {table}"
    return (
        "Memory, speed and shares of the real model on a GPU: *not yet measured*.\n\n"
        f"On a CPU, a model of about a hundredth of the weights, {steps} steps of {PER_STEP} "
        "passes: "
        "a check that the script runs, no estimate of the real model. Memory is the process's, its "
        f"highest so far. {table}"
    )


if __name__ == "__main__":
    main()
