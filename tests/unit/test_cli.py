"""The command line: quick to answer, and one line, not a traceback, on what goes wrong."""

import errno
import os
import subprocess
import sys
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import build_tinyworld
import pandas as pd
import pytest
from typer.testing import CliRunner

from safeerase_lite import doctor
from safeerase_lite.cli import app
from safeerase_lite.data import audit as leakage
from safeerase_lite.doctor import Check
from safeerase_lite.runs import notebook as notebooks
from safeerase_lite.runs.notebook import NotebookFailed
from safeerase_lite.runs.sweep import Sweep
from safeerase_lite.utils import UserError, require_new


def safeerase(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def executed(monkeypatch):
    """Record what would be executed; `executed.error` is raised instead, when set."""
    record = SimpleNamespace(calls=[], error=None)

    def execute(notebook, output, given):
        record.calls.append((notebook.as_posix(), output.as_posix(), given))
        if record.error:
            raise record.error
        return output

    monkeypatch.setattr(notebooks, "execute", execute)
    unchecked = lambda self: [SimpleNamespace(given=self.parameters)]  # noqa: E731
    monkeypatch.setattr(Sweep, "runs", unchecked)  # the notebook is none
    return record


@pytest.fixture
def stub(monkeypatch):
    """Replace a module of the package by one with a single recording function."""

    def build(name, function):
        assert find_spec(f"safeerase_lite.{name}"), (
            "a stub of nothing: the command would really run"
        )
        calls = []
        module = ModuleType(f"safeerase_lite.{name}")
        setattr(module, function, lambda *args, **kwargs: calls.append((args, kwargs)))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return calls

    return build


def test_help_names_every_command():
    command = [sys.executable, "-m", "safeerase_lite", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    for name in ("doctor", "run", "sweep", "report", "data", "tiny", "demo", "export", "inject"):
        assert name in result.stdout


def test_heavy_libraries_wait_until_a_command_needs_them():
    heavy = {"torch", "transformers", "pandas", "papermill", "nbformat", "rich.table"}
    code = f"import sys, safeerase_lite.cli; print({heavy} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "set()"


NOTEBOOKS = ["altair", "anywidget", "ipywidgets", "jupyter_client", "jupyterlab", "nbformat",
             "papermill", "vl_convert"]  # fmt: skip


def test_reading_a_ledger_does_not_need_the_notebooks_extra():
    """As where `safeerase-lite` was installed without `[notebooks]`."""
    blocked = f"import sys; sys.modules.update(dict.fromkeys({NOTEBOOKS}))"
    imports = "from safeerase_lite import cli; from safeerase_lite.report import tables"
    result = subprocess.run(
        [sys.executable, "-c", f"{blocked}; {imports}"], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


def test_version():
    assert safeerase("--version").stdout.startswith("safeerase-lite ")


def test_run_passes_parameters_on_and_names_the_output(executed):
    result = safeerase("run", "lessons/03.ipynb", "-p", "seed=1", "-p", "name=a=b")
    assert executed.calls == [
        ("lessons/03.ipynb", "output/notebooks/03.ipynb", {"seed": "1", "name": "a=b"})
    ]
    assert (result.exit_code, result.stdout) == (0, "output/notebooks/03.ipynb\n")
    safeerase("run", "03.ipynb", "--output", "elsewhere.ipynb")
    assert executed.calls[-1] == ("03.ipynb", "elsewhere.ipynb", {})


def test_a_parameter_may_be_written_as_papermill_writes_it(executed):
    safeerase("run", "03.ipynb", "-p", "seed", "-1", "-p", "objective=kl", "-p", "rate", "0.1")
    assert executed.calls[0][2] == {"seed": "-1", "objective": "kl", "rate": "0.1"}


@pytest.mark.parametrize(
    "parameters", [["-p", "seed"], ["-p", "=1"], ["-p", "seed=1", "-p", "seed=2"]]
)
def test_a_malformed_parameter_starts_nothing(executed, parameters):
    result = safeerase("run", "03.ipynb", *parameters)
    assert result.exit_code == 2 and result.stderr.startswith("error: -p ")
    assert executed.calls == []


@pytest.mark.parametrize("name", ["data_dir", "model_dir"])
def test_a_folder_that_is_not_there_starts_nothing(executed, name):
    result = safeerase("run", "03.ipynb", "-p", f"{name}=/no/such/folder")
    assert result.exit_code == 2 and f"{name}: there is no folder /no/such" in result.stderr
    safeerase("run", "03.ipynb", "-p", "model_dir=somebody/some-model")
    assert len(executed.calls) == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("no parameter [red]'sed'[/red] " + "x" * 200), 2),
        (NotebookFailed("03.ipynb stopped at cell In [2]"), 1),
    ],
)
def test_an_error_is_one_line_on_stderr(executed, error, code):
    executed.error = error
    result = safeerase("run", "03.ipynb")
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr == f"error: {error}\n"


