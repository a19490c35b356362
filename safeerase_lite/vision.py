"""What a LLaVA's frozen vision tower sees in a picture: computed once, then looked up.

The projector behind it is trained, so it is applied anew each time.
"""

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from .batches import pixels
from .kept import Kept
from .pictures import written

ROOM = 4 * 2**30  # bytes for each model; a picture of LLaVA-1.5 takes 1.2 MB in half precision

_SEEN: WeakKeyDictionary[nn.Module, Kept] = WeakKeyDictionary()  # goes with its tower


def embed(model, input_ids: Tensor, images: Sequence[str]) -> Tensor:
    """What the language model reads: (batch, length, width), each row's picture in its place.

    Args:
        model: a LLaVA with its processor; where it is adapted, its trained projector is applied.
        input_ids: (batch, length), from `batches.encode_text`, on the model's device.
        images: paths of pictures, one per row.
    """
    llava = llava_of(model)
    words = llava.get_input_embeddings()(input_ids)
    pictures = llava.multi_modal_projector(features(model, images)).to(words.dtype)
    picture_tokens = (input_ids == model.processor.image_token_id)[..., None]
    return words.masked_scatter(picture_tokens, pictures)


def features(model, images: Sequence[str]) -> Tensor:
    """The hidden states that the projector reads: (pictures, patches, width), in the tower's type
    and on its device. Each picture passes through the tower alone, whoever shares its batch."""
    llava = llava_of(model)
    seen = _SEEN.setdefault(llava.vision_tower, Kept(ROOM))
    found = [
        seen.get(written(path), lambda path=path: _look(model, llava, path)) for path in images
    ]
    return torch.stack(found).to(model.device)


def _look(model, llava: nn.Module, path: str) -> Tensor:
    like, config = next(llava.vision_tower.parameters()), llava.config
    picture = pixels(model.processor, path)[None].to(like)
    states = llava.vision_tower(picture, output_hidden_states=True).hidden_states
    first = 1 if config.vision_feature_select_strategy == "default" else 0  # 0 is the class token
    layers = config.vision_feature_layer
    chosen = [states[n][0, first:] for n in ([layers] if isinstance(layers, int) else layers)]
    return torch.cat(chosen, dim=-1).to(like.dtype)


def llava_of(model) -> nn.Module:
    """Tower, projector and language model, without the output head, adapted or not."""
    return (model.get_base_model() if hasattr(model, "get_base_model") else model).model
