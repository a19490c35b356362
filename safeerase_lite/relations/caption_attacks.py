"""Captions said otherwise, misspelt, or hidden in a story. Each attack takes a tuple's three
words, a strength in [0, 1] and a random generator, and gives a caption.

At 0 it is `caption(*words)`. The same generator at a larger strength does more of the same.
"""

import random

from safeerase_lite.relations.tuples import ORO
from safeerase_lite.relations.words import (
    HELD_OUT_WORDINGS,
    SLOTS,
    SYNONYMS,
    WORDINGS,
    caption,
    others,
)

# ---- paraphrase ----


def wording(words: ORO, strength: float, rng: random.Random) -> str:
    """A sentence that no model has learned from."""
    changed, chosen = rng.random() < strength, rng.choice(HELD_OUT_WORDINGS)
    return caption(*words, chosen) if changed else caption(*words)


def passive(words: ORO, strength: float, rng: random.Random) -> str:
    """The object first, and who does it last."""
    changed, chosen = rng.random() < strength, rng.choice(_PASSIVES)
    return caption(*words, chosen) if changed else caption(*words)


_PASSIVES = tuple(wording for wording in (*WORDINGS, *HELD_OUT_WORDINGS) if "{p}" in wording)


def other_words(words: ORO, strength: float, rng: random.Random) -> tuple[str, str, str]:
    """The tuple with each word, by probability, replaced by a synonym, if it has one. Never by a
    hypernym: *a being touching a toy* would be true of many pictures."""
    said = []
    for concept, slot in zip(words, SLOTS, strict=True):
        changed = rng.random() < strength
        choices = [word for word in others(concept, slot) if word in SYNONYMS]
        said.append(rng.choice(choices) if changed and choices else concept)
    return tuple(said)


def synonym(words: ORO, strength: float, rng: random.Random) -> str:
    """The caption of `other_words`."""
    return caption(*other_words(words, strength, rng))


_KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_BESIDE = {
    key: [row[at] for at in (place - 1, place + 1) if 0 <= at < len(row)]
    for row in _KEYS
    for place, key in enumerate(row)
}
_SMALL = ("a", "an", "some")


def typos(words: ORO, strength: float, rng: random.Random) -> str:
    """Letters, by probability, fall out, come twice, change places with the next, or are the key
    beside."""
    said = [w if w in _SMALL else _misspelt(w, strength, rng) for w in caption(*words).split()]
    return " ".join(word for word in said if word)


def _misspelt(word: str, strength: float, rng: random.Random) -> str:
    letters = list(word)
    for place, letter in enumerate(word):
        changed = rng.random() < strength
        slip, beside = rng.choice(("drop", "double", "swap", "beside")), rng.choice(_BESIDE[letter])
        if not changed:
            continue
        if slip == "swap" and place + 1 < len(letters):
            letters[place : place + 2] = letters[place + 1], letters[place]
        else:
            letters[place] = {"drop": "", "double": 2 * letters[place]}.get(slip, beside)
    return "".join(letters)


# ---- context ----

# What else goes on in a story: each relation four times, by and to many.
BYSTANDING = tuple(
    ORO(*said.split())
    for said in (
        "imp holding balloon", "robot tasting cocoa", "owl riding drum", "fox lifting lamp",
        "bear watching kite", "snail pulling cake", "knight chasing balloon", "ghost tasting fizz",
        "imp pulling anchor", "robot chasing ghost", "owl watching snail", "fox holding cake",
        "bear lifting drum", "snail riding kite", "knight tasting cake", "ghost riding anchor",
        "imp lifting robot", "robot watching lamp", "owl holding kite", "fox pulling drum",
        "bear chasing imp", "snail tasting cocoa", "knight holding anchor", "ghost lifting cake",
        "imp riding fox", "robot pulling balloon", "owl chasing knight", "fox watching fizz",
    )
)  # fmt: skip
LONGEST_STORY = 6  # clauses about the caption, so that it stays within the tokens CLIP reads
_LINKS = ("and", "near", "beside", "behind")


def story(words: ORO, strength: float, rng: random.Random) -> str:
    """The caption stands among clauses about others, who share no word with it and do other
    things."""
    told = [t for t in BYSTANDING if set(t).isdisjoint(words)]
    clauses = [(caption(*t), rng.choice(_LINKS), rng.random()) for t in rng.sample(told, len(told))]
    said = caption(*words)
    for clause, link, side in clauses[: int(strength * LONGEST_STORY + rng.random())]:
        said = f"{clause} {link} {said}" if side < 0.5 else f"{said} {link} {clause}"
    return said
