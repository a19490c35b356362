"""One experiment: unlearn, evaluate, and the ledger's run that holds both."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from safeerase_lite.config import (
    NOT_RECORDED,
    OF_TINY_WORLDS,
    OF_TRAINING,
    ORACLE,
    Config,
)
from safeerase_lite.data.dataset import Data, require_decouple
from safeerase_lite.data.redaction import redact_for_storage
from safeerase_lite.data.requests import request_order, require_requests, so_far, trained_on
from safeerase_lite.evaluation import evaluate as evaluation
from safeerase_lite.evaluation.evaluate import Report
from safeerase_lite.evaluation.judges import MODEL_JUDGES, get_judge, parse_judge_name, prompt
from safeerase_lite.evaluation.judges.rules import REFUSAL
from safeerase_lite.evaluation.pending_answers import delete_answers
from safeerase_lite.models.llava import compute_dtype, load_adapter, reset_adapter, save_adapter
from safeerase_lite.models.pretrained import model_hash
from safeerase_lite.unlearning.objectives import OBJECTIVES, own_recipe
from safeerase_lite.unlearning.trainer import NonFiniteLoss, require_optimizer, train
from safeerase_lite.utils import UserError, cached, expects

from . import store
from .processes import by_main, launched

OF_THE_MODEL = (
    "model", "precision", "compute", "seed", "lora_rank", "lora_alpha", "lora_dropout", "projector",
    "gradient_checkpointing",
)  # fmt: skip


@expects
def unlearn(
    model,
    data: Data,
    config: Config,
    *,
    runs_dir: Path | str | None = None,
    wait: float = 3.0,
    watch: Callable[[int, Any], None] | None = None,
) -> store.Run:
    """Unlearn the forget set by the config's objective: the adapter of `model` is changed.

    With `requests`, so many categories are unlearned one after another, `steps` each; what is
    frozen as the reference stays the model before the first.

    The training starts from the adapter's first weights, or from the checkpoint of a run that was
    killed. Of a complete run, the adapter is loaded. Vanilla and gold models are not trained.

    Args:
        model: from `load_model` with these settings.
        data: from `load_data`.
        config: from `config`.
        runs_dir: the ledger; by default `runs/` beside this project, or `$SAFEERASE_RUNS`.
        wait: seconds to wait for another process that is writing this run.
        watch: called as watch(steps done, model); see `trainer.train`.

    Returns:
        The run: `.history` has a row per step; `evaluate` completes it.

    Raises:
        UserError: see `open_run`; or the model has no adapter, or was loaded with other settings.
        NonFiniteLoss: at the first NaN or infinite loss; the run has failed.
    """
    _require_same_settings(model, config)
    run = open_run(config, data, runs_dir=runs_dir, wait=wait)
    if run.done or config.objective not in OBJECTIVES:
        restore(model, run)
        return run
    reset_adapter(model)
    try:
        history = _train(model, data, config, run.checkpoint_dir, watch)
    except NonFiniteLoss as error:
        run.fail(error)  # every checkpoint of it would end the same way
        raise
    if run.main:
        run.write_history(history)
        save_adapter(model, run.adapter_dir)
    launched().wait_for_everyone()  # the history is there for every process
    return run


@expects
def evaluate(model, data: Data, run: store.Run, *, raw: bool = False) -> Report:
    """Ask a model every question, judge, measure, and complete the run; see `evaluation.evaluate`.

    A complete run is read from the ledger. Else the model gets the adapter that `unlearn` stored
    for this run, whatever it learned since.

    Args:
        model: from `load_model`, with the run's settings.
        data: from `load_data`.
        run: from `unlearn`.
        raw: store the harmful texts of real data as they are; else the ledger gets their hashes.

    Returns:
        Metrics, and the answers themselves with their verdicts.

    Raises:
        UserError: the run was not unlearned, or the model was loaded with other settings; the judge
            fails: then answers and verdicts are stored, and the same call goes on from there.
    """
    if run.done:
        return Report(run.metrics, run.answers, run.config.label)
    restore(model, run)
    asked = so_far(data, run.config.requests, run.config.seed)
    report = evaluation.evaluate(model, asked, run.config, cache_key=run.id)
    images = [Path(path).relative_to(data.root).as_posix() for path in report.answers["image"]]
    answers = report.answers.assign(image=images)
    stored = redact_for_storage(answers, data, raw=raw)
    run.write_answers(stored)
    run.write_metrics(report.metrics)
    run.commit()
    if parse_judge_name(run.config.judge)[1]:
        delete_answers(run.id)
    return Report(report.metrics, answers.assign(kind=stored["kind"]), report.label)


@expects
def open_run(
    config: Config, data: Data, *, runs_dir: Path | str | None = None, wait: float = 3.0
) -> store.Run:
    """The run of one experiment: read from the ledger when complete, else opened for writing.

    The digest of the data and a hash of the model are part of its id. Everything that can be
    refused is refused here, before any long work.

    Raises:
        UserError: the data have no decouple pairs; another process is writing the run; a step has
            fewer pictures than there are processes; the optimizer's library does not work here;
            the judge cannot be asked, or not without consent, or does not know the data, or its
            verdicts cannot be stored; no split of the data is evaluated.
    """
    require_decouple(data, config.decouple, config.decouple_kinds)
    require_requests(data, config.requests, config.seed)
    if config.judge == ORACLE and not data.invented:
        raise UserError("the oracle knows the tiny world alone: use judge='rule' or a model")
    if not any(table["split"].isin(config.splits).any() for table in (data.forget, data.retain)):
        present = ", ".join(data.forget["split"].unique())
        raise UserError(f"nothing to ask: none of the splits {config.splits} is here; {present} is")
    if config.objective in OBJECTIVES:
        require_optimizer(config.optimizer)
        processes = launched().num_processes
        if config.pictures < processes:
            raise UserError(
                f"pictures is {config.pictures}, with {processes} processes: each needs a picture "
                "in every step, so raise pictures or start fewer"
            )
    folder = Path(runs_dir) if runs_dir else store.default_runs_dir()
    run = by_main(store.open_run, folder, _parameters(config, data), wait=wait)
    run.config, run.main = config, launched().is_main_process
    if not run.done:
        get_judge(config.judge, consent=config.judge_consent, precision=config.precision)
        if parse_judge_name(config.judge)[1]:
            cached("pending_answers", run.id)  # refuses a cache that cannot store them
    return run


def _train(model, data: Data, config: Config, checkpoints: Path, watch) -> pd.DataFrame:
    """The history of training on all requests at once, or on each in turn."""
    if config.requests is None:
        return train(model, data, config, checkpoints, watch=watch)
    parts = []
    for number, category in enumerate(request_order(data, config.seed)[: config.requests], 1):
        asked = trained_on(data, [category])
        folder, done = checkpoints / f"request-{number}", config.steps * (number - 1)
        # One that watches counts the steps of all requests, as the history does.
        later = watch and (lambda step, model, done=done: watch(done + step, model))
        history = train(model, asked, config, folder, watch=later, keep=number < config.requests)
        parts.append(history.assign(step=history["step"] + done, request=category))
    return pd.concat(parts, ignore_index=True)


def restore(model, run: store.Run) -> None:
    """Make the model what this run made of it: for an untrained run, what `load_model` loaded."""
    _require_same_settings(model, run.config)
    if run.config.objective in OBJECTIVES:
        load_adapter(model, run.adapter_dir)
    elif hasattr(model, "initial_adapter"):
        reset_adapter(model)


def _require_same_settings(model, config: Config) -> None:
    """A model that was loaded by other settings would give a run that its record does not tell."""
    loaded = getattr(model, "loaded_with", None)
    if loaded is None and config.objective in OBJECTIVES:
        raise UserError("the model has no adapter to train: load it with `load_model(config)`")
    for name in OF_THE_MODEL if loaded else ():
        was, now = getattr(loaded, name), getattr(config, name)
        if was != now:
            raise UserError(
                f"the model was loaded with {name}={was!r}, and the config has {now!r}: "
                "load it with `load_model(config)`"
            )


def finished_run(name: str, runs_dir: Path) -> store.Run:
    """The complete run of an id, of the beginning of one, or of a folder, with the settings it was
    made from.

    Raises a UserError where there is none, or several.
    """
    folder = _folder_of(name, runs_dir)
    record = store.read_record(folder, "*")
    run_id, parameters = record["id"], record["parameters"]
    if record["status"] != "complete":
        raise UserError(f"run {run_id} is {record['status']}: a complete run is needed")
    run = store.Run(run_id, parameters, folder, folder.parent, done=True)
    run.config = recorded_config(parameters)
    return run


def _folder_of(name: str, runs_dir: Path) -> Path:
    """The folder of a run, complete or not.

    Raises a UserError for none and for several.
    """
    if (Path(name) / "run.json").is_file():
        return Path(name).resolve()
    folders: dict[str, Path] = {}  # by id; a complete run hides its partial or failed attempts
    for parent in (runs_dir, runs_dir / "partial", runs_dir / "failed"):
        for path in store.run_folders(parent):
            if path.name.startswith(name):
                folders.setdefault(path.name, path)
    if not folders:
        raise UserError(
            f"no run {name!r} in {runs_dir}: give its id in the ledger (a sweep's table "
            "`sweeps/*.csv` has it as `run`), or its folder"
        )
    if len(folders) > 1:
        raise UserError(f"{len(folders)} runs begin with {name!r}: give more of the id")
    return folders.popitem()[1]


def recorded_config(parameters: dict[str, Any]) -> Config:
    """The settings that a run's recorded parameters were made from."""
    fields = {name: parameters.get(name) for name in Config.model_fields}
    return Config(**{name: value for name, value in fields.items() if value is not None})


