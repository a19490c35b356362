"""Tasks side by side: results in their order, and no process left when the user stops."""

import signal
import subprocess
import sys
from functools import partial

import psutil
import pytest

from safeerase_lite.runs.executor import parallel_map


def fail(number):
    raise ValueError(f"task {number}")


def test_results_come_in_the_order_of_the_tasks_and_a_failure_is_raised(capsys):
    assert parallel_map(divmod, [(7, 2), (9, 4)], workers=2, labels=["7", "9"]) == [(3, 1), (2, 1)]
    assert "[ 2/2]" in capsys.readouterr().out
    with pytest.raises(ValueError, match="task 0"):
        parallel_map(fail, [(0,), (1,)], workers=1)


SLEEPERS = """
import time
from safeerase_lite.runs.executor import parallel_map
if __name__ == "__main__":
    labels = ["short", *["long"] * 9]
    parallel_map(time.sleep, [(0,), *[(600,)] * 9], workers=2, labels=labels)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_stopping_ends_the_tasks_that_have_begun_and_begins_no_others(tmp_path, how):
    script = tmp_path / "sleepers.py"
    script.write_text(SLEEPERS)
    # A shell starts background jobs with SIGINT ignored.
    heed_ctrl_c = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    command = [sys.executable, script]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c)
    assert "short" in process.stdout.readline()
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(how)
    assert process.wait(timeout=60) != 0
    assert psutil.wait_procs(workers, timeout=20)[1] == []


BLOCK = """
import subprocess, time
from safeerase_lite.utils import stoppable
with stoppable():
    subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        print("begun", flush=True)
        time.sleep(600)
    except KeyboardInterrupt as stop:
        print("tidied", *stop.args)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_what_a_block_has_started_and_lets_it_tidy_up(how):
    heed = partial(signal.signal, how, signal.SIG_DFL)
    process = subprocess.Popen(
        [sys.executable, "-c", BLOCK], stdout=subprocess.PIPE, text=True, preexec_fn=heed
    )
    assert process.stdout.readline() == "begun\n"
    [child] = psutil.Process(process.pid).children()
    process.send_signal(how)
    assert process.communicate(timeout=20)[0] == f"tidied {how:d}\n"
    assert psutil.wait_procs([child], timeout=20)[1] == []


ORPHAN = """["sh", "-c", "(trap '' TERM; echo begun; exec sleep 60) & wait"]"""


def test_an_orphan_that_ignores_the_signal_ends_with_the_block():
    """As one that a notebook's cell started: the kernel ends, and is then no parent of it."""
    process = subprocess.Popen(
        [sys.executable, "-c", BLOCK.replace('["sleep", "600"]', ORPHAN)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert [process.stdout.readline() for _ in range(2)] == ["begun\n"] * 2
    family = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    assert process.communicate(timeout=20)[0] == f"tidied {signal.SIGTERM:d}\n"
    assert len(family) > 1 and psutil.wait_procs(family, timeout=5)[1] == []


def test_a_signal_that_was_ignored_stays_ignored():
    """As under nohup."""
    ignore = partial(signal.signal, signal.SIGHUP, signal.SIG_IGN)
    process = subprocess.Popen(
        [sys.executable, "-c", BLOCK], stdout=subprocess.PIPE, text=True, preexec_fn=ignore
    )
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=20)[0] == f"tidied {signal.SIGTERM:d}\n"
