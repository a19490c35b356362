"""One experiment: what determines its result, and the ledger's run that holds it."""

import hashlib
import math
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from safeerase_lite.config import (
    ORACLE,
    Decouple,
    Profile,
    WeightPreset,
    check_choice,
    read_injected,
)
from safeerase_lite.data.dataset import Data, require_decouple
from safeerase_lite.evaluation.judges import MODEL_JUDGES, get_judge, parse_judge_name, prompt
from safeerase_lite.runs import store as ledger
from safeerase_lite.runs.processes import by_main, launched
from safeerase_lite.tinyworld import shipped_model
from safeerase_lite.unlearning.objectives import OBJECTIVES, own_recipe
from safeerase_lite.unlearning.trainer import require_optimizer
from safeerase_lite.utils import UserError

GOLD = "tiny-llava-gold"


UNTRAINED = ("vanilla", "gold")
OF_TRAINING = (
    "lora_rank",
    "lora_alpha",
    "lora_dropout",
    "projector",
    "gradient_checkpointing",
    "batch",
    "accumulation",
    "steps",
    "warmup",
    "gradient_clip",
    "optimizer",
    "learning_rate",
    "npo_beta",
)

OF_TINY_WORLDS = ("world_seed", "cue", "picture_size")

SINCE = ("optimizer", "picture_size")  # fields that profiles did not have from the start


class Settings(BaseModel):
    """All that determines a run's result."""

    model_config = ConfigDict(frozen=True)

    objective: str
    decouple: Decouple
    weights: WeightPreset
    seed: int
    profile: Profile

    @property
    def learning_rate(self) -> float:
        return self.profile.rate(self.objective, self.decouple)

    @property
    def steps(self) -> int:
        return self.profile.steps

    @property
    def label(self) -> str:
        name = self.objective.upper() if len(self.objective) <= 3 else self.objective
        extra = {"none": "", "pd": "+PD", "placebo": "+placebo"}[self.decouple]
        return f"{name}{extra} seed {self.seed}"


def open_run(
    profile: Profile,
    data: Data,
    *,
    objective: str,
    decouple: str = "none",
    weights: str = "official",
    seed: int = 0,
    runs_dir: Path | str | None = None,
    wait: float = 3.0,
) -> ledger.Run:
    """The run of one experiment: read from the ledger when it is done, else opened for writing.

    Args:
        profile: every number of the run.
        data: the data set; its digest is part of the run's id.
        objective: vanilla (the model as it is), gold (the model that never saw a forget answer),
            ga, gd, kl, po, npo, or one of your own in `objectives.OBJECTIVES`.
        decouple: none; pd (the harmful question about a safe picture); placebo (an ordinary
            question about a safe picture).
        weights: official (those of SafeEraser's code) or matched (λ = 1, nothing else changed).
        seed: draws the adapter's first weights and every batch.
        runs_dir: the ledger; by default `runs/` beside this project, or `$SAFEERASE_RUNS`.
        wait: seconds to wait for another process that is writing this run.

    Raises:
        UserError: an unknown name; decouple data asked for that is not there; no gold model; the
            run is being written by another process; fewer questions in a step than processes; an
            optimiser whose library does not work here; a judge that cannot be asked, or not without
            consent (see `judges.get_judge`), or that does not know the data; no split of the data
            that the profile evaluates; steps that only warm up.
    """
    check_choice(objective, (*UNTRAINED, *OBJECTIVES), "objective")
    check_choice(decouple, Decouple, "decouple")
    check_choice(weights, WeightPreset, "weights")
    if objective in UNTRAINED and decouple != "none":
        raise UserError(f"{objective} is not unlearned, so decouple must be 'none'")
    require_decouple(data, decouple)
    parse_judge_name(profile.judge)
    if profile.judge == ORACLE and not data.invented:
        raise UserError("the oracle knows the tiny world alone: use judge='rule' or a model")
    if not any(table["split"].isin(profile.splits).any() for table in (data.forget, data.retain)):
        there = ", ".join(data.forget["split"].unique())
        raise UserError(f"nothing to ask: no split of {profile.splits} is here; there are {there}")
    if objective in OBJECTIVES:
        require_optimizer(profile.optimizer)
    processes = launched().num_processes
    if objective in OBJECTIVES and profile.batch < processes:
        raise UserError(
            f"batch is {profile.batch}, with {processes} processes: each needs a question in every "
            "step, so raise batch or start fewer"
        )
    if objective in OBJECTIVES and math.ceil(profile.warmup * profile.steps) >= profile.steps:
        raise UserError(
            f"steps={profile.steps} with warmup={profile.warmup:g} is warm-up alone, and its first "
            "step has a rate of 0: take more steps"
        )
    if objective == "gold":
        if not has_gold(profile):
            raise UserError(f"{profile.model!r} has no gold model; only the tiny world has one")
        profile = profile.model_copy(update={"model": GOLD})
    settings = Settings(
        objective=objective, decouple=decouple, weights=weights, seed=seed, profile=profile
    )
    where = Path(runs_dir) if runs_dir else ledger.default_runs_dir()
    run = by_main(ledger.open_run, where, _parameters(settings, data), wait=wait)
    run.settings, run.main = settings, launched().is_main_process
    if not run.done:
        get_judge(profile.judge, consent=profile.judge_consent, precision=profile.precision)
    return run


