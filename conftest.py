"""Tests and notebooks under test get folders of their own on disk, and no network."""

import os
import tempfile
from pathlib import Path

# Set here, before anything of the package is imported, and inherited by every subprocess.
_FOLDER = tempfile.TemporaryDirectory(prefix="safeerase-tests-")
os.environ |= {
    "SAFEERASE_RUNS": f"{_FOLDER.name}/runs",
    "SAFEERASE_CACHE": f"{_FOLDER.name}/cache",
    "SAFEERASE_PROGRESS": f"{_FOLDER.name}/progress.json",
    "SAFEERASE_HEADLESS": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",  # the models are so small that a second thread only waits
    "TORCHDYNAMO_DISABLE": "1",  # nothing is compiled, and each process would import the compiler
}

# The exercises have tests of their own, which run the sources and the students' copies.
collect_ignore = [str(Path(__file__).parent / "notebooks" / "exercises")]
