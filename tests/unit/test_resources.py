"""The memory account is what a loaded model really holds, the operations are what torch counts."""

import contextlib

import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig

from safeerase_lite.config import LLAVA_7B as HUB_7B
from safeerase_lite.config import LLAVA_13B as HUB_13B
from safeerase_lite.config import config as make_config
from safeerase_lite.models.forward import answer_logits, vision_features
from safeerase_lite.models.inputs import IGNORED, answer_ids, encode, split_prompt
from safeerase_lite.models.llava import load_model
from safeerase_lite.report import plots as charts
from safeerase_lite.resources import (
    GB,
    GROUPS,
    LLAVA_7B,
    LLAVA_13B,
    PEAK_FLOPS,
    T4_BYTES,
    UTILISATION,
    account,
    activation_bytes,
    image_tokens,
    peak_bytes,
    rows_of_part,
    step_flops,
    training_hours,
)
from safeerase_lite.unlearning.objectives import Answers, nll
from safeerase_lite.unlearning.trainer import make_optimizer


@pytest.fixture(scope="module")
def config(tiny_model_dir):
    return AutoConfig.from_pretrained(tiny_model_dir)


def counted(table, *parts):
    return int(table.set_index("part")["bytes"].reindex(parts).sum())


def held(model):
    """Every tensor a model's weights consist of: parameters, and the constants of 4-bit ones."""
    for parameter in model.parameters():
        yield parameter
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            yield from (state.absmax, state.code, state.offset)
            yield from (state.state2.absmax, state.state2.code)


