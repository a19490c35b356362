"""Multimodal machine unlearning one can run, see and take apart. `import safeerase_lite as sl`.

Names load when they are first used, so the import itself is quick.
"""

import logging
import os
from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# bitsandbytes reports on import that it did not fetch an optional CPU kernel from a hub. It never
# shall: nothing here goes to the network unasked.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

# torch's idle threads (GNU OpenMP) spin in wait of work: two notebooks at once on two cores would
# do little else. Read when torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

_HOMES = {
    "profile": "profiles",
    "load_data": "data",
    "read_data": "data",
    "load_llava": "models",
    "reference": "models",
    "open_run": "experiment",
    "has_gold": "experiment",
    "unlearn": "training",
    "evaluate": "evaluation",
    "answer_nll": "evaluation",
    "ask": "evaluation",
    "judged": "evaluation",
    "masked": "care",
    "shown": "care",
    "browse": "explore",
    "predict": "lesson",
    "outcome": "lesson",
    "calibration": "lesson",
    "stamp": "lesson",
    "UserError": "errors",
}
_ROOMS = {"charts", "judges", "ledger", "metrics", "objectives", "relations", "tinyworld"}

__all__ = ["__version__", *_HOMES, *_ROOMS]

if TYPE_CHECKING:
    from . import charts, judges, ledger, metrics, objectives, relations, tinyworld  # noqa: F401
    from .care import masked, shown  # noqa: F401
    from .data import load_data, read_data  # noqa: F401
    from .errors import UserError  # noqa: F401
    from .evaluation import answer_nll, ask, evaluate, judged  # noqa: F401
    from .experiment import has_gold, open_run  # noqa: F401
    from .explore import browse  # noqa: F401
    from .lesson import calibration, outcome, predict, stamp  # noqa: F401
    from .models import load_llava, reference  # noqa: F401
    from .profiles import profile  # noqa: F401
    from .training import unlearn  # noqa: F401


def __getattr__(name: str):
    if name in _ROOMS:
        return import_module(f".{name}", __name__)
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
