"""A run of the demo is the same twice, and needs no network."""

import shutil
import subprocess
import sys

import pandas as pd
import pytest

import safeerase_lite as sl
from safeerase_lite.lessons import demo


def test_the_same_seed_twice_gives_the_same_answers_and_metrics(tmp_path):
    config = sl.config(
        objective="po", decouple="pd", precision="dense", steps=6, splits=["val"], samples=1
    )
    tables = []
    for name in ("first", "second"):
        run = demo.run(config, tmp_path / name)
        folder = tmp_path / name / run
        csv = [pd.read_csv(folder / name) for name in ("metrics.csv", "history.csv")]
        tables.append([pd.read_parquet(folder / "answers.parquet"), *csv])
    for first, second in zip(*tables, strict=True):
        pd.testing.assert_frame_equal(first, second)


def can_unshare():
    try:
        return subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(
    not (can_unshare() and shutil.which("ip")),
    reason="taking the network away needs root, `unshare` and `ip` (Debian: iproute2)",
)
def test_the_tiny_profile_works_without_a_network():
    """The model is loaded in 4-bit and answers, with nothing but loopback up."""
    ask = (
        "import safeerase_lite as sl; c = sl.config(); d = sl.load_data(c).forget;"
        "print(sl.generate(sl.load_model(c), d['image'][:2], d['question'][:2], c))"
    )
    done = subprocess.run(
        [
            "unshare",
            "-n",
            "sh",
            "-c",
            'ip link set lo up && exec "$0" -c "$1"',
            sys.executable,
            ask,
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "then" in done.stdout
