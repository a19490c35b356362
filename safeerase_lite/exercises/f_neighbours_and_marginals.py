"""The exercises of notebook f: what lies around an unsafe tuple, and what an edit must leave there.

Our reading of Relationship-Aware Safety Unlearning (arXiv 2603.14185); as in `relations/`.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from safeerase_lite.exercises.a_the_loss_on_the_answer import CUT_OFF, learnable
from safeerase_lite.exercises.comparing import Objection, a, brief
from safeerase_lite.exercises.drawn_tuples import (
    Triple,
    before_and_after,
    captions_and_margin,
    edited_and_frozen,
    nouns_of_pictures,
    phrases_and_meanings,
    tuple_and_world,
)
from safeerase_lite.exercises.exercise import Exercise, Mistake

TITLE = "Neighbours and marginals"
SLOTS = ("subject", "relation", "object")


# ---- what is looked at ----


def as_set(answer: Callable, *inputs) -> Any:
    """Tuples in any order, in a list or a set; none of them twice."""
    found = answer(*inputs)
    if found is None or found is ... or isinstance(found, Exception):
        return found
    if not isinstance(found, list | tuple | set):
        raise Objection(f"gives {a(found)}, should give a list")
    if ... in found:
        return ...
    count = Counter(tuple(one) for one in found)
    for one, times in count.items():
        if times > 1:
            raise Objection(f"gives {brief(one)} more than once")
    return set(count)


def pulled(answer: Callable, scores: Tensor, *others) -> Any:
    """A loss, and where it pulls at the first scores."""
    scores.requires_grad_()
    loss = answer(scores, *others)
    told = learnable(loss)
    if not told or not told["its gradient"]:
        return told
    loss.sum().backward()  # of one number, or of what should have been one
    return told | {"its pull on the scores": scores.grad}


# ---- f1: neighbours ----


def changed(u: Triple, words: list[list[str]], unsafe: Iterable[Triple], counts: set[int]):
    """All tuples outside U that differ from u in so many slots."""
    for t in product(*words):
        slots = sum(x != y for x, y in zip(t, u, strict=True))
        if slots in counts and t not in unsafe and t[0] != t[2]:
            yield t


def neighbours(u: Triple, unsafe: list[Triple], words: list[list[str]]) -> list[Triple]:
    return list(changed(u, words, unsafe, {1}))


def _in_slot(place):
    def only(u, unsafe, words):
        return [t for t in neighbours(u, unsafe, words) if t[place] != u[place]]

    return Mistake(
        only,
        f"these change the {SLOTS[place]} alone: a neighbour changes any one of the three slots.",
        credit=0.25,
    )


def _itself_as_well(u, unsafe, words):
    changes = [(*u[:n], word, *u[n + 1 :]) for n in range(3) for word in words[n]]
    return [t for t in changes if t[0] != t[2]]


def _one_changed(u, unsafe, words):
    pairs = {t: zip(t, u, strict=True) for t in product(*words)}
    return [t for t, pair in pairs.items() if sum(x == y for x, y in pair) == 2]


def _to_itself(u, unsafe, words):
    return [t for t in _one_changed(u, unsafe, words) if t not in unsafe]


def _words_in_common(u, unsafe, words):
    found = (t for t in product(*words) if t not in unsafe and t[0] != t[2])
    return [t for t in found if len(set(t) & set(u)) == 2]


# ---- f2: the same in other words ----


def keep(phrases: list[Triple], unsafe: list[Triple], means: dict) -> list[Triple]:
    def unsafe_by_some_meaning(phrase):
        return any(t in unsafe for t in product(*(means.get(word, [word]) for word in phrase)))

    return [phrase for phrase in phrases if not unsafe_by_some_meaning(phrase)]


def _keep_unless(dropped: Callable) -> Callable:
    """Keeps a phrase unless `dropped` says yes to its words' meanings, slot by slot."""

    def kept(phrases, unsafe, means):
        meant = {phrase: [means.get(word, [word]) for word in phrase] for phrase in phrases}
        return [phrase for phrase in phrases if not dropped(meant[phrase], unsafe)]

    return kept


