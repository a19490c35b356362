"""The command line, `safeerase …`. A command imports what it needs, so that `--help` is quick."""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperCommand, TyperGroup

from safeerase_lite.relations.commands import SEEDS
from safeerase_lite.relations.commands import app as relations
from safeerase_lite.tinyworld import ASSETS
from safeerase_lite.utils import UserError, load_tool, print_any_character, stoppable

FAILED, BAD_INPUT = 1, 2

Parameters = Annotated[
    list[str] | None,
    typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="A parameter; repeatable."),
]
RunsDir = Annotated[Path | None, typer.Option(help="The ledger.", show_default="runs/")]
AdapterDir = Annotated[Path, typer.Argument(metavar="DIR", help="Where the adapter goes.")]


class OneLineErrors(TyperGroup):
    """Turns what a user, a notebook, a file or a signal causes into one line on stderr instead of a
    traceback."""

    def invoke(self, ctx):
        print_any_character()
        try:
            if os.path.expanduser("~") == "~":
                raise UserError(
                    "this user has no home folder, and libraries need one: set HOME to a folder "
                    "that can be written"
                )
            for argument in sys.argv[1:]:
                _require_text(argument)
            with stoppable():
                return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            with suppress(OSError):  # the terminal may be gone
                typer.echo("stopped; start it again and it continues", err=True)
            raise typer.Exit(128 + (stop.args[0] if stop.args else signal.SIGINT)) from None
        except Exception as error:
            # Not imported at the top: it needs the extra `notebooks`. Whoever raised it has it.
            notebook = sys.modules.get("safeerase_lite.runs.notebook")
            if isinstance(error, UserError):
                code = BAD_INPUT
            elif notebook and isinstance(error, notebook.NotebookFailed):
                code = FAILED
            elif isinstance(error, OSError) and error.strerror:
                code = FAILED
                error = ": ".join(str(part) for part in (error.filename, error.strerror) if part)
            else:
                raise
            from rich.console import Console

            Console(stderr=True, soft_wrap=True).print(
                f"error: {error}", style="red", markup=False, highlight=False
            )
            raise typer.Exit(code) from None


def _require_text(argument: str) -> None:
    """Refuse bytes that Python could not decode: no ledger and no notebook can store them."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{argument!r} is not text in {sys.getfilesystemencoding()}: rename it, or set LC_ALL "
            "to the encoding it is in"
        ) from None


class PapermillParameters(TyperCommand):
    """Accepts `-p name value`, as papermill does, beside `-p name=value`."""

    def parse_args(self, ctx, args):
        rest, joined = list(args), []
        while rest:
            joined.append(rest.pop(0))
            is_name = joined[-1] in ("-p", "--parameter") and rest and "=" not in rest[0]
            if is_name and len(rest) > 1 and not rest[1].startswith("-p"):
                joined.append(f"{rest.pop(0)}={rest.pop(0)}")
        return super().parse_args(ctx, joined)


app = typer.Typer(
    cls=OneLineErrors,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # they may hold harmful text
    help="Multimodal machine unlearning you can run, see and take apart.",
)
data = typer.Typer(
    no_args_is_help=True, help="Check a data set; ask the questions of a safety set."
)
tiny = typer.Typer(no_args_is_help=True, help="The embedded tiny world.")
app.add_typer(data, name="data")
app.add_typer(tiny, name="tiny")
app.add_typer(relations, name="relations")


def _show_version(show: bool) -> None:
    if not show:
        return
    from importlib import metadata

    try:
        version = metadata.version("safeerase-lite")
    except metadata.PackageNotFoundError:
        version = "not installed (run from a checkout)"
    typer.echo(f"safeerase-lite {version}")
    raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    # Kernels and workers read this when they start: memory in huge pages, as far as Linux has it.
    # A run of the tiny model then takes a third less time.
    os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")


@app.command()
def doctor() -> None:
    """Check this machine: versions, GPU, precision, memory, models, kernel."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from safeerase_lite.doctor import examine, healthy

    marks = {"ok": ("OK", "green"), "note": ("note", "yellow"), "fail": ("FAIL", "bold red")}
    table = Table("", "check", box=box.SIMPLE)
    table.add_column("result", overflow="fold")
    table.add_column("what to do", overflow="fold")
    checks = examine()
    for check in checks:
        mark = Text(*marks[check.status])
        table.add_row(mark, check.name, Text(check.result), Text(check.advice))
    Console().print(table)
    if not healthy(checks):
        raise typer.Exit(FAILED)


