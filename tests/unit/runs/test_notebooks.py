"""A notebook starts only with parameters that fit, and its output is complete or apart."""

import json
import sys
from pathlib import Path

import nbformat
import papermill
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from safeerase_lite.runs.notebook import (
    NotebookFailed,
    ThisInterpreter,
    code,
    execute,
    parameters,
    validate,
)
from safeerase_lite.utils import UserError

PARAMETERS = """\
seed: int = 0  # draws everything
rate: float = 1e-4
name: str = "tiny"  # a profile
quick: bool = False
objectives: list = ["po", "kl"]
"""


def write(path: Path, *sources: str, tags=("parameters",), **metadata) -> Path:
    """A notebook of these code cells, the first one tagged."""
    cells = [new_code_cell(source) for source in sources]
    cells[0].metadata["tags"] = list(tags)
    nbformat.write(new_notebook(cells=cells, metadata=metadata), path)
    return path


@pytest.fixture
def notebook(tmp_path):
    return write(tmp_path / "lesson.ipynb", PARAMETERS, "1 + 1")


@pytest.fixture
def no_kernel(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a kernel was started")

    monkeypatch.setattr(papermill, "execute_notebook", refuse)


# ---- parameters ----


def test_parameters_are_read_in_order_with_type_default_and_help(notebook):
    seed, rate, name, quick, objectives = parameters(notebook)
    assert (seed.name, seed.type, seed.default, seed.help) == ("seed", "int", 0, "draws everything")
    assert (rate.default, name.default, quick.default) == (1e-4, "tiny", False)
    assert (objectives.type, objectives.default) == ("list", ["po", "kl"])


@pytest.mark.parametrize(
    ("line", "type", "default", "help"),
    [
        ('name: str = "a # b"', "str", "a # b", ""),
        ('name: str = "a = b"  # with = and #', "str", "a = b", "with = and #"),
        ('name: "int | None" = None  # quoted', "int | None", None, "quoted"),
        ("name: int | None = 3", "int | None", 3, ""),
        ('name: list[str] = [\n  "po",  # one\n  "# b"]  # all', "list[str]", ["po", "# b"], "all"),
        ('name: str = """two\nlines"""', "str", "two\nlines", ""),
        ("name = -1", "None", -1, ""),
    ],
)  # fmt: skip
def test_a_parameter_is_read_as_python_reads_it(tmp_path, line, type, default, help):
    path = write(tmp_path / "odd.ipynb", f"# first\n{line}\nlast: int = 1\nprint(last)", "1 + 1")
    name, last = parameters(path)
    assert (name.name, name.type, name.default, name.help) == ("name", type, default, help)
    assert last.name == "last"
    assert code(path) == "# first\nprint(last)\n\n1 + 1"


@pytest.mark.parametrize("character", ["\u2028", "\x85", "\f", "\x1c"])
def test_only_a_line_end_of_python_ends_a_line(tmp_path, character):
    cell = f"# a{character}b\nseed: int = 0  # draws\nprint({{}})"
    one = write(tmp_path / "one.ipynb", cell.format(1))
    two = write(tmp_path / "two.ipynb", cell.format(2))
    assert code(one) == f"# a{character}b\nprint(1)" != code(two)
    assert parameters(one)[0].help == "draws"


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_line_ends_of_another_system_change_neither_parameters_nor_code(tmp_path, end):
    sources = ["# first\n" + PARAMETERS + "print(seed)", "if seed:\n    print(1)"]
    here = write(tmp_path / "here.ipynb", *sources)
    there = write(tmp_path / "there.ipynb", *(s.replace("\n", end) for s in sources))
    assert parameters(there) == parameters(here)
    assert code(there) == code(here)


def test_a_quoted_or_optional_type_is_checked_like_any_other(tmp_path):
    path = write(tmp_path / "own.ipynb", 'steps: "int | None" = 3\nrate: None|float = 0.5')
    assert validate(path, {"steps": "7", "rate": "1"}) == {"steps": 7, "rate": 1.0}
    assert validate(path, {"steps": "None", "rate": None}) == {"steps": None, "rate": None}
    with pytest.raises(UserError, match="'steps' .* cannot be 'few'"):
        validate(path, {"steps": "few"})


def test_a_parameters_cell_that_is_not_python_is_refused(tmp_path):
    path = write(tmp_path / "magic.ipynb", "%time\nseed: int = 0")
    with pytest.raises(UserError, match="'parameters' of .*magic.ipynb is not Python .*line 1"):
        parameters(path)


@pytest.mark.parametrize(
    "text", ["", "not json", "{}", "[]", "3", '{"cells": 3, "nbformat": 4, "metadata": {}}', "\xff"]
)
def test_what_is_no_notebook_is_named(tmp_path, text):
    path = tmp_path / "broken.ipynb"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match="broken.ipynb is not a notebook") as caught:
        parameters(path)
    assert "\n" not in str(caught.value)


