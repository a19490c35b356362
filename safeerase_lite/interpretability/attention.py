"""What a model reads of the picture when it begins its answer."""

import pandas as pd
import torch

from safeerase_lite.models.forward import read
from safeerase_lite.models.hooks import recorded_attention
from safeerase_lite.utils import track


def picture_attention(model, table: pd.DataFrame) -> pd.DataFrame:
    """Where attention goes from the last token of the prompt, the one that predicts the answer's
    first, the mean over heads.

    Args:
        model: a LLaVA with its processor, adapted or not.
        table: a row per question, with the columns image, question and answer.

    Returns:
        A row per question and layer: row (of the table, from 0), layer (from 1), picture (share on
        the picture's tokens), words (share on what follows it, the question); the rest is on what
        stands before the picture.
    """
    rows, token = [], model.processor.image_token_id
    with torch.no_grad(), recorded_attention(model) as weights:
        for packed, _ in track(read(model, table), "attention"):
            for line, row in enumerate(packed):
                ids = torch.tensor(row.ids)
                picture = ids == token
                after = torch.arange(len(ids)) > picture.nonzero().max()
                for number, places in row.predictors.items():
                    for layer, of_layer in enumerate(weights, 1):
                        given = of_layer[line, places[0], : len(ids)].cpu()
                        shares = float(given[picture].sum()), float(given[after].sum())
                        rows.append((number, layer, *shares))
    columns = ["row", "layer", "picture", "words"]
    return pd.DataFrame(rows, columns=columns).sort_values(["row", "layer"], ignore_index=True)
