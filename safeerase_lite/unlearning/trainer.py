"""The training loop: sample a batch, compute the objective, take a step, record it."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast, gather_object
from transformers import get_cosine_schedule_with_warmup

from safeerase_lite.config import Config
from safeerase_lite.data.dataset import Data
from safeerase_lite.models.forward import LAST, Reference, layer_at, layer_states, predictions
from safeerase_lite.models.inputs import answer_ids
from safeerase_lite.models.llava import compute_dtype, negate_adapter, trainable
from safeerase_lite.utils import UserError, track

from .checkpoint import load_checkpoint, save_checkpoint
from .losses import Batch
from .objectives import OBJECTIVES, Objective, loss, loss_weights
from .sampler import BatchSampler

MIXED_PRECISION = {torch.float16: "fp16", torch.bfloat16: "bf16"}  # trained weights: float32


class NonFiniteLoss(RuntimeError):
    """The loss is NaN or infinite, so the run is lost; the message names the step."""


def train(
    model,
    data: Data,
    config: Config,
    checkpoints: Path,
    *,
    watch: Callable[[int, Any], None] | None = None,
    keep: bool = False,
) -> pd.DataFrame:
    """Change the adapter of `model` by the config's objective, on the train split of `data`.

    A step samples `pictures` pictures with all their forget questions, with their retain questions
    where the objective needs them, and with PD or its placebo the partners of the forget questions.
    Every sample depends on the seed and the step alone, so a run resumed from its checkpoint is
    bit-identical (on a CPU; on a GPU the order of sums may vary).

    Several processes (`torchrun --nproc-per-node 2 script.py`; `accelerate launch --cpu` quietly
    starts one) share each step. Without dropout they train as one process would.

    Args:
        model: from `load_model`, adapted.
        checkpoints: the folder of the checkpoints; training resumes from the newest one.
        watch: called as watch(steps done, model), the model in evaluation mode, before the first
            step and after each, in the main process. It changes nothing: a watched run has the same
            weights.
        keep: leave a checkpoint of the last step too, so that what is trained afterwards resumes.

    Returns:
        The history, a row per step: step, loss, each term in nats per answer token, learning rate,
        gradient norm (before clipping).

    Raises:
        NonFiniteLoss: at the first NaN or infinite loss.
    """
    objective = OBJECTIVES[config.objective]
    factors = loss_weights(config)
    sampler = BatchSampler(data, config)

    AcceleratorState._reset_state()  # else the first precision of a process is its only one
    accelerator = Accelerator(
        mixed_precision=MIXED_PRECISION.get(compute_dtype(config), "no"),
        step_scheduler_with_optimizer=False,
    )
    parameters = trainable(model)
    optimizer = make_optimizer(config.optimizer, parameters.values(), config.learning_rate)
    warmup = math.ceil(config.warmup * config.steps)
    schedule = get_cosine_schedule_with_warmup(optimizer, warmup, config.steps)
    optimizer = accelerator.prepare_optimizer(optimizer)
    resumable = (parameters, optimizer, schedule, accelerator.scaler)
    rows = load_checkpoint(checkpoints, *resumable)
    broadcast([p.data for p in parameters.values()])  # one start for all processes

    layers, reference, direction = layers_read(model, objective), None, None
    if objective.reference:
        together = math.ceil(config.pictures / config.accumulation)
        tables = [sampler.answers_to_come(g, config.steps) for g in objective.reference]
        reference = Reference(model, pd.concat(tables), together, layers)
    if objective.depth is not None:
        direction = random_direction(model, config.seed)
    main = accelerator.is_main_process

    def show(steps_done: int) -> None:
        if watch is not None and main:
            model.eval()
            watch(steps_done, model)

    steps: Iterable[int] = range(len(rows), config.steps)
    for step in track(steps, f"unlearn {config.label}") if main else steps:
        show(step)
        model.train()
        batch = sampler.batch_at(step)
        torch.manual_seed(config.seed * 1_000_003 + step + (accelerator.process_index << 40))
        counts = step_counts(model.processor, batch)
        terms_of_parts = []
        for part in _parts(batch, config.accumulation, accelerator):
            with accelerator.autocast():
                predicted = predict(model, part, counts, objective.reference, reference, layers)
            predicted = replace(predicted, direction=direction)
            total, terms = loss(config.objective, predicted, factors)
            accelerator.backward(total)
            terms_of_parts.append(terms | {"loss": total.item()})
        terms = _sum_over_parts(terms_of_parts, parameters.values(), accelerator)
        if not math.isfinite(terms["loss"]):
            raise NonFiniteLoss(f"the loss is {terms['loss']} at step {step} of {config.label}")
        norm = accelerator.clip_grad_norm_(parameters.values(), config.gradient_clip)
        optimizer.step()
        rate = schedule.get_last_lr()[0]
        schedule.step()
        optimizer.zero_grad()
        rows.append({"step": step} | terms | {"learning_rate": rate, "gradient_norm": float(norm)})
        last = step + 1 == config.steps
        if main and (keep if last else (step + 1) % config.checkpoint_every == 0):
            save_checkpoint(checkpoints, rows, *resumable)
    if objective.negated:
        negate_adapter(model)
    show(config.steps)
    model.eval()
    return pd.DataFrame(rows)


def make_optimizer(name: str, parameters: Iterable[torch.nn.Parameter], rate: float):
    """AdamW without weight decay: torch's, or bitsandbytes', whose state takes a quarter.

    `paged_adamw_8bit` stores its two moments in 8 bits, in blocks of 256 (arXiv 2110.02861). On a
    GPU they move to the CPU's memory while the card is full (QLoRA, arXiv 2305.14314).
    """
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    from bitsandbytes.optim import AdamW8bit, PagedAdamW8bit

    kind = PagedAdamW8bit if torch.cuda.is_available() else AdamW8bit
    return kind(parameters, lr=rate, weight_decay=0.0)


def require_optimizer(name: str) -> None:
    """Raise a UserError when this optimizer needs a library that does not work here."""
    if name == "adamw":
        return
    try:
        import bitsandbytes.optim  # noqa: F401
    except (ImportError, RuntimeError, OSError) as error:
        reason = (str(error).splitlines() or ["no message"])[0]
        raise UserError(
            f"optimizer {name!r} needs bitsandbytes, which does not work here ({reason}): install "
            "it, or use optimizer='adamw'"
        ) from None


def predict(
    model,
    batch: dict[str, pd.DataFrame],
    counts: dict,
    referred: Sequence[str] = (),
    reference: Reference | None = None,
    layers: Sequence[int] = (LAST,),
) -> Batch:
    """The model's predictions for every group of a batch, and the frozen model's for some of them.

    All groups pass through the model together, since some are about the same pictures.
    """
    states = iter(layer_states(model, pd.concat(batch.values()), layers))
    groups = {}
    for name, table in batch.items():
        answers = predictions(model, list(islice(states, len(table))), table["answer"])
        groups[name] = replace(answers, **counts[name])
    if reference:
        frozen = Batch(**{name: reference.answers(batch[name]) for name in referred})
        return Batch(**groups, reference=frozen)
    return Batch(**groups)


def layers_read(model, objective: Objective) -> tuple[int, ...]:
    """The layers whose states an objective reads, the last one first."""
    return (LAST,) if objective.depth is None else (LAST, layer_at(model, objective.depth))


def random_direction(model, seed: int) -> torch.Tensor:
    """RMU's u, (width,): a unit vector, its entries drawn evenly from 0 to 1 (arXiv 2403.03218)."""
    width = model.get_output_embeddings().weight.shape[1]
    drawn = torch.rand(width, generator=torch.Generator().manual_seed(seed))
    return (drawn / drawn.norm()).to(model.device)


