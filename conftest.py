"""Tests and notebooks under test get a room of their own on disk, and no network."""

import os
import tempfile
from pathlib import Path

# Set here, before anything of the package is imported, and inherited by every subprocess.
_ROOM = tempfile.TemporaryDirectory(prefix="safeerase-tests-")
os.environ |= {
    "SAFEERASE_RUNS": f"{_ROOM.name}/runs",
    "SAFEERASE_CACHE": f"{_ROOM.name}/cache",
    "SAFEERASE_PROGRESS": f"{_ROOM.name}/progress.json",
    "SAFEERASE_HEADLESS": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",  # the models are so small that a second thread only waits
}

# The exercises' sources have tests of their own; nbval runs the students' copies.
collect_ignore = [str(path) for path in Path(__file__).parent.glob("notebooks/exercises/*.ipynb")]
