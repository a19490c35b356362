"""One notebook through papermill: parameters are checked first, the output is complete or apart."""

import ast
import difflib
import io
import json
import logging
import os
import re
import shutil
import signal
import tempfile
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import nbformat
import papermill
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from pydantic import ConfigDict, TypeAdapter, ValidationError
from traitlets import default

from safeerase_lite.utils import OPENED, UserError, is_interactive, reading, require_writable

PARTIAL = ".partial-"  # a folder's name begins so while a notebook is executed in it
START_ATTEMPTS = 3  # kernels started side by side can race for a port
SECRET_NAME = re.compile(r"(^|_)(api_?key|token|secret|password)$", re.IGNORECASE)
SECRET_VALUE = re.compile(r"(?<![\w./-])(sk-|hf_|ghp_|gho_|github_pat_|AKIA)\w")
PYTHON = {"name": "python3", "language": "python", "display_name": "Python 3"}

# The types a parameter can have: what is accepted, and how an error describes it. Strict, because
# True is no number and YAML reads `yes` as True.
STRICT = ConfigDict(strict=True, allow_inf_nan=False)
TYPES: dict[str, tuple[TypeAdapter, str]] = {
    "str": (TypeAdapter(str, config=STRICT), "a text"),
    "int": (TypeAdapter(int, config=STRICT), "a whole number"),
    "float": (TypeAdapter(float, config=STRICT), "a number"),
    "bool": (TypeAdapter(bool, config=STRICT), "true or false"),
    "list": (TypeAdapter(list), 'a list as JSON, such as ["po", "kl"]'),
}


class NotebookFailed(RuntimeError):
    """A notebook stopped on an error. The message is one line: where, what, and what to look at."""


class KernelLost(NotebookFailed):
    """The kernel died or never started, so the notebook may do better next time."""


# ---- parameters ----


@dataclass(frozen=True)
class Parameter:
    """A statement `name: type = default  # help` of the cell tagged `parameters`.

    A type such as `int | None`, or a default of None, means that None can also be given, as None or
    as the text "None".
    """

    name: str
    type: str
    default: Any
    help: str

    @property
    def kinds(self) -> list[str]:
        return re.split(r"\s*\|\s*", re.sub(r"\[.*\]", "", self.type))

    @property
    def kind(self) -> str:
        """The type, as one of TYPES: without None and without what a list holds."""
        return " | ".join(kind for kind in self.kinds if kind != "None")


def parameters(notebook: Path | str) -> list[Parameter]:
    """What a notebook's cell tagged `parameters` declares, in its order.

    Raises a UserError: no such file, no notebook, no tagged cell, one that is not Python, or a
    default that is no literal or not of its type.
    """
    source = _tagged(_read(Path(notebook)), notebook).source
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
    declared = {}
    for name, node in _assignments(source):
        default, annotation = ast.unparse(node.value), getattr(node, "annotation", None)
        try:
            value = ast.literal_eval(node.value)
        except (ValueError, TypeError):
            raise UserError(
                f"parameter {name!r} of {notebook} has the default {default}: write a literal, and "
                "derive values in a later cell"
            ) from None
        quoted = isinstance(annotation, ast.Constant)
        kind = str(annotation.value if quoted else annotation and ast.unparse(annotation))
        declared[name] = Parameter(name, kind, value, comments.get(node.end_lineno, ""))
        _check_default(declared[name], notebook)
    return list(declared.values())


def _check_default(parameter: Parameter, notebook: Path | str) -> None:
    if parameter.default is None or parameter.kind not in TYPES:
        return
    adapter, description = TYPES[parameter.kind]
    try:
        adapter.validate_python(parameter.default, strict=True)
    except ValidationError:
        raise UserError(
            f"parameter {parameter.name!r} of {notebook} has the default {parameter.default!r}: "
            f"give {description} ({parameter.kind})"
        ) from None


def _tagged(node: nbformat.NotebookNode, notebook: Path | str) -> nbformat.NotebookNode:
    """The cell after which papermill sets the parameters, checked to be Python."""
    for cell in node.cells:
        if "parameters" in cell.metadata.get("tags", []):
            try:
                ast.parse(cell.source, "parameters")
            except (SyntaxError, ValueError) as error:
                reason = _first_line(error)
                raise UserError(
                    f"the cell tagged 'parameters' of {notebook} is not Python ({reason}): keep "
                    "parameters alone in it, as name: type = value"
                ) from None
            return cell
    raise UserError(f"{notebook} has no cell tagged 'parameters': tag the one that holds them")


def _assignments(source: str) -> Iterator[tuple[str, ast.Assign | ast.AnnAssign]]:
    """The statements `name = value` and `name: type = value`, by name."""
    for node in ast.parse(source).body:
        match node:
            case (
                ast.Assign(targets=[ast.Name(name)])
                | ast.AnnAssign(target=ast.Name(name), value=ast.expr())
            ):
                yield name, node


