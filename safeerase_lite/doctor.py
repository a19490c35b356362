"""Can this machine run the notebooks? Each check finds one fact and says what to do about it."""

import logging
import math
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Literal

from safeerase_lite import config as profiles
from safeerase_lite.config import PROFILES
from safeerase_lite.runs.store import PROJECT, default_runs_dir
from safeerase_lite.tinyworld import shipped_model

GIB = 2**30
LIBRARIES = (
    "transformers",
    "peft",
    "bitsandbytes",
    "accelerate",
    "altair",
    "papermill",
    "jupyterlab",
)
MODELS = ("tiny-llava", "tiny-llava-gold")
MEMORY, DISK = 2, 1  # GiB that the tiny profile needs
UNCOUNTED = 1.5e9  # bytes of CUDA's context and of fragmentation: an assumption, not yet measured


@dataclass(frozen=True)
class Check:
    """One line of the report: `found` is the fact, `advice` what to do ("" when nothing)."""

    name: str
    status: Literal["ok", "note", "fail"]
    found: str
    advice: str = ""


def examine() -> list[Check]:
    """Every check, in the order in which one failure explains the next. Never raises."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it misses a kernel nobody needs
    probes: list[tuple[str, Callable[[], Check]]] = [
        ("python", python),
        (PROJECT, package),
        ("torch", lambda: library("torch")),  # first: all else stands on it
        ("torchvision", torchvision),
        *[(name, lambda name=name: library(name)) for name in LIBRARIES],
        ("GPU", gpu),
        ("precision", precision),
        ("4-bit", four_bit),
        ("profile", profile),
        ("a run", a_run),
        ("an injection", an_injection),
        ("memory", memory),
        ("disk", disk),
        *[(name, lambda name=name: model(name)) for name in MODELS],
        ("kernel", kernel),
        ("nbgrader", nbgrader),
    ]
    return [_guarded(name, probe) for name, probe in probes]


def healthy(checks: Iterable[Check]) -> bool:
    return all(check.status != "fail" for check in checks)


def _guarded(name: str, probe: Callable[[], Check]) -> Check:
    try:
        return probe()
    except Exception as error:  # a broken library may raise anything; the report goes on
        return Check(name, "fail", _reason(error), "mend the first failure above, then look again")


# ---- software ----


def python() -> Check:
    return Check("python", "ok", f"{platform.python_version()} at {sys.executable}")


def package() -> Check:
    """Installed, so that a kernel started in any folder can import it."""
    version = _version(PROJECT)
    if version is None:
        return Check(PROJECT, "fail", "not installed", "pip install -e . in the repository")
    return Check(PROJECT, "ok", version)


def library(name: str) -> Check:
    """Installed, as new as the package asks, and really importable."""
    requirement = _requirement(name)
    advice = f"pip install '{requirement or name}'"
    version = _version(name)
    if version is None:
        return Check(name, "fail", "not installed", advice)
    if requirement and not requirement.specifier.contains(version, prereleases=True):
        return Check(name, "fail", f"{version}, needs {requirement.specifier}", advice)
    try:
        import_module(name)
    except Exception as error:
        return Check(name, "fail", f"{version} does not import: {_reason(error)}", advice)
    return Check(name, "ok", version)


def torchvision() -> Check:
    """Absent, or built for this torch.

    One that was built for another torch surfaces as "Could not import module 'LlamaConfig'".
    """
    version = _version("torchvision")
    if version is None:
        return Check("torchvision", "ok", "absent, and not needed")
    advice = "pip uninstall torchvision: it is not needed"
    wanted, present = _requirement("torch", of="torchvision"), _version("torch")
    if wanted and present and not wanted.specifier.contains(present, prereleases=True):
        return Check("torchvision", "fail", f"{version} is for {wanted}, not {present}", advice)
    try:
        import_module("torchvision")
    except Exception as error:
        found = f"{version} does not import: {_reason(error)}"
        return Check("torchvision", "fail", found, advice)
    return Check("torchvision", "ok", f"{version}, fits torch")


def nbgrader() -> Check:
    """Only who grades needs it."""
    version = _version("nbgrader")
    if version is None:
        return Check("nbgrader", "ok", "absent, and needed for grades alone")
    return Check("nbgrader", "ok", f"{version}; its Validate button is no check of the exercises")


def kernel() -> Check:
    """Jupyter's kernel "python3" starts this interpreter."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    own = f"{sys.executable} -m ipykernel install --sys-prefix"
    try:
        spec = KernelSpecManager().get_kernel_spec("python3")
    except NoSuchKernel:
        return Check("kernel", "fail", "no kernel 'python3'", f"pip install ipykernel; {own}")
    if not _is_this_interpreter(spec.argv[0]):
        advice = f"remove {spec.resource_dir}, or move it aside; {own}"
        return Check("kernel", "fail", f"python3 starts {spec.argv[0]}", advice)
    return Check("kernel", "ok", "python3 starts this interpreter")


