"""Attacks on finished runs, in the ledger: each computed once, written whole or not at all.

    <runs_dir>/<id>/attacks/<name>/scores.parquet   a row per answer, see `robustness.scores`
    <runs_dir>/<id>/attacks/<name>/table.csv        their means with intervals

The run is the same with and without them, and so is its id.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from safeerase_lite import robustness
from safeerase_lite.data.dataset import Data
from safeerase_lite.data.requests import so_far
from safeerase_lite.utils import UserError, atomic_directory, expects, setting_aside, track

from . import store
from .experiment import restore


@expects
def attack(model, data: Data, run: store.Run, attacks: Sequence[str]) -> pd.DataFrame:
    """Attack a finished run. What the ledger has already is read; remove it there to repeat it.

    The model gets the adapter of this run first, and has it afterwards.

    Args:
        model: from `load_model`, with the run's settings.
        data: from `load_data`.
        run: complete, from `evaluate`.
        attacks: names in `robustness.ATTACKS`.

    Returns:
        attack, variant, strength, metric, split, kinds, value, low, high, n, kinds_hit, n_kinds;
        see `robustness.summary`. Empty without attacks.

    Raises:
        UserError: no such attack, or real data; the run is not complete; the model was loaded with
            other settings.
    """
    names = robustness.check_attacks(attacks, data)
    if not run.done:
        raise UserError(f"run {run.id} is not complete: evaluate it before it is attacked")
    for name in track(names, f"attack {run.config.label}"):
        folder = run.folder / store.ATTACKS / name
        with setting_aside(folder, run.runs_dir / "damaged"):
            if folder.exists():
                store.read_table(folder / store.TABLE)
                store.read_table(folder / store.ATTACK_SCORES)
        if not folder.exists() and run.main:
            restore(model, run)
            asked = so_far(data, run.config.requests, run.config.seed)
            _write(folder, robustness.attack(model, asked, run.config, name), data)
    tables = run.attacks
    return tables[tables["attack"].isin(names)].reset_index(drop=True)


def _write(folder: Path, scores: pd.DataFrame, data: Data) -> None:
    """Write an attack's scores and their table, pictures by their paths in the data's folder."""
    images = [Path(path).relative_to(data.root).as_posix() for path in scores["image"]]
    try:
        with atomic_directory(folder) as draft:
            scores.assign(image=images).to_parquet(draft / store.ATTACK_SCORES, index=False)
            robustness.summary(scores).to_csv(draft / store.TABLE, index=False)
    except OSError:
        if not folder.exists():  # else another process was quicker
            raise
