"""4-bit weights that were kept are those that would be made again."""

import pytest
import torch
from safetensors.torch import load_file

from safeerase_lite.models.forward import answer_logits
from safeerase_lite.models.llava import load_model
from safeerase_lite.models.quantised import save_quantised
from safeerase_lite.utils import UserError


@pytest.fixture(scope="module")
def kept(make_config, tmp_path_factory):
    return save_quantised(make_config(), tmp_path_factory.mktemp("models") / "kept")


def test_a_kept_model_has_the_same_weights_answers_and_adapter(kept, make_config, few):
    stored = load_file(kept / "model.safetensors")
    [name] = [name for name in stored if name.endswith("layers.0.mlp.up_proj.weight")]
    assert stored[name].dtype == torch.uint8  # two weights to a byte
    made = load_model(make_config(precision="nf4"))
    read = load_model(make_config(precision="nf4", model=str(kept)))
    after = read.state_dict()
    assert all(weight.equal(after[name]) for name, weight in made.state_dict().items())
    rows = few.forget.head(3)
    assert answer_logits(read, rows).logits.equal(answer_logits(made, rows).logits)


def test_a_kept_model_is_not_dense_again(kept, make_config):
    with pytest.raises(UserError, match="its weights are 4-bit"):
        load_model(make_config(model=str(kept), precision="dense"))


def test_a_folder_that_holds_something_is_left_alone(kept, make_config):
    with pytest.raises(UserError, match="is there already"):
        save_quantised(make_config(), kept)