def test_a_file_that_cannot_be_used_is_one_line_too(executed):
    executed.error = PermissionError(errno.EACCES, "Permission denied", "runs/[1]/run.json")
    result = safeerase("run", "03.ipynb")
    assert result.exit_code == 1
    assert result.stderr == "error: runs/[1]/run.json: Permission denied\n"


@pytest.mark.parametrize(
    "arguments",
    [["run", "03.ipynb", "-p", "data_dir=/d\udcff"], ["data", "check", "/d\udcff"], ["\udcff"]],
)
def test_an_argument_in_another_encoding_is_refused_before_anything_starts(
    executed, monkeypatch, arguments
):
    monkeypatch.setattr(sys, "argv", ["safeerase", *arguments])
    result = safeerase(*arguments)
    assert result.exit_code == 2 and "\\udcff' is not text in utf-8" in result.stderr
    assert executed.calls == []


@pytest.mark.parametrize("charset", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_that_lacks_a_character_gets_a_plainer_one(monkeypatch, charset):
    write = SimpleNamespace(report=lambda *_, **__: print("\u22127 × 2…, ✓"))
    monkeypatch.setitem(sys.modules, "safeerase_lite.report.write", write)
    result = CliRunner(charset=charset).invoke(app, ["report", "runs"])
    plain = {"ascii": "-7 x 2..., ?\n", "latin-1": "-7 × 2..., ?\n"}
    assert (result.exit_code, result.stdout) == (0, plain.get(charset, "\u22127 × 2…, ✓\n"))


def test_a_user_without_a_home_is_told_to_set_one(executed, monkeypatch):
    """As in a container under a number that no password file knows."""
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    result = safeerase("run", "03.ipynb")
    assert (result.exit_code, executed.calls) == (2, [])
    assert result.stderr.startswith("error: this user has no home folder")


@pytest.mark.parametrize("name", ["file/adapter", "n" * 250])
def test_a_folder_that_cannot_be_made_is_refused_before_any_work(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written: .*: name another"):
        require_new(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_missing_notebook_is_one_line_from_the_shell():
    command = [sys.executable, "-m", "safeerase_lite", "run", "absent.ipynb"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr == "error: there is no notebook absent.ipynb: check the path\n"


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("note", 0), ("fail", 1)])
def test_doctor_fails_only_on_failures(monkeypatch, status, code):
    check = Check("disk", status, "[0] GiB", "free some")
    monkeypatch.setattr(doctor, "examine", lambda: [check])
    result = safeerase("doctor")
    assert result.exit_code == code
    for part in ({"fail": "FAIL", "ok": "OK"}.get(status, status), "disk", "[0] GiB", "free some"):
        assert part in result.stdout


@pytest.mark.parametrize(("problems", "code"), [([], 0), (["truncated"], 1)])
def test_data_check_prints_the_report_and_fails_on_broken_pictures(monkeypatch, problems, code):
    report = SimpleNamespace(broken=pd.DataFrame({"problem": problems}), to_text=lambda: "report")
    monkeypatch.setattr(leakage, "check_data", lambda folder, **_: report)
    result = safeerase("data", "check", "somewhere")
    assert (result.exit_code, result.stdout) == (code, "report\n")


def test_data_check_of_a_folder_that_is_none_is_an_error_in_one_line(tmp_path):
    result = safeerase("data", "check", tmp_path)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1


def test_data_check_looks_at_the_categories_that_are_named(monkeypatch):
    calls = []
    report = SimpleNamespace(broken=pd.DataFrame(), to_text=str)
    monkeypatch.setattr(leakage, "check_data", lambda folder, **how: calls.append(how) or report)
    safeerase("data", "check", "somewhere", "--category", "Sex", "--category", "Weapon")
    assert calls == [{"categories": ["Sex", "Weapon"]}]


def test_a_crash_shows_no_values_for_they_may_be_harmful():
    assert not app.pretty_exceptions_show_locals


def test_tiny_build_passes_folder_seed_and_gold_on(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(build_tinyworld, "build", lambda *args, **how: calls.append((args, how)))
    assert safeerase("tiny", "build", "--out", tmp_path, "--seed", 3, "--no-gold").exit_code == 0
    assert calls == [((tmp_path, 3), {"gold": False})]


def test_demo_passes_folder_and_workers_on(stub, tmp_path):
    calls = stub("lessons.demo", "demo")
    assert safeerase("demo", "--output", tmp_path, "--workers", 2).exit_code == 0
    assert safeerase("demo", "--output", tmp_path, "--all").exit_code == 0
    assert calls == [((tmp_path, 2), {"every_lesson": every}) for every in (False, True)]
    assert safeerase("demo", "--workers", 0).exit_code == 2


def test_idle_threads_do_not_spin_for_long():
    """Set before torch is imported, or two notebooks at once would wait for each other."""
    code = "import os, sys, safeerase_lite; print('torch' in sys.modules, *os.environ.items())"
    environment = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert result.stdout.startswith("False") and "('GOMP_SPINCOUNT', '1000')" in result.stdout
