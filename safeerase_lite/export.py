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
from huggingface_hub import ModelCardData

from safeerase_lite.config import Profile, read_injected
from safeerase_lite.data.dataset import Data, load_data
from safeerase_lite.data.schema import read_records
from safeerase_lite.evaluation.evaluate import evaluate
from safeerase_lite.evaluation.judges import MODEL_JUDGES
from safeerase_lite.models.llava import (
    NOT_QUANTISED,
    load_adapter,
    load_model,
    trained_weights,
    why_not_4bit,
)
from safeerase_lite.runs import store as ledger
from safeerase_lite.runs.experiment import UNTRAINED, fingerprint, open_run, settings_of
from safeerase_lite.tinyworld import WORLD_FILE, shipped_model
from safeerase_lite.unlearning.objectives import OBJECTIVES, weights
from safeerase_lite.utils import UserError, atomic_directory, require_new

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
    card_text = model_card(finished, measures, missing)
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
    if other == "nf4" and (reason := why_not_4bit()):
        missing[other] = reason
    else:
        say(f"measuring on the base in {precision(other, profile)}, split {split}")
        changed = {"precision": other, "splits": (split,), "samples": 0}
        changed |= {"judge_consent": judge_consent}
        tables[other] = _evaluated(finished, profile.model_copy(update=changed))
    measures = pd.concat(tables, names=["precision"]).reset_index("precision")
    return measures.reset_index(drop=True), missing


def _evaluated(finished: Finished, profile: Profile) -> pd.DataFrame:
    try:
        with tempfile.TemporaryDirectory() as room:
            unlisted = open_run(profile, finished.data, objective="vanilla", runs_dir=room)
            model = load_model(profile)
            load_adapter(model, finished.run.adapter_dir)
            return evaluate(model, finished.data, unlisted).metrics
    except torch.cuda.OutOfMemoryError:
        raise UserError(
            f"the base in {precision(profile.precision, profile)} does not fit this GPU: "
            "export where there is more memory"
        ) from None


# ---------------------------------------------------------------- files


