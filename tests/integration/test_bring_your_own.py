"""What docs/bring_your_own.md shows works as it stands, and an objective of one's own is a run of
its own."""

import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import build_tinyworld as build
import pytest
import torch
from transformers import VipLlavaConfig, VipLlavaForConditionalGeneration

import safeerase_lite as sl
from safeerase_lite.data import dataset
from safeerase_lite.evaluation.judges import JUDGES
from safeerase_lite.models.anatomy import FAMILIES
from safeerase_lite.models.inputs import IGNORED, encode
from safeerase_lite.models.llava import load_model, reference
from safeerase_lite.robustness import ATTACKS
from safeerase_lite.runs.experiment import open_run
from safeerase_lite.unlearning.objectives import (
    OBJECTIVES,
    Answers,
    Batch,
    LossWeights,
    Objective,
    loss_weights,
)
from safeerase_lite.utils import UserError

TEXTS = {"capture_output": True, "text": True, "encoding": "utf-8"}
PAGE = Path(__file__).parents[2] / "docs" / "bring_your_own.md"
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE.read_text("utf-8"), re.M | re.S))


@pytest.fixture(autouse=True)
def registries():
    """Every registry, put back after the test."""
    registries = (OBJECTIVES, ATTACKS, JUDGES, FAMILIES)
    before = [(registry, dict(registry)) for registry in registries]
    yield
    for registry, entries in before:
        registry.clear()
        registry.update(entries)


@pytest.fixture(scope="module")
def vip_llava_dir(tmp_path_factory):
    """A small random VipLLaVA, whose projector reads three layers of its tower."""
    recipe = build.Recipe(width=64, feed_forward=128, layers=2, vision_layers=3, heads=2, patch=16)
    llava = build.configuration(recipe)
    config = VipLlavaConfig(
        vision_config=llava.vision_config,
        text_config=llava.text_config,
        image_token_index=llava.image_token_id,
        image_seq_length=llava.image_seq_length,
        vision_feature_layer=[-1, -2, 1],
        pad_token_id=llava.pad_token_id,
    )
    torch.manual_seed(0)
    model = VipLlavaForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(5)  # so that pictures matter
    folder = tmp_path_factory.mktemp("models") / "vip-llava"
    build.save(model, recipe, folder)
    return folder


