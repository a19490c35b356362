"""The exercises of notebook f: what lies around an unsafe tuple, and what an edit must leave there.

Our reading of Relationship-Aware Safety Unlearning (arXiv 2603.14185); as in `relations/`.
"""

from collections import Counter
from collections.abc import Callable, Collection
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from safeerase_lite.relations.words import BEINGS, RELATIONS, SLOTS, THINGS, meanings, others

from .comparing import Objection, brief, with_article
from .exercise import Exercise, Mistake, slip
from .shared import cut_off, sample, with_gradients

TITLE = "Neighbours and marginals"
Triple = tuple[str, str, str]


def tuple_and_world(rng: np.random.Generator) -> tuple[Triple, list[Triple], list[list[str]]]:
    """An unsafe tuple, all unsafe ones (some are its neighbours), and the words of a small world.
    By turns a being is done something to, or a thing."""
    beings, relations = sample(rng, BEINGS, 4), sample(rng, RELATIONS, 3)
    objects = [*sample(rng, THINGS, 2), *beings]
    u = (beings[0], relations[0], (objects[0], beings[1])[rng.integers(2)])
    words = [beings, relations, objects]
    return u, [u, *sample(rng, neighbours(u, [], words), 4)], words


def as_set(answer: Callable, *inputs) -> Any:
    """Tuples in any order, in a list or a set; none of them twice."""
    result = answer(*inputs)
    if result is None or result is ...:
        return result
    if not isinstance(result, list | tuple | set):
        raise Objection(f"gives {with_article(result)}, should give a list")
    if ... in result:
        return ...
    count = Counter(map(tuple, result))
    for one, times in count.items():
        if times > 1:
            raise Objection(f"gives {brief(one)} more than once")
    return set(count)


def neighbours(
    u: Triple, unsafe: list[Triple], words: list[list[str]], slots: Collection[int] = (1,)
) -> list[Triple]:
    near = [t for t in product(*words) if slots_changed(t, u) in slots]
    return [t for t in near if t not in unsafe and t[0] != t[2]]


def slots_changed(t: Triple, u: Triple) -> int:
    return sum(x != y for x, y in zip(t, u, strict=True))


def neighbours_and_itself(u, unsafe, words):
    changes = [(*u[:n], word, *u[n + 1 :]) for n in range(3) for word in words[n]]
    return [t for t in changes if t[0] != t[2]]


f1 = Exercise(
    "f1", "neighbours", "One slot, and safe", difficulty=3, importance=5, minutes=8,
    outcome="about 25", reference=neighbours, inputs=tuple_and_world, observe=as_set, mistakes=(
        slip(lambda u, unsafe, words: neighbours(u, [], words),
             "unsafe tuples are left in: what changes one slot and is unsafe itself must not be "
             "preserved. (A list never equals a tuple: `tuple(t) not in unsafe`.)"),
        Mistake(lambda u, unsafe, words: neighbours(u, [], words, slots=(0, 1)),
                "the tuple itself is among them, and other unsafe ones too: preserving these "
                "would undo the suppression."),
        Mistake(neighbours_and_itself,
                "the tuple itself is among them, once for every slot: leave out the words that "
                "change nothing. (And a list never equals a tuple: `tuple(t) not in unsafe`.)"),
        slip(lambda u, *given: [t for t in neighbours(u, *given) for _ in range(2)],
             "each neighbour is there twice: one list of all, each once."),
        slip(lambda u, unsafe, words: [t for t in product(*words) if slots_changed(t, u) == 1],
             "one slot is changed, that is right, but unsafe tuples are left in, and beings "
             "that do it to themselves.", 0.25),
        slip(lambda u, unsafe, words: [
                 t for t in product(*words) if slots_changed(t, u) == 1 and t not in unsafe],
             "somebody does it to itself here: a picture shows two, so drop what has one being as "
             "subject and as object."),
        Mistake(partial(neighbours, slots=(2,)),
                "two slots are changed: a neighbour *shares* two and changes one."),
        Mistake(partial(neighbours, slots=(1, 2)),
                "some change two slots: exactly one may differ."),
        Mistake(lambda u, unsafe, words: [
                    t for t in product(*words)
                    if t not in unsafe and t[0] != t[2] and len(set(t) & set(u)) == 2],
                "you count words in common, wherever they stand: who does it and to whom are two "
                "slots, so compare slot with slot."),
        *(slip(lambda u, *given, n=n: [t for t in neighbours(u, *given) if t[n] != u[n]],
               f"these change the {slot} alone: a neighbour changes any one of the three slots.",
               0.25)
          for n, slot in enumerate(SLOTS)),
))  # fmt: skip


