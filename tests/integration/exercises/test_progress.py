"""What is solved is still solved in another kernel."""

import subprocess
import sys

from safeerase_lite.exercises import check, find


def test_it_survives_a_restart(tmp_path, monkeypatch):
    monkeypatch.setenv("SAFEERASE_PROGRESS", str(tmp_path / "progress.json"))
    check("a1", find("a1").reference)
    process = subprocess.run(
        [sys.executable, "-c", "from safeerase_lite.exercises import progress; progress('a')"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert process.stdout.startswith("1 of ")
