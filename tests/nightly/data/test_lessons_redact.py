"""A lesson on real data shows no harm and stores none: no notebook's output, no table of a run."""

import json

import nbformat
import pandas as pd
import pytest
from small_dataset import KINDS, copy_as_documented, edit

from safeerase_lite.lessons.demo import lessons
from safeerase_lite.runs.notebook import execute, parameters

TRACE = "zqxzqxzqxzqx"
GIVEN = {
    "02_forget_retain_decouple": {},
    "03_unlearn": {"precision": "dense", "steps": 4},
    "04_objectives_compared": {"objectives": ["ga"]},
    "05_over_forgetting": {"every": 24},
}


def test_every_lesson_that_takes_data_is_held_to_this():
    taking = [p.stem for p in lessons() if "data_dir" in {x.name for x in parameters(p)}]
    assert set(taking) == set(GIVEN)


@pytest.fixture(scope="module")
def benchmark(world, tmp_path_factory):
    """Like a download, in the documented layout; every harmful text ends in a word to look for,
    which a picture's base64 cannot hold by chance."""
    root = copy_as_documented(world.root, tmp_path_factory.mktemp("benchmark") / "set")

    def mark(records):
        for record in records:
            record["keyword"] += f" {TRACE}"
            for pair in record["unsafe_pairs"]:
                pair["question"] += f" {TRACE}"
                pair["model_response"] += f" {TRACE}"

    for split in KINDS:
        edit(root, split, mark)
    return root


@pytest.mark.parametrize("name", GIVEN)
def test_a_lesson_on_real_data_shows_and_stores_no_harm(name, benchmark, tmp_path):
    [lesson] = [path for path in lessons() if path.stem == name]
    given = GIVEN[name] | {"data_dir": str(benchmark), "runs_dir": str(tmp_path / "runs")}
    executed = execute(lesson, tmp_path / lesson.name, given)
    for cell in nbformat.read(executed, as_version=4).cells:
        assert TRACE not in json.dumps(cell.get("outputs", [])), cell.id
    stored = [path for path in (tmp_path / "runs").rglob("*.parquet")]
    assert stored
    for path in stored:
        table = pd.read_parquet(path)
        harmful = table[table["set"] == "forget"] if "set" in table else table
        texts = harmful[["kind", "expected", "answer"]]
        assert not texts.map(lambda text: TRACE in text).any(axis=None), path.name
