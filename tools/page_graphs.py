"""The tiny LLaVA as ONNX graphs and weights, for a browser (`tools/build_page.py`).

One pair of graphs serves every model: `picture` (vision tower and projector) and `language` (a
prompt, or one token more, with a key-value cache). Their weights are files of their own: `base.bin`
(float16, as the model ships) and, for each adapter, its LoRA factors and its projector (float32).
The browser lays an adapter over the base, W + (alpha / r) B A, as PEFT merges one.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx.external_data_helper import set_external_data
from torch import Tensor, nn
from transformers import DynamicCache

from safeerase_lite.config import Config
from safeerase_lite.models import hooks
from safeerase_lite.models.llava import LEARNING, adapter_weights, add_adapter, load_model

WEIGHTS = "weights"  # the file that both graphs name; the browser makes it
LEAST = torch.finfo(torch.float32).min
OPSET = 18


class Picture(nn.Module):
    """(1, 3, side, side) → what the language model reads of a picture, (1, tokens, width)."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        return self.model.model.get_image_features(pixel_values=pixels).pooler_output[0][None]


class Language(nn.Module):
    """The next token's logits, with the interventions of `models.hooks`.

    Args of `forward`:
        ids: (1, n), the tokens that are new.
        features: (1, n, width), what stands where `ids` has the picture's token.
        keys, values: (layers, 1, heads, past, width of a head).
        direction, share: (width) and (), of `hooks.ablated`; a share of 0 changes nothing.
        shifts: (layers, width), of `hooks.added` at every layer of the stream.

    Returns:
        logits (1, vocabulary) of the last token, and keys and values with the new tokens.
    """

    def __init__(self, model):
        super().__init__()
        self.model, self.image_token = model, model.config.image_token_index

    def forward(self, ids, features, keys, values, direction, share, shifts):
        language = self.model.model.language_model
        picture = (ids == self.image_token)[..., None]
        embeddings = torch.where(picture, features, language.embed_tokens(ids))
        past, new = keys.shape[3], ids.shape[1]
        places = past + torch.arange(new)
        hidden = torch.arange(past + new)[None] > places[:, None]
        mask = torch.where(hidden, LEAST, 0.0)[None, None]
        cache = DynamicCache(list(zip(keys, values, strict=True)), config=language.config)
        with hooks.ablated(self.model, direction, share), _shifted(self.model, shifts):
            states = language(
                inputs_embeds=embeddings,
                attention_mask=mask,
                position_ids=places[None],
                past_key_values=cache,
            ).last_hidden_state
        keys = torch.stack([layer.keys for layer in cache.layers])
        values = torch.stack([layer.values for layer in cache.layers])
        return self.model.lm_head(states[:, -1]), keys, values


def _shifted(model, shifts: Tensor) -> ExitStack:
    """A direction added at every place of the stream."""
    stack = ExitStack()
    for place, shift in enumerate(shifts):
        stack.enter_context(hooks.added(model, shift, place))
    return stack


def write_model(config: Config, adapters: dict[str, Path], folder: Path) -> dict:
    """Write the graphs and all weights into a folder.

    Args:
        config: names the base model.
        adapters: name → the folder of a trained adapter, in PEFT's format.

    Returns:
        What the browser has to know of them: for each graph its weights in the order of its file,
        [name, shape]; for the base and each adapter, name → [offset in numbers, shape]; `scale`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = load_model(config, adapt=False).requires_grad_(False)
    weights = {name: p.detach() for name, p in model.named_parameters()}
    graphs = {
        name: _write_graph(program, weights, folder / f"{name}.onnx")
        for name, program in _programs(model)
    }
    used = {name for graph in graphs.values() for name, _ in graph}
    base = {name: weight for name, weight in weights.items() if name in used}
    for name, weight in base.items():
        if not torch.equal(weight, weight.half().float()):
            raise ValueError(f"{name} is not float16, as the base model ships")
    layout = {"base": _write_weights(base, folder / "base.bin", "<f2")}
    scales = set()
    for name, path in adapters.items():
        factors, scale = adapter(config, path)
        scales.add(scale)
        layout[name] = _write_weights(factors, folder / f"{name}.bin", "<f4")
    return {"graphs": graphs, "weights": layout, "scale": scales.pop()}


def adapter(config: Config, folder: Path) -> tuple[dict[str, Tensor], float]:
    """An adapter's weights by the names of the base model's parameters ("….lora_A", "….lora_B" for
    the two factors of one), and alpha / r."""
    model = add_adapter(load_model(config, adapt=False), folder, LEARNING)
    settings = model.peft_config[LEARNING]
    named = {}
    for name, weight in adapter_weights(model).items():
        own = name.removeprefix("base_model.model.")
        if ".lora_" in own:
            own = own.replace(".lora_A.weight", ".weight.lora_A")
            own = own.replace(".lora_B.weight", ".weight.lora_B")
        named[own] = weight.detach()
    return named, settings.lora_alpha / settings.r


def _programs(model) -> Iterator[tuple[str, torch.onnx.ONNXProgram]]:
    text = model.config.text_config
    places, width = text.num_hidden_layers + 1, text.hidden_size
    side = model.config.vision_config.image_size
    yield (
        "picture",
        torch.onnx.export(
            Picture(model).eval(),
            (torch.zeros(1, 3, side, side),),
            input_names=["pixels"],
            output_names=["features"],
            opset_version=OPSET,
            optimize=False,  # it would fold weights into others that have no name
            verbose=False,
        ),
    )
    past = (text.num_hidden_layers, 1, text.num_key_value_heads, 5, text.head_dim)
    example = {
        "ids": torch.tensor([[1, model.config.image_token_index, 5]]),
        "features": torch.zeros(1, 3, width),
        "keys": torch.zeros(past),  # one tensor given twice would become one input
        "values": torch.zeros(past),
        "direction": torch.ones(width),
        "share": torch.tensor(0.5),
        "shifts": torch.zeros(places, width),
    }
    new, before = torch.export.Dim("new"), torch.export.Dim("past")
    dynamic = dict.fromkeys(example) | {"ids": {1: new}, "features": {1: new}}
    yield (
        "language",
        torch.onnx.export(
            Language(model).eval(),
            (),
            kwargs=example,
            input_names=list(example),
            output_names=["logits", "new_keys", "new_values"],
            dynamic_shapes=dynamic | {"keys": {3: before}, "values": {3: before}},
            opset_version=OPSET,
            optimize=False,
            verbose=False,
        ),
    )


def _write_graph(program, weights: dict[str, Tensor], path: Path) -> list[tuple[str, list[int]]]:
    """Write a graph whose weights are outside it; they, in the order of their file."""
    proto = program.model_proto
    outside, offset = [], 0
    for tensor in proto.graph.initializer:
        name = tensor.name.removeprefix("model.")
        if name not in weights:
            continue
        size = 4 * int(np.prod(tensor.dims))
        set_external_data(tensor, WEIGHTS, offset, size)
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        outside.append((name, list(tensor.dims)))
        offset += size
    for node in proto.graph.node:  # where each comes from in PyTorch: ten times the graph itself
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    proto.graph.ClearField("value_info")
    path.write_bytes(proto.SerializeToString())
    return outside


def _write_weights(weights: dict[str, Tensor], path: Path, kind: str) -> dict[str, tuple]:
    layout, offset = {}, 0
    with path.open("wb") as file:
        for name, weight in weights.items():
            file.write(weight.float().numpy().astype(kind).tobytes())
            layout[name] = (offset, list(weight.shape))
            offset += weight.numel()
    return layout


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")), "utf-8")
