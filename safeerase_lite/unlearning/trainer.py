"""The loop: draw a batch, let the objective judge it, step, and remember how it went."""

import json
import math
import random
import shutil
from collections.abc import Callable, Iterable
from functools import lru_cache
from itertools import cycle
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast, gather_object
from safetensors.torch import load_file, save_file
from transformers import get_cosine_schedule_with_warmup

from safeerase_lite.data.dataset import Data, require_decouple
from safeerase_lite.models.forward import Answers, Reference, answer_states
from safeerase_lite.models.inputs import IGNORED, answer_ids, encode_text
from safeerase_lite.models.llava import compute_dtype, load_adapter, save_adapter
from safeerase_lite.unlearning.objectives import OBJECTIVES, Batch, loss, weights
from safeerase_lite.utils import UserError, track

MIXED = {torch.float16: "fp16", torch.bfloat16: "bf16"}  # what is trained stays in float32


class NonFiniteLoss(RuntimeError):
    """The loss is NaN or infinite: the run is lost, and says at which step."""


def unlearn(
    model, data: Data, run, *, watch: Callable[[int, Any], None] | None = None
) -> pd.DataFrame:
    """Unlearn the forget set of `data` by a run's objective; the adapter of `model` is changed.
    Of a run that is done, the adapter is loaded; vanilla and gold are left as they are.

    A step draws `batch` forget questions of the train split, as many retain questions and, with PD
    or its placebo, the partners of the forget questions: the same question with the safe picture of
    the same record (the official code draws any), or an ordinary question about it. Every draw
    depends on the seed and the step alone, so a run resumed from its checkpoint is bit-identical
    (on a CPU; on a GPU the order of sums may vary).

    Two processes (`torchrun --nproc-per-node 2 script.py`; `accelerate launch --cpu` quietly starts
    one) share each step and, without dropout, train as one. Both open the run and unlearn, only the
    main one writes: let it alone evaluate and commit, `if run.main:`.

    Args:
        model: from `load_model`, adapted.
        data: from `load_data`.
        run: from `open_run`; objective, decouple, weights and seed are its parameters.
        watch: called as watch(steps done, model), the model evaluating, before the first step and
            after each, in the main process. It changes nothing: a watched run has the same weights.

    Returns:
        The history, a row per step: step, loss, each term in nats per answer token, learning rate,
        gradient norm (before clipping).

    Raises:
        UserError: PD asked for without decouple data.
        NonFiniteLoss: at the first NaN or infinite loss; the run has failed.
    """
    settings = run.settings
    profile = settings.profile
    if settings.objective not in OBJECTIVES:
        return run.history
    if run.done:
        load_adapter(model, run.adapter_dir)
        return run.history
    require_decouple(data, settings.decouple)
    objective = OBJECTIVES[settings.objective]
    weighing = weights(settings.objective, settings.weights, settings.decouple, profile.npo_beta)
    draws = BatchSampler(
        data, objective.needs, settings.decouple, settings.seed, profile.batch,
        profile.decouple_share,
    )  # fmt: skip

    AcceleratorState._reset_state()  # else the first precision of a process is its only one
    accelerator = Accelerator(
        mixed_precision=MIXED.get(compute_dtype(profile), "no"),
        step_scheduler_with_optimizer=False,
    )
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    stepper = optimizer(profile.optimizer, named.values(), settings.learning_rate)
    schedule = get_cosine_schedule_with_warmup(
        stepper, math.ceil(profile.warmup * profile.steps), profile.steps
    )
    stepper = accelerator.prepare_optimizer(stepper)
    expected = getattr(draws, str(objective.reference), None)
    before = Reference(model, expected, math.ceil(profile.batch / profile.accumulation))
    rows = _resume(run.checkpoint_dir, named, stepper, schedule, accelerator)
    broadcast([p.data for p in named.values()])  # one start, whatever each process drew

    ahead = range(len(rows), profile.steps)
    for step in track(ahead, f"unlearn {settings.label}") if run.main else ahead:
        _look(watch, step, model, run)
        model.train()
        asked = draws.at(step)
        torch.manual_seed(settings.seed * 1_000_003 + step + (accelerator.process_index << 40))
        said = []
        counts = step_counts(model.processor, asked)
        for piece in _pieces(asked, profile.accumulation, accelerator):
            with accelerator.autocast():
                batch = answered(model, piece, counts, objective.reference, before)
            total, terms = loss(settings.objective, batch, weighing)
            accelerator.backward(total)
            said.append(terms | {"loss": total.item()})
        terms = _add_up(said, named, accelerator)
        if not math.isfinite(terms["loss"]):
            error = NonFiniteLoss(f"the loss is {terms['loss']} at step {step} of {settings.label}")
            run.fail(error)  # no checkpoint of it would end elsewhere
            raise error
        norm = accelerator.clip_grad_norm_(named.values(), profile.gradient_clip)
        stepper.step()
        rate = schedule.get_last_lr()[0]
        schedule.step()
        stepper.zero_grad()
        rows.append({"step": step} | terms | {"learning_rate": rate, "gradient_norm": float(norm)})
        if run.main and (step + 1) % profile.checkpoint_every == 0 and step + 1 < profile.steps:
            _checkpoint(run.checkpoint_dir, rows, named, stepper, schedule, accelerator)
    _look(watch, profile.steps, model, run)
    model.eval()
    if not run.main:
        return pd.DataFrame(rows)
    run.write_history(rows)
    save_adapter(model, run.adapter_dir)
    return run.history