def test_a_missing_notebook_and_a_folder_are_named(tmp_path):
    with pytest.raises(UserError, match="there is no notebook .*absent.ipynb"):
        parameters(tmp_path / "absent.ipynb")
    with pytest.raises(UserError, match="cannot be read"):
        parameters(tmp_path)


def test_a_notebook_without_a_tagged_cell_is_refused(tmp_path):
    with pytest.raises(UserError, match="no cell tagged 'parameters'"):
        parameters(write(tmp_path / "plain.ipynb", "seed: int = 0", tags=()))


def test_a_default_that_is_no_literal_is_refused(tmp_path):
    with pytest.raises(UserError, match="parameter 'steps' .* has the default seed \\+ 1"):
        parameters(write(tmp_path / "derived.ipynb", "seed: int = 0\nsteps: int = seed + 1"))


@pytest.mark.parametrize(
    ("kind", "default"),
    [
        ("int", "True"),
        ("int", "'3'"),
        ("int | None", "0.5"),
        ("str", "b'a'"),
        ("float", "1e999"),
        ("bool", "1"),
        ("list", "'po'"),
        ("list[str]", "('po',)"),
    ],
)
def test_a_default_of_another_type_is_refused(tmp_path, kind, default):
    with pytest.raises(UserError, match=r"parameter 'x' of .* has the default .*: give .* \(\w+\)"):
        parameters(write(tmp_path / "odd.ipynb", f"x: {kind} = {default}"))


def test_text_becomes_the_declared_type(notebook):
    given = {"seed": "7", "rate": "3e-4", "name": "7", "quick": "True", "objectives": '["ga"]'}
    expected = {"seed": 7, "rate": 3e-4, "name": "7", "quick": True, "objectives": ["ga"]}
    assert validate(notebook, given) == expected
    assert validate(notebook, expected) == expected
    assert type(validate(notebook, {"rate": 1})["rate"]) is float
    assert validate(notebook, {}) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", "1.5"),
        ("seed", 1.5),
        ("seed", True),
        ("rate", "fast"),
        ("rate", False),
        ("rate", "inf"),
        ("rate", float("nan")),
        ("name", 3),
        ("quick", "maybe"),
        ("quick", 1),
        ("objectives", "po"),
        ("objectives", '{"po": 1}'),
        ("objectives", None),
    ],
)
def test_a_wrong_type_names_parameter_value_and_type(notebook, name, value):
    kind = {p.name: p.type for p in parameters(notebook)}[name]
    with pytest.raises(UserError) as caught:
        validate(notebook, {name: value})
    assert f"'{name}'" in str(caught.value)
    assert repr(value) in str(caught.value)
    assert f"({kind})" in str(caught.value)


def test_none_is_a_value_where_it_is_the_default(tmp_path):
    path = write(tmp_path / "own.ipynb", "steps: int = None  # None: the profile's\nseed: int = 0")
    steps, _ = parameters(path)
    assert (steps.type, steps.default, steps.help) == ("int", None, "None: the profile's")
    assert validate(path, {"steps": "None"}) == validate(path, {"steps": None}) == {"steps": None}
    assert validate(path, {"steps": "0"}) == {"steps": 0}
    with pytest.raises(UserError, match="'steps' .* cannot be 'few'"):
        validate(path, {"steps": "few"})
    with pytest.raises(UserError, match="'seed' .* cannot be 'None'"):
        validate(path, {"seed": "None"})


def test_an_unknown_name_is_told_the_near_miss_and_what_there_is(notebook):
    with pytest.raises(UserError, match="no parameter 'sed'; did you mean 'seed'.*rate, name"):
        validate(notebook, {"sed": "1"})


def test_a_parameter_without_a_type_cannot_be_given(tmp_path):
    path = write(tmp_path / "bare.ipynb", "seed = 0")
    with pytest.raises(UserError, match="'seed' .* declares no type"):
        validate(path, {"seed": "1"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", "sk-abc123"),
        ("name", "hf_abc123"),
        ("objectives", '["ghp_abc123"]'),
        ("api_key", "abc123"),
        ("HF_TOKEN", "abc123"),
    ],
)
def test_a_key_or_token_is_refused_and_not_repeated(notebook, name, value):
    with pytest.raises(UserError, match="environment variable") as caught:
        validate(notebook, {name: value})
    assert "abc123" not in str(caught.value)


def test_ordinary_values_are_not_taken_for_keys(tmp_path):
    path = write(tmp_path / "llava.ipynb", 'model: str = ""\nmax_new_tokens: int = 40')
    assert validate(path, {"model": "llava-hf/llava-1.5-7b-hf", "max_new_tokens": "8"})
    assert validate(path, {"model": "risk-models/task-sk-learn"})


# ---- execution ----


def test_nothing_starts_before_all_is_validate(notebook, tmp_path, no_kernel):
    output = tmp_path / "out" / "done.ipynb"
    with pytest.raises(UserError, match="quik"):
        execute(notebook, output, {"seed": "1", "quik": "true"})
    with pytest.raises(UserError, match="the notebook itself"):
        execute(notebook, notebook)
    assert not output.parent.exists()


