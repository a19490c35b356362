"""A judge on this machine is any chat model of transformers, read offline."""

import json
import shutil

import pytest
import torch
from judge_server import honest, material
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from safeerase_lite.evaluation.judges import (
    JudgeItem,
    check_judge,
    get_judge,
    judge_items,
    local,
    prompt,
)
from safeerase_lite.evaluation.judges.sanity_check import KNOWN_ANSWERS
from safeerase_lite.runs.experiment import open_run
from safeerase_lite.utils import UserError

TEMPLATE = (
    "{% for turn in messages %}{{ turn['role'] }} : {{ turn['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}assistant :{% endif %}"
)
ITEMS = [known.item for known in KNOWN_ANSWERS]


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory):
    """A random Llama with a tokenizer of the words it will meet and a chat template."""
    folder = tmp_path_factory.mktemp("models") / "tiny-chat"
    cut = pre_tokenizers.Whitespace()
    texts = ["user assistant : safe unsafe", *(prompt.format_prompt(item) for item in ITEMS)]
    words = sorted({word for text in texts for word, _ in cut.pre_tokenize_str(text)})
    tokenizer = Tokenizer(
        models.WordLevel(
            {word: n for n, word in enumerate(["<unk>", "<end>", *words])}, unk_token="<unk>"
        )
    )
    tokenizer.pre_tokenizer = cut
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<end>", chat_template=TEMPLATE
    ).save_pretrained(folder)
    torch.manual_seed(0)
    configuration = LlamaConfig(
        vocab_size=len(words) + 2, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=2048,
        bos_token_id=None, eos_token_id=1, pad_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(configuration)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(20)  # large enough that its words depend on its prompt
    model.save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setenv("SAFEERASE_JUDGE_TOKENS", "6")


def replies(name, chats, precision="dense"):
    return list(local.generate_replies(name, name.partition(":")[2], precision, chats, 6))


def replace_model(monkeypatch, reply, *, cut=False):
    """Let a function of the conversation reply in place of the model."""
    monkeypatch.setattr(local, "generate_replies", lambda *a: [(reply(chat), cut) for chat in a[3]])


def honest_reply(chat):
    return honest(material({"messages": [{"content": chat[0]["content"][-1]["text"]}]}))


def test_it_answers_in_order_whatever_shares_its_batch(chat_model, monkeypatch):
    name = f"local:{chat_model}"
    chats = [[{"role": "user", "content": [{"type": "text", "text": i.answer}]}] for i in ITEMS]
    together = replies(name, chats)
    monkeypatch.setattr(local, "BATCH", 1)
    assert replies(name, chats) == together
    assert len(set(together)) > 1


def test_in_4_bit_its_layers_really_are(chat_model):
    name = f"local:{chat_model}"
    loaded, *_ = local._load(name, str(chat_model), "nf4")
    kinds = {type(module).__name__ for module in loaded.model.layers.modules()}
    assert "Linear4bit" in kinds and "Linear" not in kinds
    assert type(loaded.lm_head).__name__ == "Linear"
    chat = [{"role": "user", "content": [{"type": "text", "text": "yes"}]}]
    assert len(replies(name, [chat], "nf4")) == 1


def test_it_is_loaded_on_the_gpu_of_its_process(chat_model, monkeypatch):
    def no_gpu_here(*arguments, device_map, **named):
        raise OSError(f"onto {device_map['']}")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", no_gpu_here)
    monkeypatch.setattr(local, "device_map", lambda: {"": 1})
    with pytest.raises(UserError, match="onto 1"):
        local._load("another", str(chat_model), "dense")


@pytest.mark.parametrize("kind", ["local", "guard"])
def test_a_model_that_babbles_fails_the_sanity_check_and_says_unknown(chat_model, kind, capsys):
    babbling = get_judge(f"{kind}:{chat_model}", precision="dense")
    with pytest.raises(UserError, match="failed the sanity check") as raised:
        check_judge(babbling)
    assert "\n" not in str(raised.value)
    assert "6 of 6 without a verdict" in capsys.readouterr().out
    assert {judgment.harmful for judgment in judge_items(babbling, ITEMS)} == {None}


def test_a_models_json_becomes_verdicts_and_a_score(chat_model, monkeypatch):
    def reply(chat):
        reasoning = f"<think>like {honest_reply(chat).replace('yes', 'no')}</think>"
        return f"{reasoning}Here is my verdict:\n```json\n{honest_reply(chat)}\n```"

    replace_model(monkeypatch, reply)
    sound = get_judge(f"local:{chat_model}")
    check_judge(sound)
    items = [JudgeItem("What?", "a hat", answer) for answer in ("a hat", "a cat")]
    judgments = judge_items(sound, items)
    assert [(j.verdict, j.score) for j in judgments] == [("right", 1.0), ("wrong", 0.0)]


def test_a_reply_that_was_cut_holds_no_verdict(chat_model, monkeypatch):
    replace_model(monkeypatch, honest_reply, cut=True)
    with pytest.raises(UserError, match="6 of 6 .*cut at 6 tokens, raise SAFEERASE_JUDGE_TOKENS"):
        check_judge(get_judge(f"local:{chat_model}"))


def test_a_reply_is_cut_where_the_model_did_not_end_it(chat_model, monkeypatch):
    name, chat = f"local:{chat_model}", [local._turn("user", "yes")]
    [(text, cut)] = replies(name, [chat])
    model, _, tokenizer = local._load(name, str(chat_model), "dense")
    assert cut and len(text.split()) == 6
    last = tokenizer.convert_tokens_to_ids(text.split()[-1])
    monkeypatch.setattr(model.generation_config, "eos_token_id", [last])
    [(shorter, cut)] = replies(name, [chat])
    assert not cut and text.startswith(shorter) and len(shorter) < len(text)


def test_harm_comes_from_the_guard_and_the_rest_from_the_rule(chat_model, monkeypatch):
    def reply(chat):
        assert [turn["role"] for turn in chat] == ["user", "assistant"]
        return "\n\nunsafe\nS9" if "hurt" in chat[1]["content"][0]["text"] else "\n\nsafe"

    replace_model(monkeypatch, reply)
    guard = get_judge(f"guard:{chat_model}")
    check_judge(guard)
    weapon, refusal = KNOWN_ANSWERS[-1].item, KNOWN_ANSWERS[0].item
    assert [j.harmful for j in judge_items(guard, [weapon, refusal])] == [True, False]
    assert [j.refusing for j in judge_items(guard, [weapon, refusal])] == [False, True]
    assert not guard.uses_images and guard.known_fields == ("harmful",)


def test_a_vision_model_is_shown_the_picture(tiny_model_dir, world):
    name = f"local:{tiny_model_dir}"
    assert get_judge(name).uses_images
    images = world.decouple["image"].iloc[:8]
    chats = [local.format_chat(JudgeItem("What?", "a", "b", image=image)) for image in images]
    assert len(set(replies(name, chats))) > 1  # nothing but the picture differs


def test_a_vision_model_is_no_guard(tiny_model_dir):
    with pytest.raises(UserError, match="only guards that read text"):
        get_judge(f"guard:{tiny_model_dir}")


@pytest.mark.parametrize("name", ["local:/no/such/folder", "guard:no-one/no-such-model"])
def test_a_model_that_is_not_there_is_one_line_before_any_work(name):
    with pytest.raises(UserError, match="cannot load the model") as raised:
        get_judge(name)
    assert name in str(raised.value) and "\n" not in str(raised.value)


def test_a_model_without_a_chat_template_is_refused(chat_model, tmp_path):
    plain = tmp_path / "plain"
    shutil.copytree(chat_model, plain)
    (plain / "chat_template.jinja").unlink(missing_ok=True)
    settings = json.loads((plain / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (plain / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match="no chat template"):
        check_judge(get_judge(f"local:{plain}"))


def test_a_judge_without_all_its_weights_is_refused(chat_model, tmp_path):
    """transformers would draw the missing ones at random."""
    copy = shutil.copytree(chat_model, tmp_path / "copy")
    weights = load_file(copy / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="cannot load the model: lm_head.weight is missing"):
        check_judge(get_judge(f"local:{copy}", precision="dense"))


def test_a_judges_weights_are_part_of_the_run(chat_model, few, make_config, tmp_path):
    def opened():
        return open_run(make_config(judge=f"local:{copy}"), few, runs_dir=tmp_path / "runs")

    copy = tmp_path / "copy"
    shutil.copytree(chat_model, copy)
    before = opened().id
    assert opened().id == before
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    assert opened().id != before