def _is_this_interpreter(executable: str) -> bool:
    """A bare `python` is replaced by jupyter_client with the interpreter that Jupyter runs on."""
    major, minor = sys.version_info[:2]
    if executable in ("python", f"python{major}", f"python{major}.{minor}"):
        return True
    return Path(executable).absolute().parent == Path(sys.executable).absolute().parent


# ---- the machine ----


def gpu() -> Check:
    import torch

    if not torch.cuda.is_available():
        return Check("GPU", "note", "none", "the tiny profile needs none")
    card = torch.cuda.get_device_properties(0)
    found = f"{card.name}, {_gpu_memory():.1f} GiB, compute capability {card.major}.{card.minor}"
    return Check("GPU", "ok", found)


def precision() -> Check:
    """The number format to compute in. A T4 says it has bfloat16, and only emulates it."""
    import torch

    if not torch.cuda.is_available():
        return Check("precision", "ok", "float32 on the CPU")
    if _native_bfloat16():
        return Check("precision", "ok", "bfloat16, native")
    advice = "compute='float32' if a loss becomes NaN"
    return Check("precision", "note", "float16: bfloat16 is not native here", advice)


def four_bit() -> Check:
    """Quantise a layer to NF4 and multiply: the product is near the dense layer's."""
    if _version("bitsandbytes") is None and sys.platform == "darwin":
        return Check("4-bit", "note", "no bitsandbytes here", "models load dense")
    import torch
    from bitsandbytes.nn import Linear4bit

    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator().manual_seed(0)
    dense = torch.nn.Linear(64, 64, bias=False)
    torch.nn.init.normal_(dense.weight, generator=generator)
    quantised = Linear4bit(64, 64, bias=False, quant_type="nf4", compute_dtype=torch.float32)
    quantised.load_state_dict(dense.state_dict())
    inputs = torch.randn(8, 64, generator=generator)
    with torch.no_grad():
        expected = dense(inputs)
        error = quantised.to(device)(inputs.to(device)).cpu() - expected
    share = (error.norm() / expected.norm()).item()
    found = f"NF4 on {device}, relative error {share:.0%}"
    if share < 0.2:
        return Check("4-bit", "ok", found)
    advice = "pip install --force-reinstall bitsandbytes, or use precision='dense'"
    return Check("4-bit", "fail", found, advice)


def profile() -> Check:
    """The largest profile that this machine carries."""
    name, available = _carried(), _gpu_memory()
    found = f"{name}, with {available:.1f} GiB of GPU memory" if available else name
    return Check("profile", "ok", found)


def a_run() -> Check:
    """What a run of that profile takes, before one is started: memory is counted by `memory`, hours
    from the operations that `flops` counts and the share of a card's peak that it assumes."""
    from safeerase_lite.resources import USABLE

    name = _carried()
    if name == "tiny":
        return Check("a run", "ok", f"{_tiny_run()}, hours unknown without a GPU")
    found = f"{name}, {PROFILES[name].steps} steps, estimated: {_estimated(name)}"
    advice = f"hours assume {USABLE:.0%} of the card's peak; fewer with a smaller `steps`"
    return Check("a run", "note", found, advice)


def an_injection() -> Check:
    """What teaching the tiny world to a real model takes: one set of questions, not three."""
    name = _carried()
    if name == "tiny":
        return Check("an injection", "ok", "none here: it teaches a real model, on a GPU")
    told = _estimated(name, sets=1, projector="frozen")
    found = f"{name}, {PROFILES[name].steps} steps, estimated: {told}"
    return Check("an injection", "note", found, f"safeerase inject --profile {name} DIR")


