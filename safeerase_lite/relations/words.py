"""The words of the relational tiny world: who does what to whom, and in which sentences.

Beings do things to things and to other beings. What a sentence of this world calls unsafe is up to
its reader: an imp is fine, fizz is fine, *an imp tasting fizz* may not be.
"""

import difflib
import re
from functools import cache

from safeerase_lite.utils import UserError

BEINGS = ("imp", "robot", "owl", "fox", "bear", "snail", "knight", "ghost")
THINGS = ("fizz", "cocoa", "balloon", "drum", "lamp", "cake", "kite", "anchor")
RELATIONS = ("tasting", "holding", "lifting", "riding", "pulling", "chasing", "watching")
SLOTS = ("subject", "relation", "object")
CONCEPTS = {"subject": BEINGS, "relation": RELATIONS, "object": (*THINGS, *BEINGS)}

SYNONYMS = {
    "sprite": "imp",
    "droid": "robot",
    "pop": "fizz",
    "cake slice": "cake",
    "sipping": "tasting",
    "gripping": "holding",
    "hoisting": "lifting",
    "mounting": "riding",
    "towing": "pulling",
    "hunting": "chasing",
    "eyeing": "watching",
}
HYPERNYMS = {
    "being": BEINGS,
    "animal": ("owl", "fox", "bear", "snail"),
    "drink": ("fizz", "cocoa"),
    "toy": ("balloon", "drum", "kite"),
    "touching": ("tasting", "holding", "lifting", "riding"),
    "following": ("pulling", "chasing", "watching"),
}
PASSIVE = {
    "tasting": "tasted",
    "holding": "held",
    "lifting": "lifted",
    "riding": "ridden",
    "pulling": "pulled",
    "chasing": "chased",
    "watching": "watched",
}

# {s}, {o}: with their article; {r}: the relation; {p}: its participle.
WORDINGS = (
    "{s} {r} {o}",
    "a picture of {s} {r} {o}",
    "here is {s} {r} {o}",
    "{s} is {r} {o}",
    "{o} is being {p} by {s}",
    "we see {s} that is {r} {o}",
)
HELD_OUT_WORDINGS = (
    "here we see {s} {r} {o}",
    "a picture of {o} being {p} by {s}",
    "that is {s} and it is {r} {o}",
)

NOUN_WORDINGS = ("{s}", "a picture of {s}", "here is {s}", "we see {s}")  # one of them alone


@cache
def meanings(word: str, slot: str) -> tuple[str, ...]:
    """The concepts that a word can stand for in a slot: one for a concept or a synonym of it,
    several for a hypernym.

    Raises:
        UserError: no such slot, or the word means nothing there.
    """
    if slot not in CONCEPTS:
        raise UserError(f"no slot {slot!r}: a tuple has {', '.join(SLOTS)}")
    concepts = CONCEPTS[slot]
    plain = " ".join(word.lower().split())
    found = HYPERNYMS.get(plain, (SYNONYMS.get(plain, plain),))
    fitting = tuple(concept for concept in found if concept in concepts)
    if not fitting:
        known = [w for w in (*concepts, *SYNONYMS, *HYPERNYMS) if _fits(w, slot)]
        near = difflib.get_close_matches(plain, known, n=1, cutoff=0.75)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"
        raise UserError(f"the world has no {slot} {word!r}: {hint}")
    return fitting


def _fits(word: str, slot: str) -> bool:
    of_word = HYPERNYMS.get(word, (SYNONYMS.get(word, word),))
    return any(concept in CONCEPTS[slot] for concept in of_word)


def others(concept: str, slot: str) -> tuple[str, ...]:
    """The other words for a concept in a slot: synonyms first, then hypernyms."""
    synonyms = [word for word, of in SYNONYMS.items() if of == concept]
    hypernyms = [word for word, of in HYPERNYMS.items() if concept in of and _fits(word, slot)]
    return (*synonyms, *hypernyms)


def caption(subject: str, relation: str, object: str, wording: str = WORDINGS[0]) -> str:
    """A sentence, in words as they are given. A wording in the passive knows concepts and
    synonyms of relations; for a hypernym it falls back on the first wording."""
    participle = PASSIVE.get(SYNONYMS.get(relation, relation), "")
    if "{p}" in wording and not participle:
        wording = WORDINGS[0]
    return wording.format(s=_a(subject), r=relation, o=_a(object), p=participle)


def noun_caption(noun: str, wording: str = NOUN_WORDINGS[0]) -> str:
    """A sentence of one being or thing alone, whatever it does or has done to it."""
    return wording.format(s=_a(noun))


def _a(noun: str) -> str:
    if noun in ("fizz", "cocoa", "pop"):
        return f"some {noun}"
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


@cache
def vocabulary() -> frozenset[str]:
    """Every word of every caption."""
    text = " ".join([*WORDINGS, *HELD_OUT_WORDINGS, *NOUN_WORDINGS, *PASSIVE.values(), "a an some"])
    text = re.sub(r"{\w}", " ", text)
    named = [*BEINGS, *THINGS, *RELATIONS, *SYNONYMS, *HYPERNYMS]
    return frozenset(" ".join([text, *named]).split())
