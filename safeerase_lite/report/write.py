"""A ledger's report on disk: Markdown, LaTeX, one HTML page, and the tables as CSV."""

from pathlib import Path

from rich.console import Console

from safeerase_lite.utils import atomic_write

from . import attacks, requests
from .document import document, overview
from .formats import html, latex, markdown, printed
from .rows import CITED
from .tables import Study, study


def report(
    runs_dir: Path | str,
    output: Path | str,
    *,
    split: str | None = None,
    sweep: Path | str | None = None,
    parameters: dict[str, str] | None = None,
    allow_mixed: bool = False,
) -> Study:
    """Write a ledger's report into the folder `output`, and print its main tables; see `study`.

    The same ledger gives the same bytes.
    """
    options = {"split": split, "sweep": sweep, "parameters": parameters}
    result = study(runs_dir, **options, allow_mixed=allow_mixed)
    command = f"safeerase report {runs_dir} --split {result.split}"
    command += f" --sweep {sweep}" if sweep else ""
    command += "".join(f" -p {name}={value}" for name, value in (parameters or {}).items())
    command += " --allow-mixed" if allow_mixed else ""
    attacked = attacks.read(result.grid)
    in_turn = requests.read(result.grid)
    more = [*attacks.sections(result.grid, attacked), *requests.sections(in_turn)]
    contents = document(result, command, more)
    runs = result.grid.runs.drop_duplicates("row").set_index("row")
    cited = runs[[name for name in CITED if name in runs and name not in result.grid.keys]]
    table = result.table.join(cited, on="row").drop(columns="row")
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    files = {
        "report.md": markdown(contents),
        "report.tex": latex(contents),
        "report.html": html(contents),
        "table.csv": table.to_csv(index=False, float_format="%.6g"),
        "differences.csv": result.differences.to_csv(index=False, float_format="%.6g"),
    }
    if not attacked.empty:
        columns = attacked.drop(columns="row")
        files["attacks.csv"] = columns.to_csv(index=False, float_format="%.6g")
    if not in_turn.empty:
        files["requests.csv"] = in_turn.to_csv(index=False, float_format="%.6g")
    for name, text in files.items():
        atomic_write(output / name, text)
    summary, missing = overview(result)
    Console(width=120).print(*map(printed, summary))
    print(*missing, f"The whole report is in {output}.", sep="\n")
    return result