def _look(watch, steps: int, model, run) -> None:
    if watch is not None and run.main:
        model.eval()
        watch(steps, model)


class BatchSampler:
    """What a step asks, as a function of the seed and the step.

    Forget and retain questions come in shuffled epochs, each from a shuffle of its own.
    """

    def __init__(
        self, data: Data, needs: tuple[str, ...], decouple: str, seed: int, batch: int,
        decouple_share: float = 1.0,
    ):  # fmt: skip
        self.needs, self.seed, self.batch = needs, seed, batch
        self.refusals = data.refusals
        self.forget = _train(data.forget)
        self.retain = _train(data.retain)
        partners = {"pd": data.decouple, "placebo": data.placebo}.get(decouple)
        self.partners = None
        if partners is not None:
            self.partners = _partners(self.forget, _first(_train(partners), decouple_share))

    def at(self, step: int) -> dict[str, pd.DataFrame]:
        """group → a table of image, question and answer."""
        chosen = self._epoch("forget", len(self.forget), step)
        groups = {"forget": self.forget.iloc[chosen]}
        if "refuse" in self.needs:
            rng = random.Random(f"refuse {self.seed} {step}")
            answers = [rng.choice(self.refusals) for _ in chosen]
            groups["refuse"] = groups["forget"].assign(answer=answers)
        if "retain" in self.needs:
            groups["retain"] = self.retain.iloc[self._epoch("retain", len(self.retain), step)]
        if self.partners is not None:
            groups["decouple"] = self.partners.iloc[chosen]
        return {name: table for name, table in groups.items() if name in (*self.needs, "decouple")}

    def _epoch(self, name: str, size: int, step: int) -> list[int]:
        chosen = []
        for position in range(step * self.batch, (step + 1) * self.batch):
            epoch, index = divmod(position, size)
            chosen.append(_shuffled(f"{name} {self.seed} {epoch}", size)[index])
        return chosen


@lru_cache(maxsize=8)
def _shuffled(seed: str, size: int) -> tuple[int, ...]:
    order = list(range(size))
    random.Random(seed).shuffle(order)
    return tuple(order)


def _train(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["split"] == "train"].reset_index(drop=True)


def _first(partners: pd.DataFrame, share: float) -> pd.DataFrame:
    """That share of each kind's records, at least one: a larger share holds a smaller one."""
    records = partners.groupby("kind")["record"]
    return partners[records.rank("dense") <= (share * records.transform("nunique")).map(math.ceil)]


def _partners(forget: pd.DataFrame, partners: pd.DataFrame) -> pd.DataFrame:
    """For each forget question, the partner at the same place of the same record; where a record
    has none, any other's."""

    def places(table):
        return pd.MultiIndex.from_arrays([table["record"], table.groupby("record").cumcount()])

    found = places(partners).get_indexer(places(forget))
    spare = cycle(_shuffled("spare", len(partners)))
    return partners.iloc[[i if i >= 0 else next(spare) for i in found]]


