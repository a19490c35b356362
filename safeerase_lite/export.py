"""Adapters out: a finished run's adapter as a standard PEFT folder with a model card.

`PeftModel.from_pretrained(base, folder)` loads it with no code of ours. Before it leaves it is
measured on the base in the run's precision and in the other one.
"""

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from . import card, ledger
from .data import Data, load_data
from .errors import UserError
from .evaluation import evaluate
from .experiment import UNTRAINED, fingerprint, open_run, settings_of
from .folders import require_new, whole
from .injected import read_injected
from .models import load_adapter, load_llava, no_four_bit, trained_weights
from .profiles import Profile
from .records import read_records

# Objectives that raise the loss of harmful answers. Negated, such an adapter lowers it.
ASCENT = ("ga", "gd", "kl", "npo")
WEIGHTS, CONFIG, MEASURES = "adapter_model.safetensors", "adapter_config.json", "measures.csv"


@dataclass(frozen=True)
class Finished:
    """A complete run, and the data it saw.

    record: its run.json.
    """

    run: ledger.Run
    record: dict
    data: Data

    @property
    def profile(self) -> Profile:
        return self.run.settings.profile


def export(
    name: str,
    folder: Path | str,
    *,
    runs_dir: Path | str | None = None,
    data_dir: str = "",
    judge_consent: bool = False,
    say: Callable[[str], None] = print,
) -> Path:
    """Write a finished run's adapter to `folder`: weights (safetensors), configuration, measures
    and a model card. The folder appears whole or not at all.

    Args:
        name: the run's id, the beginning of it, or its folder.
        folder: where the adapter goes; new, or empty.
        runs_dir: the ledger; by default `runs/` beside this project, or `$SAFEERASE_RUNS`.
        data_dir: the run's data, when they are not a tiny world that its parameters describe.
        judge_consent: whether texts (and pictures) may leave this machine for the run's judge.
        say: is told what goes on.

    Raises:
        UserError: no such run; it failed, is not complete, trained nothing or stands on injected
            knowledge; its model or data are not those at hand; gradient ascent on real data; a
            folder with something in it; a judge elsewhere without consent.
    """
    folder = Path(folder).expanduser()
    require_new(folder)
    finished = _finished(name, Path(runs_dir or ledger.default_runs_dir()), data_dir)
    measures, missing = _measures(finished, judge_consent, say)
    card_text = card.write(finished, measures, missing)
    _write(finished.run.adapter_dir, folder, finished.profile.model, measures, card_text)
    say(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    return folder


# ---------------------------------------------------------------- which run, and may it leave


def _finished(name: str, runs_dir: Path, data_dir: str) -> Finished:
    """The run of that name, if it may be exported."""
    folder = _folder(name, runs_dir)
    record = ledger.read_record(folder)
    run_id, parameters = record["id"], record["parameters"]
    if record["status"] != "complete":
        raise UserError(f"run {run_id} is {record['status']}: only a complete run is exported")
    objective = parameters["objective"]
    if objective in UNTRAINED:
        raise UserError(f"run {run_id} is {objective}: nothing was trained, so there is no adapter")
    run = ledger.Run(run_id, parameters, folder, folder.parent, done=True)
    run.settings = settings_of(parameters)
    trained_weights(run.adapter_dir)
    model = run.settings.profile.model
    if read_injected(model):
        raise UserError(
            f"run {run_id} stands on the knowledge injected in {Path(model).name}: its adapter "
            "fits nothing a stranger has, so it stays"
        )
    if fingerprint(model) != parameters["model_hash"]:
        raise UserError(f"run {run_id} changed another model than the {model!r} that is here")
    data = _data(run, data_dir)
    if not data.invented and (objective != "po" or "objective_hash" in parameters):
        why = "raises the loss of harmful answers" if objective in ASCENT else "may be an ascent"
        raise UserError(
            f"run {run_id}: {objective} {why}, so its adapter, negated, may bring harm back; from "
            "real data only po is exported (docs/responsible_use.md)"
        )
    return Finished(run, record, data)


def _folder(name: str, runs_dir: Path) -> Path:
    if (Path(name) / "run.json").is_file():
        return Path(name).resolve()
    found = {}
    for room in (runs_dir, runs_dir / "partial", runs_dir / "failed"):
        matches = [p.parent for p in room.glob("*/run.json") if p.parent.name.startswith(name)]
        found |= {path.name: path for path in matches if path.name not in found}
    if not found:
        raise UserError(
            f"no run {name!r} in {runs_dir}: give its id in the ledger (a sweep's table "
            "`sweeps/*.csv` has it as `run`), or its folder"
        )
    if len(found) > 1:
        raise UserError(f"{len(found)} runs begin with {name!r}: give more of the id")
    return found.popitem()[1]


def _data(run: ledger.Run, data_dir: str) -> Data:
    """The data the run saw, told by their digest: of the folder, all but what was left out."""
    wanted = run.parameters[ledger.DATA_HASH]
    left_out = run.parameters.get("left_out", "").split(", ")
    profile = run.settings.profile.model_copy(update={"data_dir": data_dir})
    root = Path(data_dir) if data_dir else load_data(profile).root
    there = dict.fromkeys(record.category for record in read_records(root))
    data = load_data(profile, categories=[name for name in there if name not in left_out])
    if data.digest == wanted:
        return data
    where = data_dir or "the tiny world of its parameters"
    raise UserError(f"run {run.id} saw other data than {where}: name their folder with --data")


# ---------------------------------------------------------------- measured on both bases


def _measures(
    finished: Finished, judge_consent: bool, say: Callable
) -> tuple[pd.DataFrame, dict[str, str]]:
    """A row per precision and metric, of the last split asked; and precision → why it is missing.

    In its own precision the run has been measured; in the other one it is measured now.
    """
    profile, run = finished.profile, finished.run
    asked = set(run.metrics["split"])
    split = [name for name in profile.splits if name in asked][-1]
    own = run.metrics[run.metrics["split"] == split]
    tables = {profile.precision: own[~own["metric"].str.endswith("_sampled")]}
    other = {"nf4": "dense", "dense": "nf4"}[profile.precision]
    missing = {}
    if other == "nf4" and (reason := no_four_bit()):
        missing[other] = reason
    else:
        say(f"measuring on the base in {card.precision(other, profile)}, split {split}")
        changed = {"precision": other, "splits": (split,), "samples": 0}
        changed |= {"judge_consent": judge_consent}
        tables[other] = _evaluated(finished, profile.model_copy(update=changed))
    measures = pd.concat(tables, names=["precision"]).reset_index("precision")
    return measures.reset_index(drop=True), missing


def _evaluated(finished: Finished, profile: Profile) -> pd.DataFrame:
    try:
        with tempfile.TemporaryDirectory() as room:
            unlisted = open_run(profile, finished.data, objective="vanilla", runs_dir=room)
            model = load_llava(profile)
            load_adapter(model, finished.run.adapter_dir)
            return evaluate(model, finished.data, unlisted).metrics
    except torch.cuda.OutOfMemoryError:
        raise UserError(
            f"the base in {card.precision(profile.precision, profile)} does not fit this GPU: "
            "export where there is more memory"
        ) from None


# ---------------------------------------------------------------- files


def _write(adapter: Path, folder: Path, model: str, measures: pd.DataFrame, text: str) -> None:
    with whole(folder) as draft:
        config = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
        config["base_model_name_or_path"] = card.base_name(model)
        (draft / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        shutil.copyfile(adapter / WEIGHTS, draft / WEIGHTS)
        measures.to_csv(draft / MEASURES, index=False)
        (draft / "README.md").write_text(text, encoding="utf-8")
