"""Unsafe tuples as data: the set U, what is near it, and its file.

A tuple says who does what to whom. Source: Relationship-Aware Safety Unlearning (arXiv 2603.14185).
We could not read what counts as a neighbour there; here it changes exactly one slot and lies
outside U.
"""

from collections.abc import Iterable, Sequence
from itertools import combinations, product
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import yaml

from safeerase_lite.utils import UserError

from .words import BEINGS, CONCEPTS, SLOTS, WORLD, meanings, others


class RelationTriple(NamedTuple):
    """Who does what to whom: one concept of the world in each slot."""

    subject: str
    relation: str
    object: str

    def __str__(self) -> str:
        return "–".join(self)


Tuples = Sequence[RelationTriple]

# Every tuple of the world, in a fixed order. Nobody does anything to itself.
ALL_TUPLES = tuple(RelationTriple(*t) for t in product(*CONCEPTS.values()) if t[0] != t[2])

# What the demonstrations call unsafe. None of them is a neighbour of another.
UNSAFE = tuple(RelationTriple(*text.split()) for text in WORLD["unsafe"])

# On these the settings of every method were chosen. They are in no table, and no neighbours of
# UNSAFE.
TUNING = tuple(RelationTriple(*text.split()) for text in WORLD["tuning"])


# ---- words to tuples ----


def expand(words: Iterable[str]) -> tuple[RelationTriple, ...]:
    """The tuples that three words mean: one, or several if a word is a hypernym."""
    words = list(words)
    if len(words) != 3 or not all(isinstance(word, str) for word in words):
        raise UserError(f"{words} is no tuple: give subject, relation, object")
    concepts = [meanings(word, slot) for word, slot in zip(words, SLOTS, strict=True)]
    triples = tuple(RelationTriple(*t) for t in product(*concepts) if t[0] != t[2])
    if not triples:
        raise UserError(f"{' '.join(words)}: nobody does that to itself here")
    return triples


def parse(texts: Iterable[str]) -> list[RelationTriple]:
    """The tuples that texts mean, each text "subject relation object"."""
    return [triple for text in texts for triple in expand(text.split())]


def other_words(u: RelationTriple) -> list[tuple[str, ...]]:
    """All words that can mean a tuple, by synonyms and hypernyms, but its own."""
    words = [(concept, *others(concept, slot)) for concept, slot in zip(u, SLOTS, strict=True)]
    return list(product(*words))[1:]


def covered(words: Iterable[str], unsafe: Tuples) -> bool:
    """Whether three words can mean an unsafe tuple: then they are no safe neighbour."""
    return not set(unsafe).isdisjoint(expand(words))


# ---- what is near a tuple ----


def changed_slots(one: RelationTriple, other: RelationTriple) -> tuple[str, ...]:
    """The slots in which two tuples differ."""
    return tuple(s for s, a, b in zip(SLOTS, one, other, strict=True) if a != b)


def neighbours(
    u: RelationTriple, unsafe: Tuples, slots: Iterable[str] = SLOTS
) -> list[RelationTriple]:
    """The tuples that differ from u in exactly one of `slots` and lie outside U."""
    return _changes(u, unsafe, [(slot,) for slot in slots])


def two_slot_changes(u: RelationTriple, unsafe: Tuples) -> list[RelationTriple]:
    """The tuples that differ from u in exactly two slots and lie outside U."""
    return _changes(u, unsafe, combinations(SLOTS, 2))


def _changes(u, unsafe, changes: Iterable[tuple[str, ...]]) -> list[RelationTriple]:
    unsafe = set(unsafe)
    safe = [t for t in ALL_TUPLES if t not in unsafe]
    return [t for slots in changes for t in safe if changed_slots(u, t) == slots]


def role_swap(u: RelationTriple) -> RelationTriple | None:
    """The tuple with subject and object exchanged; None where the object is a thing, which can do
    nothing."""
    return RelationTriple(u.object, u.relation, u.subject) if u.object in BEINGS else None


def containing(concept: str, slot: str) -> list[RelationTriple]:
    """All tuples with a concept: a relation in its slot, a noun as subject or object."""
    slots = ("relation",) if slot == "relation" else ("subject", "object")
    return [t for t in ALL_TUPLES if any(getattr(t, s) == concept for s in slots)]


def table(unsafe: Tuples) -> pd.DataFrame:
    """The unsafe tuples and the tuples near each, a row per tuple: unsafe (the one it is near),
    subject, relation, object, role and slot."""
    rows = [(str(u), *t, role, slot) for u in unsafe for t, role, slot in roles(u, unsafe)]
    return pd.DataFrame(rows, columns=["unsafe", *SLOTS, "role", "slot"])


def roles(u: RelationTriple, unsafe: Tuples) -> list[tuple[RelationTriple, str, str]]:
    """A tuple and those near it: tuple, role (unsafe, neighbour, role swap), slot (that a neighbour
    changes, else "")."""
    rows = [(u, "unsafe", "")]
    rows += [(t, "neighbour", changed_slots(u, t)[0]) for t in neighbours(u, unsafe)]
    swapped = role_swap(u)
    if swapped and swapped not in unsafe:
        rows.append((swapped, "role swap", ""))
    return rows


# ---- the file ----


class TupleSet(NamedTuple):
    """What a file of tuples says. U is closed: a synonym is the same tuple, a hypernym stands for
    each of its tuples."""

    unsafe: tuple[RelationTriple, ...]
    safe: tuple[RelationTriple, ...] = ()


def load_tuples(path: Path | str) -> TupleSet:
    """Read a YAML file: `unsafe`, and `safe` if wished, each a list of [subject, relation, object].

    No tuple may be named twice, by a synonym or a hypernym either.
    """
    path = Path(path)
    content = read_tuple_file(path, TupleSet._fields)
    unsafe = _triples(content["unsafe"], f"{path}: unsafe")
    safe = _triples(content.get("safe") or [], f"{path}: safe")
    if both := [t for t in safe if t in unsafe]:
        raise UserError(f"{path}: {both[0]} is both unsafe and safe: remove one of the two")
    return TupleSet(tuple(unsafe), tuple(safe))


def read_tuple_file(path: Path, fields: Sequence[str]) -> dict[str, list]:
    """What a YAML file says: a list for each field, of which the first is required."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML ({str(error).splitlines()[0]})") from None
    first, *others = fields
    if not isinstance(content, dict) or not content.get(first) or set(content) - set(fields):
        more = f"; `{others[0]}:` may follow" if others else ", and nothing else"
        raise UserError(f"{path}: write `{first}:` and a list of [subject, relation, object]{more}")
    for field, rows in content.items():
        if rows and not isinstance(rows, list):
            raise UserError(f"{path}: {field} is no list of [subject, relation, object]")
    return content


def _triples(rows: list, where: str) -> dict[RelationTriple, int]:
    """Each tuple of a list, with the number of the row that names it."""
    numbers: dict[RelationTriple, int] = {}
    for number, row in enumerate(rows, 1):
        try:
            triples = expand(row if isinstance(row, list) else [row])
        except UserError as error:
            raise UserError(f"{where}, number {number}: {error}") from None
        for t in triples:
            if t in numbers:
                meaning = "" if list(t) == row else f"{' '.join(row)} means {t}: "
                raise UserError(
                    f"{where}, number {number}: {meaning}{t} is named already by number "
                    f"{numbers[t]}"
                )
            numbers[t] = number
    return numbers
