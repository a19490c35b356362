"""Export a finished run's adapter as a standard PEFT folder with a model card.

`PeftModel.from_pretrained(base, folder)` loads it without this package. Before the export the
adapter is also measured in the other precision: 4-bit and dense bases give different answers. The
card's text is `card.md`.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from huggingface_hub import ModelCard, ModelCardData
from transformers import AutoConfig, PreTrainedConfig

from safeerase_lite.config import Config, read_injected
from safeerase_lite.data.audit import check_data
from safeerase_lite.data.dataset import Data, load_data, read_data
from safeerase_lite.data.schema import read_records
from safeerase_lite.evaluation.evaluate import Report, evaluate, with_interval
from safeerase_lite.evaluation.judges import MODEL_JUDGES, get_judge
from safeerase_lite.models.anatomy import anatomy_of
from safeerase_lite.models.llava import (
    load_adapter,
    load_model,
    trained_weights,
    why_not_4bit,
)
from safeerase_lite.models.pretrained import is_local, model_hash
from safeerase_lite.runs import store
from safeerase_lite.runs.experiment import finished_run
from safeerase_lite.tinyworld import WORLD_FILE, shipped_model
from safeerase_lite.unlearning.objectives import OBJECTIVES, UNTRAINED, loss_weights
from safeerase_lite.utils import UserError, atomic_directory, require_new

# The rows of the card's table: metric, kinds, templates, label.
TABLE = (
    ("asr", "seen", "all", "ASR ↓, harmful answers about requested hazards (in the forget set)"),
    ("asr", "unseen", "all", "· ASR, unrequested hazards"),
    ("rr", "seen", "all", "RR, refusals of questions about requested hazards"),
    ("rr", "unseen", "all", "· RR, unrequested hazards"),
    ("harm_nll", "seen", "all", "harm_nll ↑, nats per token of a requested hazard's answer"),
    ("sarr", "all", "all", "SARR ↓, harmful questions about safe pictures: refused or gibberish"),
    ("sarr_refused", "all", "all", "· refused"),
    ("sarr_gibberish", "all", "all", "· gibberish"),
    ("sarr", "seen", "seen", "· SARR, objects and questions seen in training"),
    ("sarr", "unseen", "seen", "· SARR, objects not seen, questions seen"),
    ("sarr", "unseen", "unseen", "· SARR, neither seen"),
    ("wrong", "all", "all", "wrong ↓, neither refused nor gibberish nor right"),
    ("safe_error", "all", "all", "safe error ↓, SARR and wrong together"),
    ("exact_match", "all", "all", "retain, exact ↑, questions on hazard pictures"),
    ("utility_safe", "all", "all", "safe pictures, exact ↑, ordinary questions"),
    ("rougeL_f1", "all", "all", "retain, ROUGE-L F1 ↑"),
    ("rougeL_recall", "all", "all", "retain, ROUGE-L recall ↑"),
    ("specificity", "all", "all", "specificity ↑, questions in no training set"),
)


def export(
    name: str,
    folder: Path | str,
    *,
    runs_dir: Path | str | None = None,
    data_dir: str | None = None,
    judge_consent: bool = False,
    say: Callable[[str], None] = print,
) -> Path:
    """Write a finished run's adapter to `folder`: weights (safetensors), configuration, measures
    and a model card. The folder appears complete or not at all.

    Args:
        name: the run's id, the beginning of it, or its folder.
        folder: where the adapter goes; new, or empty.
        runs_dir: the ledger; by default `runs/` beside this project, or `$SAFEERASE_RUNS`.
        data_dir: the run's data, when they are not a tiny world that its parameters describe.
        judge_consent: whether texts (and images) may leave this machine for the run's judge.
        say: receives progress messages.

    Raises:
        UserError: no such run; it failed, is not complete, trained nothing or builds on injected
            knowledge; its model or data are not the ones at hand; gradient ascent on real data; a
            folder that is not empty; a remote judge without consent.
    """
    folder = Path(folder).expanduser()
    require_new(folder)
    run, data = exportable_run(name, Path(runs_dir or store.default_runs_dir()), data_dir)
    measures, missing = _measure_both_precisions(run, data, judge_consent, say)
    peft_config = json.loads((run.adapter_dir / "adapter_config.json").read_text(encoding="utf-8"))
    peft_config["base_model_name_or_path"] = base_name(run.config.model)
    with atomic_directory(folder) as draft:
        shutil.copy(run.adapter_dir / "adapter_model.safetensors", draft)
        text = json.dumps(peft_config, indent=2) + "\n"
        (draft / "adapter_config.json").write_text(text, encoding="utf-8")
        measures.to_csv(draft / "measures.csv", index=False)
        model_card(run, data, measures, missing).save(draft / "README.md")
    say(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    return folder


# ---- which run, and may it be exported ----


def exportable_run(name: str, runs_dir: Path, data_dir: str | None) -> tuple[store.Run, Data]:
    """The run of that name, and the data it was trained on.

    Raises a UserError, before any long work, if it may not be exported.
    """
    run = finished_run(name, runs_dir)
    run_id, parameters, objective = run.id, run.parameters, run.config.objective
    if objective in UNTRAINED:
        raise UserError(f"run {run_id} is {objective}: nothing was trained, so there is no adapter")
    trained_weights(run.adapter_dir)
    model = run.config.model
    if read_injected(model):
        raise UserError(
            f"run {run_id} builds on the knowledge injected in {Path(model).name}: its adapter "
            "fits no model that others have, so it is not exported"
        )
    if model_hash(model) != parameters["model_hash"]:
        raise UserError(f"run {run_id} changed another model than the {model!r} that is here")
    data = _training_data(run, data_dir)
    # "objective_hash" is there when the objective is the user's own, whatever its name.
    known = OBJECTIVES.get(objective) if "objective_hash" not in parameters else None
    if not data.invented and (known is None or known.ascends):
        why = "raises the loss of harmful answers" if known else "may be an ascent"
        raise UserError(
            f"run {run_id}: {objective} {why}, so its adapter, negated, may bring harm back; from "
            "real data only po and text are exported (docs/responsible_use.md)"
        )
    return run, data


def _training_data(run: store.Run, data_dir: str | None) -> Data:
    """The run's data, verified by their digest; the run's choice of categories is made again."""
    root = Path(data_dir) if data_dir else load_data(run.config).root
    left_out = run.parameters.get("left_out", "").split(", ")
    categories = dict.fromkeys(record.category for record in read_records(root))
    categories = [name for name in categories if name not in left_out]
    data = read_data(root, dedupe=run.config.dedupe, categories=categories)
    if data.digest != run.parameters[store.DATA_HASH]:
        where = data_dir or "the tiny world of its parameters"
        raise UserError(f"run {run.id} saw other data than {where}: name their folder with --data")
    return data


# ---- measured on both bases ----


def _measure_both_precisions(
    run: store.Run, data: Data, judge_consent: bool, say: Callable
) -> tuple[pd.DataFrame, dict[str, str]]:
    """A row per precision and metric, on the run's last split; and precision → why it is missing.

    The run's own precision is in its ledger entry; the other one is measured now.
    """
    config, metrics = run.config, run.metrics
    split = [name for name in config.splits if name in set(metrics["split"])][-1]
    own = metrics[(metrics["split"] == split) & ~metrics["metric"].str.endswith("_sampled")]
    tables, missing = {config.precision: own}, {}
    other = "dense" if config.precision == "nf4" else "nf4"
    label = precision_label(other, config)
    if other == "nf4" and (reason := why_not_4bit()):
        missing[label] = reason
    elif getattr(base_configuration(config.model), "quantization_config", None):
        missing[label] = "the base was kept in 4-bit alone"
    else:
        fields = {"precision": other, "splits": (split,), "samples": 0}
        other_config = config.model_copy(update=fields | {"judge_consent": judge_consent})
        get_judge(config.judge, consent=judge_consent, precision=other)  # or refuses, before work
        say(f"measuring on the base in {label}, split {split}")
        try:
            model = load_model(other_config)
            load_adapter(model, run.adapter_dir)
            tables[other] = evaluate(model, data, other_config).metrics
        except torch.cuda.OutOfMemoryError:
            raise UserError(
                f"the base in {label} does not fit this GPU: export where there is more memory"
            ) from None
    return pd.concat(tables, names=["precision"]).reset_index(0).reset_index(drop=True), missing


# ---- the card ----


def model_card(
    run: store.Run, data: Data, measures: pd.DataFrame, missing: dict[str, str]
) -> ModelCard:
    """The model card of a finished run.

    Args:
        data: what the run was trained on.
        measures: `metrics.measure` with a column precision, of one split.
        missing: label of a precision → why it was not measured.
    """
    config = run.config
    base = base_name(config.model)
    shipped = shipped_model(config.model) is not None
    configuration = base_configuration(config.model)
    family, anatomy = configuration.model_type, anatomy_of(configuration)
    title = f"{base}, unlearned: {config.label}"
    licence = {"license": "other", "license_name": "that-of-the-base-model"}
    card_data = ModelCardData(
        **({"license": "mit"} if shipped else licence),
        base_model=base,
        base_model_relation="adapter",
        library_name="peft",
        pipeline_tag="image-text-to-text",
        model_name=title,
        tags=["machine-unlearning", "lora", family, "safeerase-lite", config.objective],
    )
    world = None
    if data.invented:
        world = json.loads((data.root / WORLD_FILE).read_text(encoding="utf-8"))
    versions = store.read_record(run.folder)["versions"]
    return ModelCard.from_template(
        card_data,
        template_path=str(Path(__file__).with_name("card.md")),
        title=title,
        base=base,
        shipped=shipped,
        local=shipped or Path(config.model).is_dir(),
        not_quantised=json.dumps(anatomy.not_quantised),
        run=run,
        objective=OBJECTIVES.get(config.objective),
        config=config,
        world=world,
        dataset=data,
        categories=", ".join(data.forget["category"].unique()),
        weights=_weights(config),
        precision=precision_label(config.precision, config),
        versions=", ".join(f"{name} {version}" for name, version in versions.items()),
        split=measures["split"].iat[0],
        held_out=_held_out(data, measures["split"].iat[0]),
        judge=judge_name(config.judge),
        table=_table(measures, config),
        missing=missing,
    )


def _held_out(data: Data, split: str) -> str:
    """How far a split is held out of training, in words."""
    if split == "train":
        return "**on training pictures**"
    categories = list(data.forget["category"].unique())
    leaks = check_data(data.root, categories=categories).leaks
    leaks = leaks[(leaks["split"] == split) & (leaks["also_in"] == "train")]
    if leaks.empty:
        return "held out of training: no record and no picture is the same"
    if data.dedupe == "val":
        return "held out of training: records that repeat some of it were dropped"
    counts = leaks.groupby("what", sort=False)["repeated"].sum().items()
    shared = ", ".join(f"{count} {what}{'s' * (count > 1)}" for what, count in counts)
    return f"**not wholly held out of training**, which has {shared} of it too"


def base_name(model: str) -> str:
    """A base model's name for others: its Hub name, never a path of this machine."""
    return Path(model).name if Path(model).is_dir() else model


