"""An exported adapter: plain PEFT loads it and says the same, the card tells the truth, and what
must not leave does not."""

import getpass
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from huggingface_hub import ModelCard
from jinja2 import Environment, meta
from judge_server import KEY, serving
from safetensors.torch import load_file
from small_dataset import edit
from typer.testing import CliRunner

from safeerase_lite import export as exporting
from safeerase_lite.cli import app
from safeerase_lite.data.dataset import read_data
from safeerase_lite.evaluation import evaluate as evaluation
from safeerase_lite.evaluation.evaluate import SETS
from safeerase_lite.evaluation.generate import generate
from safeerase_lite.evaluation.judges import server
from safeerase_lite.export import export
from safeerase_lite.models.inputs import encode
from safeerase_lite.models.llava import load_adapter, load_model, save_adapter
from safeerase_lite.runs.experiment import evaluate, open_run
from safeerase_lite.unlearning.objectives import OBJECTIVES, Objective, gradient_ascent
from safeerase_lite.utils import UserError

FILES = {"README.md", "adapter_config.json", "adapter_model.safetensors", "measures.csv"}


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def changed(config, seed=1):
    """A model whose every adapted part differs from the base, as after training."""
    model = load_model(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(scope="module")
def complete(make_config, few, runs_dir):
    """A complete run with a changed adapter, evaluated on a few questions; made once each."""

    def complete(objective="po", decouple="pd", data=few, model=None, **fields):
        config = make_config(objective=objective, decouple=decouple, **fields)
        run = open_run(config, data, runs_dir=runs_dir)
        if not run.done:
            model = model or changed(config)
            if objective != "vanilla":
                save_adapter(model, run.adapter_dir)
            evaluate(model, data, run)
        return run

    return complete


@pytest.fixture(scope="module")
def exported(complete, world, runs_dir, tmp_path_factory):
    """precision → (the run, the folder it was exported to); exported once each."""
    made = {}

    def exported(precision):
        if precision not in made:
            run = complete(precision=precision)
            folder = tmp_path_factory.mktemp("exports") / precision
            export(run.id, folder, runs_dir=runs_dir, data_dir=str(world.root), say=lambda _: None)
            made[precision] = run, folder
        return made[precision]

    return exported


# ---- what a stranger gets ----


def test_the_folder_holds_weights_configuration_measures_and_card_and_no_pickle(exported):
    run, folder = exported("dense")
    assert {path.name for path in folder.iterdir()} == FILES
    assert list(folder.parent.iterdir()) == [folder]
    given, trained = (load_file(f / "adapter_model.safetensors") for f in (folder, run.adapter_dir))
    assert given.keys() == trained.keys()
    assert all(weight.equal(trained[name]) for name, weight in given.items())
    assert any("multi_modal_projector" in name for name in given)


@pytest.mark.parametrize("precision", ["dense", "nf4"])
def test_no_file_names_this_machine_or_its_user(exported, tiny_model_dir, precision):
    run, folder = exported(precision)
    assert str(tiny_model_dir) in (run.adapter_dir / "adapter_config.json").read_text()
    private = {str(tiny_model_dir.parent), str(Path.home()), str(Path.cwd()), str(run.runs_dir)}
    for path in folder.iterdir():
        content = path.read_bytes()
        assert not any(word.encode() in content for word in private), path.name
        if path.suffix != ".safetensors":
            assert not re.search(rf"(^|[\s\"'`(])/\w|\b{getpass.getuser()}\b", content.decode())


def test_the_configuration_is_one_of_peft_and_names_the_base(exported):
    _, folder = exported("dense")
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny-random"
    assert config["modules_to_save"] == ["multi_modal_projector"]
    assert config["inference_mode"] is True


PLAIN = """
import sys
from PIL import Image
from safetensors.torch import save_file

for module in model.modules():  # else bitsandbytes computes in bfloat16 on some processors
    if type(module).__name__ == "Linear4bit":
        module.support_avx512bf16_for_cpu = False
image, question, out = sys.argv[1:]
turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
prompt = processor.apply_chat_template([turn], add_generation_prompt=True)
inputs = processor(images=Image.open(image).convert("RGB"), text=prompt, return_tensors="pt")
with torch.inference_mode():
    logits = model(**inputs).logits
    output = model.generate(**inputs, max_new_tokens=8, do_sample=False)
save_file({"logits": logits, "output": output[0, inputs["input_ids"].shape[1]:].clone()}, out)
assert "safeerase_lite" not in sys.modules
"""


@pytest.mark.parametrize("precision", ["dense", "nf4"])
def test_the_code_on_the_card_loads_it_and_gives_the_runs_logits_and_answers(
    exported, world, make_config, tiny_model_dir, tmp_path, precision
):
    run, folder = exported("nf4")
    blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S)
    code = "".join(blocks if precision == "nf4" else blocks[:1])
    code = code.replace("path/to/tiny-random", str(tiny_model_dir))
    code = code.replace("path/to/this-adapter", str(folder))
    row = world.decouple.iloc[0]
    script, out = tmp_path / "plain.py", tmp_path / "plain.safetensors"
    script.write_text(code + PLAIN)
    command = [sys.executable, str(script), row["image"], row["question"], str(out)]
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True)
    plain = load_file(out)

    config = make_config(precision=precision)
    model = load_model(config)
    load_adapter(model, run.adapter_dir)
    batch = encode(model.processor, [row["image"]], [row["question"]])
    with torch.inference_mode():
        assert model(**batch).logits.equal(plain["logits"])
    answer = generate(model, [row["image"]], [row["question"]], config)[0]
    tokenizer = model.processor.tokenizer
    tokens = [i for i in plain["output"].tolist() if i != tokenizer.eos_token_id]
    tokens = [i if i < len(tokenizer) else tokenizer.unk_token_id for i in tokens]
    assert tokenizer.decode(tokens) == answer


