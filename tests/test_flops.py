"""The count of operations is what torch counts, and hours follow from it by one stated share."""

import pytest
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig

from safeerase_lite.config import profile
from safeerase_lite.models.forward import Answers, embed, features
from safeerase_lite.models.inputs import IGNORED, encode_text
from safeerase_lite.models.llava import load_model
from safeerase_lite.resources import (
    LLAVA_7B,
    LLAVA_13B,
    PEAK,
    USABLE,
    image_tokens,
    step_flops,
    training_hours,
)
from safeerase_lite.unlearning.objectives import nll


@pytest.mark.parametrize("checkpointing", [False, True])
def test_it_counts_what_torch_counts(tiny_model_dir, world, make_profile, checkpointing):
    """To a twentieth: the projector is left out."""
    numbers = make_profile(gradient_checkpointing=checkpointing)
    config, model = AutoConfig.from_pretrained(tiny_model_dir), load_model(numbers).train()
    model.get_base_model().set_attn_implementation("eager")  # torch does not count the others
    rows = world.decouple.head(3 * numbers.batch)
    batch = encode_text(model.processor, rows["question"], rows["answer"])
    features(model, rows["image"])
    answer = int((batch["labels"] != IGNORED).sum(-1).max())
    with FlopCounterMode(display=False) as counter:
        logits = model(
            inputs_embeds=embed(model, batch["input_ids"], rows["image"]),
            attention_mask=batch["attention_mask"],
            logits_to_keep=answer + 1,
            use_cache=False,
        ).logits
        nll(Answers(logits[:, :-1], batch["labels"][:, -answer:])).backward()
    prompt = batch["input_ids"].shape[1] - image_tokens(config) - answer
    counted = step_flops(config, numbers, prompt_tokens=prompt, answer_tokens=answer)
    assert counted == pytest.approx(counter.get_total_flops(), rel=0.05)


def test_hours_are_operations_over_the_usable_share_of_the_peak():
    numbers = profile("t4")
    whole = numbers.steps * step_flops(LLAVA_7B, numbers)
    assert training_hours(LLAVA_7B, numbers, "Tesla T4") == whole / (USABLE * PEAK["T4"]) / 3600
    assert training_hours(LLAVA_7B, numbers, "NVIDIA A100-SXM4-80GB") < training_hours(
        LLAVA_7B, numbers, "NVIDIA A10"
    )
    assert training_hours(LLAVA_7B, numbers, "a card nobody knows") is None


def test_13b_takes_about_13_over_7_of_7b():
    numbers = profile("t4")
    ratio = step_flops(LLAVA_13B, numbers) / step_flops(LLAVA_7B, numbers)
    assert ratio == pytest.approx(13.0 / 6.7, rel=0.05)
