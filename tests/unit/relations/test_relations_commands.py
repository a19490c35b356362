"""`safeerase relations …`, as a user types it."""

import build_clip
import pytest
from typer.testing import CliRunner

from safeerase_lite import utils
from safeerase_lite.cli import app


def run(*words):
    return CliRunner().invoke(app, ["relations", *map(str, words)])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("unsafe:\n- [fox, chasng, owl]\n", "did you mean 'chasing'"),
        ("unsafe:\n- [fox, chasing]\n", "give subject, relation, object"),
        ("unsafe:\n- [fox, chasing, owl]\n- [fox, hunting, owl]\n", "named already"),
        ("unsafe:\n- [fox, chasing, owl]\nsafe:\n- [fox, chasing, owl]\n", "both unsafe and safe"),
        ("unsafe: [", "is not YAML"),
    ],
)
def test_a_wrong_file_of_tuples_is_one_line_and_nothing_starts(text, says, tmp_path):
    file, output = tmp_path / "mine.yaml", tmp_path / "output"
    file.write_text(text)
    result = run("demo", "--tuples", file, "--output", output)
    assert result.exit_code == 2 and says in result.output.replace("\n", " ")
    assert "Traceback" not in result.output and not output.exists()


def test_a_ledger_without_edits_is_one_line(tmp_path):
    result = run("report", tmp_path, "--output", tmp_path / "tables")
    assert result.exit_code == 2 and "no edit in" in result.output
    assert not (tmp_path / "tables").exists()


def test_a_duplicate_by_a_synonym_says_what_the_word_means(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("unsafe:\n- [imp, tasting, fizz]\n- [imp, sipping, fizz]\n")
    assert "imp sipping fizz means imp–tasting–fizz" in run("demo", "--tuples", file).output


def test_outside_a_clone_there_is_no_builder_and_that_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(utils, "TOOLS", tmp_path)
    result = run("build", "--out", tmp_path / "clip")
    assert result.exit_code == 2 and "run this in a clone" in result.output.replace("\n", " ")
    assert not (tmp_path / "clip").exists()


def test_in_a_clone_the_builder_is_started(tmp_path, monkeypatch):
    def build(out, seed, without):
        out.write_text(f"seed {seed}, without {without}")

    monkeypatch.setattr(build_clip, "build", build)
    given = ["--out", tmp_path / "clip", "--seed", 3, "--without", "fox chasing owl"]
    assert run("build", *given).exit_code == 0
    assert (tmp_path / "clip").read_text() == "seed 3, without fox chasing owl"
