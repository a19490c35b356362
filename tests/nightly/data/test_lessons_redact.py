"""A lesson on real data shows no harm and stores none: no notebook's output, no table of a run."""

import json
import shutil

import nbformat
import pandas as pd
import pytest

from safeerase_lite.lessons.demo import lessons
from safeerase_lite.runs.notebook import execute, parameters
from safeerase_lite.tinyworld import WORLD_FILE

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
    """Like a download: no mark, no test split, every harmful text ends in a word to look for,
    which a picture's base64 cannot hold by chance."""
    root = tmp_path_factory.mktemp("benchmark") / "set"
    shutil.copytree(world.root, root)
    (root / WORLD_FILE).unlink()
    for split in ("train", "val"):
        path = root / f"all_{split}.json"
        records = json.loads(path.read_text(encoding="utf-8"))
        for record in records:
            record["keyword"] += f" {TRACE}"
            for pair in record["unsafe_pairs"]:
                pair["question"] += f" {TRACE}"
                pair["model_response"] += f" {TRACE}"
        path.write_text(json.dumps(records), encoding="utf-8")
    (root / "all_test.json").unlink()
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
