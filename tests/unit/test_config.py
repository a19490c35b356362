"""One settings record: what is left open is filled in, what is stated stays, mistakes are named."""

import json
import math
import re
import sys
import warnings

import pytest

from safeerase_lite.config import GOLD, LLAVA_7B, LLAVA_13B, PROFILES, Config, config
from safeerase_lite.unlearning.objectives import OBJECTIVES, Objective
from safeerase_lite.utils import UserError


def refusal(*base, **fields):
    with pytest.raises(UserError) as caught:
        config(*base, **fields)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- what is filled in ----


@pytest.mark.parametrize("profile", PROFILES)
def test_none_means_the_profiles_own(profile):
    everything = dict.fromkeys(Config.model_fields)
    everything.pop("profile")
    resolved = config(profile, **everything)
    assert resolved == config(profile)
    assert resolved.profile == profile
    own = PROFILES[profile].model_dump(exclude={"judge", "learning_rate"})
    assert resolved.model_dump(exclude={"judge", "learning_rate"}) == own


@pytest.mark.parametrize("objective", [o for o in OBJECTIVES if not OBJECTIVES[o].negated])
def test_pd_and_placebo_have_the_plain_rate_so_that_only_their_term_differs(objective):
    tuned = OBJECTIVES[objective].learning_rates["tiny"]
    for decouple in ("none", "pd", "placebo"):
        assert config(objective=objective, decouple=decouple).learning_rate == tuned
        assert config("t4", objective=objective, decouple=decouple).learning_rate == 1e-4
        stated = config(objective=objective, decouple=decouple, learning_rate=2e-3)
        assert stated.learning_rate == 2e-3


def test_an_objective_without_a_tuned_rate_takes_that_of_the_code(monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "mine", Objective(lambda x, w: 0, ("forget",)))
    with pytest.warns(
        UserWarning, match="no learning rate of mine was tuned for tiny, so .*0.0001"
    ):
        assert config(objective="mine").learning_rate == 1e-4
    assert config(objective="vanilla").learning_rate is None


def test_a_config_of_a_config_keeps_what_was_stated_and_resolves_the_rest_anew():
    first = config("tiny", objective="po", precision="dense")
    paired = config(first, decouple="pd")
    assert paired.precision == "dense"
    tuned = OBJECTIVES["kl"].learning_rates["tiny"]
    assert config(paired, objective="kl").learning_rate == tuned != paired.learning_rate
    stated = config(first, learning_rate=2e-3)
    assert config(stated, decouple="pd").learning_rate == 2e-3
    assert config(first, seed=None) == first


def test_of_other_data_the_judge_is_the_rule_unless_one_is_named(world, tmp_path):
    assert config().judge == config(data_dir=str(world.root)).judge == "oracle"
    assert config(data_dir=str(tmp_path)).judge == "rule"
    assert config(data_dir=str(tmp_path), judge="local:mine").judge == "local:mine"


def test_a_model_may_bring_numbers_of_its_own():
    assert config("t4").model == LLAVA_7B
    assert config("t4", model=LLAVA_13B).eval_batch_size == 4
    assert config("t4", model=LLAVA_13B, eval_batch_size=2).eval_batch_size == 2


def test_gold_takes_the_gold_model_and_gives_it_back(monkeypatch, tiny_model_dir):
    monkeypatch.setattr(
        sys.modules["safeerase_lite.config"], "shipped_model", lambda name: tiny_model_dir
    )
    gold = config(objective="gold", seed=3)
    assert gold.model == GOLD
    assert config(gold, objective="po", decouple="pd").model == "tiny-llava"


@pytest.mark.parametrize(
    ("fields", "label"),
    [
        ({"objective": "po", "decouple": "pd", "seed": 3}, "PO+PD seed 3"),
        ({"objective": "po", "decouple": "placebo"}, "PO+placebo seed 0"),
        ({"objective": "npo"}, "NPO seed 0"),
        ({"objective": "vanilla"}, "vanilla seed 0"),
    ],
)
def test_a_config_names_its_run(fields, label):
    assert config(**fields).label == label


def test_settings_are_frozen_and_every_field_has_a_default():
    with pytest.raises(ValueError, match="frozen"):
        config().seed = 1
    assert Config() == Config(**json.loads(Config().model_dump_json()))


# ---- injected knowledge ----


@pytest.fixture
def injected(tmp_path):
    """The note that lies beside an injected adapter."""
    note = {"base": "tiny-llava", "profile": "t4", "numbers": {"steps": 7}}
    (tmp_path / "injected.json").write_text(json.dumps(note))
    return str(tmp_path)


def test_a_folder_of_injected_knowledge_is_a_profile_of_its_own(injected):
    by_name, by_model = config(injected, seed=1), config("t4", model=injected, seed=1)
    assert by_name.model_dump() == by_model.model_dump()
    assert (by_name.profile, by_name.model, by_name.steps) == ("t4", injected, 7)
    assert config(config(injected), decouple="pd", objective="po").steps == 7
    assert config(injected, steps=9).steps == 9


def test_a_broken_note_is_one_line(injected, tmp_path):
    (tmp_path / "injected.json").write_text("{}")
    assert "lacks base, profile or numbers" in refusal(injected)


