"""The vocabulary of the relational tiny world, and its captions.

Beings do things to things and to other beings. Which combinations are unsafe is for the reader to
say: an imp is fine, fizz is fine, *an imp tasting fizz* may not be.
"""

import difflib
import json
import re
from functools import cache
from pathlib import Path

from safeerase_lite.utils import UserError

# The world as data: its words, what the demonstrations call unsafe, and how everything is drawn.
WORLD = json.loads(Path(__file__).with_name("world.json").read_text(encoding="utf-8"))

BEINGS, THINGS, RELATIONS = (tuple(WORLD[kind]) for kind in ("beings", "things", "relations"))
SLOTS = ("subject", "relation", "object")
CONCEPTS = {"subject": BEINGS, "relation": RELATIONS, "object": (*THINGS, *BEINGS)}
NOUNS = CONCEPTS["object"]
SYNONYMS: dict[str, str] = WORLD["synonyms"]
HYPERNYMS = {word: tuple(concepts) for word, concepts in WORLD["hypernyms"].items()}
PASSIVE: dict[str, str] = WORLD["passive"]

# {s}, {o}: subject and object with their article; {r}: the relation; {p}: its participle.
WORDINGS, NOUN_WORDINGS = tuple(WORLD["wordings"]), tuple(WORLD["noun_wordings"])
# Neither tiny-clip nor any edit has read these.
HELD_OUT_WORDINGS = tuple(WORLD["held_out_wordings"])


@cache
def meanings(word: str, slot: str) -> tuple[str, ...]:
    """The concepts that a word can mean in a slot: one for a concept or its synonym, several for a
    hypernym.

    Raises:
        UserError: no such slot, or the word means nothing there.
    """
    if slot not in CONCEPTS:
        raise UserError(f"no slot {slot!r}: a tuple has {', '.join(SLOTS)}")
    word_in_lower_case = " ".join(word.lower().split())
    concepts = tuple(c for c in _concepts(word_in_lower_case) if c in CONCEPTS[slot])
    if not concepts:
        candidates = (*CONCEPTS[slot], *SYNONYMS, *HYPERNYMS)
        known = [w for w in candidates if not set(_concepts(w)).isdisjoint(CONCEPTS[slot])]
        near = difflib.get_close_matches(word_in_lower_case, known, n=1, cutoff=0.75)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"
        raise UserError(f"the world has no {slot} {word!r}: {hint}")
    return concepts


def _concepts(word: str) -> tuple[str, ...]:
    """What a word means, in whichever slot; an unknown word means itself."""
    return HYPERNYMS.get(word, (SYNONYMS.get(word, word),))


def others(concept: str, slot: str) -> tuple[str, ...]:
    """The other words for a concept of a slot: synonyms first, then hypernyms."""
    if concept not in CONCEPTS[slot]:
        return ()
    synonyms = [word for word, meant in SYNONYMS.items() if meant == concept]
    hypernyms = [word for word, meant in HYPERNYMS.items() if concept in meant]
    return (*synonyms, *hypernyms)


def caption(subject: str, relation: str, object: str, wording: str = WORDINGS[0]) -> str:
    """The caption of three words as they are given.

    A passive wording needs a participle, which a hypernym has not: it takes the first wording then.
    """
    participle = PASSIVE.get(SYNONYMS.get(relation, relation), "")
    if "{p}" in wording and not participle:
        wording = WORDINGS[0]
    return wording.format(
        s=_with_article(subject), r=relation, o=_with_article(object), p=participle
    )


def noun_caption(noun: str, wording: str = NOUN_WORDINGS[0]) -> str:
    """The caption of one being or thing alone."""
    return wording.format(s=_with_article(noun))


def _with_article(noun: str) -> str:
    if noun in ("fizz", "cocoa", "pop"):
        return f"some {noun}"
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


@cache
def vocabulary() -> frozenset[str]:
    """Every word of every caption."""
    wordings = re.sub(r"{\w}", " ", " ".join([*WORDINGS, *HELD_OUT_WORDINGS, *NOUN_WORDINGS]))
    words = [*NOUNS, *RELATIONS, *SYNONYMS, *HYPERNYMS, *PASSIVE.values()]
    return frozenset(" ".join([wordings, "a an some", *words]).split())