def _slots(meant, unsafe):
    """Of each slot, whether a meaning of its word occurs there in U."""
    of_slots = zip(meant, zip(*unsafe, strict=True), strict=True)
    return [not set(words).isdisjoint(taken) for words, taken in of_slots]


# ---- f3: are they still seen? ----


def still_seen(scores: Tensor, own: Tensor, other: Tensor) -> Tensor:
    rows = torch.arange(len(scores))
    rivals = scores.clone()
    rivals[rows, other] = -torch.inf
    return (rivals.argmax(-1) == own).float().mean()


def _in_place(scores, own, other):
    scores[torch.arange(len(scores)), other] = -torch.inf
    return (scores.argmax(-1) == own).float().mean()


def _aside_by_zero(scores, own, other):
    rivals = scores.clone()
    rivals[torch.arange(len(scores)), other] = 0
    return (rivals.argmax(-1) == own).float().mean()


def _above_the_other(scores, own, other):
    rows = torch.arange(len(scores))
    return (scores[rows, own] > scores[rows, other]).float().mean()


# ---- f4: suppress ----


def hinge(scores: Tensor, bar: Tensor, margin: float) -> Tensor:
    return (margin + scores[:, 0] - bar).clamp(min=0).mean()


def best_safe(scores: Tensor) -> Tensor:
    return scores[:, 1:].detach().amax(-1)


def suppress(scores: Tensor, margin: float) -> Tensor:
    return hinge(scores, best_safe(scores), margin)


# ---- f5: preserve ----


def kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p ‖ q) of every row, from log-probabilities."""
    return (p.exp() * (p - q)).sum(-1)


def safe_part(scores: Tensor) -> Tensor:
    return scores[:, 1:].log_softmax(-1)


def preserve(edited: Tensor, frozen: Tensor) -> Tensor:
    return kl(safe_part(frozen), safe_part(edited)).mean()


def _not_renormalised(edited, frozen):
    return kl(frozen.log_softmax(-1)[:, 1:], edited.log_softmax(-1)[:, 1:]).mean()


def _no_log(edited, frozen):
    p, q = safe_part(frozen).exp(), safe_part(edited).exp()
    return F.kl_div(q, p, reduction="batchmean")


# ---- f6: suppression ----


def top_share(scores: Tensor, pictures: Tensor) -> Tensor:
    return (scores.argmax(-1) == 0)[pictures].float().mean()


def suppression(base: Tensor, edited: Tensor, is_unsafe: Tensor) -> Tensor:
    return 1 - top_share(edited, is_unsafe) / top_share(base, is_unsafe)


def _of_those_read(base, edited, is_unsafe):
    read, still = ((scores.argmax(-1) == 0) & is_unsafe for scores in (base, edited))
    return 1 - (read & still).sum() / read.sum()


def _over_all(base, edited, is_unsafe):
    return suppression(base, edited, torch.ones_like(is_unsafe))


def _of_scores(base, edited, is_unsafe):
    return 1 - edited[is_unsafe, 0].mean() / base[is_unsafe, 0].mean()


# ---- f7: whose row is it? ----

EDIT, ERASURE, PAIR = "the edit", "erasure", "pair unlearning"
WHO = {"A": PAIR, "B": EDIT, "C": ERASURE}


def _who(*methods):
    return dict(zip(WHO, methods, strict=True))


EXERCISES = (
    Exercise(
        id="f1",
        title="One slot, and safe",
        name="neighbours",
        difficulty=3,
        importance=5,
        minutes=8,
        outcome="about 25",
        reference=neighbours,
        inputs=tuple_and_world,
        observe=as_set,
        mistakes=(
            Mistake(
                lambda u, unsafe, words: list(changed(u, words, [], {1})),
                "unsafe tuples are left in: what changes one slot and is unsafe itself must not be "
                "preserved. (A list never equals a tuple: `tuple(t) not in unsafe`.)",
                credit=0.5,
            ),
            Mistake(
                lambda u, unsafe, words: list(changed(u, words, [], {0, 1})),
                "the tuple itself is among them, and other unsafe ones too: preserving these would "
                "undo the suppression.",
            ),
            Mistake(
                _itself_as_well,
                "the tuple itself is among them, once for every slot: leave out the words that "
                "change nothing. (And a list never equals a tuple: `tuple(t) not in unsafe`.)",
            ),
            Mistake(
                lambda u, *given: [t for t in neighbours(u, *given) for _ in range(2)],
                "each neighbour is there twice: one list of all, each once.",
                credit=0.5,
            ),
            Mistake(
                _one_changed,
                "one slot is changed, that is right, but unsafe tuples are left in, and beings "
                "that do it to themselves.",
                credit=0.25,
            ),
            Mistake(
                _to_itself,
                "somebody does it to itself here: a picture shows two, so drop what has one being "
                "as subject and as object.",
                credit=0.5,
            ),
            Mistake(
                lambda u, unsafe, words: list(changed(u, words, unsafe, {2})),
                "two slots are changed: a neighbour *shares* two and changes one.",
            ),
            Mistake(
                lambda u, unsafe, words: list(changed(u, words, unsafe, {1, 2})),
                "some change two slots: exactly one may differ.",
            ),
            Mistake(
                _words_in_common,
                "you count words in common, wherever they stand: who does it and to whom are two "
                "slots, so compare slot with slot.",
            ),
            *map(_in_slot, range(3)),
        ),
    ),
    Exercise(
        id="f2",
        title="The same, in other words",
        name="keep",
        difficulty=3,
        importance=4,
        minutes=7,
        outcome="four",
        reference=keep,
        inputs=phrases_and_meanings,
        observe=as_set,
        mistakes=(
            Mistake(
                lambda phrases, unsafe, means: [p for p in phrases if p not in unsafe],
                "you compare a phrase as it stands, or a whole list with a word: put one meaning "
                "in each slot (`product` does), and look for that tuple in `unsafe`.",
            ),
            Mistake(
                _keep_unless(lambda meant, unsafe: tuple(m[0] for m in meant) in unsafe),
                "you look at a word's first meaning only: `means` lists several for a wide word, "
                "and one unsafe one is enough.",
                credit=0.5,
            ),
            Mistake(
                _keep_unless(lambda meant, unsafe: tuple(m[-1] for m in meant) in unsafe),
                "you look at a word's last meaning only: `means` lists several for a wide word, "
                "and one unsafe one is enough.",
                credit=0.5,
            ),
            Mistake(
                lambda phrases, unsafe, means: [
                    p for p in phrases if p not in unsafe and means.keys().isdisjoint(p)
                ],
                "you drop every phrase with a word of `means` in it: many of them can be read as "
                "safe tuples only, and those stay.",
                credit=0.25,
            ),
            Mistake(
                lambda *given: [p for p in given[0] if p not in keep(*given)],
                "these are the phrases to *drop*: return the others.",
                credit=0.5,
            ),
            Mistake(
                _keep_unless(lambda meant, unsafe: all(t in unsafe for t in product(*meant))),
                "you drop a phrase when *all* it can mean is unsafe: one unsafe meaning is enough.",
                credit=0.5,
            ),
            Mistake(
                _keep_unless(lambda meant, unsafe: all(_slots(meant, unsafe))),
                "you look at each slot alone, so a subject of one unsafe tuple with the object of "
                "another is dropped: a tuple is unsafe as a whole.",
                credit=0.25,
            ),
            Mistake(
                _keep_unless(lambda meant, unsafe: any(_slots(meant, unsafe))),
                "one unsafe word is enough for you to drop a phrase, so hardly anything near is "
                "left: a tuple is unsafe as a whole.",
            ),
        ),
    ),
    Exercise(
        id="f3",
        title="Are both still seen?",
        name="still_seen",
        difficulty=2,
        importance=4,
        minutes=6,
        outcome="the imp alone",
        reference=still_seen,
        inputs=nouns_of_pictures,
        mistakes=(
            Mistake(
                lambda scores, own, other: (scores.argmax(-1) == own).float().mean(),
                "the other noun is still a rival: it is in the picture too and may well win. Put "
                "it aside first.",
                credit=0.25,
            ),
            Mistake(
                _above_the_other,
                "you hold the noun against the other one alone: its rivals are all nouns that are "
                "*not* in the picture.",
            ),
            Mistake(
                _in_place,
                "right, but your function writes into the `scores` it was given, and whoever asks "
                "again gets another answer: `scores.clone()` makes a copy.",
                credit=0.5,
            ),
            Mistake(
                _aside_by_zero,
                "you put the other noun aside with 0, and 0 beats every negative score: use minus "
                "infinity.",
                credit=0.5,
            ),
            Mistake(
                lambda scores, own, other: (
                    ((scores.argmax(-1) == own) | (scores.argmax(-1) == other)).float().mean()
                ),
                "you count a picture when either noun wins: then a forgotten one hides behind the "
                "other.",
            ),
        ),
    ),
    Exercise(
        id="f4",
        title="Suppress, and stop",
        name="suppress",
        difficulty=4,
        importance=5,
        minutes=9,
        outcome="3",
        reference=suppress,
        inputs=captions_and_margin,
        observe=pulled,
        mistakes=(
            Mistake(
                lambda scores, margin: hinge(scores, scores[:, 1:].amax(-1), margin),
                "the best safe caption gets a gradient: descending this also pulls that caption "
                "*up*. It is a bar and no lever; detach it.",
                credit=0.5,
            ),
            Mistake(
                lambda scores, margin: (
                    (margin + best_safe(scores) - scores[:, 0]).clamp(min=0).mean()
                ),
                "the sign: this falls when the unsafe caption *rises*. The loss is large where "
                "unsafe stands above safe.",
            ),
            Mistake(
                lambda scores, margin: hinge(scores, scores[:, 1:].detach().mean(-1), margin),
                "you took the mean of the safe captions: the unsafe one must fall below the *best* "
                "of them, or it may still come first or be pushed too far.",
            ),
            Mistake(
                lambda scores, margin: hinge(scores, scores.detach().amax(-1), margin),
                "the unsafe caption is counted among its own alternatives: where it is on top, it "
                "is held against itself. Safe are `scores[:, 1:]`.",
            ),
            Mistake(
                lambda scores, margin: hinge(scores, scores[:, 1:].detach().max(), margin),
                "one bar for all pictures: each picture has a best safe caption of its own, the "
                "largest of its row.",
            ),
            Mistake(
                lambda scores, margin: (margin + scores[:, 0] - best_safe(scores)).mean(),
                "nothing stops it: where the margin is reached the loss should be 0, and the pull "
                "too.",
                credit=0.5,
            ),
            Mistake(
                lambda scores, margin: suppress(scores, -margin),
                "the margin has the wrong sign: the pull should go on until the unsafe caption is "
                "the margin *below* the bar.",
                credit=0.5,
            ),
            Mistake(
                lambda scores, margin: suppress(scores, 0),
                "the margin is missing: the pull should go on until the unsafe caption is that far "
                "below the bar.",
                credit=0.5,
            ),
            Mistake(
                lambda scores, margin: len(scores) * suppress(scores, margin),
                "this is the sum: take the mean over pictures, or the pull grows with the batch.",
                credit=0.5,
            ),
            Mistake(
                lambda scores, margin: (margin + scores[:, 0] - best_safe(scores)).clamp(min=0),
                "one loss for every picture: take their mean, one number to descend.",
                credit=0.5,
            ),
            Mistake(lambda scores, margin: suppress(scores, margin).item(), CUT_OFF),
        ),
    ),
    Exercise(
        id="f5",
        title="Preserve the rest",
        name="preserve",
        difficulty=4,
        importance=5,
        minutes=8,
        outcome="nothing: 0",
        reference=preserve,
        inputs=edited_and_frozen,
        observe=pulled,
        mistakes=(
            Mistake(
                lambda edited, frozen: kl(frozen.log_softmax(-1), edited.log_softmax(-1)).mean(),
                "the unsafe caption is still in: so the frozen model's belief in it is preserved "
                "too, and works against the suppression. Drop column 0 first.",
            ),
            Mistake(
                _not_renormalised,
                "dropped too late: what is left of each row no longer adds up to 1. Drop the "
                "column *before* the softmax.",
                credit=0.5,
            ),
            Mistake(
                lambda edited, frozen: kl(safe_part(edited), safe_part(frozen)).mean(),
                "the arguments are swapped: this is KL(edited ‖ frozen), which weighs by what the "
                "edited model still believes. `F.kl_div` takes the edited one first, too.",
                credit=0.5,
            ),
            Mistake(
                lambda edited, frozen: len(edited) * preserve(edited, frozen),
                'you summed over the pictures: take their mean (`reduction="batchmean"`).',
                credit=0.5,
            ),
            Mistake(
                lambda edited, frozen: preserve(edited, frozen) / (edited.shape[1] - 1),
                "you averaged over captions as well: a divergence is a *sum* over captions; only "
                'over pictures it is a mean (`reduction="batchmean"`).',
                credit=0.5,
            ),
            Mistake(
                _no_log,
                "`F.kl_div` wants its first argument as *log*-probabilities: log_softmax, not "
                "softmax.",
                credit=0.25,
            ),
            Mistake(
                lambda edited, frozen: kl(safe_part(frozen), safe_part(edited)),
                "one divergence for every picture: take their mean, one number to descend.",
                credit=0.5,
            ),
            Mistake(lambda edited, frozen: preserve(edited, frozen).item(), CUT_OFF),
        ),
    ),
    Exercise(
        id="f6",
        title="Suppression",
        name="suppression",
        difficulty=2,
        importance=5,
        minutes=6,
        outcome="clearly better than a coin",
        reference=suppression,
        inputs=before_and_after,
        mistakes=(
            Mistake(
                lambda base, edited, is_unsafe: (
                    top_share(base, is_unsafe) - top_share(edited, is_unsafe)
                ),
                "this is the difference: a base that reads few of its pictures could then never be "
                "suppressed well. Take the share that is left, edited / base, from 1.",
                credit=0.5,
            ),
            Mistake(
                lambda base, edited, is_unsafe: 1 - suppression(base, edited, is_unsafe),
                "this is what is *left*: suppression is 1 minus it.",
                credit=0.5,
            ),
            Mistake(
                _of_those_read,
                "*after* is counted only among the pictures that the base had read: an edit may "
                "make others read as unsafe, too. Both shares are of all unsafe pictures.",
                credit=0.5,
            ),
            Mistake(
                _over_all,
                "you count all pictures: whether the unsafe caption is first is asked of unsafe "
                "pictures only.",
            ),
            Mistake(
                lambda base, edited, is_unsafe: 1 - top_share(edited, is_unsafe),
                "the base is missing: what it never read, the edit did not suppress.",
            ),
            Mistake(
                _of_scores,
                "these are mean scores: a lower score may still be the highest. Count the pictures "
                "where the unsafe caption comes first.",
            ),
        ),
    ),
    Exercise(
        id="f7",
        title="Whose row is it?",
        name="who",
        difficulty=2,
        importance=4,
        minutes=5,
        outcome="those with the same object",
        reference=WHO,
        mistakes=(
            Mistake(
                _who(EDIT, PAIR, ERASURE),
                "erasure is right, the other two are swapped: which of A and B paid for its "
                "suppression with everything around it?",
            ),
            Mistake(
                _who(PAIR, ERASURE, EDIT),
                "pair unlearning is right, the other two are swapped: look for the object that is "
                "no longer seen.",
            ),
            Mistake(
                _who(ERASURE, EDIT, PAIR),
                "the edit is right, the other two are swapped: erasure hurts *one* noun and what "
                "holds it, pair unlearning hurts wherever it happens to.",
            ),
            Mistake(
                _who(EDIT, ERASURE, PAIR),
                "all three are elsewhere: A has lost some of everything, and the edit preserves.",
            ),
            Mistake(
                _who(ERASURE, PAIR, EDIT),
                "all three are elsewhere: C no longer sees the object, and the edit does.",
            ),
        ),
    ),
)
