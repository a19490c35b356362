"""What only some systems have is not needed to import the package."""

import os
import subprocess
import sys

from safeerase_lite.runs.executor import cpu_count
from safeerase_lite.utils import peak_memory_gb

# What Windows lacks: modules, and names of `signal` and `os`.
AS_ON_WINDOWS = """
import os, signal, sys
import jupyter_client, psutil  # which take what there is
sys.modules |= {"fcntl": None, "resource": None}
del signal.SIGALRM, signal.setitimer, os.sched_getaffinity
import safeerase_lite
from safeerase_lite.runs import executor, notebook, run_process, store
with notebook._alarm("lesson.ipynb", 1.0):
    print(executor.cpu_count())
"""


def test_the_package_is_imported_without_posix():
    command = [sys.executable, "-c", AS_ON_WINDOWS]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert int(printed) == os.cpu_count()


def test_this_process_uses_a_cpu_and_memory():
    assert 1 <= cpu_count() <= os.cpu_count()
    # An interpreter with pandas takes tens of MB.
    assert 0.01 < peak_memory_gb() <= peak_memory_gb(ended_processes=True)