def _estimated(name: str, *, sets: int | None = None, **fields) -> str:
    """Memory and hours for 7B and 13B; `sets` of questions pass together, by default a run's."""
    from safeerase_lite.resources import (
        GB,
        LLAVA_7B,
        LLAVA_13B,
        SETS_TOGETHER,
        needed,
        training_hours,
    )

    sets, said = sets or SETS_TOGETHER, []
    sizes = (("7B", LLAVA_7B, profiles.LLAVA_7B), ("13B", LLAVA_13B, profiles.LLAVA_13B))
    for size, config, model in sizes:
        numbers = profiles.profile(name, model=model, **fields)
        rows = sets * math.ceil(numbers.batch / numbers.accumulation)
        memory = needed(config, numbers, rows=rows)
        if memory + UNCOUNTED > _gpu_memory() * GIB:
            said.append(f"{size} does not fit")
            continue
        hours = training_hours(config, numbers, _gpu_name())
        spent = f"{hours * sets / SETS_TOGETHER:.0f} h" if hours else "unknown hours"
        said.append(f"{size} {memory / GB:.1f} GB, {spent} of training")
    return "; ".join(said)


def _tiny_run() -> str:
    from transformers import AutoConfig

    from safeerase_lite.resources import GB, needed

    config = AutoConfig.from_pretrained(shipped_model("tiny-llava"))
    return f"tiny, estimated: {needed(config, PROFILES['tiny']) / GB:.1f} GB beside the libraries"


def _carried() -> str:
    from safeerase_lite.resources import LLAVA_7B, needed

    available = _gpu_memory() * GIB
    if not available:
        return "tiny"
    for name in ("full", "t4") if _native_bfloat16() else ("t4",):  # full is in bfloat16
        if needed(LLAVA_7B, PROFILES[name]) + UNCOUNTED <= available:
            return name
    return "tiny"


def memory() -> Check:
    import psutil

    free = psutil.virtual_memory().available / GIB
    if free < MEMORY:
        return Check("memory", "note", f"{free:.1f} GiB free", f"free {MEMORY} GiB for a run")
    return Check("memory", "ok", f"{free:.1f} GiB free")


def disk() -> Check:
    """Room where runs are written."""
    runs = default_runs_dir()
    folder = next(path for path in (runs, *runs.parents) if path.is_dir())
    free = shutil.disk_usage(folder).free / GIB
    found = f"{free:.1f} GiB free for {runs}"
    if not os.access(folder, os.W_OK):
        return Check("disk", "fail", f"{folder} cannot be written", "set SAFEERASE_RUNS")
    if free < DISK:
        return Check("disk", "fail", found, f"free {DISK} GiB, or set SAFEERASE_RUNS")
    return Check("disk", "ok", found)


def model(name: str) -> Check:
    """A model that ships with the package is there, weights included."""
    folder = shipped_model(name)
    if folder is None or not any(folder.glob("*.safetensors")):
        return Check(name, "fail", "missing", "safeerase tiny build")
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 1e6
    return Check(name, "ok", f"shipped, {size:.1f} MB")


# ---- facts ----


def _gpu_memory() -> float:
    """GiB of the first GPU; 0 without one."""
    import torch

    if not torch.cuda.is_available():
        return 0.0
    return torch.cuda.get_device_properties(0).total_memory / GIB


def _native_bfloat16() -> bool:
    import torch

    return torch.cuda.is_bf16_supported(including_emulation=False)


def _gpu_name() -> str:
    import torch

    return torch.cuda.get_device_properties(0).name


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _requirement(name: str, of: str = PROJECT):
    """What a package asks of a library (a packaging Requirement), or None."""
    from packaging.requirements import Requirement

    if _version(of) is None:
        return None
    wanted = map(Requirement, metadata.requires(of) or [])
    applying = (w for w in wanted if w.marker is None or w.marker.evaluate({"extra": ""}))
    return next((w for w in applying if w.name == name), None)


def _reason(error: Exception) -> str:
    first = (str(error).strip().splitlines() or ["no message"])[0]
    return f"{type(error).__name__}: {first}"
