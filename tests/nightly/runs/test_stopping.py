"""SIGTERM and SIGHUP end a command with all that it started, and the next call goes on."""

import signal
import subprocess
import sys
from functools import partial

import psutil
import pytest
from small_sweep import command, metrics, start, wait_for_runs, write_sweep

PROMISED = 5  # seconds after the signal in which every process is gone


def stop(process: subprocess.Popen, how: signal.Signals) -> str:
    """What the command still says; it has children, and none of them is left."""
    family = psutil.Process(process.pid).children(recursive=True)
    assert family
    process.send_signal(how)
    output = process.communicate(timeout=PROMISED)[0]
    assert psutil.wait_procs(family, timeout=PROMISED)[1] == []
    return output


def start_run(folder, seconds):
    """`safeerase run` of the small notebook, of which the cell with the mishap takes so long."""
    arguments = ["run", "small.ipynb", "--output", "out/done.ipynb"]
    arguments += ["-p", f"seconds={seconds}", "-p", "runs_dir=runs"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    heeds = partial(signal.signal, signal.SIGHUP, signal.SIG_DFL)  # unlike under nohup
    return subprocess.Popen(
        [sys.executable, "-m", "safeerase_lite", *arguments],
        cwd=folder,
        preexec_fn=heeds,
        **pipes,
    )


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_notebook_leaves_no_kernel_and_no_file(tmp_path, how):
    path = write_sweep(tmp_path, "")
    process = start_run(tmp_path, 600)
    wait_for_runs(path, 1, process)
    output = stop(process, how)
    assert process.returncode == 128 + how
    assert output == "stopped; start it again and it continues\n"
    assert list((tmp_path / "out").iterdir()) == []
    assert start_run(tmp_path, 0).communicate()[0].strip().endswith("done.ipynb")


def test_a_stopped_sweep_leaves_no_process_and_continues(tmp_path):
    path = write_sweep(tmp_path, "grid: {seconds: 3}\nseeds: [0, 1]")
    process = start(path, "--workers", "2")
    wait_for_runs(path, 2, process)
    output = stop(process, signal.SIGTERM)
    assert process.returncode == 143 and "Traceback" not in output
    assert output.endswith("stopped; start it again and it continues\n")
    assert list((tmp_path / "runs" / "notebooks").glob(".partial-*")) == []
    assert subprocess.run(command(path)).returncode == 0
    assert metrics(path)["seed"].tolist() == [0, 1]


STUBBORN = """
import signal, subprocess, sys, time
from types import SimpleNamespace

def sleep(seconds):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(seconds)

def demo(*_, **__):
    from safeerase_lite.runs.executor import parallel_map
    parallel_map(sleep, [(0,), (600,), (600,)], workers=2)

if __name__ == "__main__":
    from safeerase_lite.cli import app
    sys.modules["safeerase_lite.relations.report"] = SimpleNamespace(demo=demo)
    app(["relations", "demo"])
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_their_command_even_if_they_ignore_the_signal(tmp_path, how):
    script = tmp_path / "stubborn.py"
    script.write_text(STUBBORN)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen([sys.executable, script], **pipes)
    assert "1/3" in process.stdout.readline()
    assert "Traceback" not in stop(process, how)
    assert process.returncode == (143 if how == signal.SIGTERM else -how)
