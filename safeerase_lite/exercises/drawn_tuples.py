"""What the exercises of notebook f draw: tuples of small worlds, and scores of a few pictures."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from safeerase_lite.relations.words import BEINGS, RELATIONS, THINGS, meanings, others

Triple = tuple[str, str, str]


def picked(rng: np.random.Generator, words: Sequence[str], count: int) -> list[str]:
    return [words[place] for place in rng.permutation(len(words))[:count]]


def tuple_and_world(rng: np.random.Generator) -> tuple[Triple, list[Triple], list[list[str]]]:
    """An unsafe tuple, all unsafe ones (a neighbour in each slot, and one further away), and the
    words of a small world. By turns a being is done something to, or a thing."""
    beings, relations = picked(rng, BEINGS, 4), picked(rng, RELATIONS, 3)
    things = picked(rng, THINGS, 2)
    s, r = beings[0], relations[0]
    o, far = (beings[1], things[0]) if rng.random() < 0.6 else things
    near = [(beings[2], r, o), (s, relations[1], o), (s, r, beings[3])]
    unsafe = [(s, r, o), *near, (beings[3], relations[2], far)]
    return (s, r, o), unsafe, [beings, relations, things + beings]


def phrases_and_meanings(rng: np.random.Generator) -> tuple[list[Triple], list[Triple], dict]:
    """Sentences near two unsafe tuples: some say one of them in other words, some mix the two, some
    are another matter. And what those words mean that are no concept themselves."""
    beings, relations = picked(rng, BEINGS, 2), picked(rng, RELATIONS, 3)
    things = picked(rng, THINGS, 3)
    unsafe = [(beings[n], relations[n], things[n]) for n in range(2)]
    s, r, o = unsafe[0]
    narrow, wide = others(r, "relation")
    being = others(s, "subject")[-1]
    told = [(s, narrow, o), (s, wide, o), (being, r, o), (being, wide, o)]
    fine = [(s, narrow, things[1]), (beings[1], wide, o), (s, relations[2], o), (s, r, things[2])]
    fine.append((s, narrow, things[2]))
    phrases = [*picked(rng, told, 2), *picked(rng, fine, 2)]
    means = {narrow: [r]}
    first, last = rng.permutation([0, 2])
    for word, slot, meant, place in ((wide, "relation", r, first), (being, "subject", s, last)):
        rest = [concept for concept in meanings(word, slot) if concept != meant]
        means[word] = picked(rng, rest, 2)
        means[word].insert(place, meant)
    known = {word: of for word, of in means.items() if any(word in phrase for phrase in phrases)}
    return picked(rng, phrases, 4), unsafe, known


def nouns_of_pictures(rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of six pictures with four nouns; two of the nouns are in a picture."""
    scores = rng.normal(-0.7, 1, size=(6, 4))
    shown = np.array([rng.permutation(4)[:2] for _ in scores])
    scores[np.arange(6), shown[:, 0]] += 0.8
    scores[np.arange(6), shown[:, 1]] += 1
    own, other = torch.from_numpy(shown.T.copy())
    return torch.from_numpy(scores.round(2)).float(), own, other


def captions_and_margin(rng: np.random.Generator) -> tuple[Tensor, float]:
    """Scores of four pictures, the unsafe caption in front: above its best safe one, a little below
    it, far below it, and anywhere."""
    safe = rng.normal(4, 2, size=(4, 4))
    margin = float(rng.integers(2, 5)) / 2
    above = np.array([rng.uniform(0.5, 3), -rng.uniform(0.2, 0.8) * margin, -5, rng.normal()])
    scores = np.hstack([safe.max(1, keepdims=True) + above[:, None], safe])
    return torch.from_numpy(scores[rng.permutation(4)].round(2)).float(), margin


def edited_and_frozen(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    frozen = rng.normal(0, 1.5, size=(int(rng.integers(2, 5)), 5))
    frozen[:, 0] += 2  # the unsafe caption
    edited = frozen + rng.normal(0, 0.8, size=frozen.shape)
    edited[:, 0] -= 4
    return tuple(torch.from_numpy(scores.round(2)).float() for scores in (edited, frozen))


def before_and_after(rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of eight pictures with three captions, the unsafe one in front. It is first in most
    of five unsafe pictures before; after, in one or two, of which one is new; and always in one of
    the rest."""
    before, after = range(int(rng.integers(3, 5))), [4, *range(int(rng.integers(2)))]
    found = []
    for hits in (before, after):
        scores = rng.uniform(1, 4, size=(8, 3))
        first = np.isin(np.arange(8), [*hits, 5])
        scores[:, 0] = scores[:, 1:].max(1) + np.where(first, 1, -1) * rng.uniform(0.3, 0.9, size=8)
        found.append(scores)
    order = rng.permutation(8)
    before, after = (torch.from_numpy(scores[order].round(2)).float() for scores in found)
    return before, after, torch.from_numpy(order < 5)
