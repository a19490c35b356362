"""The lessons' cells run on a model and on data of the real ones' format, in the profile `t4`.

The model has every field of LLaVA-1.5-7B's configuration but its size; the data is the tiny world
without its mark and without all that the benchmark has not.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
import random_llava
import torch
from safetensors.torch import load_file

import safeerase_lite as sl
from safeerase_lite.config import PROFILES, config
from safeerase_lite.data.dataset import read_data
from safeerase_lite.models.inputs import encode, image_tokens
from safeerase_lite.models.llava import load_model
from safeerase_lite.resources import LLAVA_7B
from safeerase_lite.runs import store as ledger
from safeerase_lite.runs.notebook import code, execute
from safeerase_lite.tinyworld import WORLD_FILE

NOTEBOOKS = (Path(__file__).parents[1] / "notebooks").glob("*.ipynb")
LESSONS = {path.name[:2]: path for path in NOTEBOOKS}
SMALL = {"width": 64, "feed_forward": 128, "layers": 2, "heads": 2}
SMALL_EYES = {"eyes": 64, "eyes_feed_forward": 128, "eyes_layers": 3, "eyes_heads": 2}
ONLY_TINY = ("SDkeyword", "placebo_pairs", "specificity_pairs")


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "llava-1.5"
    config = random_llava.configuration(**SMALL, **SMALL_EYES)
    random_llava.write(folder, config, shard_bytes=3_000_000)
    return folder


@pytest.fixture(scope="module")
def data_dir(world, tmp_path_factory):
    """A folder as the benchmark's: no test split, no extra keys, no mark; few records."""
    root = tmp_path_factory.mktemp("data") / "safeeraser"
    shutil.copytree(world.root, root)
    (root / WORLD_FILE).unlink()
    (root / "all_test.json").unlink()
    for split, count in (("train", 4), ("val", 1)):
        path = root / f"all_{split}.json"
        records = json.loads(path.read_text())[:count]
        kept = [{k: v for k, v in record.items() if k not in ONLY_TINY} for record in records]
        short = [record | {"unsafe_pairs": record["unsafe_pairs"][:1]} for record in kept]
        path.write_text(json.dumps(short))
    return root


def test_the_checkpoint_is_of_the_real_format(model_dir):
    shards = sorted(model_dir.glob("*.safetensors"))
    assert len(shards) > 2
    written = {}
    for shard in shards:
        written |= load_file(shard)
    assert {weight.dtype for weight in written.values()} == {torch.float16}
    assert {
        "language_model.model.layers.0.self_attn.q_proj.weight",
        "language_model.lm_head.weight",
        "multi_modal_projector.linear_1.bias",
        "vision_tower.vision_model.embeddings.class_embedding",
        "vision_tower.vision_model.pre_layrnorm.weight",
    } < written.keys()


def test_the_configuration_is_that_of_the_real_model():
    made = random_llava.configuration()
    for part in ("text_config", "vision_config"):
        theirs, ours = getattr(LLAVA_7B, part), getattr(made, part)
        for size in ("hidden_size", "intermediate_size", "num_hidden_layers"):
            assert getattr(ours, size) == getattr(theirs, size)
    assert (made.text_config.vocab_size, made.image_token_id) == (32064, 32000)
    assert (made.vision_feature_layer, made.image_seq_length) == (-2, 576)


def test_every_weight_is_loaded_and_the_prompt_is_the_real_ones(model_dir, data_dir):
    numbers = config("t4", model=str(model_dir), precision="dense", compute="float32")
    model = load_model(numbers, adapt=False)
    written = {}
    for shard in model_dir.glob("*.safetensors"):
        written |= load_file(shard)
    loaded = {random_llava.on_the_hub(name): w for name, w in model.state_dict().items()}
    assert loaded.keys() == written.keys()
    assert all(loaded[name].equal(written[name].float()) for name in written)
    rows = read_data(data_dir).forget.head(1)
    batch = encode(model.processor, rows["image"], ["Who?"])
    assert image_tokens(model.processor) == 576
    said = model.processor.tokenizer.decode(batch["input_ids"][0])
    picture = "<image>" * 576
    assert said.replace(" ", "") == f"<s>USER:{picture}\nWho?ASSISTANT:"


@pytest.mark.slow
def test_lesson_03_runs_on_the_real_format(model_dir, data_dir, tmp_path):
    given = {"profile": "t4", "model_dir": str(model_dir), "data_dir": str(data_dir), "steps": 2,
             "objective": "kl", "decouple": "pd", "runs_dir": str(tmp_path / "runs")}  # fmt: skip
    node = nbformat.read(execute(LESSONS["03"], tmp_path / "03.ipynb", given), as_version=4)
    outputs = [output for cell in node.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    tables = ledger.load(tmp_path / "runs")
    assert list(tables.runs["status"]) == ["complete"]
    assert set(tables.metrics["split"]) == {"train", "val"}


# ---- the other lessons: here and now, where the profile can be made small ----


@pytest.fixture
def few(world):
    """Four questions of every situation."""

    def some(table):
        ways = [name for name in ("split", "seen_kind", "seen_template") if name in table]
        return table.groupby(ways).head(4).reset_index(drop=True)

    tables = ("forget", "retain", "decouple", "placebo", "specificity")
    return replace(world, **{name: some(getattr(world, name)) for name in tables})


@pytest.fixture
def loaded(model_dir, monkeypatch):
    """The profile t4 made small, and the profiles of the models that are loaded."""
    small = {"model": str(model_dir), "steps": 2, "batch": 2, "accumulation": 2, "samples": 0,
             "new_tokens": 2, "evaluation_batch": 16}  # fmt: skip
    monkeypatch.setitem(PROFILES, "t4", PROFILES["t4"].model_copy(update=small))
    profiles = []

    def load(profile, **how):
        profiles.append(profile)
        return load_model(profile, **how)

    monkeypatch.setattr(sl, "load_model", load)
    return profiles


def run_here(number, **given):
    """A lesson's code, in this process."""
    names = {"display": print}
    for cell in nbformat.read(LESSONS[number], as_version=4).cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, cell.id, "exec"), names)
        if "parameters" in cell.metadata.get("tags", []):
            names.update(given)


@pytest.mark.parametrize("number", ["00", "02", "04", "05"])
@pytest.mark.parametrize(
    ("name", "precision", "expected"),
    [
        ("tiny", "", "dense"),
        ("tiny", "nf4", "nf4"),
        ("t4", "", "nf4"),
        ("t4", "dense", "dense"),
        ("full", "", "dense"),
    ],
)
def test_a_lesson_is_in_the_profiles_precision_and_tiny_is_dense(number, name, precision, expected):
    source = code(LESSONS[number])
    [given] = [line for line in source.splitlines() if line.startswith("given = ")]
    names = {"profile": name, "precision": precision}
    exec(given, names)
    assert config(name, **names["given"]).precision == expected


@pytest.mark.slow
@pytest.mark.parametrize("number", ["00", "02", "04", "05"])
def test_a_lesson_runs_in_4_bit_on_one_model(loaded, few, data_dir, tmp_path, monkeypatch, number):
    given = {"05": {"every": 2}}.get(number, {})
    if number == "02":  # it plants records between those of a folder
        given = {"data_dir": str(data_dir), "control": True}
    else:
        monkeypatch.setattr(sl, "load_data", lambda profile: few)
    run_here(number, profile="t4", runs_dir=str(tmp_path), **given)
    [numbers] = loaded
    assert (numbers.name, numbers.precision) == ("t4", "nf4")