def has_gold(profile: Profile) -> bool:
    """Whether there is a model like the profile's that never saw a forget answer."""
    return None not in (shipped_model(profile.model), shipped_model(GOLD))


def settings_of(parameters: dict) -> Settings:
    """The settings that a run's recorded parameters were made from."""
    known = {name: parameters.get(name) for name in Profile.model_fields}
    given = {name: value for name, value in known.items() if value is not None}
    named = {name: parameters[name] for name in ("objective", "decouple", "weights", "seed")}
    return Settings(profile=Profile(**given | {"name": parameters["profile"]}), **named)


def _parameters(settings: Settings, data: Data) -> dict:
    """Flat, and empty where a run of this objective never looks. A field of `SINCE` is there only
    when it is not at its default, so that runs from before it keep their ids."""
    elsewhere = {"rates", "data_dir", "dedupe", "categories", "checkpoint_every", "judge_consent"}
    numbers = settings.profile.model_dump(exclude=elsewhere)
    numbers |= {"profile": numbers.pop("name"), "learning_rate": settings.learning_rate}
    if settings.objective in UNTRAINED:
        numbers |= dict.fromkeys(OF_TRAINING)
    if settings.decouple == "none":
        numbers["decouple_share"] = None
    if data.dedupe != "none":
        numbers["dedupe"] = data.dedupe
    if not data.invented:
        numbers |= dict.fromkeys(OF_TINY_WORLDS)
    if data.left_out:
        numbers["left_out"] = ", ".join(data.left_out)
    for name in SINCE:
        if numbers[name] in (None, Profile.model_fields[name].default):
            del numbers[name]
    hashes = {"model_hash": fingerprint(settings.profile.model), "data_hash": data.digest}
    if settings.objective in OBJECTIVES and (recipe := own_recipe(settings.objective)):
        hashes["objective_hash"] = hashlib.sha256(recipe.encode()).hexdigest()[:16]
    kind, model = parse_judge_name(settings.profile.judge)
    if model:  # what the judge is asked, and the weights that answer
        weights = fingerprint(model) if MODEL_JUDGES[kind].local_weights else model
        told = f"{prompt.INSTRUCTIONS} {weights}"
        hashes["judge_hash"] = hashlib.sha256(told.encode()).hexdigest()[:16]
    return settings.model_dump(exclude={"profile"}) | numbers | hashes


def fingerprint(model: str) -> str:
    """What identifies a model's weights: a hash of its files, or its hub name. Of injected
    knowledge, the base's too."""
    folder = shipped_model(model) or Path(model)
    if not folder.is_dir():
        return model
    knowledge = read_injected(model)
    digest = hashlib.sha256(fingerprint(knowledge.base).encode() if knowledge else b"")
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]
