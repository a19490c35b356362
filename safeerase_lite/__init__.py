"""Multimodal machine unlearning one can run, see and take apart. `import safeerase_lite as sl`.

Names load when they are first used, so the import itself is quick.
"""

import logging
import os
from importlib import import_module

from .config import config, has_gold
from .utils import UserError

__version__ = "0.1.0"

# bitsandbytes reports on import that it did not fetch an optional CPU kernel from a hub. It never
# shall: nothing here goes to the network unasked.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

# torch's idle threads (GNU OpenMP) spin in wait of work: two notebooks at once on two cores would
# do little else. Read when torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# name → where it lives
_FUNCTIONS = {
    "load_data": "data.dataset",
    "read_data": "data.dataset",
    "read_safety_set": "data.safety_sets",
    "mask_text": "data.redaction",
    "redact_for_display": "data.redaction",
    "load_methods": "unlearning.own_methods",
    "load_model": "models.llava",
    "reference": "models.llava",
    "reset_adapter": "models.llava",
    "answer_logits": "models.forward",
    "autocast": "models.forward",
    "answer_nll": "evaluation.generate",
    "generate": "evaluation.generate",
    "judge_answers": "evaluation.evaluate",
    "evaluate": "runs.experiment",
    "ask_safety_set": "runs.safety_sets",
    "attack": "runs.attacks",
    "unlearn": "runs.experiment",
    "open_run": "runs.experiment",
    "session": "runs.store",
    "ask_and_show": "lessons.pictures",
    "show_answers": "lessons.pictures",
    "check_yours": "lessons.yours",
    "browse": "lessons.widgets",
    "calibration": "lessons.predictions",
    "outcome": "lessons.predictions",
    "predict": "lessons.predictions",
    "stamp": "lessons.stamp",
}
_MODULES = {
    "judges": "evaluation.judges",
    "ledger": "runs.store",
    "metrics": "evaluation.metrics",
    "objectives": "unlearning.objectives",
    "plots": "report.plots",
    "relations": "relations",
    "robustness": "robustness",
    "tinyworld": "tinyworld",
}

__all__ = ["UserError", "__version__", "config", "has_gold", *_FUNCTIONS, *_MODULES]


def __getattr__(name: str):
    if name in _MODULES:
        return import_module(f".{_MODULES[name]}", __name__)
    if name in _FUNCTIONS:
        return getattr(import_module(f".{_FUNCTIONS[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
