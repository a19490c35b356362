"""The one place for hooks: read what happens inside a language model, and change it.

The *residual stream* of a model of n blocks has n + 1 layers: 0 is what enters the first block
(words and picture), k is what leaves block k. Where the parts are, the family's `Anatomy` says.
Every hook lives in a `with`, and is gone after it, whatever happens inside.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn

from safeerase_lite.utils import UserError

from .anatomy import anatomy_of
from .forward import language_model, llava_of

Edit = Callable[[Tensor], Tensor]


def blocks(model) -> nn.ModuleList:
    """The transformer blocks of the language model, adapted or not."""
    return getattr(language_model(model), anatomy_of(llava_of(model).config).blocks)


def last_norm(model) -> nn.Module:
    """The norm between the last block and the output head."""
    return getattr(language_model(model), anatomy_of(llava_of(model).config).norm)


@contextmanager
def recorded_states(model) -> Iterator[list[Tensor]]:
    """The residual stream of the latest pass: a list of n + 1 tensors (rows, length, width).

    As `output_hidden_states` of transformers, but for the last layer, which is taken before the
    norm, as all others are.
    """
    states: list[Tensor] = []

    def enter(_, inputs, kwargs):
        states[:] = [inputs[0] if inputs else kwargs["hidden_states"]]

    def leave(_, inputs, output):
        states.append(_stream(output))

    with ExitStack() as hooks:
        first, *_ = stack = blocks(model)
        hooks.callback(first.register_forward_pre_hook(enter, with_kwargs=True).remove)
        for block in stack:
            hooks.callback(block.register_forward_hook(leave).remove)
        yield states


@contextmanager
def recorded_attention(model) -> Iterator[list[Tensor]]:
    """The attention weights of the latest pass, a list of n tensors (rows, length, length), the
    mean over heads: how much each token (dim 1) reads of each (dim 2); rows sum to 1.

    Only the "eager" implementation computes weights at all. It is switched on for as long as the
    `with` lasts; the model is not loaded again.
    """
    weights: list[Tensor] = []

    def keep(module, inputs, output):
        if module is first:
            weights.clear()
        weights.append(output[1].float().mean(1))

    text, name = language_model(model), anatomy_of(llava_of(model).config).attention
    before = text.config._attn_implementation
    first, *_ = attending = [getattr(b, name) for b in blocks(model) if hasattr(b, name)]
    with ExitStack() as hooks:
        text.set_attn_implementation("eager")
        hooks.callback(text.set_attn_implementation, before)
        for module in attending:
            hooks.callback(module.register_forward_hook(keep).remove)
        yield weights


@contextmanager
def added(model, direction: Tensor, layer: int, dose: float = 1.0) -> Iterator[None]:
    """The model with dose × direction (width) added at one layer of the stream, at every token.

    Activation addition: x ← x + r (Arditi et al. 2024, arXiv 2406.11717, who add at every token
    of one layer too).

    Raises:
        UserError: no such layer.
    """
    stack = blocks(model)
    if not 0 <= layer <= len(stack):
        raise UserError(f"layer {layer} of the stream: a model of {len(stack)} blocks has 0 to "
                        f"{len(stack)}")  # fmt: skip

    def shift(states: Tensor) -> Tensor:
        return states + dose * direction.to(states)

    with ExitStack() as hooks:
        if layer == 0:
            hooks.callback(_before(stack[0], shift))
        else:
            hooks.callback(_after(stack[layer - 1], shift))
        yield


@contextmanager
def ablated(model, direction: Tensor, dose: float = 1.0) -> Iterator[None]:
    """The model that cannot represent a direction (width): it is projected out of everything that
    writes to the stream (embeddings, attention, feed-forward), at every token.

    Directional ablation: x ← x − r̂ r̂ᵀ x (Arditi et al. 2024, arXiv 2406.11717). A dose below 1
    takes out that share of the component; the paper's is 1.
    """
    anatomy = anatomy_of(llava_of(model).config)

    def project(states: Tensor) -> Tensor:
        unit = (direction / direction.norm()).to(states)
        return states - dose * (states @ unit)[..., None] * unit

    with ExitStack() as hooks:
        stack = blocks(model)
        again = getattr(llava_of(model).config.vision_config, "deepstack_visual_indexes", ())
        for block in stack[: 1 + len(again)]:  # Qwen3-VL adds to the picture's tokens once more
            hooks.callback(_before(block, project))
        for block in stack:
            for part in (part for part in anatomy.writers if hasattr(block, part)):
                hooks.callback(_after(getattr(block, part), project))
        yield


def _before(module: nn.Module, edit: Edit) -> Callable[[], None]:
    """Edit what enters a module; the returned function takes the hook off."""

    def hook(_, inputs, kwargs):
        if inputs:
            return (edit(inputs[0]), *inputs[1:]), kwargs
        return inputs, kwargs | {"hidden_states": edit(kwargs["hidden_states"])}

    return module.register_forward_pre_hook(hook, with_kwargs=True).remove


def _after(module: nn.Module, edit: Edit) -> Callable[[], None]:
    """Edit what leaves a module; the returned function takes the hook off."""

    def hook(_, inputs, output):
        if isinstance(output, tuple):
            return (edit(output[0]), *output[1:])
        return edit(output)

    return module.register_forward_hook(hook).remove


def _stream(output: Tensor | tuple) -> Tensor:
    """The hidden states in a block's output: of some families it is a tuple."""
    return output[0] if isinstance(output, tuple) else output
