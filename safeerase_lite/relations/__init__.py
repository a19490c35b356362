"""Object–relation–object tuples: unlearn the relation, keep who takes part in it.

Our reading of Relationship-Aware Safety Unlearning (arXiv 2603.14185). Names load when they are
first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

_HOMES = {
    "ORO": "tuples",
    "neighbours": "tuples",
    "role_swap": "tuples",
    "marginals": "tuples",
    "expand": "tuples",
    "parse": "tuples",
    "read": "tuples",
    "write": "tuples",
    "caption": "words",
    "noun_caption": "words",
    "draw": "scenes",
    "scenes_of": "data",
    "UNSAFE": "data",
    "load_clip": "clip",
    "pixels": "clip",
    "reading": "reading",
    "Edited": "editing",
    "listed": "editing",
    "METHODS": "methods",
    "SETTING": "methods",
    "ATTACKS": "attacks",
    "check": "experiment",
    "edit_run": "experiment",
    "load_edited": "experiment",
    "study": "study",
    "tidy": "study",
    "summary": "study",
    "headline": "study",
    "shipped": "report",
}
_ROOMS = {"losses", "measures", "strengths", "exam", "tuples", "words"}

__all__ = [*_HOMES, *_ROOMS]

if TYPE_CHECKING:
    from safeerase_lite.relations import exam, losses, measures, strengths, tuples, words  # noqa: F401
    from safeerase_lite.relations.attacks import ATTACKS  # noqa: F401
    from safeerase_lite.relations.clip import load_clip, pixels  # noqa: F401
    from safeerase_lite.relations.data import UNSAFE, scenes_of  # noqa: F401
    from safeerase_lite.relations.editing import Edited, listed  # noqa: F401
    from safeerase_lite.relations.experiment import check, edit_run, load_edited  # noqa: F401
    from safeerase_lite.relations.methods import METHODS, SETTING  # noqa: F401
    from safeerase_lite.relations.reading import reading  # noqa: F401
    from safeerase_lite.relations.report import shipped  # noqa: F401
    from safeerase_lite.relations.scenes import draw  # noqa: F401
    from safeerase_lite.relations.study import headline, study, summary, tidy  # noqa: F401
    from safeerase_lite.relations.tuples import (  # noqa: F401
        ORO,
        expand,
        marginals,
        neighbours,
        parse,
        read,
        role_swap,
        write,
    )
    from safeerase_lite.relations.words import caption, noun_caption  # noqa: F401


def __getattr__(name: str):
    if name in _ROOMS:
        return import_module(f".{name}", __name__)
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
