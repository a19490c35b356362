"""What docs/bring_your_own.md shows works as it stands, and an objective of one's own is a run of
its own."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from safeerase_lite import config as profiles
from safeerase_lite.data import dataset as data_module
from safeerase_lite.models.forward import Answers
from safeerase_lite.runs.experiment import open_run
from safeerase_lite.unlearning.objectives import OBJECTIVES, Batch, Objective, Weights, weights
from safeerase_lite.utils import UserError

PAGE = Path(__file__).parents[1] / "docs" / "bring_your_own.md"
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE.read_text("utf-8"), re.M | re.S))


@pytest.fixture(autouse=True)
def registry():
    """The objectives, put back after the test."""
    kept = dict(OBJECTIVES)
    yield OBJECTIVES
    OBJECTIVES.clear()
    OBJECTIVES.update(kept)


@pytest.fixture
def shown(tmp_path, monkeypatch, make_profile, tiny_model_dir, few):
    """Run a section's code on the small random model and the small world; its names afterwards."""
    read = data_module.load_data
    monkeypatch.setattr(profiles, "profile", lambda name, **fields: make_profile(**fields))
    monkeypatch.setattr(
        data_module, "load_data", lambda p, **how: read(p, **how) if p.data_dir else few
    )
    monkeypatch.setenv("SAFEERASE_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)

    def shown(title):
        names = {"__name__": "shown"}
        blocks = re.findall(r"^```python\n(.*?)^```", SECTIONS[title], re.M | re.S)
        assert blocks
        for number, source in enumerate(blocks):
            source = source.replace("path/to/my-llava", str(tiny_model_dir))
            file = tmp_path / f"block{number}.py"
            file.write_text(source, encoding="utf-8")
            exec(compile(source, str(file), "exec"), names)
        return names

    return shown


def moved(model) -> bool:
    """Whether LoRA has learned anything: its B matrices start at zero."""
    return any(p.any() for name, p in model.named_parameters() if "lora_B" in name)


# ---- the page ----


def test_the_page_says_objective_model_and_data():
    assert list(SECTIONS) == ["An objective", "A model", "Data"]


def test_an_objective_of_ones_own_unlearns_and_is_measured(shown):
    names = shown("An objective")
    assert names["run"].done and names["run"].parameters["objective"] == "simnpo"
    assert {"loss", "forget", "decouple"} <= set(names["history"])
    assert {"asr", "sarr"} <= set(names["report"].metrics["metric"])
    assert moved(names["model"])


def test_a_model_of_ones_own_answers_and_unlearns(shown, capsys):
    names = shown("A model")
    assert "trainable params" in capsys.readouterr().out
    assert names["run"].parameters["model_hash"] and moved(names["model"])


def test_data_of_ones_own_is_checked_used_and_kept_out_of_the_ledger(shown, capsys):
    names = shown("Data")
    assert "the splits share no record and no picture" in capsys.readouterr().out
    assert not names["data"].invented and len(names["data"].decouple) == 2
    forget = names["run"].answers.query("set == 'forget'")
    assert forget["expected"].str.fullmatch("[0-9a-f]{16}").all()


def test_the_shown_formula_is_simnpo(shown):
    """−(2/β) log σ(β L / |y|), by hand: one answer of two tokens, each with probability 1/4."""
    formula = shown("An objective")["OBJECTIVES"]["simnpo"].formula
    said = Answers(torch.zeros(1, 3, 4), torch.tensor([[-100, 0, 1]]))
    per_token = torch.tensor(4.0).log()
    expected = -2 / 0.5 * torch.sigmoid(0.5 * per_token).log()
    assert formula(Batch(forget=said), Weights(beta=0.5)).item() == pytest.approx(expected.item())


# ---- what registering means ----


def forget_gently(x, w):
    return -0.1 * x.forget.nll.sum() / x.forget.tokens


def forget_hard(x, w):
    return -9.0 * x.forget.nll.sum() / x.forget.tokens


@pytest.fixture
def opened(world, make_profile, tmp_path):
    def opened(objective):
        return open_run(make_profile(), world, objective=objective, runs_dir=tmp_path / "runs")

    return opened


def test_another_formula_under_the_same_name_is_another_run(opened, registry):
    ids = set()
    for entry in (
        Objective(forget_gently, ("forget",)),
        Objective(forget_hard, ("forget",)),
        Objective(forget_hard, ("forget", "retain")),
        Objective(forget_hard, ("forget",), official=Weights(decouple=0.5)),
    ):
        registry["mine"] = entry
        ids |= {opened("mine").id, opened("mine").id}
    assert len(ids) == 4


def test_the_packages_own_objectives_keep_their_ids_unless_replaced(opened, registry):
    before = opened("ga")
    assert "objective_hash" not in before.parameters
    registry["ga"] = replace(registry["ga"], formula=forget_hard)
    assert opened("ga").id != before.id


def test_a_near_miss_of_a_registered_name_is_named(opened, registry):
    with pytest.raises(UserError, match="unknown objective 'simnop'"):
        opened("simnop")
    registry["simnpo"] = Objective(forget_gently, ("forget",))
    with pytest.raises(UserError, match="did you mean 'simnpo'"):
        opened("simnop")


def test_a_formula_without_source_is_refused(opened, registry):
    names = {}
    exec("def typed(x, w): return x.forget.nll.sum()", names)
    registry["typed"] = Objective(names["typed"], ("forget",))
    with pytest.raises(UserError, match="has no source to tell it by"):
        opened("typed")


def test_official_weights_are_what_the_entry_says_and_matched_are_not(registry):
    registry["mine"] = Objective(forget_hard, ("forget",), official=Weights(decouple=0.25))
    assert weights("mine", "official", "pd", beta=0.3) == Weights(decouple=0.25, beta=0.3)
    assert weights("mine", "matched", "pd") == Weights()