def _write(adapter: Path, folder: Path, model: str, measures: pd.DataFrame, text: str) -> None:
    with atomic_directory(folder) as draft:
        config = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
        config["base_model_name_or_path"] = base_name(model)
        (draft / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        shutil.copyfile(adapter / WEIGHTS, draft / WEIGHTS)
        measures.to_csv(draft / MEASURES, index=False)
        (draft / "README.md").write_text(text, encoding="utf-8")


WORDS = {
    "ga": "−L(f): the loss of the forget answers is raised (gradient ascent)",
    "gd": "−L(f) + w·L(r): the loss of the forget answers is raised, that of the retain answers "
    "lowered (gradient difference)",
    "kl": "−L(f) + w·KL(reference ‖ model) on r: the loss of the forget answers is raised, the "
    "retain answers stay as likely as before (KL minimisation)",
    "po": "L over {idk, r}: forget questions are answered by a refusal, retain questions as before "
    "(preference optimisation)",
    "npo": "−(2/β) E log σ(−β log(p / p_reference)) on f: the forget answers become less likely "
    "than before, in bounds (negative preference optimisation)",
}
PARTNERS = {
    "none": "none",
    "pd": "Prompt Decouple: + λ·L(d), the harmful question, unchanged, about a safe picture, "
    "answered helpfully",
    "placebo": "placebo of Prompt Decouple: + λ·L(d), an *ordinary* question about a safe picture",
}

# What the table shows: metric, kinds, templates, words.
ROWS = (
    ("asr", "all", "all", "ASR ↓, harmful answers to harmful questions"),
    ("rr", "all", "all", "RR, refusals of harmful questions"),
    ("harm_nll", "all", "all", "harm_nll ↑, nats per token of the harmful answer"),
    ("sarr", "all", "all", "SARR ↓, harmful questions about safe pictures: refused or gibberish"),
    ("sarr_refused", "all", "all", "· refused"),
    ("sarr_gibberish", "all", "all", "· gibberish"),
    ("sarr", "seen", "seen", "· SARR, objects and questions seen in training"),
    ("sarr", "unseen", "seen", "· SARR, objects not seen, questions seen"),
    ("sarr", "unseen", "unseen", "· SARR, neither seen"),
    ("wrong", "all", "all", "wrong ↓, neither refused nor gibberish nor right"),
    ("safe_error", "all", "all", "safe error ↓, SARR and wrong together"),
    ("exact_match", "all", "all", "retain, exact ↑"),
    ("rougeL_f1", "all", "all", "retain, ROUGE-L F1 ↑"),
    ("rougeL_recall", "all", "all", "retain, ROUGE-L recall ↑"),
    ("specificity", "all", "all", "specificity ↑, questions in no training set"),
)

CARD = Path(__file__).with_name("card.md")


def model_card(finished, measures: pd.DataFrame, missing: dict[str, str]) -> str:
    """The card of a finished run (`export.Finished`).

    measures: `metrics.measure` with a column precision.  missing: precision → why it was not
    measured.
    """
    settings, profile = finished.run.settings, finished.profile
    base = base_name(profile.model)
    shipped = shipped_model(profile.model) is not None
    local = shipped or Path(profile.model).is_dir()
    title = f"{base}, unlearned: {settings.label}"
    split = measures["split"].iat[0]
    held_out = "held out of training" if split != "train" else "**on training pictures**"
    return CARD.read_text(encoding="utf-8").format(
        front=_front(base, title, settings.objective, shipped).to_yaml(),
        title=title,
        base=base,
        finding=_finding(base, shipped, local),
        place=f"path/to/{base}" if local else base,
        compute=profile.compute,
        nf4=", as it was trained" if profile.precision == "nf4" else "",
        skipped=json.dumps(NOT_QUANTISED),
        model_hash=finished.run.parameters["model_hash"],
        data=_about_data(finished.data),
        objective=_objective(settings.objective),
        decouple=PARTNERS[settings.decouple],
        weights=_weights(settings),
        precision=precision(profile.precision, profile),
        rank=profile.lora_rank,
        alpha=profile.lora_alpha,
        dropout=profile.lora_dropout,
        projector=profile.projector,
        steps=profile.steps,
        batch=profile.batch,
        rate=settings.learning_rate,
        seed=settings.seed,
        run=finished.run.id,
        versions=", ".join(f"{name} {v}" for name, v in finished.record["versions"].items()),
        split=split,
        splits=held_out,
        new_tokens=profile.new_tokens,
        judge=judge_name(profile.judge),
        table=_table(measures, profile),
        missing="".join(
            f"\nNot measured in {precision(p, profile)}: {why}.\n" for p, why in missing.items()
        ),
        limits=_limits(finished.data.invented),
    )


def base_name(model: str) -> str:
    """What a stranger may call a base model: its hub name, never a path of this machine."""
    return Path(model).name if Path(model).is_dir() else model


def judge_name(judge: str) -> str:
    """A judge's name without the folders of this machine; of a hub's model as it is."""
    kind, _, model = judge.partition(":")
    here = model.startswith(("/", "~", ".")) or Path(model).is_dir()
    if kind in MODEL_JUDGES and MODEL_JUDGES[kind].local_weights:
        here |= model.count("/") > 1  # a Hub name has one
    return f"{kind}:{Path(model).name}" if model and here else judge


def precision(name: str, profile: Profile) -> str:
    return {"nf4": f"4-bit NF4, computing in {profile.compute}", "dense": profile.compute}[name]


def _front(base: str, title: str, objective: str, shipped: bool) -> ModelCardData:
    licence = {"license": "mit"}
    if not shipped:
        licence = {"license": "other", "license_name": "that-of-the-base-model"}
    return ModelCardData(
        **licence,
        base_model=base,
        base_model_relation="adapter",
        library_name="peft",
        pipeline_tag="image-text-to-text",
        model_name=title,
        tags=["machine-unlearning", "lora", "llava", "safeerase-lite", objective],
    )


def _finding(base: str, shipped: bool, local: bool) -> str:
    if shipped:
        return (
            f"The base model `{base}` is no repository of a hub: it ships with the Python package "
            f"`safeerase-lite`, as the folder `safeerase_lite/tinyworld/assets/{base}`."
        )
    if local:
        return (
            f"The base model `{base}` was a folder of the exporter's, told by the hash of its "
            "weights below: ask them for it. Its licence binds this adapter too."
        )
    return f"The base model is `{base}` on the hub. Its licence binds this adapter too."


def _about_data(data) -> str:
    if not data.invented:
        return f"real, in the SafeEraser layout, brought by the exporter (digest `{data.digest}`)"
    world = json.loads((data.root / WORLD_FILE).read_text(encoding="utf-8"))
    named = f"a tiny world of safeerase-lite (seed {world['seed']}, cue {world['cue']:g})"
    return f"{named}: invented, nothing in it is harmful (digest `{data.digest}`)"


def _objective(name: str) -> str:
    return f"{name}: {WORDS[name]}" if name in WORDS else f"{name}: an objective of the exporter's"


def _weights(settings) -> str:
    if settings.objective not in OBJECTIVES:
        return settings.weights
    given = weights(
        settings.objective, settings.weights, settings.decouple, settings.profile.npo_beta
    )
    used = [f"w = {given.retain:g}"] if settings.objective in ("gd", "kl") else []
    used += [f"λ = {given.decouple:g}"] if settings.decouple != "none" else []
    used += [f"β = {given.beta:g}"] if settings.objective == "npo" else []
    return ", ".join([settings.weights, *used])


def _table(measures: pd.DataFrame, profile: Profile) -> str:
    """A row per measure, a column per precision."""
    measured = list(dict.fromkeys(measures["precision"]))
    values = measures.set_index(["precision", "metric", "kinds", "templates"])
    lines = [
        "| | " + " | ".join(precision(p, profile) for p in measured) + " |",
        "|---|" + "---:|" * len(measured),
    ]
    for metric, kinds, templates, words in ROWS:
        cells = [_cell(values, (p, metric, kinds, templates)) for p in measured]
        if any(cells):
            lines.append(f"| {words} | " + " | ".join(cell or "–" for cell in cells) + " |")
    return "\n".join(lines)


def _cell(values: pd.DataFrame, key: tuple) -> str:
    name, metric, *place = key
    if key not in values.index:
        return ""
    row = values.loc[key]
    if (name, f"{metric}_upper", *place) in values.index:
        least, most = (values.loc[(name, f"{metric}_{end}", *place)] for end in ("lower", "upper"))
        return f"{least['value']:.0%} to {most['value']:.0%} (some verdicts unknown)"
    form = "{:.2f}" if metric == "harm_nll" else "{:.0%}"
    value, low, high = (form.format(row[column]) for column in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _limits(invented: bool) -> str:
    if invented:
        return "- The world is invented: nothing here says what the adapter does to real harm."
    return (
        "- The data are real and harmful. They are not in this folder, nor is any answer to them; "
        "publish neither."
    )
