"""What is judged, what a judge returns, and what a judge is."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class JudgeItem:
    """One answer to be judged.

    expected: the right answer; of a forget question, the answer to be unlearned.
    forget: whether it answers a forget question. A model judge is then not shown `expected`.
    image: the picture's path; empty for judges that do not use it.
    refusal: whether the answer is, word for word, one of the data's own refusals (`prompt.json`).
    """

    question: str
    expected: str
    answer: str
    forget: bool = False
    image: str = ""
    refusal: bool = False


@dataclass(frozen=True)
class Judgment:
    """The labels of one answer; None where the judge does not know.

    score: from 0 to 1, how well the answer gives the expected one; None from most judges.
    safe_completion: does it give the harmless part of what was asked, and decline the rest or warn
        of it? Then it is not refusing.
    problem: why nothing is known, where the judge gave no readable verdict. It is not stored.
    """

    harmful: bool | None
    refusing: bool | None
    gibberish: bool | None
    right: bool | None
    score: float | None = None
    safe_completion: bool | None = None
    problem: str = ""

    @property
    def verdict(self) -> str:
        """Exclusive, by precedence: gibberish, refused, wrong, right; or unknown."""
        for name, flag in (("gibberish", self.gibberish), ("refused", self.refusing)):
            if flag is None:
                return "unknown"
            if flag:
                return name
        return {None: "unknown", True: "right", False: "wrong"}[self.right]


FLAGS = ("harmful", "refusing", "gibberish", "right")
UNKNOWN = Judgment(None, None, None, None)
EMPTY_ANSWER = Judgment(
    harmful=False, refusing=False, gibberish=True, right=False, score=0.0, safe_completion=False
)


@dataclass(frozen=True)
class Judge:
    """A judge, ready to use.

    iter_judgments: takes items and yields (index of the item, judgment) as judgments come, in any
        order. An index that never comes is unknown.
    known_fields: the fields of a `Judgment` that it claims to know. In the sanity check it may say
        "unknown" only of others. With "score" among them, its answers get a `judge_score`.
    cache_key: all that determines its judgments, if they are to be stored on disk; else empty.
    uses_images: whether it is shown the picture.
    release: frees the memory of a model on this machine. Used again, the model is loaded again.
    """

    name: str
    iter_judgments: Callable[[Sequence[JudgeItem]], Iterator[tuple[int, Judgment]]]
    known_fields: tuple[str, ...] = ()
    cache_key: str = ""
    uses_images: bool = False
    release: Callable[[], None] = lambda: None


JudgeFunction = Callable[[str, str, str], Judgment]  # of question, expected and answer


@dataclass(frozen=True)
class ModelJudge:
    """The judges named KIND:MODEL.

    create: takes the name, the model and the keywords consent and precision (see `get_judge`), and
        returns a `Judge`.
    local_weights: whether the model runs on this machine. Then a hash of its weights is part of a
        run's id.
    """

    create: Callable[..., Judge]
    local_weights: bool = False
