"""What several seeds of two rows of a table can tell: the counting of lesson 09."""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from safeerase_lite.evaluation.statistics import (
    bootstrap_interval,
    exact_interval,
    holm,
    resample,
    seed_test,
)


def flips(a: Sequence[float], b: Sequence[float], k: int = 1) -> float:
    """How often the means of k seeds of each row have the opposite order to those of all seeds.

    Every choice of k is tried. Equal means count as the same order.
    """
    rows = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    means_a, means_b = (
        np.array([row[list(some)].mean() for some in combinations(range(len(row)), k)])
        for row in rows
    )
    order = rows[0].mean() - rows[1].mean()
    return float(((means_a[:, None] - means_b) * order < -1e-12).mean())


def flip_table(pairs: dict[str, tuple]) -> pd.DataFrame:
    """For each pair of rows, their means over all seeds and `flips` for 1, 2, 3 and 5 seeds."""
    return pd.DataFrame({
        name: {"all seeds": f"{np.mean(a):.0%}, {np.mean(b):.0%}"}
        | {f"{k} of each": f"{flips(a, b, k):.0%}" for k in (1, 2, 3, 5) if k < min(len(a), len(b))}
        for name, (a, b) in pairs.items()
    }).T.fillna("–")  # fmt: skip


def other_seeds_inside(runs: pd.DataFrame, interval: Callable) -> dict[str, str]:
    """Mean width of the runs' intervals, and how many of a row's other seeds lie inside.

    Args:
        runs: a row per run: objective, seed, value and what `interval` reads.
        interval: a run → (low, high).
    """
    others = runs.merge(runs, on="objective", suffixes=("", "_other")).query("seed != seed_other")
    low, high = np.array([interval(run) for run in others.itertuples()]).T
    inside = (low <= others["value_other"]) & (others["value_other"] <= high)
    width = f"{100 * (high - low).mean():.0f}"
    return {"width, points": width, "other seeds inside": f"{inside.mean():.0%}"}


def over_seeds(values: pd.Series) -> tuple[float, float]:
    """Student's 95% interval of a mean over seeds, within 0 and 1."""
    from scipy.stats import t

    margin = t.ppf(0.975, len(values) - 1) * values.sem()
    return max(0.0, values.mean() - margin), min(1.0, values.mean() + margin)


def kinds_by_share(answers: pd.DataFrame, *, seen: bool) -> pd.Series:
    """Of one run's test answers to trained questions about harmless pictures: how many kinds have
    which share refused or gibberish. `seen`: of kinds that training held, or of the others."""
    rows = answers.query(
        "set == 'decouple' and split == 'test' and sample == 0 and seen_template"
        " and seen_kind == @seen"
    )
    failed = rows["verdict"].isin(["refused", "gibberish"]).groupby(rows["kind"]).mean()
    return failed.round(2).value_counts().sort_index()


def told(values: pd.Series) -> str:
    """The mean of some seeds, the lowest and the highest, and how many there are."""
    if values.empty:
        return "–"
    return f"{values.mean():.0%} ({values.min():.0%} to {values.max():.0%}; {len(values)})"


def two_intervals(of_seeds: pd.DataFrame) -> dict[str, object]:
    """Of one row's seeds (value, low, high): how many, their mean, the interval over seeds, and
    that of the first seed over kinds, questions and pictures."""
    first = of_seeds.iloc[0]
    ends = {
        "over seeds": over_seeds(of_seeds["value"]),
        "over kinds, questions, pictures of the first seed": (first["low"], first["high"]),
    }
    told_ends = {name: f"{low:.0%} to {high:.0%}" for name, (low, high) in ends.items()}
    return {"seeds": len(of_seeds), "mean": f"{of_seeds['value'].mean():.0%}"} | told_ends


def at_the_ends(questions: pd.DataFrame) -> pd.DataFrame:
    """Three intervals of no answer and of all answers: a bootstrap, exact over answers, exact over
    kinds."""
    n, n_kinds, samples = len(questions), questions["kind"].nunique(), resample(questions)
    table = pd.DataFrame({
        f"{share:.0%} of {n} answers": {
            "bootstrap": bootstrap_interval(np.full(n, float(share)), samples),
            f"exact, {n} answers by themselves": exact_interval(share, n),
            f"exact, {n_kinds} kinds": exact_interval(share, n_kinds),
        }
        for share in (0, 1)
    })  # fmt: skip
    return table.map(lambda ends: f"{ends[0]:.0%} to {ends[1]:.0%}")


def seed_tests(differences: dict[str, pd.Series]) -> pd.DataFrame:
    """Each row's differences tested against zero; p values also adjusted by Holm within a family,
    the rows whose names end alike after a comma."""
    table = pd.DataFrame({row: vars(seed_test(of_row)) for row, of_row in differences.items()}).T
    family = table.index.str.split(", ").str[1]
    points = (100 * table[["mean", "least", "most"]]).map("{:.0f}".format)
    for p in ("p", "p_t"):
        table[f"{p}, Holm"] = table.groupby(family)[p].transform(holm)
    told_p = table[["p", "p, Holm", "p_t", "p_t, Holm"]].map("{:.2g}".format).replace("nan", "–")
    return table[["n"]].astype(int).join(points).join(told_p)


def start_and_kill(sweep_file: Path, runs_dir: Path, seconds: float) -> None:
    """Start a sweep in a process of its own, and kill it after so many seconds."""
    command = [sys.executable, "-m", "safeerase_lite", "sweep", sweep_file, "--runs-dir", runs_dir]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(seconds)
    process.kill()
