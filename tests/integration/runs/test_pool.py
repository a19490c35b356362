"""Pieces side by side: in their order, and gone when the reader has had enough."""

import signal
import subprocess
import sys
import time
from functools import partial

import pytest

from safeerase_lite.runs.pool import in_processes


def fail(number):
    raise ValueError(f"piece {number}")


@pytest.mark.slow
def test_results_come_in_the_order_of_the_pieces_and_a_failure_is_raised(capsys):
    assert in_processes(divmod, [("seven", (7, 2)), ("nine", (9, 4))], 2) == [(3, 1), (2, 1)]
    assert "[ 2/2]" in capsys.readouterr().out
    with pytest.raises(ValueError, match="piece 0"):
        in_processes(fail, [("first", (0,)), ("second", (1,))], 1)


SLEEPERS = """
import time
from safeerase_lite.pool import in_processes
if __name__ == "__main__":
    in_processes(time.sleep, [("short", (0,)), *(("long", (600,)) for _ in range(9))], 2)
"""


@pytest.mark.slow
def test_ctrl_c_ends_what_has_begun_and_begins_nothing_more(tmp_path):
    script = tmp_path / "sleepers.py"
    script.write_text(SLEEPERS)
    heeding = partial(
        signal.signal, signal.SIGINT, signal.SIG_DFL
    )  # unlike what a shell starts with &
    command = [sys.executable, script]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=heeding)
    assert "short" in run.stdout.readline()
    time.sleep(1)
    run.send_signal(signal.SIGINT)
    assert run.wait(timeout=120) != 0
