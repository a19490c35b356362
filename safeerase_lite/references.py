"""What a model said before its unlearning, kept from the first time a question is asked."""

import pandas as pd
import torch

from .batches import IGNORED, encode_text
from .kept import Kept
from .models import reference
from .objectives import Answers
from .vision import embed, llava_of

ROOM = 2 * 2**30  # bytes; 140 words of LLaVA-1.5-7B take about 1.6 MB in half precision


class Reference:
    """The frozen model, as KL and NPO ask it. It is the same at every step, so a question is asked
    once in a run: kept are the hidden states that predict its answer, a width per token, and not
    the logits, a vocabulary per token.

    Each question is asked alone, for among others its last bits would depend on their lengths.
    """

    def __init__(self, model):
        self.model, self.states = model, Kept(ROOM)

    def answers(self, table: pd.DataFrame) -> Answers:
        """What the frozen model says of a table's answers."""
        model, rows = self.model, table[["image", "question", "answer"]].itertuples(index=False)
        states = [self.states.get(row, lambda row=row: self._ask(*row)) for row in rows]
        labels = encode_text(model.processor, table["question"], table["answer"])["labels"]
        labels = labels[:, -max(map(len, states)) :].to(model.device)
        padded = states[0].new_zeros(*labels.shape, states[0].shape[-1]).to(model.device)
        padded[labels != IGNORED] = torch.cat(states).to(model.device)
        with torch.no_grad():
            return Answers(model.get_output_embeddings()(padded), labels)

    def _ask(self, image: str, question: str, answer: str) -> torch.Tensor:
        """(tokens, width): what predicts each of the answer's tokens, the end token included."""
        encoded = encode_text(self.model.processor, [question], [answer])
        tokens = int((encoded["labels"] != IGNORED).sum())
        encoded = {key: value.to(self.model.device) for key, value in encoded.items()}
        with reference(self.model):
            states = llava_of(self.model)(
                inputs_embeds=embed(self.model, encoded["input_ids"], [image]),
                attention_mask=encoded["attention_mask"],
                use_cache=False,
            ).last_hidden_state
        return states[0, -tokens - 1 : -1].to(self.model.get_output_embeddings().weight.dtype)
