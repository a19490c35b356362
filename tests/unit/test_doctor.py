"""The doctor finds facts, says what to do about the bad ones, and never crashes."""

import json
import re
import sys
from types import SimpleNamespace

import pytest
import torch

from safeerase_lite import doctor
from safeerase_lite.doctor import Check, examine, healthy


@pytest.fixture
def versions(monkeypatch):
    """Pretend that these versions are installed, and what packages ask for."""

    def install(requires=None, **installed):
        def version(name):
            return installed.get(name.replace("-", "_"))

        monkeypatch.setattr(doctor, "_version", version)
        monkeypatch.setattr(doctor.metadata, "requires", lambda of: (requires or {}).get(of))

    return install


@pytest.fixture
def card(monkeypatch):
    """Pretend that there is a GPU."""
    import bitsandbytes  # noqa: F401  before: on import it binds to CUDA, if there seems to be one

    def plug(name, gib, major, minor):
        properties = SimpleNamespace(name=name, total_memory=gib * 2**30, major=major, minor=minor)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)

    return plug


@pytest.fixture
def no_card(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


# ---- the report ----


def test_torch_and_torchvision_are_looked_at_before_what_stands_on_them(monkeypatch):
    monkeypatch.setattr(doctor, "run_check", lambda name, check: Check(name, "ok", ""))
    names = [check.name for check in examine()]
    assert names.index("torch") < names.index("torchvision") < names.index("transformers")


def test_a_check_that_crashes_is_a_failure_and_the_report_goes_on():
    def crash():
        raise OSError("libcudart.so is gone\nmuch more")

    check = doctor.run_check("GPU", crash)
    assert (check.status, check.result) == ("fail", "OSError: libcudart.so is gone")


def test_notes_are_healthy_and_failures_are_not():
    assert healthy([Check("a", "ok", ""), Check("b", "note", "")])
    assert not healthy([Check("a", "ok", ""), Check("b", "fail", "")])


# ---- software ----


def test_a_library_that_is_missing_old_or_broken_says_what_to_install(versions, monkeypatch):
    versions({"safeerase-lite": ["altair>=6", "peft>=0.17"]}, safeerase_lite="0.1", altair="5.5")
    missing, old = doctor.library("peft"), doctor.library("altair")
    assert (missing.status, missing.advice) == ("fail", "pip install 'peft>=0.17'")
    assert (old.status, old.result) == ("fail", "5.5, needs >=6")

    def broken(name):
        raise RuntimeError(f"{name} is broken")

    versions(altair="6.3")
    monkeypatch.setattr(doctor, "import_module", broken)
    assert "does not import: RuntimeError: altair is broken" in doctor.library("altair").result


def test_a_library_as_new_as_asked_is_fine(versions):
    versions({"safeerase-lite": ["torch>=2.6"]}, safeerase_lite="0.1", torch="2.13.0+cpu")
    assert doctor.library("torch") == Check("torch", "ok", "2.13.0+cpu")


def test_no_torchvision_is_fine(versions):
    versions(torch="2.13.0+cpu")
    assert doctor.torchvision().status == "ok"


def test_a_torchvision_for_another_torch_is_caught_before_it_is_imported(versions, monkeypatch):
    monkeypatch.setattr(doctor, "import_module", lambda name: pytest.fail("imported"))
    versions({"torchvision": ["torch==2.12.0"]}, torch="2.13.0+cpu", torchvision="0.27.0")
    check = doctor.torchvision()
    assert check.status == "fail" and "pip uninstall torchvision" in check.advice


def test_a_torchvision_that_does_not_import_is_caught(versions, monkeypatch):
    def broken(name):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(doctor, "import_module", broken)
    versions({"torchvision": ["torch==2.13.0"]}, torch="2.13.0+cpu", torchvision="0.28.0")
    assert "nms does not exist" in doctor.torchvision().result


def test_a_kernel_of_another_python_is_caught(tmp_path, monkeypatch):
    folder = tmp_path / "kernels" / "python3"
    folder.mkdir(parents=True)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    for executable, status in [
        ("/nowhere/bin/python", "fail"),
        (sys.executable, "ok"),
        ("python3", "ok"),
    ]:
        spec = {"argv": [executable, "-f", "{connection_file}"], "display_name": "Python"}
        (folder / "kernel.json").write_text(json.dumps(spec | {"language": "python"}))
        assert doctor.kernel().status == status


# ---- the machine ----


def test_without_a_gpu_the_tiny_profile_computes_in_float32(no_card):
    assert doctor.gpu().status == "note"
    assert "float32" in doctor.precision().result
    assert doctor.profile().result == "tiny"


def test_a_t4_computes_in_float16_because_it_only_emulates_bfloat16(card):
    card("Tesla T4", 14.6, 7, 5)
    assert doctor.precision().result.startswith("float16")
    assert "Tesla T4, 14.6 GiB, compute capability 7.5" in doctor.gpu().result


def test_an_a100_computes_in_bfloat16(card):
    card("A100", 79.2, 8, 0)
    assert doctor.precision().result.startswith("bfloat16")


@pytest.mark.parametrize(
    ("gib", "name"), [(8, "tiny"), (14, "t4"), (16, "t4"), (22.5, "full"), (140, "full")]
)
def test_the_profile_follows_the_memory(card, gib, name):
    card("card", gib, 8, 0)
    assert doctor.profile().result.split(",")[0] == name


@pytest.mark.parametrize(("name", "major", "minor"), [("V100", 7, 0), ("Quadro RTX 8000", 7, 5)])
def test_the_full_profile_is_for_cards_with_bfloat16(card, name, major, minor):
    card(name, 47.5, major, minor)
    assert doctor.profile().result.split(",")[0] == "t4"


def test_a_run_is_estimated_before_it_starts(card):
    """13B in 4 bits fits a T4, in half precision it does not fit an L4."""
    card("Tesla T4", 14.6, 7, 5)
    check = doctor.run_estimate()
    assert check.result.startswith("t4, 900 steps, estimated: 7B 11.5 GB, ")
    assert "; 13B 12.5 GB, " in check.result and check.result.endswith(" h of training")
    assert "assume 25% of the GPU's peak" in check.advice
    card("NVIDIA L4", 22.5, 8, 9)
    assert doctor.run_estimate().result.endswith("13B does not fit")


def test_an_injection_is_estimated_as_some_three_quarters_of_a_run(card):
    """Ten questions about one picture, in place of eight and of four about another."""
    card("Tesla T4", 14.6, 7, 5)
    hours = r"7B 1[12]\.\d GB, (\d+) h.*13B .* (\d+) h"
    runs, injections = (
        re.search(hours, c().result) for c in (doctor.run_estimate, doctor.injection_estimate)
    )
    for run, injection in zip(runs.groups(), injections.groups(), strict=True):
        assert 0.7 < int(injection) / int(run) < 0.8
    assert "inject --profile t4" in doctor.injection_estimate().advice


def test_what_a_card_can_do_is_not_invented(card, no_card):
    assert "hours unknown without a GPU" in doctor.run_estimate().result
    assert doctor.injection_estimate().status == "ok"
    card("NVIDIA GeForce", 14.6, 8, 6)
    assert "7B 11.5 GB, unknown hours" in doctor.run_estimate().result


@pytest.mark.parametrize(("has_bfloat16", "compute"), [(True, "bfloat16"), (False, "float32")])
def test_an_hour_on_a_laptop_is_estimated(no_card, monkeypatch, has_bfloat16, compute):
    monkeypatch.setattr(doctor, "_cpu_has_bfloat16", lambda: has_bfloat16)
    check = doctor.laptop_estimate()
    assert re.match(rf"estimated: \d+ minutes in {compute} on two free cores", check.result)
    assert "inject --profile laptop --steps" in check.advice
    monkeypatch.setattr("safeerase_lite.runs.executor.cpu_count", lambda: 1)
    assert doctor.laptop_estimate().status == "note"


def test_on_apple_silicon_it_is_said_whether_its_gpu_has_four_bits(no_card, monkeypatch):
    def error(device):
        if device == "mps":
            raise NotImplementedError("no kernel")
        return 0.1

    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(doctor, "_nf4_error", error)
    check = doctor.four_bit()
    assert check.status == "ok" and "not on MPS (NotImplementedError: no kernel)" in check.result
    monkeypatch.setattr(doctor, "_nf4_error", lambda device: 0.1)
    assert doctor.four_bit().result.endswith("on MPS too")


def test_four_bit_is_really_tried(no_card, monkeypatch):
    assert doctor.four_bit().status == "ok"

    from bitsandbytes.nn import Linear4bit

    monkeypatch.setattr(Linear4bit, "forward", lambda self, inputs: torch.zeros_like(inputs))
    assert doctor.four_bit().status == "fail"


def test_a_cache_that_cannot_be_written_is_a_failure(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SAFEERASE_CACHE", str(tmp_path / "file" / "cache"))
    check = doctor.cache()
    assert check.status == "fail" and "set SAFEERASE_CACHE" in check.advice
    monkeypatch.setenv("SAFEERASE_CACHE", str(tmp_path / "cache"))
    assert doctor.cache() == Check("cache", "ok", str(tmp_path / "cache"))


def test_nowhere_to_put_temporary_files_is_a_failure(monkeypatch):
    def nowhere():
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(doctor.tempfile, "gettempdir", nowhere)
    assert doctor.temporary_files().status == "fail"
    assert "set TMPDIR" in doctor.temporary_files().advice


def test_little_memory_is_a_note_and_a_full_disk_a_failure(monkeypatch, tmp_path):
    import psutil

    monkeypatch.setenv("SAFEERASE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2**30))
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: SimpleNamespace(free=2**20))
    assert doctor.memory().status == "note"
    assert doctor.disk().status == "fail"


def test_a_shipped_model_needs_its_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "shipped_model", lambda name: tmp_path)
    assert doctor.model("tiny-llava") == Check(
        "tiny-llava", "fail", "missing", "safeerase tiny build"
    )
    (tmp_path / "model.safetensors").write_bytes(bytes(2_000_000))
    assert doctor.model("tiny-llava").result == "shipped, 2.0 MB"
