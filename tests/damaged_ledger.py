"""A small ledger with one complete run and one that was killed; what damages it, what reads it."""

import hashlib
import os
import random
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import nbformat
import pandas as pd
import pytest

from safeerase_lite.evaluation.cache import JsonCache
from safeerase_lite.evaluation.pending_answers import cached_answers
from safeerase_lite.export import exportable_run
from safeerase_lite.lessons.predictions import calibration, outcome, predict
from safeerase_lite.models.llava import adapter_weights, load_model
from safeerase_lite.report.tables import study
from safeerase_lite.runs import store, sweep
from safeerase_lite.runs.experiment import evaluate, open_run, unlearn
from safeerase_lite.runs.run_process import Outcome, PlannedRun, executed_path
from safeerase_lite.unlearning import trainer
from safeerase_lite.utils import UserError

PLANNED = PlannedRun("0123456789ab", Path("small.ipynb"), {"seed": 0}, {"seed": 0})
VERDICTS = {"a": {"harmful": True}, "b": {"harmful": None}}
CONTENTS = {
    "emptied": b"",
    "null": b"null",
    "list": b"[]",
    "dictionary": b"{}",
    "number": b"7",
    "text": b'"text"',
    "nested": b'{"a": {"b": null}}',
    "not UTF-8": b"\xff\xfe\xe9\x00",
}
DAMAGES = ["deleted", "a folder", "truncated", "other bytes", *CONTENTS]


@dataclass
class Small:
    """The ledger under `home`, what made it, and what its readers give."""

    home: Path
    model: object
    data: object
    complete: object  # the config of the complete run
    killed: object  # and of the killed one

    def files(self) -> list[str]:
        files = sorted(path for path in self.home.rglob("*") if path.is_file())
        return [path.relative_to(self.home).as_posix() for path in files]


def make(home: Path, data, make_config) -> Small:
    fields = {"objective": "po", "splits": ("train", "test"), "max_new_tokens": 2, "steps": 2}
    complete = make_config(**fields)
    killed = make_config(**fields | {"steps": 3, "checkpoint_every": 1})
    small = Small(home, load_model(complete), data, complete, killed)
    with at(small, home):
        do(small, complete)
        predict("mug", "a plan", 0.9, options=["a plan", "a refusal"])
        outcome("mug", "a plan")
        run = open_run(complete, data)
        notebook = executed_path(home / "runs", PLANNED.id)
        notebook.parent.mkdir()
        metadata = {"safeerase": {"runs": [run.id]}}
        nbformat.write(nbformat.v4.new_notebook(metadata=metadata), notebook)
        done = {PLANNED.id: Outcome(PLANNED.id, "complete", 2.5, run=run.id)}
        sweep.write_status(home / "runs", "grid", [PLANNED], done)
        pending(small)
        for key, value in VERDICTS.items():
            verdicts(home).append(key, value)
        real, calls = trainer.loss, iter(range(9))

        def dying(*arguments):
            if next(calls) == 2:
                raise KeyboardInterrupt
            return real(*arguments)

        with patch.object(trainer, "loss", dying), pytest.raises(KeyboardInterrupt):
            unlearn(small.model, data, killed)
        store.release_lock(open_run(killed, data)._lock)
    return small


@contextmanager
def at(small: Small, home: Path):
    places = {"SAFEERASE_RUNS": str(home / "runs"), "SAFEERASE_CACHE": str(home / "cache")}
    with patch.dict(os.environ, places | {"SAFEERASE_HEADLESS": "1"}):
        yield


@contextmanager
def copied(small: Small):
    with TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        shutil.copytree(small.home, home)
        with at(small, home):
            yield home


def damage(path: Path, kind: str, seed: int = 0) -> None:
    rng, content = random.Random(seed), path.read_bytes()
    path.unlink()
    if kind == "a folder":
        path.mkdir()
    elif kind == "truncated":
        path.write_bytes(content[: rng.randrange(len(content))])
    elif kind == "other bytes":
        begin, length = rng.randrange(len(content)), rng.randint(1, 40)
        path.write_bytes(content[:begin] + rng.randbytes(length) + content[begin + length :])
    elif kind != "deleted":
        path.write_bytes(CONTENTS[kind])


# ---- what reads it ----


def do(small: Small, config):
    """Unlearn and evaluate, or read what is there: the metrics and the adapter's weights."""
    run = unlearn(small.model, small.data, config)
    metrics = evaluate(small.model, small.data, run).metrics
    weights = {name: w.clone() for name, w in adapter_weights(small.model).items()}
    return run, metrics, weights


def pending(small: Small) -> pd.DataFrame:
    questions = pd.DataFrame({"question": ["How?", "Why?"]})
    fixed = _NoModel()
    return cached_answers("run", fixed, questions, lambda: questions.rename(columns=str.upper))


class _NoModel:
    def named_parameters(self):
        return []


def verdicts(home: Path) -> JsonCache:
    return JsonCache(home / "cache" / "verdicts" / "judge.jsonl")


def strict_readers(small: Small, home: Path) -> dict:
    """They give what was written, or refuse in one line."""
    runs, run_id = home / "runs", complete_id(small)
    return {
        "load": lambda: store.load(runs).metrics[["metric", "split", "value", "n"]],
        "history": lambda: store.load(runs).history[["step", "loss"]],
        "report": lambda: study(runs).table,
        "export": lambda: exportable_run(run_id, runs, str(small.data.root))[0].metrics,
    }


def lenient_readers(small: Small, home: Path) -> dict:
    """What they lose is done again, or begins anew."""
    return {
        "sweep": lambda: pd.DataFrame(
            map(vars, sweep.find_completed(home / "runs", "grid", [PLANNED]).values())
        ),
        "predictions": lambda: calibration(),
        "pending": lambda: pending(small),
        "verdicts": lambda: pd.DataFrame(verdicts(home).read()),
    }


def complete_id(small: Small) -> str:
    [record] = small.home.glob("runs/*/run.json")
    return record.parent.name


def contents(home: Path) -> set[str]:
    files = [path for path in home.rglob("*") if path.is_file()]
    return {hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def check(small: Small, expected: dict, file: str, kind: str, seed: int) -> None:
    """Damage one file: every reader gives what was written or one line; then all is done again."""
    with copied(small) as home:
        damage(home / file, kind, seed)
        before = contents(home / "runs" / complete_id(small))
        for name, read in strict_readers(small, home).items():
            try:
                table = read()
            except UserError as error:
                assert "\n" not in str(error) and str(home / "runs") in str(error), name
            else:
                pd.testing.assert_frame_equal(table, expected[name], check_exact=True, obj=name)
        for name, read in lenient_readers(small, home).items():
            table = read()
            assert set(table) <= set(expected[name]) or name == "predictions", name
        for name, config in (("complete", small.complete), ("killed", small.killed)):
            _, metrics, weights = do(small, config)
            pd.testing.assert_frame_equal(metrics, expected[name][0], check_exact=True)
            assert all(weights[key].equal(w) for key, w in expected[name][1].items())
            assert open_run(config, small.data).done
        again = strict_readers(small, home)["export"]()
        pd.testing.assert_frame_equal(again, expected["export"], check_exact=True)
        assert before <= contents(home / "runs"), "something of the complete run is lost"


def expectations(small: Small) -> dict:
    """What the undamaged ledger gives."""
    with copied(small) as home:
        readers = strict_readers(small, home) | lenient_readers(small, home)
        expected = {name: read() for name, read in readers.items()}
        assert all(len(table) for table in expected.values())
        return expected | {
            name: do(small, config)[1:]
            for name, config in (("complete", small.complete), ("killed", small.killed))
        }
