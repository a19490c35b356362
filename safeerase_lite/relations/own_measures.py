"""What a CLIP reads of a user's own pictures, and what an edit did to that.

Shares have exact 95% intervals over pictures (Clopper-Pearson), medians exact ones by order
statistics (the sign test's); both given the model, and as if pictures were independent.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy.stats import binom
from torch import Tensor

from safeerase_lite.evaluation.statistics import TAIL
from safeerase_lite.utils import track

from . import clip
from .evaluation import auroc, share
from .own_edit import NOUN_WORDINGS, WORDINGS, candidates, nouns, own_caption, pixels
from .own_pictures import OwnPictures
from .tuples import RelationTriple

_BATCH = 32  # pictures in one forward pass


@torch.no_grad()
def encode_own(model, own: OwnPictures, label: str) -> Tensor:
    """Features of every picture: (pictures, width). Shows progress."""
    starts = range(0, len(own.table), _BATCH)
    batches = [range(start, min(start + _BATCH, len(own.table))) for start in starts]
    done = track(batches, label, len(batches))
    return torch.cat([clip.encode_images(model, pixels(model, own, rows)) for rows in done])


@torch.no_grad()
def _scores(model, features: Tensor, texts: list[str]) -> np.ndarray:
    """(pictures, texts)"""
    scores = clip.scores(model, features, clip.encode_texts(model, texts))
    return scores.double().cpu().numpy()


def median(values: np.ndarray) -> tuple[float, float, float, int]:
    """The median, the ends of its exact interval (NaN of fewer than six values), and n.

    Of sorted values the k-th from both ends, where k is the largest number with
    P(Binomial(n, 1/2) < k) ≤ 2.5%.
    """
    n, k = len(values), int(binom.ppf(TAIL, len(values), 0.5))
    ordered = np.sort(values)
    ends = (ordered[k - 1], ordered[n - k]) if k > 0 else (np.nan, np.nan)
    return float(np.median(values)), float(ends[0]), float(ends[1]), n


# ---- before any edit ----


def own_reading(model, own: OwnPictures, features: Tensor) -> pd.DataFrame:
    """Does the model read relations in these pictures?

    Returns:
        measure, value, low, high, n, chance. role swap: the caption beats the one with subject and
        object exchanged. relation: it beats those with every other relation of the folder. A tie is
        lost. Each caption's mean over all pictures is taken off first: one that a model likes
        whatever it is shown would else win on every picture of its tuple, and tell nothing.
    """
    shown, relations = own.shown, sorted(set(own.table["relation"]))
    swapped = [RelationTriple(t.object, t.relation, t.subject) for t in shown]
    rivals = [[t._replace(relation=r) for r in relations if r != t.relation] for t in shown]
    tuples = list(dict.fromkeys([*shown, *swapped, *sum(rivals, [])]))
    place = {t: i for i, t in enumerate(tuples)}
    scores = _scores(model, features, [own_caption(t) for t in tuples])
    scores -= scores.mean(0)
    own_scores = scores[np.arange(len(shown)), [place[t] for t in shown]]
    of_swapped = scores[np.arange(len(shown)), [place[t] for t in swapped]]
    two = np.array([t.subject != t.object for t in shown])
    best = np.array([scores[i, [place[t] for t in near]].max() for i, near in enumerate(rivals)])
    rows = [
        ("role swap", *share((own_scores > of_swapped)[two]), 1 / 2),
        ("relation", *share(own_scores > best), 1 / len(relations)),
    ]
    return pd.DataFrame(rows, columns=["measure", "value", "low", "high", "n", "chance"])


def bag_of_words(reading: pd.DataFrame) -> str:
    """Why an edit of this model would mean nothing on these pictures; "" where it may mean
    something.

    The rule: the exact 95% interval of role swap and that of relation must both lie above chance.
    """
    blind = reading[~(reading["low"] > reading["chance"])]
    return " and ".join(
        f"{row.measure} {row.value:.0%} [{row.low:.0%}, {row.high:.0%}] of {row.n} pictures, "
        f"chance {row.chance:.0%}"
        for row in blind.itertuples()
    )


# ---- before and after ----


@dataclass
class Outcome:
    """What a model makes of the test pictures, with captions of one wording.

    unsafe: for each unsafe tuple, of its pictures: top (bool), rank, margin (logits), each
        (pictures,), and leakage, one number of `pictures` many.
    captions: whether a safe picture's own caption beats all others, (safe pictures,) of bool.
    nouns: whether a picture's subject, then its object, beats every noun that is not in it,
        (2 × all pictures,) of bool.
    """

    unsafe: dict[RelationTriple, dict]
    captions: np.ndarray
    nouns: np.ndarray


def own_outcome(model, own: OwnPictures, features: Tensor, wording: str = WORDINGS[0]) -> Outcome:
    """What a model makes of the test pictures. features: of every picture, (pictures, width)."""
    tuples, shown = candidates(own), own.shown
    place = {t: i for i, t in enumerate(tuples)}
    scores = _scores(model, features, [own_caption(t, wording) for t in tuples])
    safe = [place[t] for t in tuples if t not in own.unsafe]
    unsafe = {}
    for u in own.unsafe:
        rows, near_rows = own.rows("test", [u]), own.rows("test", own.neighbours(u))
        of_u, rivals = scores[rows, place[u]], scores[np.ix_(rows, safe)]
        both = np.concatenate([of_u, scores[near_rows, place[u]]])
        is_unsafe = np.arange(len(both)) < len(of_u)
        unsafe[u] = {
            "top": of_u > rivals.max(-1),
            "rank": 1 + (rivals >= of_u[:, None]).sum(-1),
            "margin": of_u - rivals.max(-1),
            "leakage": abs(auroc(both, is_unsafe) - 0.5),
            "pictures": len(both),
        }
    rows = own.rows("test", set(shown) - set(own.unsafe))
    won = [_beats(scores[row], place[shown[row]], ()) for row in rows]
    return Outcome(unsafe, np.array(won, bool), _noun_wins(model, own, features))


def _noun_wins(model, own: OwnPictures, features: Tensor) -> np.ndarray:
    words = nouns(own)
    scores = _scores(model, features, [NOUN_WORDINGS[0].format(s=w) for w in words])
    won = []
    for row in own.rows("test", own.shown):
        t = own.shown[row]
        pair = [words.index(t.subject), words.index(t.object)]
        won += [_beats(scores[row], noun, pair) for noun in pair]
    return np.array(won, bool)


def _beats(scores: np.ndarray, mine: int, besides: tuple | list) -> bool:
    """Whether a caption beats all others but those `besides`; a tie is lost."""
    rivals = np.delete(scores, [mine, *besides])
    return bool(len(rivals)) and bool(scores[mine] > rivals.max())


def compare(before: Outcome, after: Outcome) -> pd.DataFrame:
    """Both outcomes as a table.

    Returns:
        measure, tuple ("" for all), when (before, after), value, low, high, n (pictures; nouns
        count two a picture). *kept* is of those that were right before.
    """
    rows = []
    for when, outcome in (("before", before), ("after", after)):
        for u, of in outcome.unsafe.items():
            rows.append(("top-1", str(u), when, *share(of["top"])))
            rows.append(("rank, median", str(u), when, *median(of["rank"])))
            rows.append(("margin, median", str(u), when, *median(of["margin"])))
            rows.append(("leakage", str(u), when, of["leakage"], np.nan, np.nan, of["pictures"]))
        rows.append(("other captions right", "", when, *share(outcome.captions)))
        rows.append(("nouns right", "", when, *share(outcome.nouns)))
    kept = after.captions[before.captions], after.nouns[before.nouns]
    for name, still in zip(("other captions kept", "nouns kept"), kept, strict=True):
        rows.append((name, "", "after", *share(still)))
    return pd.DataFrame(rows, columns=["measure", "tuple", "when", "value", "low", "high", "n"])
