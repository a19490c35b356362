"""A picture's keys and values, computed once for all questions about it and their samples."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from .anatomy import anatomy_of
from .forward import embed, language_model, llava_of, row_tensors
from .inputs import image_tokens, pack_tokens, pad, split_prompt

PREFIX_BYTES = 2**30  # three pictures of LLaVA-1.5-7B in half precision

Prefix = tuple[str, tuple[int, ...]]  # a picture's path, and the prompt's tokens up to its end


class Prefixes:
    """The keys and values of the pictures that a model, as it is now, was asked about last."""

    def __init__(self, model):
        self.model = model
        self.shared = anatomy_of(llava_of(model).config).packs
        self.states: dict[Prefix, Tensor] = {}  # (layers, length, 2, heads, width of a head)
        text = model.config.get_text_config()
        width = text.num_key_value_heads * (
            getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        )
        tokens = text.num_hidden_layers * image_tokens(model.processor)
        self.limit = max(1, PREFIX_BYTES // (2 * width * tokens * model.dtype.itemsize))  # pictures

    def inputs(
        self, images: Sequence[str], questions: Sequence[str], begun: Sequence[tuple[int, ...]]
    ) -> dict:
        """What `generate` of transformers reads of questions about pictures.

        Args:
            begun: the tokens with which each answer has begun, if any.

        Returns:
            input_ids (rows, length): what follows the pictures; past_key_values; and
            attention_mask, over both. All are padded on the left.
        """
        asked = zip(questions, images, strict=True)
        prompts = [split_prompt(self.model.processor, *one) for one in asked]
        prefixes = [(image, before) for image, (before, _) in zip(images, prompts, strict=True)]
        befores = [before for before, _ in prompts]
        afters = [(*after, *answer) for (_, after), answer in zip(prompts, begun, strict=True)]
        self._compute(list(dict.fromkeys(prefixes)))
        of_rows = [self.states[one] for one in prefixes]
        layers = (_padded([states[n] for states in of_rows]) for n in range(len(of_rows[0])))
        attended = [pad([[1] * len(row) for row in rows], 0) for rows in (befores, afters)]
        padding = self.model.processor.tokenizer.pad_token_id
        return {
            "input_ids": pad(afters, padding).to(self.model.device),
            "attention_mask": torch.cat(attended, dim=1).to(self.model.device),
            "past_key_values": DynamicCache(layers, config=self.model.config),
        }

    def _compute(self, prefixes: list[Prefix]) -> None:
        """Let the model read the pictures that are new, those with as many tokens together."""
        new = [one for one in prefixes if one not in self.states]
        surplus = max(0, len(self.states) + len(new) - self.limit)
        for old in [one for one in self.states if one not in prefixes][:surplus]:
            del self.states[old]
        for length in sorted({len(tokens) for _, tokens in new}):
            images, tokens = zip(*(one for one in new if len(one[1]) == length), strict=True)
            cache = DynamicCache(config=self.model.config)
            embeddings = embed(self.model, torch.tensor(tokens, device=self.model.device), images)
            language_model(self.model)(inputs_embeds=embeddings, past_key_values=cache)
            states = torch.stack([torch.stack(layer[:2]) for layer in cache])
            states = states.permute(2, 0, 4, 1, 3, 5)
            self.states |= zip(zip(images, tokens, strict=True), states, strict=True)


def whole_inputs(
    model, images: Sequence[str], questions: Sequence[str], begun: Sequence[tuple[int, ...]]
) -> dict:
    """What `generate` of transformers reads of questions whose pictures nothing is kept of; as
    `Prefixes.inputs`, for families that do not pack and for questions in words alone."""
    rows = pack_tokens(model.processor, images, questions, begun, together=False)
    return row_tensors(model, rows, "left")


def _padded(states: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Keys and values of a layer, (rows, heads, longest, width of a head), from those of each."""
    keys, values = pad_sequence(states, batch_first=True, padding_side="left").unbind(2)
    return keys.transpose(1, 2), values.transpose(1, 2)
