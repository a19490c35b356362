"""How models are named and ordered in every table and chart.

Only this file lists objectives. It repeats `unlearning.objectives`, which imports torch.
"""

from collections.abc import Iterable

UNTRAINED = ("vanilla", "gold")  # the model as it is, and one that never saw the harm
LABELS = {"ga": "GA", "gd": "GD", "kl": "KL", "po": "PO", "npo": "NPO"}
TRAININGS = {"none": "plain", "pd": "PD", "placebo": "placebo"}  # decouple → how it reads


def objective_order() -> list[str]:
    """The objectives' names, in the order in which tables and charts show them."""
    return list(LABELS)


def label_of(objective: str) -> str:
    """An objective's label; an untrained model or an objective of one's own is its own label."""
    return LABELS.get(objective, objective)


def model_label(objective: str, decouple: str) -> str:
    """A model's label, such as PO, PO+PD or vanilla."""
    return label_of(objective) + {"pd": "+PD", "placebo": "+placebo"}.get(decouple, "")


def in_display_order(labels: Iterable[str]) -> list[str]:
    """The labels once each: untrained models, the objectives, then those of one's own by name."""
    known = [*UNTRAINED, *map(label_of, objective_order())]
    present = set(labels)
    return [label for label in known if label in present] + sorted(present - set(known))
