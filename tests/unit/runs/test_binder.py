"""What Binder builds is what the package requires, without CUDA; it starts what it is given."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Binder runs Linux, by bash")

ROOT = Path(__file__).parents[3]
BINDER = ROOT / "binder"
CONDA_NAMES = {"torch": "pytorch-cpu"}
REQUIREMENT = re.compile(r"([\w-]+)([^;]*)")


def split(requirement):
    name, versions = REQUIREMENT.match(requirement).groups()
    return CONDA_NAMES.get(name, name), versions.strip()


@pytest.fixture
def environment():
    listed = yaml.safe_load((BINDER / "environment.yml").read_text())["dependencies"]
    return dict(split(package) for package in listed)


def test_binder_installs_what_the_package_requires_in_the_same_versions(environment):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    required = project["dependencies"] + extras["notebooks"] + extras["sweep"]  # lesson 06 sweeps
    assert environment == dict(map(split, required)) | {"python": "=3.11", "pip": ""}


def test_binder_gets_no_cuda(environment):
    assert "pytorch-cpu" in environment
    assert not any("cuda" in name or "gpu" in name for name in environment)


@pytest.mark.parametrize("name", ["postBuild", "start"])
def test_the_scripts_can_run_and_are_sound(name):
    assert os.access(BINDER / name, os.X_OK)
    subprocess.run(["bash", "-n", BINDER / name], check=True)


def test_a_failed_install_fails_the_build_and_brings_no_second_torch():
    first, install = [
        line
        for line in (BINDER / "postBuild").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert first.startswith("set -e")
    assert install.startswith("pip install") and "--no-deps" in install


def test_start_hands_over_to_what_it_is_given():
    command = ["sh", "-c", 'echo "$OMP_NUM_THREADS $HF_HUB_OFFLINE $1"', "sh", "two words"]
    output = subprocess.run(
        [BINDER / "start", *command], check=True, capture_output=True, text=True
    ).stdout
    assert output == "1 1 two words\n"
