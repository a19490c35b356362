"""Unsafe tuples on CLIP: unlearn a relation, and preserve those who take part in it.

Our reading of Relationship-Aware Safety Unlearning (arXiv 2603.14185). Read the files in this
order: words, tuples, scenes (the world, whose data are in world.json); clip, objectives, editing
(the edit); attacks, adaptive, evaluation (what it did); patching (where it is read); runs, tuning,
report (many of them). A user's own pictures: own_pictures, own_edit, own_measures, own_demo;
others' tests: compositional, compositional_scores. Names load when they are first used.
"""

from importlib import import_module

# file → the names it lends to this package
_NAMES = {
    "words": ["caption", "noun_caption"],
    "tuples": [
        "ALL_TUPLES", "UNSAFE", "RelationTriple", "expand", "load_tuples", "neighbours", "parse",
        "role_swap",
    ],
    "scenes": ["draw", "scenes_of"],
    "clip": ["load_clip", "preprocess"],
    "objectives": ["METHODS", "SETTINGS"],
    "editing": ["EditedClip", "listed"],
    "attacks": ["ATTACKS", "attack_strengths"],
    "adaptive": ["ADAPTIVE"],
    "patching": [],
    "tuning": [],
    "evaluation": ["reading"],
    "runs": ["check", "edit_run", "load_edited", "study", "tidy"],
    "report": ["headline", "shipped", "summary"],
    "own_pictures": ["read_own_pictures"],
    "own_demo": ["load_own_edit", "own_demo"],
    "compositional": ["read_examples"],
    "compositional_scores": ["read_test"],
}  # fmt: skip
_FILES = {name: file for file, names in _NAMES.items() for name in names}

__all__ = [*_FILES, *_NAMES]


def __getattr__(name: str):
    if name in _NAMES:
        return import_module(f".{name}", __name__)
    if name in _FILES:
        return getattr(import_module(f".{_FILES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