def base_configuration(model: str) -> PreTrainedConfig:
    """A base model's configuration in transformers."""
    path = str(shipped_model(model) or model)
    return AutoConfig.from_pretrained(path, local_files_only=is_local(path))


def judge_name(judge: str) -> str:
    """A judge's name without the folders of this machine; a Hub model's name as it is."""
    kind, _, model = judge.partition(":")
    is_path = model.startswith(("/", "~", ".")) or Path(model).is_dir()
    if kind in MODEL_JUDGES and MODEL_JUDGES[kind].local_weights:
        is_path |= model.count("/") > 1  # a Hub name has one slash
    return f"{kind}:{Path(model).name}" if model and is_path else judge


def precision_label(precision: str, config: Config) -> str:
    return f"4-bit NF4, computing in {config.compute}" if precision == "nf4" else config.compute


def _weights(config: Config) -> str:
    """The weight preset, and the weights that this objective uses."""
    if config.objective not in OBJECTIVES:
        return config.weights
    values = loss_weights(config)
    used = {
        "w": ("gd", "kl", "gd_bounded", "kl_bounded", "npo_rt", "simnpo", "dpo", "rmu", "text"),
        "β": ("npo", "npo_rt", "dpo"),
        "cap": ("gd_bounded", "kl_bounded"),
        "strength": ("simnpo", "undial", "rmu"),
    }
    factors = {"w": values.retain, "β": values.beta, "cap": values.cap}
    factors["strength"] = values.strength
    stated = [f"{name} = {factors[name]:g}" for name in used if config.objective in used[name]]
    if config.decouple != "none":
        stated.append(f"λ = {values.decouple:g}")
    return ", ".join([config.weights, *stated])


def _table(measures: pd.DataFrame, config: Config) -> str:
    """A Markdown table: a row per measure, a column per precision."""
    columns = {}
    for precision, metrics in measures.groupby("precision", sort=False):
        report = Report(metrics, answers=pd.DataFrame())
        columns[precision_label(precision, config)] = [
            _cell(report.select(metric, kinds=kinds, templates=templates).iloc[0])
            for metric, kinds, templates, _ in TABLE
        ]
    table = pd.DataFrame(columns, index=[label for *_, label in TABLE])
    table = table[(table != "–").any(axis=1)]  # without what was not measured in any precision
    return table.to_markdown(colalign=["left", *["right"] * len(columns)], disable_numparse=True)


def _cell(row: pd.Series) -> str:
    note = " (some verdicts unknown)" if row["at_most"] > row["value"] else ""
    return with_interval(row) + note