# ---- mistakes ----


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"objective": "gdd"}, "unknown objective 'gdd': .*did you mean 'gd'?"),
        ({"objective": "KL"}, "unknown objective 'KL': .*did you mean 'kl'?"),
        ({"requests": 2}, "vanilla is not unlearned, so requests must be None"),
        ({"objective": "negation", "requests": 2}, "negation negates its adapter .*requests=None"),
        ({"objective": "vanila"}, "did you mean 'vanilla'?"),
        ({"objective": "np0"}, "did you mean 'npo'?"),
        ({"objective": ""}, "unknown objective ''"),
        ({"decouple": "placbo"}, "field 'decouple': .*'none', 'pd' or 'placebo'"),
        ({"weights": "match"}, "field 'weights': .*'official' or 'matched'"),
        ({"lr": 1e-3}, "unknown config field 'lr': .* profile, objective,.* learning_rate,"),
        ({"sed": 1}, "unknown config field 'sed': .*; did you mean 'seed'?"),
        ({"seed": True}, "field 'seed': .*neither true nor false, and is True"),
        ({"judge": "orakel"}, "there is no judge 'orakel'; choose one of oracle, rule"),
        ({"objective": "po", "steps": 1}, "steps=1 with warmup=0.06 is warm-up alone"),
        ({"steps": 0}, "field 'steps': .*greater than or equal to 1, and is 0"),
        ({"learning_rate": 0}, "field 'learning_rate': .*greater than 0"),
        ({"learning_rate": math.inf}, "field 'learning_rate': .*finite"),
        ({"seed": 10**30}, "field 'seed': .*less than or equal to 8796093022208"),
        (
            {"world_seed": -(10**30)},
            "field 'world_seed': .*greater than or equal to -8796",
        ),
        ({"data_dir": ""}, "field 'data_dir': .*at least 1 character"),
        ({"splits": ("dev",)}, "field 'splits.0': .*'train', 'val' or 'test'"),
    ],
    ids=lambda value: next(iter(value.items()))[0] if isinstance(value, dict) else "",
)
def test_a_wrong_field_or_value_is_named_with_what_would_do(fields, complaint):
    assert re.search(complaint.replace("?", r"\?"), refusal(**fields))


def test_the_laptops_categories_and_splits_are_those_of_the_tiny_world_alone(tmp_path):
    assert config("laptop").categories and config("laptop").splits == ("test",)
    real = config("laptop", data_dir=tmp_path)
    assert (real.categories, real.splits) == ((), ("train", "val", "test"))
    assert config("laptop", data_dir=tmp_path, categories="Weapon").categories == ("Weapon",)
    assert config("laptop", categories=()).categories == ()


def test_a_path_and_one_text_are_taken_as_meant(tmp_path):
    assert config(data_dir=tmp_path).data_dir == str(tmp_path)
    assert config(splits="val").splits == ("val",)
    assert config(profile="t4") == config("t4")


@pytest.mark.parametrize("base", [{"objective": "po"}, 3, None])
def test_what_is_no_profile_is_named_with_what_would_do(base):
    assert "takes a profile or a Config first" in refusal(base)


def test_a_bare_function_is_no_objective(monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "mine", lambda x, w: 0)
    assert "OBJECTIVES['mine'] is no Objective" in refusal(objective="mine")


def test_one_step_without_warm_up_and_no_training_at_all_are_taken():
    config(objective="po", steps=1, warmup=0.0), config(objective="vanilla", steps=1)


def test_an_objective_like_none_lists_what_there_is():
    message = refusal(objective="zzz")
    assert "choose one of vanilla, gold, ga, gd, kl, gd_bounded" in message
    assert "did you mean" not in message


def test_an_unknown_profile_names_the_near_miss():
    assert (
        refusal("tinny")
        == "unknown profile 'tinny': choose one of tiny, laptop, t4, full; did you mean 'tiny'?"
    )


@pytest.mark.parametrize("objective", ["vanilla", "gold"])
@pytest.mark.parametrize("decouple", ["pd", "placebo"])
def test_what_is_not_unlearned_has_nothing_to_decouple(objective, decouple):
    message = refusal(objective=objective, decouple=decouple)
    assert message == f"{objective} is not unlearned, so decouple must be 'none'"


def test_gold_is_refused_for_a_model_that_has_none(tiny_model_dir):
    assert "has no gold model" in refusal(objective="gold", model=str(tiny_model_dir))


def test_gold_is_refused_where_only_the_other_model_was_built(monkeypatch, tiny_model_dir):
    """`safeerase tiny build --no-gold`"""
    shipped = {"tiny-llava": tiny_model_dir}.get
    monkeypatch.setattr(sys.modules["safeerase_lite.config"], "shipped_model", shipped)
    assert "has no gold model" in refusal(objective="gold")


def test_a_model_of_ones_own_does_not_silently_take_a_rate_tuned_on_another(tiny_model_dir):
    with pytest.warns(UserWarning, match="tuned on tiny-llava"):
        config(model=str(tiny_model_dir), objective="po")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config(model=str(tiny_model_dir), objective="po", learning_rate=1e-3)
        config(objective="po")
