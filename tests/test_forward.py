"""What is left out of the last layer is missed by nobody."""

import pytest
import torch
from transformers import LlamaConfig, LlamaModel

from safeerase_lite.models import forward
from safeerase_lite.models.forward import answer_states, embed, llava_of
from safeerase_lite.models.inputs import IGNORED, encode_text
from safeerase_lite.models.llava import load_model


@pytest.fixture
def rows(world):
    """Questions of several lengths, answers of several lengths."""
    return world.retain.drop_duplicates("question").head(4)


def learning(make_profile, **fields):
    """A model in training whose adapter says something."""
    model = load_model(make_profile(**fields)).train()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.01)
    return model


def whole(model, encoded, images, columns):
    states = llava_of(model)(
        inputs_embeds=embed(model, encoded["input_ids"], images),
        attention_mask=encoded["attention_mask"],
        use_cache=False,
    ).last_hidden_state
    return states[:, -columns:]


def states_and_gradients(model, rows, way):
    encoded = encode_text(model.processor, rows["question"], rows["answer"])
    answered = encoded["labels"] != IGNORED
    columns = int(answered.sum(-1).max()) + 1
    states = way(model, encoded, rows["image"], columns)
    states[answered[:, -columns:]].square().sum().backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    return states[answered[:, -columns:]], gradients


@pytest.mark.parametrize("fields", [{}, {"precision": "nf4"}, {"gradient_checkpointing": True}])
@pytest.mark.parametrize("family", ["llama", "another"])
def test_answers_and_their_gradients_are_those_of_the_whole_pass(
    make_profile, rows, monkeypatch, fields, family
):
    model = learning(make_profile, **fields)
    if family == "another":
        monkeypatch.setattr(forward, "LlamaModel", type(None))
    states, gradients = states_and_gradients(model, rows, answer_states)
    expected, wanted = states_and_gradients(model, rows, whole)
    torch.testing.assert_close(states, expected, atol=1e-5, rtol=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, wanted[name], atol=1e-4, rtol=1e-4)


def test_heads_may_share_keys_and_a_row_may_be_shorter_than_the_columns(monkeypatch):
    torch.manual_seed(0)
    llama = LlamaModel(LlamaConfig(
        vocab_size=8, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2,
    ))  # fmt: skip
    words = torch.randn(2, 9, 32)
    real = torch.ones(2, 9, dtype=torch.long)
    real[1, :6] = 0
    monkeypatch.setattr(forward, "embed", lambda *_: words)
    monkeypatch.setattr(forward, "llava_of", lambda model: model)
    encoded = {"input_ids": None, "attention_mask": real}
    model = torch.nn.Module()
    model.language_model = llama
    states = answer_states(model, encoded, [], 5)
    expected = llama(inputs_embeds=words, attention_mask=real).last_hidden_state[:, -5:]
    seen = real[:, -5:].bool()
    assert states.isfinite().all()
    torch.testing.assert_close(states[seen], expected[seen], atol=1e-5, rtol=1e-5)
