"""Can this machine run the notebooks? Each check reports one fact and what to do about it.

torch and bitsandbytes are imported inside the checks: a broken installation must not stop the
report.
"""

import logging
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Literal

import psutil
from packaging.requirements import Requirement

from safeerase_lite.config import LLAVA_7B, LLAVA_13B, PROFILES, config
from safeerase_lite.runs.store import PROJECT, default_runs_dir
from safeerase_lite.runs.store import version as _version
from safeerase_lite.tinyworld import shipped_model
from safeerase_lite.utils import UserError, cached

GIB = 2**30
LIBRARIES = ("transformers", "peft", "bitsandbytes", "accelerate")
NOTEBOOK_LIBRARIES = ("altair", "papermill", "jupyterlab")
MODELS = ("tiny-llava", "tiny-llava-gold")
MIN_MEMORY, MIN_DISK = 2, 1  # GiB that the tiny profile needs
# Rounding normal weights to 16 levels costs about a tenth; a broken kernel costs everything.
MAX_NF4_ERROR = 0.2
OVERHEAD = 1.5e9  # bytes of CUDA's context and of fragmentation: an assumption, not yet measured


@dataclass(frozen=True)
class Check:
    """One line of the report: `result` is the fact, `advice` what to do ("" when nothing)."""

    name: str
    status: Literal["ok", "note", "fail"]
    result: str
    advice: str = ""


def examine() -> list[Check]:
    """Every check, in the order in which one failure explains the next. Never raises."""
    # bitsandbytes warns about an optional CPU kernel that nothing here needs.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    checks: dict[str, Callable[[], Check]] = {
        "python": lambda: Check("python", "ok", f"{platform.python_version()} at {sys.executable}"),
        PROJECT: package,
        "torch": lambda: library("torch"),  # first: every other library builds on it
        "torchvision": torchvision,
        **{name: lambda name=name: library(name) for name in LIBRARIES + NOTEBOOK_LIBRARIES},
        "GPU": gpu,
        "precision": precision,
        "4-bit": four_bit,
        "profile": profile,
        "a run": run_estimate,
        "an injection": injection_estimate,
        "laptop": laptop_estimate,
        "memory": memory,
        "disk": disk,
        "temporary files": temporary_files,
        "cache": cache,
        **{name: lambda name=name: model(name) for name in MODELS},
        "kernel": kernel,
    }
    return [run_check(name, check) for name, check in checks.items()]


def healthy(checks: Iterable[Check]) -> bool:
    return all(check.status != "fail" for check in checks)


def run_check(name: str, check: Callable[[], Check]) -> Check:
    """The check's result; a failure where it raises."""
    try:
        return check()
    except Exception as error:  # a broken library may raise anything; the report goes on
        return Check(name, "fail", _first_line(error), "mend the first failure above, try again")


def ok_if(good: bool, name: str, result: str, advice: str, otherwise: str = "fail") -> Check:
    return Check(name, "ok", result) if good else Check(name, otherwise, result, advice)


# ---- software ----


def package() -> Check:
    """Installed, so that a kernel started in any folder can import it."""
    version, advice = _version(PROJECT), "pip install -e . in the repository"
    return ok_if(bool(version), PROJECT, version or "not installed", advice)


def library(name: str) -> Check:
    """Installed, as new as the package requires, and importable."""
    requirement, version = _requirement(name), _version(name)
    if version is None:
        problem = "not installed"
    elif not _satisfies(version, requirement):
        problem = f"{version}, needs {requirement.specifier}"
    else:
        problem = _import_problem(name, version)
    return ok_if(not problem, name, problem or version, f"pip install '{requirement or name}'")


def torchvision() -> Check:
    """Absent, or built for this torch.

    One built for another torch causes the error "Could not import module 'LlamaConfig'".
    """
    version, torch_version = _version("torchvision"), _version("torch")
    if version is None:
        return Check("torchvision", "ok", "absent, and not needed")
    needs = _requirement("torch", of="torchvision")
    if torch_version and not _satisfies(torch_version, needs):
        problem = f"{version} is for {needs}, not {torch_version}"
    else:
        problem = _import_problem("torchvision", version)
    advice = "pip uninstall torchvision: it is not needed"
    return ok_if(not problem, "torchvision", problem or f"{version}, fits torch", advice)


