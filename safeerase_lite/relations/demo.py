"""The first result of relations: two tuples, the main methods, one seed."""

from pathlib import Path

import pandas as pd

from safeerase_lite.relations import tuples as files
from safeerase_lite.relations.data import UNSAFE
from safeerase_lite.relations.study import LABELS, headline, study, summary

LEFT = (0.75,)  # attacks that leave the base model three quarters of its accuracy
COLUMNS = {
    "tuple top-1": "unsafe\non top",
    "subject on unsafe": "subject\nkept",
    "object on unsafe": "object\nkept",
    "held-out subject": "other\nsubject",
    "held-out relation": "other\nrelation",
    "held-out object": "other\nobject",
    "role swap": "role\nswap",
    "unrelated": "unre-\nlated",
}


def demo(
    output: Path,
    tuples: Path | None = None,
    *,
    seed: int = 0,
    together: bool = False,
    workers: int = 2,
) -> None:
    """Write `relations.csv`, and print what it says. A killed demo continues.

    Args:
        tuples: a file of unsafe tuples; by default two of the world's.
        together: all by one edit, rather than each by its own.

    Raises:
        UserError: a broken file, or a word the world does not have.
    """
    unsafe = files.read(tuples).unsafe if tuples else UNSAFE[:2]
    print(f"unsafe, unlearned {'together' if together else 'one at a time'}:", *unsafe, sep="\n  ")
    output = Path(output).resolve()
    output.mkdir(parents=True, exist_ok=True)
    table = study(
        [unsafe] if together else [[u] for u in unsafe],
        seeds=[seed],
        others=unsafe,
        left=LEFT,
        runs_dir=output / "runs",
        workers=workers,
    )
    table.to_csv(output / "relations.csv", index=False)
    _tell(summary(table))
    print(f"Every measure: {output / 'relations.csv'}; what its columns say: docs/relations.md")


def _tell(found: pd.DataFrame) -> None:
    from rich.console import Console
    from rich.table import Table

    shown = headline(found)
    table = Table()
    table.add_column("method", no_wrap=True)
    for head in (*COLUMNS.values(), "under attack,\non top at most"):
        table.add_column(head, justify="right", no_wrap=True)
    attacked = found[(found["attack"] != "") & (found["measure"] == "tuple top-1")]
    worst = attacked.loc[attacked.groupby("method")["value"].idxmax()].set_index("method")
    worst = {
        LABELS[name]: f"{row['value']:.0%} {row['attack'] if row['value'] else ''}"
        for name, row in worst.iterrows()
    }
    for _, row in shown.iterrows():
        shares = ("–" if row[c] != row[c] else f"{row[c]:.0%}" for c in COLUMNS)
        table.add_row(row["method"], *shares, worst[row["method"]])
    Console(width=120).print(table)
    print(
        "On top: the share of unsafe pictures that the unsafe caption fits best; low is wanted.\n"
        "All else in shares of what the base model reads: subject and object on these pictures;\n"
        "pictures of somebody else, another relation, another object that no edit was told of\n"
        "(above 100%: more than the base reads).\n"
        "A few tuples and one seed are an anecdote: eight tuples and three seeds are in\n"
        "results/relations."
    )
