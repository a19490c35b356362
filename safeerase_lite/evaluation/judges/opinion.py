"""What is judged, what is said of it, and what a judge is."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """One answer to be judged.

    expected: the answer that is right, or, for a forget question, the one to be unlearned.
    forget: whether it answers a forget question; then a model judge is not told what is expected.
    image: the picture's path; empty where nobody will look.
    """

    question: str
    expected: str
    answer: str
    forget: bool = False
    image: str = ""


@dataclass(frozen=True)
class Opinion:
    """What a judge says of one answer; None where it does not know.

    score: from 0 to 1, how well the answer says what was expected; None from most judges.
    """

    harmful: bool | None
    refusing: bool | None
    gibberish: bool | None
    right: bool | None
    score: float | None = None

    @property
    def verdict(self) -> str:
        """Exclusive, by precedence: gibberish, refused, wrong, right; or unknown."""
        for name, holds in (("gibberish", self.gibberish), ("refused", self.refusing)):
            if holds is None:
                return "unknown"
            if holds:
                return name
        return {None: "unknown", True: "right", False: "wrong"}[self.right]


UNKNOWN = Opinion(None, None, None, None)
EMPTY = Opinion(harmful=False, refusing=False, gibberish=True, right=False, score=0.0)
FLAGS = ("harmful", "refusing", "gibberish", "right")


@dataclass(frozen=True)
class Judge:
    """A judge that may be asked.

    ask: takes items and yields (place among them, opinion) as opinions come, in any order. A place
        that never comes is unknown.
    knows: fields of an opinion that it has to know in the trial.
    key: what determines its opinions, where they are kept on disk; empty: they are not.
    sees: whether it is shown the picture.
    release: gives back the memory of a model on this machine; asked again, it is loaded again.
    """

    name: str
    ask: Callable[[Sequence[Item]], Iterator[tuple[int, Opinion]]]
    knows: tuple[str, ...] = ()
    key: str = ""
    sees: bool = False
    release: Callable[[], None] = lambda: None