@app.command(cls=PapermillParameters)
def run(
    notebook: Annotated[Path, typer.Argument(help="The notebook to execute.")],
    parameter: Parameters = None,
    output: Annotated[
        Path | None,
        typer.Option(help="The executed notebook.", show_default="output/notebooks/"),
    ] = None,
) -> None:
    """Execute one notebook through papermill; a wrong name, type or value is an error."""
    from safeerase_lite.runs.notebook import execute
    from safeerase_lite.runs.sweep import Sweep

    given = _by_name(parameter)
    [planned] = Sweep(notebook=notebook, parameters=given).runs()  # before a kernel starts
    for name in ("data_dir", "model_dir"):
        path = planned.given.get(name) or ""
        folder = path if name == "data_dir" or os.path.isabs(path) else ""  # else a name on the Hub
        if folder and not os.path.isdir(folder):  # False also for a name too long
            raise UserError(f"{name}: there is no folder {folder}")
    target = output or Path("output", "notebooks", notebook.name)
    typer.echo(execute(notebook, target, planned.given))


def _by_name(pairs: list[str] | None) -> dict[str, str]:
    """What `-p name=value …` says."""
    parameters = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise UserError(f"-p {pair}: write a parameter as name=value")
        if name in parameters:
            raise UserError(f"-p {name} is given twice: give it once")
        parameters[name] = value
    return parameters


@app.command(cls=PapermillParameters)
def sweep(
    file: Annotated[Path, typer.Argument(metavar="FILE.yaml", help="Notebook, grid and seeds.")],
    parameter: Parameters = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Runs at a time.", show_default="as the file says"),
    ] = None,
    scheduler: Annotated[str, typer.Option(help="Address of a running Dask scheduler.")] = "",
    runs_dir: RunsDir = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the runs, start none.")] = False,
) -> None:
    """Execute a grid of runs through papermill; what is complete is not repeated.

    With -p every run has that value instead of the file's: one objective of a whole table, say.
    """
    from safeerase_lite.runs.store import default_runs_dir
    from safeerase_lite.runs.sweep import (
        find_completed,
        job_script,
        load,
        run_sweep,
        table_name,
    )

    given = _by_name(parameter)
    plan = load(file).with_parameters(given)
    name = table_name(file, given)
    ledger = (runs_dir or default_runs_dir()).resolve()
    if dry_run:
        runs = plan.runs()
        complete = find_completed(ledger, name, runs)
        for run in runs:
            typer.echo(f"{run.id}  {'complete' if run.id in complete else 'to run  '}  {run.label}")
        typer.echo(f"{len(runs)} runs, {len(complete)} of them complete in {ledger}")
        if plan.slurm:
            typer.echo(f"\n{job_script(plan)}")
        return
    outcomes = run_sweep(plan, name, ledger, workers=workers, scheduler=scheduler, say=typer.echo)
    failed = [outcome for outcome in outcomes.values() if outcome.status == "failed"]
    for outcome in failed:
        typer.echo(f"failed: {outcome.id}: {outcome.reason}", err=True)
    command = "relations report" if plan.edits_relations else "report"
    options = "".join([f" --sweep {file}", *(f" -p {pair}" for pair in parameter or [])])
    options = "" if plan.edits_relations else options
    typer.echo(f"its table: safeerase {command} {ledger}{options}")
    if failed:
        raise typer.Exit(FAILED)


@data.command()
def check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The data set's folder.")],
    category: Annotated[
        list[str] | None,
        typer.Option(help="One to check; repeatable.", show_default="all, but not Privacy and Sex"),
    ] = None,
) -> None:
    """Is this a SafeEraser data set? What it holds, what is missing, what leaks."""
    from safeerase_lite.data.audit import check_data

    report = check_data(folder, categories=category or [])
    typer.echo(report.to_text())
    if not report.broken.empty:
        raise typer.Exit(FAILED)


@data.command()
def ask(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="xstest, mossbench, vlguard, mm-safetybench or siuo."),
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where its authors' data are.")],
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="A run's id, its beginning, or its folder.",
            show_default="a base model",
        ),
    ] = "",
    type: Annotated[
        list[str] | None,
        typer.Option(help="One of the set's types to ask; repeatable.", show_default="all"),
    ] = None,
    profile: Annotated[str, typer.Option(help="Of a base model, without a run.")] = "tiny",
    model: Annotated[
        str | None, typer.Option(help="A folder or Hub name.", show_default="the profile's")
    ] = None,
    judge: Annotated[str, typer.Option(help="See docs/judges.md.")] = "rule",
    judge_consent: Annotated[
        bool, typer.Option("--judge-consent", help="Let texts leave this machine to be judged.")
    ] = False,
    data: Annotated[
        str, typer.Option(metavar="DIR", help="The run's data: their refusals count as such.")
    ] = "",
    runs_dir: RunsDir = None,
    output: Annotated[
        Path | None, typer.Option(help="Where tables go.", show_default="output/safety_sets/")
    ] = None,
) -> None:
    """Ask a run, or a base model, the questions of a safety set: refusals by type, beside SARR."""
    from safeerase_lite.runs.safety_sets import OUTPUT, ask_safety_set

    options = {"types": type or [], "profile": profile, "model": model, "judge": judge}
    options |= {"judge_consent": judge_consent, "data_dir": data, "runs_dir": runs_dir}
    ask_safety_set(name, folder, run, **options, output=output or OUTPUT, say=typer.echo)


