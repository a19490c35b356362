"""Does it really forget? Attacks on a finished run, each a function of (model, data, config).

    scores = sl.robustness.prefix(model, data, config)
    sl.robustness.summary(scores)                        # value [low, high] by variant and strength
    sl.robustness.beside_gold(scores, sl.robustness.prefix(gold, data, config))

Every attack takes a vanilla, a gold and any unlearned model alike, leaves it as it was, and returns
a row per answer (`scores.SCORES`). An attack of your own joins in a notebook:

    sl.robustness.ATTACKS["mine"] = sl.robustness.Attack(mine, "Mine", "what strength means")

All are judged by the oracle, so they run on tiny worlds alone. To withstand all of them is no proof
that anything was removed: each is one way to ask, and most do not look for the weakest place.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from safeerase_lite.config import Config
from safeerase_lite.data.dataset import Data
from safeerase_lite.utils import UserError, check_choice, expects

from .alterations import pictures
from .perturbation import universal
from .precision import quantisation
from .prefilling import prefix
from .probing import probes
from .relearn import relearning
from .scores import SCORES, ask, beside_gold, questions, summary
from .wording import words


@dataclass(frozen=True)
class Attack:
    """An attack.

    Attributes:
        run: (model, data, config) → scores.
        label: its name in tables and charts.
        strength: what the column strength means.
    """

    run: Callable[..., pd.DataFrame]
    label: str
    strength: str = "strength"


# The order is that of tables and charts.
ATTACKS = {
    "prefix": Attack(prefix, "Prefix", "tokens of the plan that are given"),
    "relearning": Attack(relearning, "Relearning", "steps of training"),
    "quantisation": Attack(quantisation, "Quantisation", "bits per weight"),
    "words": Attack(words, "Words", "changed (1) or not (0); of many-shot, turns before"),
    "pictures": Attack(
        pictures, "Pictures", "standard deviation in grey levels, or share of a side"
    ),
    "universal": Attack(universal, "Universal perturbation", "budget in grey levels of 255"),
    "probes": Attack(probes, "Probes", "layer, or number of decoys"),
}


def check_attacks(names: Sequence[str], data: Data | None = None) -> tuple[str, ...]:
    """The names of attacks, each once.

    Raises:
        UserError: there is no such attack; or the data are real, which no attack here is for.
    """
    if isinstance(names, str):
        raise UserError(f"attacks={names!r} is one text: write [{names!r}]")
    for name in names:
        check_choice(name, tuple(ATTACKS), "attack")
    if names and data is not None and not data.invented:
        raise UserError("attacks are for tiny worlds, in which nothing is harmful: leave them out")
    return tuple(dict.fromkeys(names))


@expects
def attack(model, data: Data, config: Config, name: str) -> pd.DataFrame:
    """The scores of one attack, by its name.

    Raises:
        UserError: no such attack; real data, which no attack here is for; or the attack's own.
    """
    check_attacks([name], data)
    scores = ATTACKS[name].run(model, data, config)
    if missing := sorted(set(SCORES) - set(scores)):
        raise UserError(f"attack {name!r} gives scores without {', '.join(missing)}: add them")
    return scores.assign(attack=name)


__all__ = [
    "ATTACKS", "Attack", "ask", "attack", "beside_gold", "check_attacks", "pictures", "prefix",
    "probes", "quantisation", "questions", "relearning", "summary", "universal", "words",
]  # fmt: skip
