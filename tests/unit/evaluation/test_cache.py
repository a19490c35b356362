"""What is slow or costs money survives a failure and a kill, out of other users' sight."""

import errno
import math

import pandas as pd
import pytest
import torch

from safeerase_lite.evaluation.cache import JsonCache
from safeerase_lite.evaluation.pending_answers import cached_answers, delete_answers
from safeerase_lite.utils import UserError, cached


@pytest.fixture
def cache(tmp_path):
    return JsonCache(tmp_path / "folder" / "file.jsonl")


def test_an_entry_is_on_disk_at_once_and_is_read_by_its_key(cache):
    assert cache.read() == {}
    cache.append("a", {"text": "line\nbreak \u2028 é \ud800"})
    cache.append("b", [0.1 + 0.2, None])
    cache.append("b", [1 / 3])
    assert JsonCache(cache.path).read() == {
        "a": {"text": "line\nbreak \u2028 é \ud800"},
        "b": [1 / 3],
    }
    cache.append("c", math.nan)
    assert math.isnan(cache.read()["c"])


@pytest.mark.parametrize("length", range(1, 13))
def test_a_torn_entry_is_ignored_and_spoils_no_other(cache, length):
    cache.append("a", 1)
    whole = cache.path.read_bytes()
    cache.append("b", "two")
    cache.path.write_bytes(cache.path.read_bytes()[: len(whole) + length])
    assert cache.read() == {"a": 1}
    cache.append("c", 3)
    assert cache.read() == {"a": 1, "c": 3}


@pytest.mark.parametrize("line", [b"\xff\xfe", b"5", b"null", b'["a"]', b"[[1], 2]", b"{}"])
def test_a_foreign_line_is_ignored(cache, line):
    cache.append("a", 1)
    cache.path.write_bytes(cache.path.read_bytes() + b"\n" + line)
    assert cache.read() == {"a": 1}


def test_an_entry_that_was_changed_since_is_ignored_and_an_older_one_has_no_checksum(cache):
    cache.append("a", "one")
    cache.path.write_text(cache.path.read_text().replace("one", "two") + '\n["b", 2]')
    assert cache.read() == {"b": 2}


def test_a_folder_in_its_place_is_moved_away(cache):
    cache.path.mkdir(parents=True)
    assert cache.read() == {}
    cache.append("a", 1)
    assert cache.read() == {"a": 1} and (cache.path.parent / "damaged").is_dir()


def test_its_folder_is_closed_to_other_users(cache):
    cache.append("a", 1)
    assert cache.path.parent.stat().st_mode & 0o077 == 0
    cache.delete()
    cache.delete()
    assert cache.read() == {}


def test_the_answers_are_stored_for_the_same_weights_and_questions(monkeypatch, tmp_path):
    monkeypatch.setenv("SAFEERASE_CACHE", str(tmp_path))
    model, calls = torch.nn.Linear(2, 2), []
    everything = pd.DataFrame({"question": ["How?", "Why?", "What\n?"]}, index=[3, 5, 8])

    def answers_to(questions):
        def answer():
            calls.append(len(questions))
            columns = {"answer": questions["question"].str.upper(), "harm_nll": [0.1, math.nan, 2]}
            return pd.DataFrame(
                {name: values[: len(questions)] for name, values in columns.items()}
            )

        return cached_answers("run", model, questions, answer)

    pd.testing.assert_frame_equal(answers_to(everything), answers_to(everything), check_exact=True)
    assert calls == [3]
    with torch.no_grad():
        model.weight.add_(1e-3)
    answers_to(everything)
    assert calls == [3, 3]
    answers_to(everything.head(2))
    assert calls == [3, 3, 2]
    [file] = (tmp_path / "pending_answers").iterdir()
    assert len([line for line in file.read_text().split("\n") if line]) == 1  # the last table alone
    assert file.parent.stat().st_mode & 0o077 == 0
    delete_answers("run")
    assert not file.exists()


def read_only(dir):
    raise OSError(errno.EROFS, "Read-only file system")


def test_a_cache_that_cannot_be_written_is_refused_and_what_it_holds_is_read(monkeypatch, tmp_path):
    monkeypatch.setenv("SAFEERASE_CACHE", str(tmp_path))
    assert cached("world").parent == tmp_path and not list(tmp_path.iterdir())
    (tmp_path / "world").touch()
    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    assert cached("world").exists()
    with pytest.raises(UserError, match="set SAFEERASE_CACHE to a folder"):
        cached("other")


def test_a_user_without_a_home_is_told_where_to_name_a_cache(monkeypatch):
    monkeypatch.delenv("SAFEERASE_CACHE", raising=False)
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    with pytest.raises(UserError, match="set SAFEERASE_CACHE to a folder"):
        cached("world")


def test_the_answers_are_stored_only_once_they_are_complete(monkeypatch, tmp_path):
    monkeypatch.setenv("SAFEERASE_CACHE", str(tmp_path))

    def killed():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_answers("run", torch.nn.Linear(2, 2), pd.DataFrame({"question": ["?"]}), killed)
    assert not list(tmp_path.rglob("*.jsonl"))