def step_counts(processor, batch: dict[str, pd.DataFrame]) -> dict[str, dict[str, int]]:
    """group → the answer tokens and rows of a complete step, the divisors of each of its parts."""
    return {
        name: {
            "step_tokens": sum(len(answer_ids(processor, answer)) for answer in table["answer"]),
            "step_rows": len(table),
        }
        for name, table in batch.items()
    }


def _parts(batch: dict[str, pd.DataFrame], accumulation: int, accelerator: Accelerator):
    """The step's groups cut into micro-batches, those of this process.

    A picture's questions stay together, unless there are more parts than pictures. No part lacks
    one of the groups.
    """
    wanted = accumulation * accelerator.num_processes
    pictures = max(table["turn"].max() for table in batch.values()) + 1
    fewest = min(table["turn"].value_counts().min() for table in batch.values())
    slices = min(math.ceil(wanted / pictures), fewest)  # of a picture's questions
    count = min(wanted, pictures * slices)

    def part_of(table: pd.DataFrame) -> pd.Series:
        questions = table.groupby("turn")["turn"]
        piece = questions.cumcount() * slices // questions.transform("size")
        return (table["turn"] * slices + piece) * count // (pictures * slices)

    for index in range(accelerator.process_index, count, accelerator.num_processes):
        yield {name: table[part_of(table) == index] for name, table in batch.items()}


def _sum_over_parts(
    terms_of_parts: list[dict], parameters: Iterable[torch.nn.Parameter], accelerator: Accelerator
) -> dict[str, float]:
    """The step's terms, summed over the parts of all processes; its gradients too, in place.

    Every part is already divided by the step's tokens. DistributedDataParallel would average, and
    communicate once a part instead of once a step.
    """
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad = accelerator.reduce(parameter.grad, reduction="sum")
    gathered = gather_object(terms_of_parts)
    return {name: sum(terms[name] for terms in gathered) for name in gathered[0]}
