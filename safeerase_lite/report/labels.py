"""How models are named and ordered in every table and chart."""

from collections.abc import Iterable

from safeerase_lite.unlearning.objectives import OBJECTIVES, UNTRAINED, label_of

TRAININGS = {"none": "plain", "pd": "PD", "placebo": "placebo"}  # decouple → how it reads


def objective_order() -> list[str]:
    """The objectives' names, in the order in which tables and charts show them."""
    return list(OBJECTIVES)


def model_label(objective: str, decouple: str) -> str:
    """A model's label, such as PO, PO+PD or vanilla."""
    return label_of(objective) + {"pd": "+PD", "placebo": "+placebo"}.get(decouple, "")


def in_display_order(labels: Iterable[str]) -> list[str]:
    """The labels once each: untrained models, the objectives, then those of one's own by name."""
    known = [*UNTRAINED, *map(label_of, objective_order())]
    present = set(labels)
    return [label for label in known if label in present] + sorted(present - set(known))
