"""A run's checkpoint: tensors as safetensors, the rest as JSON; no pickle.

Accelerate's own `save_state` writes pickles and cannot load a 4-bit model.
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from safeerase_lite.utils import digests, reading, setting_aside, verify

FILES = "files.json"  # the digests of the others: half a checkpoint would train on, unnoticed


def save_checkpoint(folder: Path, rows, parameters, optimizer, schedule, scaler) -> None:
    """Write trained weights, optimizer, schedule, loss scaler and history.

    The new checkpoint is renamed into place when it is complete, and only then the one before is
    removed.

    Args:
        rows: the history so far, a dict per step.
        parameters: name → trained parameter.
        optimizer: an AcceleratedOptimizer.
        scaler: the loss scaler of float16, or None.
    """
    tensors = {f"weight.{name}": p.detach() for name, p in parameters.items()}
    numbers = {}
    for name, parameter in parameters.items():
        for key, value in optimizer.state[parameter].items():
            (tensors if torch.is_tensor(value) else numbers)[f"{key}.{name}"] = value
    state = {
        "rows": rows,
        "schedule": schedule.state_dict(),
        "rates": schedule.get_last_lr(),
        "numbers": numbers,
        "scaler": scaler.state_dict() if scaler is not None else None,
    }
    draft = folder / "draft"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    # Clones, because 8-bit optimizer states share memory and safetensors refuses that.
    tensors = {key: tensor.clone().contiguous().cpu() for key, tensor in tensors.items()}
    save_file(tensors, draft / "state.safetensors")
    (draft / "state.json").write_text(json.dumps(state), encoding="utf-8")
    (draft / FILES).write_text(json.dumps(digests(draft)), encoding="utf-8")
    draft.rename(folder / f"step-{len(rows):06d}")
    for older in sorted(folder.glob("step-*"))[:-1]:
        shutil.rmtree(older)


def load_checkpoint(folder: Path, parameters, optimizer, schedule, scaler) -> list[dict]:
    """Restore the newest checkpoint in place; see `save_checkpoint`. A damaged one is set aside.

    Returns:
        The history so far; empty when there is no checkpoint.
    """
    newest = max(folder.glob("step-*"), default=None)
    if newest is None:
        return []
    state = None
    with setting_aside(newest, folder / "damaged"), reading(newest / FILES):
        verify(newest, json.loads((newest / FILES).read_bytes()))
        state = json.loads((newest / "state.json").read_bytes())
    if state is None:
        return []
    tensors = load_file(newest / "state.safetensors")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"weight.{name}"])
    places = {name: place for place, name in enumerate(parameters)}
    moments: dict[int, dict] = {place: {} for place in places.values()}
    for of, value in (tensors | state["numbers"]).items():
        key, name = of.split(".", 1)
        if key != "weight":
            moments[places[name]][key] = value
    inner = optimizer.optimizer
    inner.load_state_dict(inner.state_dict() | {"state": moments})
    schedule.load_state_dict(state["schedule"])
    for group, rate in zip(inner.param_groups, state["rates"], strict=True):
        group["lr"] = rate
    if scaler is not None:
        scaler.load_state_dict(state["scaler"])
    return state["rows"]