# ---- measured on both bases, and the card says so ----


@pytest.mark.parametrize(("trained_in", "other"), [("dense", "nf4"), ("nf4", "dense")])
def test_the_runs_measures_and_those_on_the_other_base_are_both_there(
    exported, world, make_config, trained_in, other
):
    run, folder = exported(trained_in)
    measures = pd.read_csv(folder / "measures.csv")
    assert set(measures["split"]) == {"test"}
    own = run.metrics[run.metrics["split"] == "test"].reset_index(drop=True)
    stored = measures[measures["precision"] == trained_in].drop(columns="precision")
    pd.testing.assert_frame_equal(stored.reset_index(drop=True), own)

    config = make_config(precision=other, splits=("test",))
    model = load_model(config)
    load_adapter(model, run.adapter_dir)
    expected = evaluation.evaluate(model, world, config).metrics
    result = measures[measures["precision"] == other].drop(columns="precision")
    pd.testing.assert_frame_equal(result.reset_index(drop=True), expected)


def test_the_card_is_valid_for_the_hub_and_says_what_it_is_and_is_not(exported):
    run, folder = exported("nf4")
    loaded = ModelCard.load(folder / "README.md")
    front, text = loaded.data.to_dict(), loaded.text
    assert (front["library_name"], front["base_model"]) == ("peft", "tiny-random")
    assert front["license"] and front["tags"]
    for phrase in ("Suppression, not removal", "Not a safety certificate", "negated", run.id,
                 run.parameters["data_hash"], "nothing in it is harmful", "official, λ = 1",
                 "4-bit NF4, computing in float32", "ASR", "SARR", "specificity", "harm_nll",
                 "0.001", "peft 0."):  # fmt: skip
        assert phrase in text, phrase
    assert run.parameters["model_hash"] in text
    assert "{" not in re.sub(r"```.*?```|\{idk, r\}", "", text, flags=re.S)
    table = [row for row in text.splitlines() if row.startswith("| ASR")]
    assert len(table) == 1 and table[0].count("%") == 6


def test_the_cards_template_uses_what_it_is_given_and_nothing_else(complete, few, monkeypatch):
    """Jinja writes nothing, and raises nothing, where a name is missing."""
    run, given = complete(), {"card_data"}
    recorder = SimpleNamespace(from_template=lambda data, template_path, **kw: given.update(kw))
    monkeypatch.setattr(exporting, "ModelCard", recorder)
    measures = run.metrics[run.metrics["split"] == "test"].assign(precision="dense")
    exporting.model_card(run, few, measures, {})
    template = Path(exporting.__file__).with_name("card.md").read_text(encoding="utf-8")
    assert meta.find_undeclared_variables(Environment().parse(template)) == given


