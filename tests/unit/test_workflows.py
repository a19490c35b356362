"""Continuous integration runs what is there, on the Pythons that the package promises."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def steps(workflow):
    """Every shell command of a workflow."""
    jobs = yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"].values()
    return [step["run"] for job in jobs for step in job["steps"] if "run" in step]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_names_only_targets_and_folders_that_exist(workflow):
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for command in steps(workflow):
        if command.startswith("make "):
            assert set(command.split()[1:]) <= targets
        for folder in re.findall(r"\b(?:tests|notebooks)(?:/\w+)*", command):
            assert (ROOT / folder).is_dir(), f"{command}: no folder {folder}"


def test_the_tests_run_on_every_system_from_the_oldest_python_on():
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8"))
    matrix = workflow["jobs"]["check"]["strategy"]["matrix"]
    assert {name.split("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == f">={matrix['python'][0]}"


def test_developing_installs_every_extra():
    """So `make`, conda and CI have all that the notebooks and the tests need."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    [own] = [name for name in extras["dev"] if name.startswith("safeerase-lite[")]
    included = set(own.removeprefix("safeerase-lite[").removesuffix("]").split(","))
    assert included == set(extras) - {"dev"}