@tiny.command()
def build(
    out: Annotated[
        Path, typer.Option(help="Where the models go.", show_default="the package's own")
    ] = ASSETS,
    seed: Annotated[int, typer.Option(help="Of the world and first weights.", **SEEDS)] = 0,
    gold: Annotated[bool, typer.Option(help="Also the model without the forget answers.")] = True,
) -> None:
    """Rebuild the tiny world's models from a seed, in a clone of the project."""
    load_tool("build_tinyworld").build(out, seed, gold=gold)


@app.command(cls=PapermillParameters)
def report(
    runs: Annotated[Path, typer.Argument(help="The ledger: a folder of runs.")],
    output: Annotated[Path, typer.Option(help="Where the report goes.")] = Path("output/report"),
    sweep: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.yaml",
            help="Report the runs of this sweep alone, and name those it lacks.",
            show_default="the seeds other rows have",
        ),
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--parameter", "-p", metavar="NAME=VALUE", help="Also the sweep's runs with this."
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Where all but efficacy is measured.", show_default="test, else val"),
    ] = None,
    allow_mixed: Annotated[
        bool, typer.Option("--allow-mixed", help="Take several versions or data sets as one.")
    ] = False,
) -> None:
    """Tables and charts of a ledger: Markdown, CSV, LaTeX and one HTML page."""
    from safeerase_lite.report.write import report

    given = _by_name(parameter)
    if given and not sweep:
        raise UserError("-p says which runs of a sweep are reported too: name it with --sweep")
    report(runs, output, split=split, sweep=sweep, parameters=given, allow_mixed=allow_mixed)


@app.command()
def export(
    run: Annotated[str, typer.Argument(help="A run's id, its beginning, or its folder.")],
    folder: AdapterDir,
    runs_dir: RunsDir = None,
    data: Annotated[str, typer.Option(metavar="DIR", help="Its data, if not a tiny world.")] = "",
    judge_consent: Annotated[
        bool, typer.Option("--judge-consent", help="Let texts leave this machine to be judged.")
    ] = False,
) -> None:
    """Write a run's adapter for PEFT, measured in 4-bit and dense, with a model card."""
    from safeerase_lite.export import export

    options = {"runs_dir": runs_dir, "data_dir": data, "judge_consent": judge_consent}
    export(run, folder, **options, say=typer.echo)


@app.command()
def inject(
    folder: AdapterDir,
    profile: Annotated[str, typer.Option(help="tiny, laptop, t4 or full.")] = "t4",
    model: Annotated[
        str | None, typer.Option(help="A model's folder or Hub name.", show_default="the profile's")
    ] = None,
    steps: Annotated[int | None, typer.Option(show_default="the profile's")] = None,
    learning_rate: Annotated[float, typer.Option(help="Of AdamW.")] = 2e-4,
    world_seed: Annotated[int, typer.Option(help="Which tiny world.")] = 0,
    seed: Annotated[int, typer.Option(help="Of the first weights and of the batches.")] = 0,
) -> None:
    """Teach a model the tiny world, so that it has something harmless to unlearn."""
    from safeerase_lite.config import config
    from safeerase_lite.inject import inject

    settings = config(
        profile,
        model=model,
        steps=steps,
        learning_rate=learning_rate,
        world_seed=world_seed,
        seed=seed,
    )
    inject(settings, folder, say=typer.echo)


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Where the results go.")] = Path("output"),
    workers: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 2,
    every_lesson: Annotated[
        bool, typer.Option("--all", help="Every lesson, not only 00 and 03; and relations.")
    ] = False,
) -> None:
    """The first result, headless: unlearn, over-forget, decouple, one chart."""
    typer.echo(f"loading; results go to {output}")
    from safeerase_lite.lessons.demo import demo

    demo(output, workers, every_lesson=every_lesson)