@pytest.mark.parametrize(
    ("judge", "name"),
    [
        ("oracle", "oracle"),
        ("local:/home/alice/secret/llama-guard", "local:llama-guard"),
        ("guard:secret/models/llama-guard/", "guard:llama-guard"),
        ("local:secret/llama-guard", "local:llama-guard"),
        ("openai:/home/alice/secret/vllm", "openai:vllm"),
        ("guard:meta-llama/Llama-Guard-3-8B", "guard:meta-llama/Llama-Guard-3-8B"),
        ("openai:accounts/firm/models/llama3:8b", "openai:accounts/firm/models/llama3:8b"),
    ],
)
def test_the_card_names_a_judge_without_the_folders_of_this_machine(
    complete, few, tmp_path, monkeypatch, judge, name
):
    monkeypatch.chdir(tmp_path)
    Path("secret/llama-guard").mkdir(parents=True)
    run = complete()
    run.config = run.config.model_copy(update={"judge": judge})
    measures = run.metrics[run.metrics["split"] == "test"].assign(precision="dense")
    text = str(exporting.model_card(run, few, measures, {}))
    assert f"judge `{name}`" in text and "secret" not in text


def test_without_bitsandbytes_the_card_says_not_measured(
    complete, world, runs_dir, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    run = complete()
    export(run.id, tmp_path / "out", runs_dir=runs_dir, data_dir=str(world.root))
    assert "Not measured in 4-bit NF4" in (tmp_path / "out" / "README.md").read_text()
    assert set(pd.read_csv(tmp_path / "out" / "measures.csv")["precision"]) == {"dense"}


def test_unknown_verdicts_are_two_bounds_on_the_card(complete, world, runs_dir, tmp_path):
    run = complete(judge="rule")
    export(run.id, tmp_path / "out", runs_dir=runs_dir, data_dir=str(world.root))
    row = re.search(r"\| ASR .*", (tmp_path / "out" / "README.md").read_text())[0]
    assert row.count("some verdicts unknown") == 2


# ---- what does not leave, before any long work ----


@pytest.fixture
def refused(runs_dir, world, tmp_path, monkeypatch):
    """The error when a run is not exported; no model is loaded and nothing is written."""

    def no_long_work(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(exporting, "load_model", no_long_work)

    def refused(run, data_dir=None, folder=None):
        out = folder or tmp_path / "out"
        before = sorted(out.parent.rglob("*"))
        data = str(world.root if data_dir is None else data_dir)
        result = CliRunner().invoke(
            app, ["export", str(run), str(out), "--runs-dir", str(runs_dir), "--data", data]
        )
        assert result.exit_code == 2, result.output
        assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
        assert sorted(out.parent.rglob("*")) == before
        return result.stderr

    return refused


def test_a_run_that_is_not_there_is_refused(refused, complete):
    complete()
    assert "no run 'nonsense'" in refused("nonsense")


def test_an_ambiguous_beginning_is_refused(refused, complete):
    complete(), complete("po", "none")
    assert "give more of the id" in refused("")


def test_a_run_that_failed_or_is_not_complete_is_refused(refused, make_config, few, runs_dir):
    configs = [make_config(objective="po", steps=n) for n in (7, 8)]
    opened = [open_run(config, few, runs_dir=runs_dir) for config in configs]
    opened[0].fail(RuntimeError("lost"))
    assert "is failed" in refused(opened[0].id)
    assert "is partial" in refused(opened[1].id)


def test_a_run_that_trained_nothing_is_refused(refused, complete):
    assert "nothing was trained" in refused(complete("vanilla", "none").id)


def test_an_untrained_adapter_is_not_evaluated_so_its_run_is_never_exported(complete, make_config):
    with pytest.raises(UserError, match="untrained"):
        complete("po", "none", model=load_model(make_config(steps=9)), steps=9)


def test_a_folder_with_something_in_it_is_refused(refused, complete, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    assert "name a new or an empty folder" in refused(complete().id, folder=tmp_path / "full")
    (tmp_path / "file").write_text("mine")
    assert "name a new or an empty folder" in refused(complete().id, folder=tmp_path / "file")


def test_data_that_are_not_the_runs_are_refused(refused, complete):
    assert "name their folder with --data" in refused(complete().id, data_dir="")


def test_another_model_under_the_same_name_is_refused(refused, complete, monkeypatch):
    run = complete()
    monkeypatch.setattr(exporting, "model_hash", lambda model: "0" * 16)
    assert "changed another model" in refused(run.id)


@pytest.fixture(scope="module")
def real(world, tmp_path_factory):
    """The small world as a stranger's data would look: nothing says that it is invented."""
    root = tmp_path_factory.mktemp("real") / "data"
    shutil.copytree(world.root, root)
    (root / "world.json").unlink()
    return read_data(root)


@pytest.mark.parametrize("objective", ["ga", "gd", "kl", "npo"])
def test_gradient_ascent_on_real_data_is_refused_and_on_the_tiny_world_it_is_not(
    refused, complete, real, world, objective, tmp_path
):
    run = complete(objective, "none")
    assert "may bring harm back" in refused(run.id, data_dir=real.root)
    with pytest.raises(AssertionError, match="a model was loaded"):
        export(run.id, tmp_path / "out", runs_dir=run.runs_dir, data_dir=str(world.root))


def test_an_objective_of_ones_own_called_po_does_not_pass_for_po_on_real_data(
    refused, complete, real, monkeypatch
):
    renamed = Objective(gradient_ascent, ("forget", "retain"))
    monkeypatch.setitem(OBJECTIVES, "po", renamed)
    run = complete("po", "none")
    assert "may bring harm back" in refused(run.id, data_dir=real.root)


def test_an_objective_of_ones_own_needs_no_entry_where_it_is_exported(
    complete, world, runs_dir, monkeypatch
):
    with monkeypatch.context() as registered:
        registered.setitem(OBJECTIVES, "mine", Objective(gradient_ascent, ("forget",)))
        run = complete("mine", "none")
    result, data = exporting.exportable_run(run.id, runs_dir, str(world.root))
    measures = run.metrics[run.metrics["split"] == "test"].assign(precision="dense")
    card = str(exporting.model_card(result, data, measures, {}))
    assert "mine: an objective of the exporter's" in card


def test_an_adapter_of_preference_optimisation_on_real_data_may_leave(
    complete, real, runs_dir, tmp_path
):
    run = complete(judge="rule")
    export(run.id, tmp_path / "out", runs_dir=runs_dir, data_dir=str(real.root))
    card = (tmp_path / "out" / "README.md").read_text()
    assert "real, in the SafeEraser layout" in card and "publish neither" in card


@pytest.mark.parametrize(
    ("dedupe", "said"),
    [
        ("none", "**not wholly held out of training**, which has 1 record, 1 picture, 1 safe pic"),
        ("val", "held out of training: records that repeat some of it were dropped"),
    ],
)
def test_the_card_says_what_was_read_and_what_training_has_of_the_split_it_was_measured_on(
    complete, real, tmp_path, dedupe, said
):
    root = Path(shutil.copytree(real.root, tmp_path / "data"))
    copy = json.loads((root / "all_train.json").read_text())[-1]
    edit(root, "test", lambda records: records.__setitem__(-1, copy))
    with_private(root)
    run = complete(judge="rule")
    measures = run.metrics[run.metrics["split"] == "test"].assign(precision="dense")
    card = str(exporting.model_card(run, read_data(root, dedupe=dedupe), measures, {}))
    assert said in card
    assert re.search(rf"; dedupe {dedupe}; categories \w+(, \w+)*, without Privacy \|", card)
    card = str(exporting.model_card(run, real, measures, {}))
    assert "held out of training: no record and no picture is the same" in card


def with_private(root):
    """The first half of every split now belongs to a category that is left out until named."""
    for path in root.glob("all_*.json"):
        records = json.loads(path.read_text())
        for record in records[: len(records) // 2]:
            record["category"] = "Privacy"
        path.write_text(json.dumps(records))
    return root


@pytest.mark.parametrize("choice", ["some", "all", "default"])
def test_the_runs_choice_of_categories_is_found_again(complete, real, runs_dir, tmp_path, choice):
    root = with_private(Path(shutil.copytree(real.root, tmp_path / "data")))
    usual = [name for name in real.forget["category"].unique() if name != "Privacy"]
    chosen = {"some": usual[1:], "all": [*usual, "Privacy"], "default": []}[choice]
    data = read_data(root, categories=chosen)
    heads = {n: getattr(data, n).groupby("split").head(2) for n in SETS}
    run = complete(data=replace(data, **heads), judge="rule")
    _, result = exporting.exportable_run(run.id, runs_dir, str(root))
    assert result.digest == data.digest and result.left_out == data.left_out


def test_a_judge_elsewhere_is_asked_with_consent_alone(
    refused, complete, world, runs_dir, tmp_path, monkeypatch
):
    monkeypatch.setenv("SAFEERASE_CACHE", str(tmp_path / "cache"))
    with serving() as stub:
        monkeypatch.setenv("OPENAI_BASE_URL", stub.url)
        run = complete(judge="openai:stub")
        monkeypatch.setattr(server, "is_loopback", lambda host: False)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        before = len(stub.requests)
        assert "judge_consent=True" in refused(run.id)
        assert len(stub.requests) == before
        command = ["export", run.id, str(tmp_path / "out"), "--runs-dir", str(runs_dir)]
        command += ["--data", str(world.root), "--judge-consent"]
        result = CliRunner().invoke(app, command)
        assert isinstance(result.exception, AssertionError)  # it went on, to load the model


# ---- the ways to name a run ----


@pytest.mark.parametrize("name", ["id", "beginning", "folder"])
def test_a_run_is_found_by_its_id_its_beginning_and_its_folder(
    complete, world, runs_dir, tmp_path, name
):
    run = complete()
    named = {"id": run.id, "beginning": run.id[:8], "folder": str(run.folder)}[name]
    where = runs_dir if name != "folder" else tmp_path / "no-ledger"
    result, _ = exporting.exportable_run(named, where, str(world.root))
    assert result.id == run.id
    free = {"data_dir", "checkpoint_every"}  # not part of a run
    original, recorded = (one.config.model_dump(exclude=free) for one in (run, result))
    assert recorded == original
    assert result.config.label == run.config.label


# ---- docs/export.md ----


def test_the_documentations_code_answers_and_merges_into_a_plain_llava(
    exported, world, tiny_model_dir, tmp_path
):
    _, folder = exported("dense")
    text = (Path(__file__).parents[2] / "docs" / "export.md").read_text()
    code = "".join(re.findall(r"```python\n(.*?)```", text, re.S))
    picture = world.decouple["image"].iat[0]
    places = {
        "llava-hf/llava-1.5-7b-hf": str(tiny_model_dir), "path/to/adapter": str(folder),
        "path/to/picture.png": picture, "path/to/merged": str(tmp_path / "merged"),
        "torch.float16": "torch.float32",
    }  # fmt: skip
    for placeholder, value in places.items():
        assert placeholder in code
        code = code.replace(placeholder, value)
    code += f"""
plain = AutoModelForImageTextToText.from_pretrained("{tmp_path / "merged"}", dtype=torch.float32)
again = AutoProcessor.from_pretrained("{tmp_path / "merged"}")
inputs = again(images=image, text=prompt, return_tensors="pt")
assert plain.generate(**inputs, max_new_tokens=40, do_sample=False).equal(output)
fresh = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32)
changed = PeftModel.from_pretrained(fresh, adapter).eval()
with torch.inference_mode():
    # Merging multiplies the adapter's matrices before the inputs come, not after, so float32
    # rounds the logits differently. The adapter itself moves them by more than 0.1, as below.
    torch.testing.assert_close(plain(**inputs).logits, changed(**inputs).logits, rtol=0, atol=1e-3)
    with changed.disable_adapter():
        assert not torch.allclose(plain(**inputs).logits, changed(**inputs).logits, atol=1e-1)
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
