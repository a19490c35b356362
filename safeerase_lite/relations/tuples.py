"""Unsafe object–relation–object tuples as data: U, its neighbours, its marginals.

Source: Relationship-Aware Safety Unlearning (arXiv 2603.14185). What is a neighbour there could not
be read in full; here it changes exactly one slot and lies outside U.
"""

from collections.abc import Iterable
from itertools import combinations, product
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml

from safeerase_lite.relations.words import BEINGS, CONCEPTS, SLOTS, meanings
from safeerase_lite.utils import UserError

FIELDS = ("unsafe", "safe")


class ORO(NamedTuple):
    """Who does what to whom, each a concept of the world."""

    subject: str
    relation: str
    object: str

    def __str__(self) -> str:
        return "–".join(self)


class Stated(NamedTuple):
    """What a file of tuples says.

    unsafe: U, closed: a synonym is the same tuple, a hypernym each of its tuples.
    safe: tuples that are named as safe, for themselves.
    """

    unsafe: tuple[ORO, ...]
    safe: tuple[ORO, ...] = ()


def expand(words: Iterable[str]) -> tuple[ORO, ...]:
    """The tuples that three words stand for: one, or with a hypernym several. Nobody does a thing
    to itself.

    Raises:
        UserError: not three words, a word the world has not, or a tuple of one being with itself.
    """
    words = list(words)
    if len(words) != 3 or not all(isinstance(word, str) for word in words):
        raise UserError(f"{words} is no tuple: give subject, relation, object")
    of_slots = [meanings(word, slot) for word, slot in zip(words, SLOTS, strict=True)]
    found = tuple(ORO(*triple) for triple in product(*of_slots) if triple[0] != triple[2])
    if not found:
        raise UserError(f"{' '.join(words)}: nobody does that to itself here")
    return found


def parse(texts: Iterable[str]) -> list[ORO]:
    """The tuples that texts stand for, each "subject relation object".

    Raises:
        UserError: as `expand`.
    """
    return [u for text in texts for u in expand(text.split())]


def covered(words: Iterable[str], unsafe: Iterable[ORO]) -> bool:
    """Whether three words can describe an unsafe tuple, by a synonym or a hypernym too. Such a
    tuple is no safe neighbour."""
    return not set(unsafe).isdisjoint(expand(words))


def every() -> tuple[ORO, ...]:
    """All tuples of the world."""
    return tuple(ORO(*t) for t in product(*CONCEPTS.values()) if t[0] != t[2])


def neighbours(u: ORO, unsafe: Iterable[ORO], slots: Iterable[str] = SLOTS) -> list[ORO]:
    """The tuples that differ from u in exactly one of `slots` and lie outside U."""
    taken, found = set(unsafe), []
    for slot in slots:
        changed = (u._replace(**{slot: c}) for c in CONCEPTS[slot] if c != getattr(u, slot))
        found += [t for t in changed if t not in taken and t.subject != t.object]
    return found


def two_slot_changes(u: ORO, unsafe: Iterable[ORO]) -> list[ORO]:
    """The tuples that share exactly one slot with u and lie outside U."""
    taken, found = set(unsafe), []
    for one, other in combinations(SLOTS, 2):
        for a, b in product(CONCEPTS[one], CONCEPTS[other]):
            t = u._replace(**{one: a, other: b})
            both = a != getattr(u, one) and b != getattr(u, other)
            if both and t not in taken and t.subject != t.object:
                found.append(t)
    return found


def role_swap(u: ORO) -> ORO | None:
    """The same with roles changed; None where the object is a thing and can do nothing."""
    return ORO(u.object, u.relation, u.subject) if u.object in BEINGS else None


def marginals(unsafe: Iterable[ORO]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Each subject alone and each object alone, of all of U: they must still be seen."""
    unsafe = list(unsafe)
    return tuple(dict.fromkeys(u.subject for u in unsafe)), tuple(
        dict.fromkeys(u.object for u in unsafe)
    )


def table(unsafe: Iterable[ORO]) -> pd.DataFrame:
    """A row per unsafe tuple and tuple near it: unsafe (the tuple), subject, relation, object,
    role (unsafe, neighbour, role swap), slot (that a neighbour changes, else "")."""
    unsafe, rows = list(unsafe), []
    for u in unsafe:
        rows.append((str(u), *u, "unsafe", ""))
        rows += [
            (str(u), *t, "neighbour", slot) for slot in SLOTS for t in neighbours(u, unsafe, [slot])
        ]
        swapped = role_swap(u)
        if swapped and swapped not in unsafe:
            rows.append((str(u), *swapped, "role swap", ""))
    return pd.DataFrame(rows, columns=["unsafe", *SLOTS, "role", "slot"])


# ---- the file ----


def read(path: Path | str) -> Stated:
    """Read a file of tuples: YAML, `unsafe` and, if wished, `safe`, each a list of
    [subject, relation, object].

    Raises:
        UserError: no such file, no such form, a word the world has not, a tuple named twice (by a
            synonym or a hypernym too), or one that is unsafe and safe.
    """
    path = Path(path)
    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} is not YAML ({reason})") from None
    if not isinstance(said, dict) or not said.get("unsafe") or set(said) - set(FIELDS):
        raise UserError(
            f"{path}: write `unsafe:` and a list of [subject, relation, object]; `safe:` may follow"
        )
    found = {name: _tuples(said.get(name) or [], name, path) for name in FIELDS}
    both = [str(t) for t in found["safe"] if t in found["unsafe"]]
    if both:
        raise UserError(f"{path}: {both[0]} is both unsafe and safe: remove one of the two")
    return Stated(**{name: tuple(tuples) for name, tuples in found.items()})


def _tuples(rows: Any, name: str, path: Path) -> dict[ORO, int]:
    """Each tuple with the place in the list that named it."""
    if not isinstance(rows, list):
        raise UserError(f"{path}: {name} is no list of [subject, relation, object]")
    found: dict[ORO, int] = {}
    for place, row in enumerate(rows, 1):
        where = f"{path}: {name}, number {place}"
        try:
            meant = expand(row if isinstance(row, list) else [row])
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        for t in meant:
            if t in found:
                meant = "" if list(t) == row else f"{' '.join(row)} means {t}: "
                raise UserError(f"{where}: {meant}{t} is named already by number {found[t]}")
            found[t] = place
    return found


def write(stated: Stated, path: Path | str) -> None:
    """Write what `read` reads."""
    said = {name: [list(t) for t in getattr(stated, name)] for name in FIELDS}
    text = yaml.safe_dump(
        {name: rows for name, rows in said.items() if rows},
        default_flow_style=None,
        sort_keys=False,
        allow_unicode=True,
    )
    Path(path).write_text(text, encoding="utf-8")