@pytest.mark.parametrize(
    ("output", "complaint"),
    [
        ("", "is a folder: name a file in it"),
        (f"{'n' * 245}.ipynb", "cannot be written: File name too long"),
        (f"{'n' * 300}.ipynb", "cannot be written: File name too long"),
        ("lesson.ipynb/out.ipynb", "cannot be written: .*: name another"),
    ],
    ids=["folder", "long", "longer", "in a file"],
)
def test_an_output_that_cannot_be_written_starts_nothing(
    notebook, tmp_path, no_kernel, output, complaint
):
    with pytest.raises(UserError, match=complaint):
        execute(notebook, tmp_path / output)
    assert [path.name for path in tmp_path.iterdir()] == ["lesson.ipynb"]


@pytest.fixture
def flaky(monkeypatch):
    """Make the first starts fail as jupyter_client does; count the attempts."""
    attempts = []

    def install(failures: int, message: str = "Kernel died before replying to kernel_info"):
        def start(source, target, *args, **kwargs):
            attempts.append(1)
            node = nbformat.read(source, as_version=4)
            node.metadata["papermill"] = {}
            nbformat.write(node, target)
            if len(attempts) <= failures:
                raise RuntimeError(message)

        monkeypatch.setattr(papermill, "execute_notebook", start)
        return attempts

    return install


def test_a_kernel_that_does_not_start_is_started_again(notebook, tmp_path, flaky):
    attempts = flaky(failures=2)
    assert execute(notebook, tmp_path / "done.ipynb").exists()
    assert len(attempts) == 3


def test_a_kernel_that_never_starts_leaves_nothing(notebook, tmp_path, flaky):
    attempts = flaky(failures=99)
    with pytest.raises(NotebookFailed, match="no kernel started in 3 attempts"):
        execute(notebook, tmp_path / "out" / "done.ipynb")
    assert len(attempts) == 3
    assert list((tmp_path / "out").iterdir()) == []


def test_a_kernel_that_dies_at_work_is_not_started_again(notebook, tmp_path, flaky):
    attempts = flaky(failures=99, message="Kernel died")
    with pytest.raises(NotebookFailed, match="lost while running"):
        execute(notebook, tmp_path / "done.ipynb")
    assert len(attempts) == 1
    assert (tmp_path / "done.failed.ipynb").exists()


def test_the_kernel_is_this_interpreter_whatever_is_installed(tmp_path, monkeypatch):
    foreign = tmp_path / "kernels" / "python3"
    foreign.mkdir(parents=True)
    spec = {"argv": ["/nowhere/python", "-f", "{connection_file}"], "display_name": "elsewhere"}
    (foreign / "kernel.json").write_text(json.dumps(spec | {"language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    assert ThisInterpreter(kernel_name="python3").kernel_spec.argv[0] == sys.executable


def test_a_notebook_runs_here_on_this_interpreter_with_its_parameters(tmp_path, monkeypatch, capfd):
    test_the_kernel_is_this_interpreter_whatever_is_installed(tmp_path, monkeypatch)
    work = tmp_path / "{work}"
    work.mkdir()
    monkeypatch.chdir(work)
    source = write(
        tmp_path / "lesson.ipynb",
        PARAMETERS,
        "import sys\nfrom pathlib import Path\nprint(sys.executable, Path.cwd(), seed, objectives)",
        widgets={"application/vnd.jupyter.widget-state+json": {}},
    )
    before = source.read_bytes()
    output = execute(source, "out/done.ipynb", {"seed": "7"})

    assert output == (work / "out" / "done.ipynb").resolve()
    assert [path.name for path in output.parent.iterdir()] == ["done.ipynb"]
    node = nbformat.read(output, as_version=4)
    assert node.cells[-1].outputs[0].text == f"{sys.executable} {work} 7 ['po', 'kl']\n"
    assert "widgets" not in node.metadata
    assert str(tmp_path) not in json.dumps(node.metadata)
    assert source.read_bytes() == before
    assert capfd.readouterr() == ("", "")


def test_a_failure_is_one_line_and_keeps_the_executed_notebook(tmp_path):
    source = write(tmp_path / "lesson.ipynb", PARAMETERS, "first = 1", "ratio = 1 / 0\nprint(1)")
    output = tmp_path / "done.ipynb"
    output.write_text("an earlier result")
    with pytest.raises(NotebookFailed) as caught:
        execute(source, output)
    message = str(caught.value)
    assert "In [3] `ratio = 1 / 0`: ZeroDivisionError: division by zero" in message
    assert "done.failed.ipynb" in message and "\n" not in message
    assert output.read_text() == "an earlier result"
    failed = nbformat.read(tmp_path / "done.failed.ipynb", as_version=4)
    assert failed.cells[-1].outputs[0].ename == "ZeroDivisionError"

    execute(write(source, PARAMETERS, "first = 1"), output)
    assert not (tmp_path / "done.failed.ipynb").exists()