@pytest.fixture
def execute(tmp_path, monkeypatch, make_config, tiny_model_dir, vip_llava_dir, few):
    """Run a section's code on a small random model and the small world; its names afterwards."""
    load_data = dataset.load_data
    monkeypatch.setattr(dataset, "load_data", lambda c: load_data(c) if c.data_dir else few)
    monkeypatch.setenv("SAFEERASE_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)

    def execute(title, **overrides):
        def config(profile, **fields):
            return make_config(**fields | overrides)

        monkeypatch.setattr(sl, "config", config)
        names = {"__name__": "page"}
        blocks = re.findall(r"^```python\n(.*?)^```", SECTIONS[title], re.M | re.S)
        assert blocks
        for number, source in enumerate(blocks):
            source = source.replace("path/to/my-llava", str(tiny_model_dir))
            source = source.replace("path/to/my-vip-llava", str(vip_llava_dir))
            file = tmp_path / f"block{number}.py"
            file.write_text(source, encoding="utf-8")
            exec(compile(source, str(file), "exec"), names)
        return names

    return execute


def has_learned(model) -> bool:
    """LoRA's B matrices start at zero."""
    return any(p.any() for name, p in model.named_parameters() if "lora_B" in name)


# ---- the page ----


def test_the_page_has_a_section_for_each_thing():
    things = ["An attack", "A judge", "A family of your own", "A model", "Data"]
    assert list(SECTIONS) == ["An objective", "An objective in every sweep", *things]


def test_an_objective_of_ones_own_unlearns_and_is_measured(execute):
    names = execute("An objective")
    run = names["run"]
    assert run.done and run.parameters["objective"] == "mine"
    assert run.config.label == "mine+PD seed 0"
    assert {"loss", "forget", "retain", "decouple"} <= set(run.history)
    assert {"asr", "sarr"} <= set(names["report"].metrics["metric"])
    assert has_learned(names["model"])

    # By hand: two forget answers of two tokens, each token of probability 1/4 and of almost 0.
    logits = torch.zeros(2, 3, 4)
    logits[1, :, 3] = 9.0
    forget = Answers(logits, torch.tensor([[-100, 0, 1], [-100, 0, 1]]))
    retain = Answers(torch.zeros(1, 1, 4), torch.tensor([[2]]))
    value = names["hinge"](Batch(forget=forget, retain=retain), LossWeights(retain=0.5)).item()
    assert value == pytest.approx((4 - math.log(4)) / 2 + 0.5 * math.log(4))


def test_ten_lines_in_a_file_are_a_row_of_the_board(tmp_path):
    """The page's own lines and commands; the sweep cut to a seed, with PD alone, and two steps."""
    lines, _ = re.findall(r"^```python\n(.*?)^```", SECTIONS["An objective"], re.M | re.S)
    assert len(lines.splitlines()) <= 10
    (tmp_path / "my_methods.py").write_text(lines, encoding="utf-8")
    page = SECTIONS["An objective in every sweep"]
    [commands] = re.findall(r"^```bash\n(.*?)^```", page, re.M | re.S)
    short = ["seed=0", "decouple=pd", "steps=2", "samples=0", 'splits=["test"]']
    shorter = [word for pair in short for word in ("-p", pair)]
    root, ledger = PAGE.parents[1], {"SAFEERASE_RUNS": str(tmp_path / "runs")}
    sweep, report = (line.split() for line in commands.splitlines() if " sweeps/" in line)
    for _, name, *words in (sweep, report):
        words = [word.replace("sweeps/", f"{root}/sweeps/") for word in words]
        command = [sys.executable, "-m", "safeerase_lite", name, *words, *shorter]
        done = subprocess.run(command, cwd=tmp_path, env=os.environ | ledger, **TEXTS)
        assert done.returncode == 0, done.stdout + done.stderr
    text = (tmp_path / "output" / "methods" / "report.md").read_text(encoding="utf-8")
    head, _, *rows = text.partition("### The board\n\n")[2].partition("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in (head, *rows)]
    [row] = [dict(zip(cells[0], values, strict=True)) for values in cells[1:]]
    assert row["model"] == "mine+PD" and row["seeds"] == "1"
    measured = ["ASR requested", "SARR", "SARR, new objects", "retain", "safe pictures"]
    for column in (*measured, "specificity", "seconds", "GB"):
        assert float(row[column].split()[0]) >= 0
    assert str(tmp_path) not in text.replace(str(tmp_path / "runs"), "")


def test_an_attack_of_ones_own_is_in_the_ledger_with_the_run(execute):
    run = execute("An attack")["run"]
    table = run.attacks
    assert run.done and set(table["attack"]) == {"twice"} and set(table["strength"]) == {1, 2}
    assert {"asr", "rr", "completed", "sarr"} == set(table["metric"])
    assert table["value"].between(table["low"], table["high"]).all()


def test_a_judge_of_ones_own_judges_a_run(execute):
    names = execute("A judge")
    assert names["run"].done and names["run"].parameters["judge"] == "lenient"
    answers = names["report"].answers
    right = answers["verdict"].isin(["right", "wrong"])
    assert right.any()
    for row in answers[right].itertuples():
        has_all = set(row.expected.lower().split()) <= set(row.answer.lower().split())
        assert (row.verdict == "right") == has_all


@pytest.mark.parametrize("precision", ["dense", "nf4"])
def test_a_model_family_of_ones_own_is_loaded_adapted_unlearned_and_evaluated(execute, precision):
    names = execute("A family of your own", precision=precision)
    model, run = names["model"], names["run"]
    assert type(model.get_base_model()) is VipLlavaForConditionalGeneration
    assert run.done and len(run.history) == 2 and has_learned(model)
    assert {"asr", "sarr"} <= set(names["report"].metrics["metric"])
    is_4bit = {n for n, m in model.named_modules() if type(m).__name__ == "Linear4bit"}
    assert bool(is_4bit) == (precision == "nf4")
    assert not any("tower" in name or "projector" in name for name in is_4bit)


@pytest.mark.parametrize("precision", ["dense", "nf4"])
def test_the_forward_pass_of_that_family_is_the_models_own(
    execute, few, make_config, vip_llava_dir, precision
):
    model = execute("A family of your own", precision=precision)["model"]
    rows = few.forget.drop_duplicates("image").head(4)
    batch = encode(model.processor, rows["image"], rows["question"], rows["answer"])
    labels = batch.pop("labels")
    with torch.no_grad():
        answers = sl.answer_logits(model, rows)
        logits = model(**batch).logits[:, :-1][labels[:, 1:] != IGNORED]
        # Float32 sums in another order; logits are of order 10.
        torch.testing.assert_close(answers.logits[answers.mask], logits, atol=1e-4, rtol=1e-5)
        config = make_config(model=str(vip_llava_dir), precision=precision)
        base = load_model(config, adapt=False)
        with reference(model):
            frozen = sl.answer_logits(model, rows).logits
        assert frozen.equal(sl.answer_logits(base, rows).logits)


def test_a_family_without_an_entry_is_refused(make_config, vip_llava_dir):
    with pytest.raises(UserError, match=r"FAMILIES\['vipllava'\] = Anatomy"):
        load_model(make_config(model=str(vip_llava_dir)))


def test_a_model_of_ones_own_answers_and_unlearns(execute, capsys):
    names = execute("A model")
    assert "trainable params" in capsys.readouterr().out
    assert names["run"].parameters["model_hash"] and has_learned(names["model"])


def test_data_of_ones_own_is_checked_used_and_kept_out_of_the_ledger(execute, capsys):
    names = execute("Data")
    assert "the splits share no record and no picture" in capsys.readouterr().out
    assert not names["data"].invented and len(names["data"].decouple) == 2
    forget = names["run"].answers.query("set == 'forget'")
    assert forget["expected"].str.fullmatch("[0-9a-f]{16}").all()


# ---- what an entry means ----


def forget_gently(x, w):
    return -0.1 * x.forget.nll.sum() / x.forget.tokens


def forget_hard(x, w):
    return -9.0 * x.forget.nll.sum() / x.forget.tokens


@pytest.fixture
def opened(world, make_config, tmp_path):
    def opened(objective):
        return open_run(make_config(objective=objective), world, runs_dir=tmp_path / "runs")

    return opened


def test_another_formula_under_the_same_name_is_another_run(opened):
    ids = set()
    for entry in (
        Objective(forget_gently, ("forget",)),
        Objective(forget_hard, ("forget",)),
        Objective(forget_hard, ("forget", "retain")),
        Objective(forget_hard, ("forget",), official=LossWeights(decouple=0.5)),
    ):
        OBJECTIVES["mine"] = entry
        ids |= {opened("mine").id, opened("mine").id}
    assert len(ids) == 4


def test_the_packages_own_objectives_need_no_hash_unless_replaced(opened):
    before = opened("ga")
    assert "objective_hash" not in before.parameters
    OBJECTIVES["ga"] = replace(OBJECTIVES["ga"], formula=forget_hard)
    assert opened("ga").id != before.id


def test_a_near_miss_of_a_registered_name_is_named(make_config):
    with pytest.raises(UserError, match="unknown objective 'simnop'"):
        make_config(objective="simnop")
    OBJECTIVES["simnpo"] = Objective(forget_gently, ("forget",))
    with pytest.raises(UserError, match="did you mean 'simnpo'"):
        make_config(objective="simnop")


def test_a_formula_without_source_is_refused(opened):
    names = {}
    exec("def typed(x, w): return x.forget.nll.sum()", names)
    OBJECTIVES["typed"] = Objective(names["typed"], ("forget",))
    with pytest.raises(UserError, match="has no source that could identify it"):
        opened("typed")


def test_official_weights_are_what_the_entry_says_and_matched_are_not():
    OBJECTIVES["mine"] = Objective(forget_hard, ("forget",), official=LossWeights(decouple=0.25))
    given = {"objective": "mine", "decouple": "pd", "npo_beta": 0.3, "forget_cap": 2.0}
    assert loss_weights(sl.config(**given)) == LossWeights(decouple=0.25, beta=0.3, cap=2.0)
    matched = sl.config(**given, weights="matched")
    assert loss_weights(matched) == LossWeights(beta=0.3, cap=2.0)