def nbytes(tensors):
    """Each piece of memory once."""
    return sum(
        {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values()
    )


# ---- exact: weights, adapters, optimiser ----


@pytest.mark.parametrize("compute", ["float32", "float16"])
@pytest.mark.parametrize("precision", ["nf4", "dense"])
def test_the_weights_are_counted_to_the_byte(config, make_config, precision, compute):
    numbers = make_config(precision=precision, compute=compute)
    table = account(config, numbers)
    weights = counted(
        table, "packed weights", "block constants", "linear layers", "everything else"
    )
    assert weights == nbytes(held(load_model(numbers, adapt=False)))


def test_the_shipped_model_is_counted_to_the_byte():
    from safeerase_lite.tinyworld import shipped_model

    model = load_model(make_config("tiny"))
    table = account(AutoConfig.from_pretrained(shipped_model("tiny-llava")), make_config("tiny"))
    in_weights = ("packed weights", "block constants", "everything else")
    in_adapter = ("LoRA adapters", "projector's copy")
    assert counted(table, *in_weights, *in_adapter) == nbytes(held(model))


@pytest.mark.parametrize("lora_rank", [4, 64])
def test_an_8_bit_optimiser_is_counted_to_the_byte(config, make_config, lora_rank):
    """Small tensors keep their moments in 32 bits, large ones in 8."""
    numbers = make_config(optimizer="paged_adamw_8bit", lora_rank=lora_rank)
    trained = [p for p in load_model(numbers).parameters() if p.requires_grad]
    stepper = make_optimizer(numbers.optimizer, trained, 1e-3)
    for parameter in trained:
        parameter.grad = torch.ones_like(parameter)
    stepper.step()
    state = [v for values in stepper.state.values() for v in values.values() if torch.is_tensor(v)]
    assert counted(account(config, numbers), "optimiser state") == nbytes(state)


@pytest.mark.parametrize("projector", ["trained", "frozen"])
@pytest.mark.parametrize("precision", ["nf4", "dense"])
def test_adapters_gradients_and_optimiser_are_those_of_what_is_trained(
    config, make_config, precision, projector
):
    numbers = make_config(precision=precision, projector=projector)
    table = account(config, numbers)
    trained = [p for p in load_model(numbers).parameters() if p.requires_grad]
    assert counted(table, "LoRA adapters", "projector's copy") == nbytes(trained)
    assert counted(table, "gradients") == sum(4 * p.numel() for p in trained)
    optimiser = torch.optim.AdamW(trained)
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    state = [t for values in optimiser.state.values() for t in values.values()]
    assert counted(table, "optimiser state") == sum(t.nbytes for t in state)


@pytest.mark.parametrize(
    ("config", "language", "everything"),
    [(LLAVA_7B, 6_738_939_904, 7_063_427_072), (LLAVA_13B, 13_016_519_680, 13_351_494_656)],
)
def test_llava_has_as_many_weights_as_its_makers_say(config, language, everything):
    """Vicuna's are Llama's 6,738,415,616 and 13,015,864,320, and 64 rows more at either end."""
    table = account(config, make_config("t4", precision="dense"))
    assert counted(table, "linear layers", "everything else") == 2 * everything
    eyes_and_projector = everything - language
    width = config.text_config.hidden_size
    assert eyes_and_projector == 303_507_456 + 1024 * width + width**2 + 2 * width
    assert image_tokens(config) == config.image_seq_length == 576


# ---- estimated: activations ----


@pytest.fixture(scope="module")
def batch(world, make_config):
    rows = world.decouple.head(8)
    processor = load_model(make_config(), adapt=False).processor
    return encode(processor, rows["image"], rows["question"], rows["answer"])


def saved_for_backward(model, batch, compute):
    """Bytes that autograd saves between a forward pass and its backward pass, weights aside."""
    own = {t.untyped_storage().data_ptr() for t in held(model)}
    saved = []

    def save(tensor):
        if tensor.untyped_storage().data_ptr() not in own:
            saved.append(tensor)
        return tensor

    longest = int((batch["labels"] != IGNORED).sum(-1).max())
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    mixed = compute != "float32"
    precision = torch.autocast("cpu", torch.bfloat16) if mixed else contextlib.nullcontext()
    with precision, torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        logits = model.train()(**inputs, logits_to_keep=longest + 1).logits
        nll(Answers(logits[:, :-1], batch["labels"][:, -longest:]))
    return nbytes(saved)


@pytest.mark.parametrize("precision", ["nf4", "dense"])
@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_activations_are_what_autograd_saves(config, make_config, batch, precision, compute):
    numbers = make_config(precision=precision, compute=compute)
    rows, length = batch["input_ids"].shape
    answer = int((batch["labels"] != IGNORED).sum(-1).max())
    model = load_model(numbers)
    table = account(config, numbers, rows=[(rows, 1)], answer_tokens=answer,
                    prompt_tokens=length - image_tokens(config) - answer)  # fmt: skip
    log_probabilities = rows * answer * config.text_config.vocab_size * 4
    saved = saved_for_backward(model, batch, compute) - log_probabilities
    # An estimate: what all layers share (positions, the mask's indices) is not counted.
    assert counted(table, "activations") == pytest.approx(saved, rel=0.01)


def test_checkpointing_keeps_one_layer_and_costs_nothing_else():
    plain = account(LLAVA_7B, make_config("t4", gradient_checkpointing=False)).set_index("part")
    saved = account(LLAVA_7B, make_config("t4")).set_index("part")
    changed = plain.index[plain["bytes"] != saved["bytes"]].tolist()
    assert changed == ["activations"]
    # One of 32 layers, and what goes into each of the others: an eighth leaves room for those.
    assert saved["bytes"]["activations"] < plain["bytes"]["activations"] / 8


def test_activations_grow_with_rows_and_with_length(config):
    numbers = make_config("tiny")
    one, two = (activation_bytes(config, numbers, [(rows, 100)]) for rows in (1, 2))
    assert two == 2 * one == activation_bytes(config, numbers, [(1, 100)] * 2)
    assert activation_bytes(config, numbers, [(1, 200)]) > 2 * one  # the mask is length squared


def test_a_part_is_a_picture_with_all_its_questions_or_with_a_piece_of_them():
    def rows(accumulation, taught=0):
        return rows_of_part(make_config("t4", pictures=8, accumulation=accumulation), taught)

    assert rows(1) == [(8, 8), (8, 4)]
    assert rows(8) == [(1, 8), (1, 4)]  # four forget and four retain questions; four of PD
    assert rows(16) == [(1, 4), (1, 2)]
    assert rows(32) == rows(64) == [(1, 2), (1, 1)]
    assert rows(16, taught=10) == [(1, 5)]


# ---- operations ----


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_step_takes_the_operations_that_torch_counts_in_a_real_one(
    config, world, make_config, checkpointing
):
    """A picture in two pieces; all questions and answers are of one length. What stands before the
    picture is counted for each question, and read once."""
    numbers = make_config(gradient_checkpointing=checkpointing, pictures=1, accumulation=2)
    model = load_model(numbers).train()
    model.get_base_model().set_attn_implementation("eager")  # torch does not count the others
    [row] = world.decouple.head(1).to_dict("records")
    vision_features(model, [row["image"]])
    before, question = split_prompt(model.processor, row["question"])
    answer = len(answer_ids(model.processor, row["answer"]))
    prompt = len(question), len(question) + len(before) - image_tokens(config)
    with FlopCounterMode(display=False) as counter:
        for questions in (4, 2, 4, 2):
            batch = pd.DataFrame([row] * questions)
            nll(answer_logits(model, batch)).backward()
    low, high = (step_flops(config, numbers, prompt_tokens=n, answer_tokens=answer) for n in prompt)
    # Recomputing a layer stops before its last product: the backward pass does not need it.
    assert (0.99 if checkpointing else 1) * low < counter.get_total_flops() < high < 1.2 * low


def test_hours_are_operations_over_the_used_share_of_the_peak():
    numbers = make_config("t4")
    total = numbers.steps * step_flops(LLAVA_7B, numbers)
    assert (
        training_hours(LLAVA_7B, numbers, "Tesla T4")
        == total / (UTILISATION * PEAK_FLOPS["T4"]) / 3600
    )
    assert training_hours(LLAVA_7B, numbers, "NVIDIA A100-SXM4-80GB") < training_hours(
        LLAVA_7B, numbers, "NVIDIA A10"
    )
    assert training_hours(LLAVA_7B, numbers, "a card nobody knows") is None


def test_13b_takes_about_13_over_7_of_7b():
    numbers = make_config("t4")
    ratio = step_flops(LLAVA_13B, numbers) / step_flops(LLAVA_7B, numbers)
    # The names round the sizes, and attention grows with width and layers, not with weights.
    assert ratio == pytest.approx(13.0 / 6.7, rel=0.02)


# ---- what follows from it ----


@pytest.mark.parametrize(("config", "model"), [(LLAVA_7B, HUB_7B), (LLAVA_13B, HUB_13B)])
def test_both_sizes_fit_a_t4_while_they_train_and_while_they_answer(config, model):
    """13B has smaller numbers of its own; with that of 7B its keys and values would not fit."""
    numbers = make_config("t4", model=model)
    assert peak_bytes(config, numbers) < T4_BYTES
    assert peak_bytes(LLAVA_13B, make_config("t4")) > 15 * 2**30


def test_7b_fits_a_t4_in_4_bit_and_does_not_in_16(config):
    in_4_bit = account(LLAVA_7B, make_config("t4"))["bytes"].sum()
    assert (
        in_4_bit < T4_BYTES < account(LLAVA_7B, make_config("t4", precision="dense"))["bytes"].sum()
    )


def test_double_quantisation_stores_a_weight_in_4_127_bits():
    """4 + 8/64 + 32/(64·256), as in QLoRA (arXiv 2305.14314)."""
    table = account(LLAVA_7B, make_config("t4"))
    linears = 2 * counted(table, "packed weights")
    bits = 8 * counted(table, "packed weights", "block constants") / linears
    # The tables of each layer (CODE_BYTES) come on top: 1,092 bytes per 16 million weights or more.
    assert bits == pytest.approx(4 + 8 / 64 + 32 / (64 * 256), abs=1e-3)


def test_the_chart_shows_every_group_and_the_line(config):
    tables = {
        "tiny": account(config, make_config("tiny")),
        "7B": account(LLAVA_7B, make_config("t4")),
    }
    chart = charts.memory(tables, line=T4_BYTES, line_label="T4")
    data = charts.numbers(chart)
    assert set(data["group"]) == set(GROUPS)
    total = sum(data.loc[data["model"] == "7B", "GB"])
    assert total == pytest.approx(tables["7B"]["bytes"].sum() / GB, abs=0.01)  # the chart rounds
    assert "7B: " in chart.description and "T4" in chart.description