def validate(
    notebook: Path | str, values: Mapping[str, Any], declared: list[Parameter] | None = None
) -> dict[str, Any]:
    """The values as their parameters' types: a text is parsed, a list from JSON.

    Args:
        values: by parameter name, as text or typed.
        declared: the notebook's `parameters`, where they were read before.

    Raises:
        UserError: an unknown name, a value of another type, or what looks like a key or token.
    """
    declared = {parameter.name: parameter for parameter in declared or parameters(notebook)}
    _refuse_secrets(values)
    for name in values:
        if name not in declared:
            near = difflib.get_close_matches(name, declared, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            names = ", ".join(declared) or "none"
            raise UserError(f"{notebook} has no parameter {name!r}{hint} (its parameters: {names})")
    typed = {name: _validate(declared[name], value, notebook) for name, value in values.items()}
    _refuse_secrets(typed)  # again, because a list was one text before
    return typed


def _validate(parameter: Parameter, value: Any, notebook: Path | str) -> Any:
    name = parameter.kind
    if name not in TYPES:
        raise UserError(
            f"parameter {parameter.name!r} of {notebook} declares no type that can be checked: "
            f"annotate it with one of {', '.join(TYPES)}"
        )
    if (parameter.default is None or "None" in parameter.kinds) and value in (None, "None"):
        return None
    adapter, description = TYPES[name]
    try:
        if not isinstance(value, str):
            return adapter.validate_python(value)
        return adapter.validate_json(value) if name == "list" else adapter.validate_strings(value)
    except ValidationError:
        is_bool = isinstance(value, bool)
        hint = " (YAML reads yes, no, on and off so: put them in quotes)" if is_bool else ""
        raise UserError(
            f"parameter {parameter.name!r} of {notebook} cannot be {value!r}: give {description} "
            f"({name}){hint}"
        ) from None


def _refuse_secrets(value: Any, name: str = "") -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            _refuse_secrets(item, str(key))
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_secrets(item, name)
    elif SECRET_NAME.search(name) or SECRET_VALUE.search(str(value)):
        raise UserError(
            f"parameter {name!r} looks like a key or token, and a notebook stores its parameters: "
            "set it as an environment variable instead"
        )


def code(notebook: Path | str) -> str:
    """The source of every code cell; of the one with the parameters, what declares none."""
    node = _read(Path(notebook))
    tagged, sources = _tagged(node, notebook), []
    for cell in node.cells:
        source = cell.source if cell.cell_type == "code" else ""
        if cell is tagged:
            lines = cell.source.split("\n")  # as ast counts; splitlines() also cuts at U+2028
            for _, statement in _assignments(source):
                first, last = statement.lineno - 1, statement.end_lineno
                lines[first:last] = [""] * (last - first)
            source = "\n".join(filter(str.strip, lines))
        sources.append(source)
    return "\n\n".join(filter(None, sources))


def _read(notebook: Path) -> nbformat.NotebookNode:
    """The notebook, every line of its cells ended by \\n."""
    try:
        node = nbformat.read(notebook, as_version=4)
        for cell in node.cells:
            cell.source = re.sub("\r\n?", "\n", cell.source)
        return node
    except FileNotFoundError:
        raise UserError(f"there is no notebook {notebook}: check the path") from None
    except OSError as error:
        raise UserError(f"{notebook} cannot be read: {error.strerror}") from None
    except Exception as error:  # each way of being broken raises a type of its own
        reason = _first_line(error)
        raise UserError(f"{notebook} is not a notebook ({reason}): restore the file") from None


# ---- execution ----


def execute(
    notebook: Path | str,
    output: Path | str,
    values: Mapping[str, Any] | None = None,
    *,
    time_limit: float | None = None,
) -> Path:
    """Run a notebook with these parameters on this interpreter, and write it with its outputs.

    Args:
        output: appears when the run is complete. A failed run leaves `<output>.failed.ipynb`
            instead, executed up to the error.
        values: by parameter name, as text or typed; checked before anything starts.
        time_limit: seconds; a notebook that takes longer has failed. Main thread only, and not on
            Windows, which has no alarm.

    Returns:
        The output's path. Its metadata name the complete runs it opened, see `opened_runs`.

    Raises:
        UserError: a bad notebook, parameter or path.
        NotebookFailed: a cell raised an error, or time was up; its kind KernelLost: the kernel
            died or never started.
    """
    notebook, output = Path(notebook), Path(output).resolve()
    values = validate(notebook, values or {})
    if output == notebook.resolve():
        raise UserError(f"the output {output} is the notebook itself: choose another")
    if os.path.isdir(output):
        raise UserError(f"the output {output} is a folder: name a file in it")
    require_writable(output)

    failed = output.with_suffix(".failed.ipynb")
    prefix = f"{PARTIAL}{output.stem}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=output.parent) as folder:
        draft, opened_file = Path(folder) / output.name, Path(folder) / "opened"
        opened_file.touch()
        try:
            with patch.dict(os.environ, {OPENED: str(opened_file)}), _alarm(notebook, time_limit):
                _run(notebook, draft, values)
        except NotebookFailed as error:
            if not draft.exists():
                raise
            _publish(draft, failed, notebook)
            raise type(error)(f"{error} (see {failed})") from None
        opened = [Path(line) for line in opened_file.read_text(encoding="utf-8").splitlines()]
        complete = [run for run in opened if (run / "run.json").is_file()]
        if runs_dir := values.get("runs_dir"):
            ledger = Path(runs_dir).expanduser().resolve()
            ids = [str(run.relative_to(ledger)) for run in complete if run.is_relative_to(ledger)]
        else:
            ids = [run.name for run in complete]
        _publish(draft, output, notebook, ids)
    failed.unlink(missing_ok=True)
    return output


def opened_runs(executed: Path) -> list[str]:
    """The ids of the complete runs that an executed notebook opened.

    A notebook with the parameter `runs_dir` names those under that ledger; of a run in a folder of
    the ledger, with that folder. Raises Damaged if the notebook is missing or broken.
    """
    with reading(executed, "execute it again"):
        metadata = json.loads(executed.read_bytes())["metadata"]
        return [str(run) for run in metadata.get("safeerase", {}).get("runs", [])]


def remove_partial(output: Path) -> None:
    """Remove what a killed `execute` of this output left. Only where none of it is running."""
    for folder in output.parent.glob(f"{PARTIAL}{output.stem}-*"):
        shutil.rmtree(folder, ignore_errors=True)


class _TimeLimit(BaseException):
    """No Exception, so that nothing in the libraries of the block catches it."""


@contextmanager
def _alarm(notebook: Path, seconds: float | None) -> Iterator[None]:
    """Stop the block with NotebookFailed when it takes longer."""
    if seconds is None or not hasattr(signal, "setitimer"):  # Windows: see `run_process`
        yield
        return

    def stop(*_):
        raise _TimeLimit

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except _TimeLimit:
        raise NotebookFailed(f"{notebook}: stopped after its limit of {seconds:g} s") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _run(notebook: Path, draft: Path, values: dict[str, Any]) -> None:
    """Execute into `draft`, starting over when the kernel did not start."""
    # What goes wrong is raised; without a handler papermill's log would go to stderr as well.
    logging.getLogger("papermill").addHandler(logging.NullHandler())
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            papermill.execute_notebook(
                _escape(notebook),
                _escape(draft),
                values,
                kernel_name=PYTHON["name"],
                language=PYTHON["language"],
                kernel_manager_class=ThisInterpreter,
                extra_arguments=["--log-level=CRITICAL"],
                progress_bar=is_interactive(),
            )
            return
        except papermill.PapermillExecutionError as error:
            source = _first_line(error.source, limit=60)
            reason = ": ".join(filter(None, [error.ename, _first_line(error.evalue, limit=300)]))
            raise NotebookFailed(
                f"{notebook} stopped at cell In [{error.exec_count}] `{source}`: {reason}"
            ) from None
        except (RuntimeError, TimeoutError) as error:
            what, advice = "the kernel was lost while running", "is there memory enough?"
            # The two complaints of jupyter_client's `wait_for_ready`.
            if re.match(r"Kernel (died before replying|didn't respond)", str(error)):
                if attempt < START_ATTEMPTS:
                    continue
                draft.unlink(missing_ok=True)  # nothing in it was executed
                what = f"no kernel started in {attempt} attempts"
                advice = "look at `safeerase doctor`"
            raise KernelLost(f"{notebook}: {what} ({_first_line(error)}); {advice}") from None


def _publish(draft: Path, target: Path, notebook: Path, runs: Sequence[str] = ()) -> None:
    """Move an executed notebook into place, without widget state and this machine's folders."""
    node = nbformat.read(draft, as_version=4)
    # GitHub shows "Invalid Notebook" when `metadata.widgets` lacks its state.
    node.metadata.pop("widgets", None)
    if runs:
        node.metadata["safeerase"] = {"runs": list(dict.fromkeys(runs))}
    node.metadata["papermill"] |= {"input_path": notebook.name, "output_path": target.name}
    nbformat.write(node, draft)
    os.replace(draft, target)


def _escape(path: Path) -> str:
    """A path with its braces doubled: papermill formats paths with the parameters."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _first_line(message: Any, limit: int = 200) -> str:
    lines = str(message).strip().splitlines() or [""]
    return lines[0] if len(lines[0]) <= limit else lines[0][: limit - 1] + "…"


class ThisInterpreter(AsyncKernelManager):
    """Starts kernels with `sys.executable`.

    A kernelspec "python3" in the user's folder or on $JUPYTER_PATH may name another python, one
    that has other libraries or none. With no folder to look in, jupyter_client falls back on the
    native kernel: this interpreter's own.
    """

    @default("kernel_spec_manager")
    def _look_in_no_folder(self) -> KernelSpecManager:
        return KernelSpecManager(parent=self, kernel_dirs=[])