def kernel() -> Check:
    """Jupyter's kernel "python3" starts this interpreter."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    install = f"{sys.executable} -m ipykernel install --sys-prefix"
    try:
        spec = KernelSpecManager().get_kernel_spec("python3")
    except NoSuchKernel:
        return Check("kernel", "fail", "no kernel 'python3'", f"pip install ipykernel; {install}")
    executable = spec.argv[0]
    # jupyter_client replaces a bare `python` by the interpreter that Jupyter runs on.
    bare = executable in ("python", "python3", "python{}.{}".format(*sys.version_info))
    here = bare or Path(executable).absolute().parent == Path(sys.executable).absolute().parent
    result = f"python3 starts {'this interpreter' if here else executable}"
    advice = f"remove {spec.resource_dir}, or move it aside; {install}"
    return ok_if(here, "kernel", result, advice)


# ---- the machine ----


def gpu() -> Check:
    device = _gpu()
    if device is None:
        return Check("GPU", "note", "none", "the tiny profile needs none")
    gib, capability = device.total_memory / GIB, f"{device.major}.{device.minor}"
    return Check("GPU", "ok", f"{device.name}, {gib:.1f} GiB, compute capability {capability}")


def precision() -> Check:
    """The number format to compute in. A T4 reports bfloat16, but only emulates it."""
    if _gpu() is None:
        fast = "is fast" if _cpu_has_bfloat16() else "would be slower"
        return Check("precision", "ok", f"float32 on the CPU; bfloat16 {fast} here")
    native, advice = _native_bfloat16(), "compute='float32' if a loss becomes NaN"
    result = "bfloat16, native" if native else "float16: bfloat16 is not native here"
    return ok_if(native, "precision", result, advice, otherwise="note")


def four_bit() -> Check:
    """Quantise a layer to NF4 and multiply: the product is close to the dense layer's. On Apple
    silicon the GPU (MPS) is tried too, though models run on the CPU there."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    error = _nf4_error(device)
    result = f"NF4 on {device}, relative error {error:.0%}"
    if torch.backends.mps.is_available():
        result += f"; {_nf4_on_mps()}"
    advice = "pip install --force-reinstall bitsandbytes, or use precision='dense'"
    return ok_if(error < MAX_NF4_ERROR, "4-bit", result, advice)


def _nf4_on_mps() -> str:
    try:
        error = _nf4_error("mps")
    except Exception as error:  # whatever a build without this backend raises
        return f"not on MPS ({_first_line(error)})"
    return "on MPS too" if error < MAX_NF4_ERROR else f"wrong on MPS, relative error {error:.0%}"


def _nf4_error(device: str) -> float:
    """The relative error of a product by a layer in NF4."""
    import torch
    from bitsandbytes.nn import Linear4bit

    generator = torch.Generator().manual_seed(0)
    dense = torch.nn.Linear(64, 64, bias=False)
    torch.nn.init.normal_(dense.weight, generator=generator)
    quantised = Linear4bit(64, 64, bias=False, quant_type="nf4", compute_dtype=torch.float32)
    quantised.load_state_dict(dense.state_dict())
    inputs = torch.randn(8, 64, generator=generator)
    with torch.no_grad():
        expected = dense(inputs)
        difference = quantised.to(device)(inputs.to(device)).cpu() - expected
    return (difference.norm() / expected.norm()).item()


def profile() -> Check:
    """The largest profile that this machine can run."""
    name, device = _largest_profile(), _gpu()
    memory = f", with {device.total_memory / GIB:.1f} GiB of GPU memory" if device else ""
    return Check("profile", "ok", f"{name}{memory}")


def memory() -> Check:
    free = psutil.virtual_memory().available / GIB
    advice = f"free {MIN_MEMORY} GiB for a run"
    return ok_if(free >= MIN_MEMORY, "memory", f"{free:.1f} GiB free", advice, otherwise="note")


def disk() -> Check:
    """Space in the folder of runs."""
    runs = default_runs_dir()
    folder = next(path for path in (runs, *runs.parents) if os.path.isdir(path))
    free = shutil.disk_usage(folder).free / GIB
    if not os.access(folder, os.W_OK):
        return Check("disk", "fail", f"{folder} cannot be written", "set SAFEERASE_RUNS")
    advice = f"free {MIN_DISK} GiB, or set SAFEERASE_RUNS"
    return ok_if(free >= MIN_DISK, "disk", f"{free:.1f} GiB free for {runs}", advice)


def temporary_files() -> Check:
    try:
        return Check("temporary files", "ok", tempfile.gettempdir())
    except OSError as error:
        advice = "set TMPDIR to a folder that can be written"
        return Check("temporary files", "fail", error.strerror, advice)


def cache() -> Check:
    """Worlds and verdicts can be stored."""
    try:
        return Check("cache", "ok", str(cached("none").parent))
    except UserError as error:
        result, _, advice = str(error).rpartition(": ")
        return Check("cache", "fail", result, advice)


def model(name: str) -> Check:
    """A model that ships with the package is there, weights included."""
    folder = shipped_model(name)
    sizes = [file.stat().st_size for file in folder.glob("*.safetensors")] if folder else []
    result = f"shipped, {sum(sizes) / 1e6:.1f} MB" if sizes else "missing"
    return ok_if(bool(sizes), name, result, "safeerase tiny build")


# ---- estimates, before anything is started ----