def _parameters(config: Config, data: Data) -> dict[str, Any]:
    """All that determines a run's result; None where a run of this kind never looks."""
    parameters = config.model_dump(exclude=set(NOT_RECORDED))
    parameters["compute"] = str(compute_dtype(config)).removeprefix("torch.")  # what is done here
    if config.objective not in OBJECTIVES:
        parameters |= dict.fromkeys(OF_TRAINING)
    if config.decouple == "none":
        parameters |= dict.fromkeys(("decouple_share", "decouple_kinds"))
    if config.requests is None:
        del parameters["requests"]
    if data.dedupe != "none":
        parameters["dedupe"] = data.dedupe
    if data.left_out:
        parameters["left_out"] = ", ".join(data.left_out)
    if not data.invented:
        parameters |= dict.fromkeys(OF_TINY_WORLDS)
    parameters |= {"model_hash": model_hash(config.model), "data_hash": data.digest}
    if config.objective in OBJECTIVES and (recipe := own_recipe(config.objective)):
        parameters["objective_hash"] = _sha256(recipe)
    kind, model = parse_judge_name(config.judge)
    if model:  # the judge's prompt, and the weights that answer it
        weights = model_hash(model) if MODEL_JUDGES[kind].local_weights else model
        parameters["judge_hash"] = _sha256(f"{prompt.INSTRUCTIONS} {weights}")
    elif kind == "rule":  # another rule judges otherwise, and is another run
        parameters["judge_hash"] = _sha256(REFUSAL.pattern)
    return parameters


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
