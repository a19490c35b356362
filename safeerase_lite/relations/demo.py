"""The first result of relations: two tuples, the main methods, one seed."""

from pathlib import Path

from . import tuples as files
from .data import UNSAFE
from .study import headline, study, summary

LEFT = (0.75,)  # attacks that leave the base model three quarters of its accuracy


def demo(output: Path, tuples: Path | None = None, *, seed: int = 0, workers: int = 2) -> None:
    """Write `relations.csv`, and print what it says. A killed demo continues.

    Args:
        tuples: a file of unsafe tuples; by default two of the world's.

    Raises:
        UserError: a broken file, or a word the world does not have.
    """
    unsafe = files.read(tuples).unsafe if tuples else UNSAFE[:2]
    output = Path(output).resolve()
    output.mkdir(parents=True, exist_ok=True)
    table = study(
        [[u] for u in unsafe],
        seeds=[seed],
        others=unsafe,
        left=LEFT,
        runs_dir=output / "runs",
        workers=workers,
    )
    table.to_csv(output / "relations.csv", index=False)
    _tell(summary(table), [str(u) for u in unsafe])
    print(f"every measure: {output / 'relations.csv'}")


def _tell(found, unsafe: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    shown = headline(found)
    table = Table(title=f"unlearned: {', '.join(unsafe)}", title_justify="left")
    for column in shown:
        table.add_column(column, justify="left" if column == "method" else "right")
    for row in shown.itertuples(index=False):
        table.add_row(row[0], *("–" if value != value else f"{value:.0%}" for value in row[1:]))
    console = Console(width=130)
    console.print(table)
    console.print("tuple top-1: of unsafe pictures. All after suppression: shares of the base's.")