def _pieces(asked: dict[str, pd.DataFrame], accumulation: int, accelerator: Accelerator):
    """The step's groups cut into micro-batches, those of this process."""
    rows = min(len(table) for table in asked.values())
    count = min(accumulation, rows // accelerator.num_processes) * accelerator.num_processes
    for index in range(accelerator.process_index, count, accelerator.num_processes):
        yield {name: table.iloc[index::count] for name, table in asked.items()}


def _add_up(said: list[dict], named: dict, accelerator: Accelerator) -> dict[str, float]:
    """The step's terms, summed over the pieces of all processes; its gradients too, in place.

    Every piece is already divided by the step's tokens. DistributedDataParallel would average, and
    communicate once a piece, not once a step.
    """
    for parameter in named.values():
        if parameter.grad is not None:
            parameter.grad = accelerator.reduce(parameter.grad, reduction="sum")
    said = gather_object(said)
    return {name: sum(terms[name] for terms in said) for name in said[0]}


def answered(
    model, piece: dict[str, pd.DataFrame], counts: dict, referred: str | None, before: Reference
) -> Batch:
    """What the model says of all groups of a piece, and the frozen model of one of them."""
    groups = {}
    for tables in _passes(piece):
        logits, labels = _said(model, pd.concat(tables.values()))
        sizes = [len(table) for table in tables.values()]
        for name, *said in zip(tables, logits.split(sizes), labels.split(sizes), strict=True):
            groups[name] = Answers(*said, **counts[name])
    if referred:
        groups["reference"] = before.answers(piece[referred])
    return Batch(**groups)


def _passes(piece: dict[str, pd.DataFrame]) -> list[dict[str, pd.DataFrame]]:
    """The groups that share a forward pass: all of them, where a piece has one question of each.

    Several questions fill a pass by themselves, and a pass of their own is as wide as they are: in
    a shared one, short retain answers would be padded to the length of the forget answers.
    """
    if all(len(table) == 1 for table in piece.values()):
        return [piece]
    return [{name: table} for name, table in piece.items()]


def _said(model, table: pd.DataFrame) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels of a table's answers, one forward pass."""
    encoded = encode_text(model.processor, table["question"], table["answer"])
    encoded = {key: value.to(model.device) for key, value in encoded.items()}
    longest = int((encoded["labels"] != IGNORED).sum(-1).max())
    states = answer_states(model, encoded, table["image"], longest + 1)
    return model.get_output_embeddings()(states[:, :-1]), encoded["labels"][:, -longest:]


def step_counts(processor, asked: dict[str, pd.DataFrame]) -> dict[str, dict[str, int]]:
    """group → the tokens and rows of a whole step, by which each of its pieces is divided."""

    return {
        name: {
            "step_tokens": sum(len(answer_ids(processor, answer)) for answer in table["answer"]),
            "step_rows": len(table),
        }
        for name, table in asked.items()
    }


# ---------------------------------------------------------------- checkpoints


def _checkpoint(folder: Path, rows, named, stepper, schedule, accelerator) -> None:
    """Write adapter, optimiser and schedule: tensors as safetensors, the rest as JSON.

    A checkpoint appears whole (it is renamed into place) and the one before goes only then.
    """
    tensors = {f"weight.{name}": p.detach() for name, p in named.items()}
    counts = {}
    for name, parameter in named.items():
        for key, value in stepper.state[parameter].items():
            (tensors if torch.is_tensor(value) else counts)[f"{key}.{name}"] = value
    rest = {"rows": rows, "schedule": schedule.state_dict(), "rates": schedule.get_last_lr(),
            "counts": counts}  # fmt: skip
    if accelerator.scaler is not None:
        rest["scaler"] = accelerator.scaler.state_dict()
    partial = folder / "partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file(
        {key: t.clone().contiguous().cpu() for key, t in tensors.items()},  # 8-bit states share
        partial / "state.safetensors",
    )
    (partial / "state.json").write_text(json.dumps(rest), encoding="utf-8")
    partial.rename(folder / f"step-{len(rows):06d}")
    for older in sorted(folder.glob("step-*"))[:-1]:
        shutil.rmtree(older)


def _resume(folder: Path, named, stepper, schedule, accelerator) -> list[dict]:
    """Put the newest checkpoint back; the history so far, empty when there is none."""
    found = sorted(folder.glob("step-*"))
    if not found:
        return []
    tensors = load_file(found[-1] / "state.safetensors")
    rest = json.loads((found[-1] / "state.json").read_text(encoding="utf-8"))
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(tensors[f"weight.{name}"])
    inner = stepper.optimizer
    state = {i: {} for i in range(len(named))}
    places = {name: i for i, name in enumerate(named)}
    for of, value in (tensors | rest.get("counts", {})).items():
        key, name = of.split(".", 1)
        if key != "weight":
            state[places[name]][key] = value
    inner.load_state_dict(inner.state_dict() | {"state": state})
    schedule.load_state_dict(rest["schedule"])
    for group, rate in zip(inner.param_groups, rest["rates"], strict=True):
        group["lr"] = rate
    if accelerator.scaler is not None:
        accelerator.scaler.load_state_dict(rest["scaler"])
    return rest["rows"]


def optimizer(name: str, parameters: Iterable[torch.nn.Parameter], rate: float):
    """AdamW without weight decay: torch's, or bitsandbytes', whose state takes a quarter.

    `paged_adamw_8bit` keeps its two moments in 8 bits, in blocks of 256 (arXiv 2110.02861). On a
    GPU they move to the CPU's memory while the card is full (QLoRA, arXiv 2305.14314).
    """
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    from bitsandbytes.optim import AdamW8bit, PagedAdamW8bit

    kind = PagedAdamW8bit if torch.cuda.is_available() else AdamW8bit
    return kind(parameters, lr=rate, weight_decay=0.0)


def require_optimizer(name: str) -> None:
    """Raise UserError when this optimiser needs a library that does not work here."""
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
