"""`safeerase relations demo --pictures` and `read`, on models shaped as the published ones."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from random_clips import write_clip, write_siglip
from typer.testing import CliRunner

from safeerase_lite.cli import app
from safeerase_lite.relations import clip
from safeerase_lite.relations.own_demo import load_own_edit

TUPLES = [
    "child,drinking,wine",
    "child,drinking,juice",
    "child,spilling,wine",
    "woman,drinking,wine",
    "dog,holding,milk",
]
WRITERS = {"clip": write_clip, "siglip": write_siglip}
TEXTS = ["a photo of child drinking wine", "a photo of dog"]


def run(*words):
    return CliRunner().invoke(app, ["relations", *map(str, words)])


@pytest.fixture(scope="module", params=WRITERS)
def made(request, tmp_path_factory):
    """The folder of a demo in two steps, by a model of the published one's layers."""
    folder = tmp_path_factory.mktemp(request.param)
    WRITERS[request.param](folder / "model")
    rows, rng = [], np.random.default_rng(0)
    (folder / "pictures").mkdir()
    for t in TUPLES:
        for _ in range(6):
            name = f"{len(rows)}.png"
            noise = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(noise).save(folder / "pictures" / name)
            rows.append(f"{name},{t}")
    text = "\n".join(["file_name,subject,relation,object", *rows])
    (folder / "pictures" / "metadata.csv").write_text(text)
    (folder / "unsafe.yaml").write_text("unsafe: [[child, drinking, wine]]")
    result = run(
        "demo", "--model", folder / "model", "--pictures", folder / "pictures",
        "--tuples", folder / "unsafe.yaml", "--output", folder / "out", "--steps", 2,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return folder, result.output


def test_a_model_that_reads_nothing_is_called_a_bag_of_words(made):
    folder, output = made
    assert "too nearly a bag of words" in output.replace("\n", " ")
    assert json.loads((folder / "out/edited/edit.json").read_text())["reads_relations"] is False


def test_progress_is_shown_and_every_measure_written(made):
    folder, output = made
    assert "step 1 of 2" in output and "step 2 of 2" in output
    table = pd.read_csv(folder / "out/edited/measures.csv")
    assert set(table["measure"]) == {
        "top-1", "rank, median", "margin, median", "leakage", "other captions right",
        "other captions kept", "nouns right", "nouns kept",
    }  # fmt: skip
    top = table[(table["measure"] == "top-1") & (table["when"] == "after")]
    assert (top["n"] == 2).all() and table["wording"].nunique() == 2


def test_the_adapter_is_plain_peft_and_moves_scores_only_while_it_is_on(made):
    folder, _ = made
    files = {path.name for path in (folder / "out/edited").iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "edit.json"} <= files
    edited = load_own_edit(str(folder / "model"), folder / "out/edited")
    base = clip.load_clip(str(folder / "model"))
    with torch.no_grad():
        before, after = clip.encode_texts(base, TEXTS), clip.encode_texts(edited.cpu(), TEXTS)
        assert not torch.equal(before, after)
        with clip.frozen(edited):
            assert torch.equal(clip.encode_texts(edited, TEXTS), before)


def winoground(folder):
    """One record in Winoground's layout."""
    images = folder / "winoground" / "images"
    images.mkdir(parents=True, exist_ok=True)
    record = {"caption_0": "child drinking wine", "caption_1": "wine drinking child"}
    for i in range(2):
        Image.new("RGB", (20, 20), (200 * i, 0, 0)).save(images / f"ex_0_img_{i}.png")
        record[f"image_{i}"] = f"ex_0_img_{i}"
    (images.parent / "examples.jsonl").write_text(json.dumps(record))
    return images.parent


def test_a_published_test_is_read_before_and_after(made):
    folder, _ = made
    result = run(
        "read", "winoground", winoground(folder), "--model", folder / "model",
        "--edited", folder / "out/edited", "--output", folder / "scores.csv",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    table = pd.read_csv(folder / "scores.csv")
    assert list(table["when"]) == ["before"] * 3 + ["after"] * 3 and (table["n"] == 1).all()


def test_an_edit_of_another_model_and_a_folder_that_is_none_are_one_line(made):
    folder, _ = made
    where = ("read", "winoground", winoground(folder), "--model", "tiny-clip", "--edited")
    result = run(*where, folder / "out/edited")
    assert result.exit_code == 2 and "is an edit of" in result.output.replace("\n", " ")
    assert run(*where, folder / "pictures").exit_code == 2


def test_bad_input_is_one_line_before_any_model_is_loaded(made, monkeypatch):
    folder, _ = made
    monkeypatch.setattr(clip, "load_clip", lambda name: pytest.fail("a model was loaded"))
    given = ["demo", "--pictures", folder / "pictures"]
    for words, says in (
        ([], "--pictures needs --tuples"),
        (["--tuples", folder / "none.yaml"], "cannot be read"),
        (["--tuples", folder / "unsafe.yaml", "--output", folder / "out"], "is there already"),
    ):
        result = run(*given, *words)
        assert result.exit_code == 2 and says in result.output.replace("\n", " "), result.output
    result = run("demo", "--model", folder / "model")
    assert result.exit_code == 2 and "are for --pictures" in result.output.replace("\n", " ")
