"""What takes LLaVA-1.5-7B through a step on a CPU does so with a hundredth of it, and goes on where
it was stopped."""

import json

import full_on_cpu
import pytest


def test_every_phase_passes_and_none_is_repeated(tmp_path, capsys, monkeypatch):
    done = full_on_cpu.run(tmp_path / "full", small=True)
    assert list(done) == list(full_on_cpu.PHASES)
    assert all(found["peak_gb"] > 0 for found in done.values())
    assert done["step"]["tensors_changed"] > 0
    assert done["quantise"]["gb_on_disk"] < done["write"]["gb_on_disk"]
    monkeypatch.setattr(full_on_cpu.subprocess, "run", None)
    assert full_on_cpu.run(tmp_path / "full", small=True) == done
    assert "peak_gb" in capsys.readouterr().out.splitlines()[0]


def test_a_run_that_was_stopped_goes_on_at_its_phase(tmp_path, monkeypatch):
    (tmp_path / "phases.json").write_text(json.dumps({"write": {"clock_s": 1.0}}))
    begun = []

    def stop(command, **options):
        begun.append(command[3])
        raise KeyboardInterrupt

    monkeypatch.setattr(full_on_cpu.subprocess, "run", stop)
    with pytest.raises(KeyboardInterrupt):
        full_on_cpu.run(tmp_path, small=True)
    assert begun == ["quantise"]
