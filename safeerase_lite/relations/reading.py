"""Does a CLIP read relations at all? Asked before anything is unlearned.

Real CLIP is nearly a bag of words (ARO, Yuksekgonul et al. 2023): it knows that a horse, grass and
eating are there, and hardly who eats what.
"""

import numpy as np
import pandas as pd

from safeerase_lite.evaluation.statistics import exact_interval
from safeerase_lite.relations.clip import load_clip, pixels
from safeerase_lite.relations.data import held_out_combinations, scenes_of
from safeerase_lite.relations.editing import NOUNS, Edited
from safeerase_lite.relations.exam import NOUN_CAPTIONS, TUPLES, share_two
from safeerase_lite.relations.measures import wins
from safeerase_lite.relations.scenes import draw
from safeerase_lite.relations.tuples import role_swap
from safeerase_lite.relations.words import HELD_OUT_WORDINGS, WORDINGS, caption


def reading(model: str = "tiny-clip", split: str = "test") -> pd.DataFrame:
    """What a CLIP reads in pictures of every tuple of the world, one of each.

    Returns:
        measure, wording, tuples (seen, held out: combinations it never met), value, low, high, n.
        tuple top-1: its caption beats all that share two slots with it.  role swap: it beats the
        one in which the two have changed places.  noun: the subject beats every noun that is not in
        the picture.
    """
    clip = load_clip(model)
    edited = Edited(clip)
    looked = edited.look(pixels(clip, [draw(scene) for scene in scenes_of(TUPLES, split, 1)]))
    own, rivals = np.arange(len(TUPLES)), share_two(TUPLES)
    unmet = np.array([t in held_out_combinations() for t in TUPLES])
    turned = np.array([TUPLES.index(role_swap(t) or t) for t in TUPLES])
    can_turn = turned != own
    rows = []
    for wording in (*WORDINGS, *HELD_OUT_WORDINGS):
        said = edited.read([caption(*t, wording) for t in TUPLES])
        scores = edited.scores(looked, said).numpy()
        won = wins(scores, own, rivals)
        in_order = scores[own, own] > scores[own, turned]
        for name, here in (("seen", ~unmet), ("held out", unmet)):
            rows.append(("tuple top-1", wording, name, won[here]))
            rows.append(("role swap", wording, name, in_order[here & can_turn]))
    nouns = edited.scores(looked, edited.read(NOUN_CAPTIONS)).numpy()
    places = {
        s: np.array([NOUNS.index(getattr(t, s)) for t in TUPLES]) for s in ("subject", "object")
    }
    absent = np.ones_like(nouns, dtype=bool)
    for shown in places.values():
        absent[own, shown] = False
    for slot, shown in places.items():
        rows.append((f"noun, {slot}", "", "all", wins(nouns, shown, absent)))
    table = [
        (*named, share := float(hits.mean()), *exact_interval(share, len(hits)), len(hits))
        for *named, hits in rows
    ]
    columns = ["measure", "wording", "tuples", "value", "low", "high", "n"]
    return pd.DataFrame(table, columns=columns)