def run_estimate() -> Check:
    """Memory and hours of a run on the largest profile."""
    from transformers import AutoConfig

    from safeerase_lite.resources import GB, UTILISATION, peak_bytes

    name = _largest_profile()
    if name == "tiny":
        llava = AutoConfig.from_pretrained(shipped_model("tiny-llava"))
        needs = f"{peak_bytes(llava, PROFILES['tiny']) / GB:.1f} GB beside the libraries"
        return Check("a run", "ok", f"tiny, estimated: {needs}, hours unknown without a GPU")
    advice = f"hours assume {UTILISATION:.0%} of the GPU's peak; fewer with a smaller `steps`"
    return Check("a run", "note", _estimate(name), advice)


def injection_estimate() -> Check:
    """Memory and hours to teach a real model the tiny world, whose sets are all retain questions:
    ten about a harmful picture, and eight about a safe one."""
    name = _largest_profile()
    if name == "tiny":
        return Check("an injection", "ok", "none here: it teaches a real model, on a GPU")
    result = _estimate(name, taught=10, projector="frozen")
    return Check("an injection", "note", result, f"safeerase inject --profile {name} DIR")


def laptop_estimate() -> Check:
    """Minutes and memory to teach a small real model a small world on this CPU, and to unlearn it
    with and without PD at the same time."""
    from safeerase_lite import laptop
    from safeerase_lite.runs.executor import cpu_count

    compute = "bfloat16" if _cpu_has_bfloat16() else "float32"
    advice = f"safeerase inject --profile laptop --steps {laptop.TAUGHT_STEPS} DIR"
    rates, cores = laptop.RATES[compute], cpu_count()
    needs, free = 2 * rates.gigabytes, psutil.virtual_memory().available / 1e9
    result = (
        f"estimated: {laptop.minutes(laptop.hour(rates)):.0f} minutes in {compute} on two free "
        f"cores like those of benchmarks/RESULTS.md, {needs:.1f} GB; here {cores} "
        f"core{'s' if cores > 1 else ''}, {free:.1f} GB free"
    )
    return Check("laptop", "ok" if cores > 1 and needs < free else "note", result, advice)


def _estimate(name: str, *, taught: int = 0, **fields) -> str:
    """Memory and hours for 7B and 13B; of unlearning, or to teach so many questions a picture."""
    from safeerase_lite import resources

    device, estimates = _gpu(), []
    for size, model in (("7B", LLAVA_7B), ("13B", LLAVA_13B)):
        llava = getattr(resources, f"LLAVA_{size}")
        settings = config(name, model=model, **fields)
        rows = resources.rows_of_part(settings, taught)
        needs = resources.peak_bytes(llava, settings, rows=rows)
        if needs + OVERHEAD > device.total_memory:
            estimates.append(f"{size} does not fit")
            continue
        hours = resources.training_hours(llava, settings, device.name, rows=rows)
        time = f"{hours:.0f} h" if hours else "unknown hours"
        estimates.append(f"{size} {needs / resources.GB:.1f} GB, {time} of training")
    return f"{name}, {PROFILES[name].steps} steps, estimated: {'; '.join(estimates)}"


def _largest_profile() -> str:
    device = _gpu()
    if device is None:
        return "tiny"
    from safeerase_lite.resources import LLAVA_7B, peak_bytes

    for name in ("full", "t4") if _native_bfloat16() else ("t4",):  # full computes in bfloat16
        if peak_bytes(LLAVA_7B, PROFILES[name]) + OVERHEAD <= device.total_memory:
            return name
    return "tiny"


# ---- facts ----


def _gpu():
    """Properties of the first GPU (name, total_memory, major, minor), or None."""
    import torch

    return torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None


def _cpu_has_bfloat16() -> bool:
    from safeerase_lite.models.llava import cpu_has_bfloat16

    return cpu_has_bfloat16()


def _native_bfloat16() -> bool:
    import torch

    return torch.cuda.is_bf16_supported(including_emulation=False)


def _requirement(name: str, of: str = PROJECT) -> Requirement | None:
    """What a package asks of a library, also by its extra `notebooks`."""
    if _version(of) is None:
        return None
    for requirement in map(Requirement, metadata.requires(of) or []):
        marker = requirement.marker
        applies = not marker or any(marker.evaluate({"extra": e}) for e in ("", "notebooks"))
        if applies and requirement.name == name:
            return requirement
    return None


def _satisfies(version: str, requirement: Requirement | None) -> bool:
    return not requirement or requirement.specifier.contains(version, prereleases=True)


def _import_problem(name: str, version: str) -> str:
    """Why a library does not import; empty when it does."""
    try:
        import_module(name)
    except Exception as error:
        return f"{version} does not import: {_first_line(error)}"
    return ""


def _first_line(error: Exception) -> str:
    first = (str(error).strip().splitlines() or ["no message"])[0]
    return f"{type(error).__name__}: {first}"
