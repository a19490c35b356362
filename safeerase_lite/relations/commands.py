"""`safeerase relations …`."""

from pathlib import Path
from typing import Annotated

import typer

from safeerase_lite.utils import MAX_SEED, UserError, load_tool

app = typer.Typer(no_args_is_help=True, help="Unsafe object–relation–object tuples on CLIP.")

CLIP = "openai/clip-vit-base-patch32"
SEEDS = {"min": -MAX_SEED, "max": MAX_SEED}

# Each command imports what it needs when it runs, so that `safeerase --help` stays quick.


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Where the results go.")] = Path("output"),
    tuples: Annotated[
        Path | None,
        typer.Option(metavar="FILE.yaml", help="Unsafe tuples.", show_default="two of ours"),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Sets first weights, batches and held-out tuples.", **SEEDS)
    ] = 0,
    together: Annotated[bool, typer.Option("--together", help="All by one edit.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Edits at a time.")] = 2,
    pictures: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Your own pictures, with metadata.csv.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="With --pictures: CLIP or SigLIP.", show_default=CLIP)
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="With --pictures: of the edit.", show_default="200")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(min=0.0, help="With --pictures.", show_default="5e-4")
    ] = None,
) -> None:
    """Unlearn unsafe tuples, one at a time, by the main methods, and attack the result.

    With --pictures: edit a CLIP of yours on your own pictures.
    """
    given = {"steps": steps, "learning_rate": learning_rate}
    given = {name: value for name, value in given.items() if value is not None}
    if pictures:
        if not tuples:
            raise UserError("--pictures needs --tuples FILE: unsafe: [[child, drinking, wine]]")
        from .own_demo import own_demo

        own_demo(model or CLIP, pictures, tuples, output, seed=seed, **given)
        return
    if model or given:
        raise UserError("--model, --steps and --learning-rate are for --pictures DIR: name it")
    from .report import demo

    demo(output, tuples, seed=seed, together=together, workers=workers)


@app.command()
def read(
    name: Annotated[
        str, typer.Argument(help="vg-relation, vg-attribution, sugarcrepe, winoground")
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Its authors' files.")],
    model: Annotated[str, typer.Option(help="A CLIP or SigLIP, a folder or a Hub name.")],
    edited: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="What `demo --pictures` made.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Where the table goes.")
    ] = None,
) -> None:
    """What a CLIP makes of a published test of relations, and what an edit does to that."""
    from .compositional_scores import read_test

    table = read_test(name, folder, model, edited)
    typer.echo(table.to_string(index=False, float_format="{:.3f}".format))
    if output:
        table.to_csv(output, index=False)


@app.command()
def build(
    out: Annotated[Path, typer.Option(help="The folder to make.")] = Path("output/tiny-clip"),
    seed: Annotated[int, typer.Option(help="Sets images and first weights.", **SEEDS)] = 0,
    without: Annotated[
        str | None,
        typer.Option(metavar='"SUBJECT RELATION OBJECT"', help="Never taught: a gold model."),
    ] = None,
) -> None:
    """Rebuild tiny-clip, and set how strong its attacks are. Needs a clone of the project."""
    load_tool("build_clip").build(out, seed, without)


@app.command()
def tune(
    runs: Annotated[Path, typer.Argument(metavar="RUNS", help="A ledger of edits.")],
    output: Annotated[Path, typer.Option(help="Where the choice goes.")] = Path("output/tuned"),
    workers: Annotated[int, typer.Option(min=1, help="Edits at a time.")] = 2,
) -> None:
    """Choose the settings of every method, on tuples that no table reports."""
    from .tuning import tune, write

    output.mkdir(parents=True, exist_ok=True)
    found = tune(runs, workers)
    write(found, output)
    typer.echo(found[found["chosen"]].to_string(index=False))


@app.command()
def report(
    runs: Annotated[Path, typer.Argument(metavar="RUNS", help="A ledger of edits.")],
    output: Annotated[Path, typer.Option(help="Where the tables go.")] = Path("output/relations"),
) -> None:
    """Tables of a ledger of edits: every method, measure and attack, with intervals."""
    from .report import report

    report(runs, output, echo=typer.echo)