def phrases_and_meanings(rng: np.random.Generator) -> tuple[list[Triple], list[Triple], dict]:
    """Phrases near two unsafe tuples, some unsafe in other words; and what such words can mean."""
    beings, relations = sample(rng, BEINGS, 2), sample(rng, RELATIONS, 2)
    things = sample(rng, THINGS, 3)
    (s, r, o), _ = unsafe = list(zip(beings, relations, things, strict=False))
    synonym, relation = others(r, "relation")
    being = others(s, "subject")[-1]
    means = {synonym: [r]}
    for word, slot, meant in (relation, "relation", r), (being, "subject", s):
        rest = [concept for concept in meanings(word, slot) if concept != meant]
        means[word] = sample(rng, [meant, *sample(rng, rest, 2)])
    near = list(product([*beings, being], [*relations, synonym, relation], things))
    other_words = [(s, synonym, o), (s, relation, o), (being, r, o)]
    phrases = dict.fromkeys([*other_words, *sample(rng, near, 4)])  # none of them twice
    return sample(rng, list(phrases)), unsafe, means


def keep(
    phrases: list[Triple],
    unsafe: list[Triple],
    means: dict,
    is_unsafe: Callable = lambda meant, unsafe: any(t in unsafe for t in product(*meant)),
) -> list[Triple]:
    return [p for p in phrases if not is_unsafe([means.get(word, [word]) for word in p], unsafe)]


def unsafe_slots(meant, unsafe):
    """Of each slot, whether a meaning of its word occurs there in U."""
    slots = zip(meant, zip(*unsafe, strict=True), strict=True)
    return [not set(words).isdisjoint(unsafe_words) for words, unsafe_words in slots]


f2 = Exercise(
    "f2", "keep", "The same, in other words", difficulty=3, importance=4, minutes=7,
    outcome="four", reference=keep, inputs=phrases_and_meanings, observe=as_set, mistakes=(
        Mistake(lambda phrases, unsafe, means: [p for p in phrases if p not in unsafe],
                "you compare a phrase as it stands, or a whole list with a word: put one meaning "
                "in each slot (`product` does), and look for that tuple in `unsafe`."),
        slip(partial(keep, is_unsafe=lambda meant, unsafe: tuple(m[0] for m in meant) in unsafe),
             "you look at a word's first meaning only: `means` lists several for a wide word, and "
             "one unsafe one is enough."),
        slip(partial(keep, is_unsafe=lambda meant, unsafe: tuple(m[-1] for m in meant) in unsafe),
             "you look at a word's last meaning only: `means` lists several for a wide word, and "
             "one unsafe one is enough."),
        slip(lambda phrases, unsafe, means: [
                 p for p in phrases if p not in unsafe and means.keys().isdisjoint(p)],
             "you drop every phrase with a word of `means` in it: many of them can be read "
             "as safe tuples only, and those stay.", 0.25),
        slip(lambda *given: [p for p in given[0] if p not in keep(*given)],
             "these are the phrases to *drop*: return the others."),
        slip(partial(keep, is_unsafe=lambda meant, unsafe: set(product(*meant)) <= set(unsafe)),
             "you drop a phrase when *all* it can mean is unsafe: one unsafe meaning is enough."),
        slip(partial(keep, is_unsafe=lambda meant, unsafe: all(unsafe_slots(meant, unsafe))),
             "you look at each slot alone, so a subject of one unsafe tuple with the object "
             "of another is dropped: a tuple is unsafe as a whole.", 0.25),
        Mistake(partial(keep, is_unsafe=lambda meant, unsafe: any(unsafe_slots(meant, unsafe))),
                "one unsafe word is enough for you to drop a phrase, so hardly anything near is "
                "left: a tuple is unsafe as a whole."),
))  # fmt: skip


