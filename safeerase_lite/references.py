"""What a model said before its unlearning, kept from the first time a question is asked."""

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor

from .batches import IGNORED, answer_ids, encode_text
from .forward import answer_states
from .kept import Kept
from .models import reference
from .objectives import Answers

ROOM = 2 * 2**30  # bytes; 140 words of LLaVA-1.5-7B take about 1.6 MB in half precision


class Reference:
    """The frozen model, as KL and NPO ask it. It is the same at every step, so a question is asked
    once in a run: kept are the hidden states that predict its answer, a width per token, and not
    the logits, a vocabulary per token.

    The last bits of what is said depend on what is asked in the same pass. So that a run taken up
    again is the run it would have been, a question is always asked with the same others, or alone.

    Args:
        model: from `load_llava`, adapted.
        table: questions to come: asked `together` at a time, neighbours by length, if there is room
            to keep them all. Any other question is asked alone.
    """

    def __init__(self, model, table: pd.DataFrame | None = None, together: int = 1):
        self.model, self.states = model, Kept(ROOM)
        rows = [] if table is None else sorted(set(_rows(table)), key=_length)
        if self._bytes(rows) > ROOM:
            together = 1
        groups = [tuple(rows[i : i + together]) for i in range(0, len(rows), together)]
        self.company = {row: group for group in groups for row in group}

    def answers(self, table: pd.DataFrame) -> Answers:
        """What the frozen model says of a table's answers."""
        model = self.model
        labels = encode_text(model.processor, table["question"], table["answer"])["labels"]
        tokens = (labels != IGNORED).sum(-1).tolist()
        states = [self._of(row)[-n:] for row, n in zip(_rows(table), tokens, strict=True)]
        labels = labels[:, -max(tokens) :].to(model.device)
        padded = states[0].new_zeros(*labels.shape, states[0].shape[-1]).to(model.device)
        padded[labels != IGNORED] = torch.cat(states).to(model.device)
        with torch.no_grad():
            return Answers(model.get_output_embeddings()(padded), labels)

    def _of(self, row: tuple) -> Tensor:
        """(columns, width): what predicts the answer of a question stands in its last rows."""
        company = self.company.get(row, (row,))
        return self.states.get(company, lambda: self._ask(company))[company.index(row)]

    def _ask(self, rows: Sequence[tuple]) -> Tensor:
        """(rows, columns, width): what predicts each of an answer's tokens, the end token included,
        as many columns as the longest answer has tokens."""
        images, questions, answers = zip(*rows, strict=True)
        encoded = encode_text(self.model.processor, questions, answers)
        encoded = {key: value.to(self.model.device) for key, value in encoded.items()}
        columns = int((encoded["labels"] != IGNORED).sum(-1).max())
        with reference(self.model):
            states = answer_states(self.model, encoded, images, columns + 1)
        return states[:, :-1].to(self.model.get_output_embeddings().weight.dtype)

    def _bytes(self, rows: list[tuple]) -> int:
        """What they would take if every answer were as long as the longest."""
        head, processor = self.model.get_output_embeddings().weight, self.model.processor
        longest = max((len(answer_ids(processor, answer)) for _, _, answer in rows), default=0)
        return len(rows) * longest * head.shape[1] * head.itemsize


def _rows(table: pd.DataFrame) -> list[tuple]:
    return list(table[["image", "question", "answer"]].itertuples(index=False, name=None))


def _length(row: tuple) -> tuple:
    _, question, answer = row
    return len(question) + len(answer), row
