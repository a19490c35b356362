"""LLaVA-1.5-7B at its full shape on a CPU of 24 GB: written, quantised once, loaded, one step, one
answer.

`python benchmarks/colab_budget.py --full --folder DIR` runs the phases, each in a process of its
own, so that its memory is its own. A finished phase is in `DIR/phases.json` and is not repeated: a
run that was killed goes on where it was. The weights are chosen at random: this shows that
everything loads, fits and lands where it should, and nothing of what the real model says.

`--small` does the same with a hundredth of the weights, as a check of this script.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import random_llava
import sections
import torch
from invented import invented_data

import safeerase_lite as sl
from safeerase_lite.config import Config
from safeerase_lite.data.dataset import Data
from safeerase_lite.models.llava import load_adapter, trainable
from safeerase_lite.models.quantised import save_quantised

SECTION = "LLaVA-1.5-7B on a CPU"
HUNDREDTH = {"width": 512, "feed_forward": 1408, "layers": 8, "heads": 8,
             "vision_width": 128, "vision_feed_forward": 512, "vision_layers": 4,
             "vision_heads": 2}  # fmt: skip
ANSWERED = 8  # tokens


def settings(folder: Path) -> Config:
    """The profile `t4`; a step is a picture and its safe partner, with one question of each set."""
    kept = folder / "nf4"
    return sl.config(
        "t4", model=str(kept if kept.exists() else folder / "llava"), objective="po",
        decouple="pd", judge="rule", pictures=1, accumulation=1, steps=1, warmup=0.0,
        eval_batch_size=1, max_new_tokens=ANSWERED,
    )  # fmt: skip


def data_of(folder: Path) -> Data:
    """One question of each set."""
    pictures = folder / "pictures"
    pictures.mkdir(exist_ok=True)
    data = invented_data(pictures, records=1)
    return replace(
        data, **{name: getattr(data, name).head(1) for name in ("forget", "retain", "decouple")}
    )


# ---- the phases: each (folder, sizes) → measures ----


def write(folder: Path, sizes: dict) -> dict:
    """The checkpoint in half precision, a shard at a time."""
    random_llava.write(folder / "llava", random_llava.configuration(**sizes))
    return {"gb_on_disk": _gigabytes(folder / "llava")}


def quantise(folder: Path, sizes: dict) -> dict:
    """Load it in NF4, and keep the 4-bit weights."""
    save_quantised(settings(folder), folder / "nf4")
    return {"gb_on_disk": _gigabytes(folder / "nf4")}


def load(folder: Path, sizes: dict) -> dict:
    """Read the 4-bit weights back, and put LoRA on top."""
    model = sl.load_model(settings(folder))
    weights = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes()
               for p in model.parameters()}  # fmt: skip
    learns = sum(p.numel() for p in trainable(model).values())
    return {"weights_gb": sum(weights.values()) / 1e9, "learns_millions": learns / 1e6}


def step(folder: Path, sizes: dict) -> dict:
    """One step of PO + PD: its loss is finite, what learns changed, and nothing else did."""
    config = settings(folder)
    model = sl.load_model(config)
    frozen, before = _checksum(model), {n: p.clone() for n, p in trainable(model).items()}
    begin = time.perf_counter()
    run = sl.unlearn(model, data_of(folder), config, runs_dir=folder / "runs")
    took = time.perf_counter() - begin
    [row] = run.history.to_dict("records")
    changed = [not p.equal(before[name]) for name, p in trainable(model).items()]
    if _checksum(model) != frozen or not any(changed):
        raise RuntimeError("a frozen weight changed, or nothing was learned")
    return {"step_seconds": took, "loss": row["loss"], "gradient_norm": row["gradient_norm"],
            "tensors_changed": sum(changed), "tensors_that_learn": len(changed)}  # fmt: skip


def answer(folder: Path, sizes: dict) -> dict:
    """One question, answered with the adapter of that step."""
    config, data = settings(folder), data_of(folder)
    model = sl.load_model(config)
    load_adapter(model, sl.open_run(config, data, runs_dir=folder / "runs").adapter_dir)
    begin = time.perf_counter()
    rows = data.forget
    [text] = sl.generate(model, rows["image"], rows["question"], config)
    return {"answer_seconds": time.perf_counter() - begin, "characters": len(text)}


PHASES = {phase.__name__: phase for phase in (write, quantise, load, step, answer)}


def _gigabytes(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.iterdir()) / 1e9


def _checksum(model) -> int:
    """Of every weight that does not learn, to the byte."""
    frozen = (p.data for p in model.parameters() if not p.requires_grad)
    return sum(int(p.contiguous().view(torch.uint8).sum(dtype=torch.int64)) for p in frozen)


# ---- running them ----


def measured(name: str, folder: Path, sizes: dict) -> dict:
    """A phase's measures, with seconds of clock and CPU and the process's highest memory."""
    begin = time.perf_counter()
    found = PHASES[name](folder, sizes)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    cost = {"clock_s": time.perf_counter() - begin, "cpu_s": time.process_time(), "peak_gb": peak}
    return cost | found


def run(folder: Path, small: bool) -> dict[str, dict]:
    """Every phase that is not done, in a process each; phase → measures."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "phases.json"
    done = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    for name in PHASES:
        if name not in done:
            command = [sys.executable, __file__, str(folder), name, *["--small"] * small]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            done[name] = json.loads(output.splitlines()[-1])
            draft = file.with_suffix(".new")
            draft.write_text(json.dumps(done, indent=1), encoding="utf-8")
            os.replace(draft, file)
        shown = ", ".join(f"{what} {value:.3g}" for what, value in done[name].items())
        print(f"{name}: {shown}", flush=True)
    return done


def report(done: dict[str, dict]) -> str:
    cost = {"clock_s": "clock, s", "cpu_s": "CPU, s", "peak_gb": "most memory, GB"}
    rows = []
    for phase, found in done.items():
        rest = {name: value for name, value in found.items() if name not in cost}
        shown = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in rest.items())
        row = {"phase": phase} | {title: f"{found[name]:.3g}" for name, title in cost.items()}
        rows.append(row | {"found": shown})
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return (
        f"The exact shape, weights chosen at random, on a CPU of {os.cpu_count()} cores and "
        f"{memory:.0f} GB. It shows that the checkpoint loads, what its weights take, that 4-bit "
        "weights made once are read back in seconds, that a step of PO + PD (one question of each "
        "set) is finite and changes nothing but what learns. (Of LoRA's two matrices the first "
        "step changes one: the other's gradient is 0 while its partner is.) It shows nothing of a "
        "GPU's memory or speed, nor of what the real model says. Where the clock ran longer than "
        "the CPU, it waited for the disk or for other work. "
        f"{sections.versions()}.\n\n{sections.markdown(rows)}"
    )


def main() -> None:
    """One phase, its measures as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("phase", choices=PHASES)
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args()
    print(json.dumps(measured(given.phase, given.folder, HUNDREDTH if given.small else {})))


if __name__ == "__main__":
    main()