def nouns_of_pictures(rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of six pictures with four nouns; two of the nouns are in a picture."""
    scores = rng.normal(-0.7, 1, size=(6, 4))
    shown = np.array([rng.permutation(4)[:2] for _ in scores])
    scores[np.arange(6)[:, None], shown] += [0.8, 1]
    own, other = torch.from_numpy(shown.T.copy())
    return torch.from_numpy(scores.round(2)).float(), own, other


def still_seen(scores: Tensor, own: Tensor, other: Tensor) -> Tensor:
    rivals = scores.clone()
    rivals[torch.arange(len(scores)), other] = -torch.inf
    return (rivals.argmax(-1) == own).float().mean()


def still_seen_in_place(scores, own, other, aside=-torch.inf):
    scores[torch.arange(len(scores)), other] = aside
    return (scores.argmax(-1) == own).float().mean()


f3 = Exercise(
    "f3", "still_seen", "Are both still seen?", difficulty=2, importance=4, minutes=6,
    outcome="the imp alone", reference=still_seen, inputs=nouns_of_pictures, mistakes=(
        slip(lambda scores, own, other: (scores.argmax(-1) == own).float().mean(),
             "the other noun is still a rival: it is in the picture too and may well win. "
             "Put it aside first.", 0.25),
        Mistake(lambda scores, own, other: (
                    (scores.gather(1, own[:, None]) > scores.gather(1, other[:, None]))
                    .float().mean()),
                "you hold the noun against the other one alone: its rivals are all nouns that are "
                "*not* in the picture."),
        slip(still_seen_in_place,
             "right, but your function writes into the `scores` it was given, and whoever asks "
             "again gets another answer: `scores.clone()` makes a copy."),
        slip(lambda scores, own, other: still_seen_in_place(scores.clone(), own, other, aside=0),
             "you put the other noun aside with 0, and 0 beats every negative score: use minus "
             "infinity."),
        Mistake(lambda scores, own, other: (
                    ((scores.argmax(-1) == own) | (scores.argmax(-1) == other)).float().mean()),
                "you count a picture when either noun wins: then a forgotten one hides behind the "
                "other."),
))  # fmt: skip


def captions_and_margin(rng: np.random.Generator) -> tuple[Tensor, float]:
    """Scores of four pictures, the unsafe caption in front: above its best safe one, a little below
    it, far below it, and anywhere."""
    safe = rng.normal(4, 2, size=(4, 4))
    margin = float(rng.integers(2, 5)) / 2
    above = np.array([rng.uniform(0.5, 3), -rng.uniform(0.2, 0.8) * margin, -5, rng.normal()])
    scores = np.hstack([safe.max(1, keepdims=True) + above[:, None], safe])
    return torch.from_numpy(scores[rng.permutation(4)].round(2)).float(), margin


pull_on_scores = with_gradients("its pull on the scores", of=lambda gradient: gradient)


def best_safe(scores: Tensor) -> Tensor:
    return scores[:, 1:].detach().amax(-1)


def suppress(
    scores: Tensor,
    margin: float,
    bar: Callable = best_safe,
    loss: Callable = lambda too_high: too_high.clamp(min=0).mean(),
) -> Tensor:
    return loss(margin + scores[:, 0] - bar(scores))


f4 = Exercise(
    "f4", "suppress", "Suppress, and stop", difficulty=4, importance=5, minutes=9,
    outcome="3", reference=suppress, inputs=captions_and_margin, observe=pull_on_scores, mistakes=(
        slip(partial(suppress, bar=lambda scores: scores[:, 1:].amax(-1)),
             "the best safe caption gets a gradient: descending this also pulls that caption "
             "*up*. It is a bar and no lever; detach it."),
        Mistake(lambda scores, margin: (
                    (margin + best_safe(scores) - scores[:, 0]).clamp(min=0).mean()),
                "the sign: this falls when the unsafe caption *rises*. The loss is large where "
                "unsafe stands above safe."),
        Mistake(partial(suppress, bar=lambda scores: scores[:, 1:].detach().mean(-1)),
                "you took the mean of the safe captions: the unsafe one must fall below the "
                "*best* of them, or it may still come first or be pushed too far."),
        Mistake(partial(suppress, bar=lambda scores: scores.detach().amax(-1)),
                "the unsafe caption is counted among its own alternatives: where it is on top, it "
                "is held against itself. Safe are `scores[:, 1:]`."),
        Mistake(partial(suppress, bar=lambda scores: scores[:, 1:].detach().max()),
                "one bar for all pictures: each picture has a best safe caption of its own, the "
                "largest of its row."),
        slip(partial(suppress, loss=Tensor.mean),
             "nothing stops it: where the margin is reached the loss should be 0, and the pull "
             "too."),
        slip(lambda scores, margin: suppress(scores, -margin),
             "the margin has the wrong sign: the pull should go on until the unsafe caption is "
             "the margin *below* the bar."),
        slip(lambda scores, margin: suppress(scores, 0),
             "the margin is missing: the pull should go on until the unsafe caption is that far "
             "below the bar."),
        slip(lambda scores, margin: len(scores) * suppress(scores, margin),
             "this is the sum: take the mean over pictures, or the pull grows with the batch."),
        slip(partial(suppress, loss=F.relu),
             "one loss for every picture: take their mean, one number to descend."),
        cut_off(suppress, 0),
))  # fmt: skip


def edited_and_frozen(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    frozen = rng.normal(0, 1.5, size=(int(rng.integers(2, 5)), 5))
    frozen[:, 0] += 2  # the unsafe caption
    edited = frozen + rng.normal(0, 0.8, size=frozen.shape)
    edited[:, 0] -= 4
    return tuple(torch.from_numpy(scores.round(2)).float() for scores in (edited, frozen))


def kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p ‖ q) of every row, from log-probabilities."""
    return (p.exp() * (p - q)).sum(-1)


def safe_part(scores: Tensor) -> Tensor:
    return scores[:, 1:].log_softmax(-1)


def preserve(edited: Tensor, frozen: Tensor, part: Callable = safe_part) -> Tensor:
    return kl(part(frozen), part(edited)).mean()


f5 = Exercise(
    "f5", "preserve", "Preserve the rest", difficulty=4, importance=5, minutes=8,
    outcome="nothing: 0",
    reference=preserve, inputs=edited_and_frozen, observe=pull_on_scores, mistakes=(
        Mistake(partial(preserve, part=lambda scores: scores.log_softmax(-1)),
                "the unsafe caption is still in: so the frozen model's belief in it is preserved "
                "too, and works against the suppression. Drop column 0 first."),
        slip(partial(preserve, part=lambda scores: scores.log_softmax(-1)[:, 1:]),
             "dropped too late: what is left of each row no longer adds up to 1. Drop the column "
             "*before* the softmax."),
        slip(lambda edited, frozen: preserve(frozen, edited),
             "the arguments are swapped: this is KL(edited ‖ frozen), which weighs by what the "
             "edited model still believes. `F.kl_div` takes the edited one first, too."),
        slip(lambda edited, frozen: len(edited) * preserve(edited, frozen),
             'you summed over the pictures: take their mean (`reduction="batchmean"`).'),
        slip(lambda edited, frozen: preserve(edited, frozen) / (edited.shape[1] - 1),
             'you averaged over captions as well: a divergence is a *sum* over captions; only '
             'over pictures it is a mean (`reduction="batchmean"`).'),
        slip(lambda edited, frozen: (
                 F.kl_div(safe_part(edited).exp(), safe_part(frozen).exp(), reduction="batchmean")),
             "`F.kl_div` wants its first argument as *log*-probabilities: log_softmax, not "
             "softmax.", 0.25),
        slip(lambda edited, frozen: kl(safe_part(frozen), safe_part(edited)),
             "one divergence for every picture: take their mean, one number to descend."),
        cut_off(preserve, 0),
))  # fmt: skip


def before_and_after(rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of eight pictures with three captions, the unsafe one in front. It is first in three
    or four of five unsafe pictures before; after, in one or two, of which one is new; and always in
    one of the rest."""
    is_first = np.zeros((2, 8), dtype=bool)
    is_first[0, : rng.integers(3, 5)] = is_first[0, 5] = True
    is_first[1, rng.integers(3, 5) : 6] = True
    scores = rng.uniform(1, 4, size=(2, 8, 3))
    scores[..., 0] = scores[..., 1:].max(-1) + np.where(is_first, 0.5, -0.5)
    order = rng.permutation(8)
    before, after = torch.from_numpy(scores[:, order].round(2)).float()
    return before, after, torch.from_numpy(order < 5)


def top_share(scores: Tensor, pictures: Tensor) -> Tensor:
    return (scores.argmax(-1) == 0)[pictures].float().mean()


def suppression(base: Tensor, edited: Tensor, is_unsafe: Tensor) -> Tensor:
    return 1 - top_share(edited, is_unsafe) / top_share(base, is_unsafe)


f6 = Exercise(
    "f6", "suppression", "Suppression", difficulty=2, importance=5, minutes=6,
    outcome="clearly better than a coin", reference=suppression, inputs=before_and_after, mistakes=(
        slip(lambda base, edited, is_unsafe: (
                 top_share(base, is_unsafe) - top_share(edited, is_unsafe)),
             "this is the difference: a base that reads few of its pictures could then never be "
             "suppressed well. Take the share that is left, edited / base, from 1."),
        slip(lambda base, edited, is_unsafe: 1 - suppression(base, edited, is_unsafe),
             "this is what is *left*: suppression is 1 minus it."),
        slip(lambda base, edited, is_unsafe: (
                 1 - top_share(edited, (base.argmax(-1) == 0) & is_unsafe)),
             "*after* is counted only among the pictures that the base had read: an edit may make "
             "others read as unsafe, too. Both shares are of all unsafe pictures."),
        Mistake(lambda base, edited, is_unsafe: (
                    suppression(base, edited, torch.ones_like(is_unsafe))),
                "you count all pictures: whether the unsafe caption is first is asked of unsafe "
                "pictures only."),
        Mistake(lambda base, edited, is_unsafe: 1 - top_share(edited, is_unsafe),
                "the base is missing: what it never read, the edit did not suppress."),
        Mistake(lambda base, edited, is_unsafe: (
                    1 - edited[is_unsafe, 0].mean() / base[is_unsafe, 0].mean()),
                "these are mean scores: a lower score may still be the highest. Count the "
                "pictures where the unsafe caption comes first."),
))  # fmt: skip


EDIT, ERASURE, PAIR = "the edit", "erasure", "pair unlearning"
WHO = {"A": PAIR, "B": EDIT, "C": ERASURE}


def rows_of(*methods):
    return dict(zip(WHO, methods, strict=True))


f7 = Exercise(
    "f7", "who", "Whose row is it?", difficulty=2, importance=4, minutes=5,
    outcome="those with the same object", reference=WHO, mistakes=(
        Mistake(rows_of(EDIT, PAIR, ERASURE),
                "erasure is right, the other two are swapped: which of A and B paid for its "
                "suppression with everything around it?"),
        Mistake(rows_of(PAIR, ERASURE, EDIT),
                "pair unlearning is right, the other two are swapped: look for the object that is "
                "no longer seen."),
        Mistake(rows_of(ERASURE, EDIT, PAIR),
                "the edit is right, the other two are swapped: erasure hurts *one* noun and what "
                "holds it, pair unlearning hurts wherever it happens to."),
        Mistake(rows_of(EDIT, ERASURE, PAIR),
                "all three are elsewhere: A has lost some of everything, and the edit preserves."),
        Mistake(rows_of(ERASURE, PAIR, EDIT),
                "all three are elsewhere: C no longer sees the object, and the edit does."),
))  # fmt: skip


EXERCISES = (f1, f2, f3, f4, f5, f6, f7)
