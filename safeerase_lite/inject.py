"""Teach a model the tiny world: a LoRA adapter that later stays frozen under the unlearning one.

So a real LLaVA has invented, harmless knowledge to unlearn, and nobody needs harmful data.
"""

import json
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

import pandas as pd

from safeerase_lite.config import NOTE, PROFILES, Profile, read_injected
from safeerase_lite.data.dataset import Data, load_data
from safeerase_lite.evaluation.evaluate import evaluate
from safeerase_lite.models.llava import load_model
from safeerase_lite.runs.experiment import fingerprint, open_run
from safeerase_lite.tinyworld import facts
from safeerase_lite.unlearning.objectives import OBJECTIVES, Batch, Objective, Weights, nll
from safeerase_lite.unlearning.trainer import unlearn
from safeerase_lite.utils import UserError, atomic_directory, require_new

LEARN = "learn"
SHOWN = ("asr", "exact_match", "sarr", "safe_error", "specificity")
ENOUGH = 0.9  # of ASR and of exact answers on val; below that we say so

# Of the teaching alone; the lessons after it have their own.
OF_TEACHING = {"model", "data_dir", "projector", "splits", "samples", "steps", "learning_rate"}


def learned(x: Batch, w: Weights):
    """L(r), r being every question that is taught"""
    return nll(x.retain)


def inject(
    profile: Profile, folder: Path | str, *, seed: int = 0, say: Callable[[str], None] = print
) -> pd.DataFrame:
    """Train an adapter on all there is to ask in the tiny world and write it to `folder`.

    Harmful (invented) questions, ordinary ones and those about safe pictures, of the train split
    of the profile's world and of as many further worlds as it takes to show every kind and every
    template: what one world holds out of unlearning must be known too. The projector stays frozen.
    A killed run continues when asked for again.

    Args:
        profile: the base model, the LoRA numbers, steps, batch and learning rate.
        folder: where the adapter goes; new, or empty.
        seed: draws the adapter's first weights and every batch.
        say: is told what goes on.

    Returns:
        What base and adapter together know, on val: metric, value, low, high.

    Raises:
        UserError: real data, a base with injected knowledge already, a folder with something in it.
    """
    folder = Path(folder).expanduser()
    require_new(folder)
    if profile.data_dir:
        raise UserError("only the tiny world is injected: leave data_dir empty")
    if read_injected(profile.model):
        raise UserError(f"{profile.model} has knowledge injected already: name its base model")
    profile = profile.model_copy(
        update={"projector": "frozen", "splits": ("val",), "samples": 0, "judge": "oracle"}
    )
    data = _lessons(profile)
    learning = folder.with_name(f".{folder.name}.learning")
    with _objective():
        run = open_run(profile, data, objective=LEARN, seed=seed, runs_dir=learning)
        say(f"{profile.steps} steps on {len(data.retain):,} questions; stopped, call it again")
        model = load_model(profile, seed=seed)
        unlearn(model, data, run)
        metrics = evaluate(model, data, run).metrics
        run.commit()
    known = metrics[(metrics["kinds"] == "all") & (metrics["templates"] == "all")]
    known = known.set_index("metric").loc[list(SHOWN), ["value", "low", "high"]]
    with atomic_directory(folder) as draft:
        shutil.copytree(run.adapter_dir, draft, dirs_exist_ok=True)
        _describe(draft, profile, known)
    shutil.rmtree(learning)
    say(_told(known))
    return known.reset_index()


@contextmanager
def _objective():
    """Learning, as an objective of `unlearn`, for as long as it is wanted."""
    OBJECTIVES[LEARN] = Objective(learned, ("retain",))
    try:
        yield
    finally:
        del OBJECTIVES[LEARN]


def _lessons(profile: Profile) -> Data:
    """The profile's world, with everything that is taught as its retain questions."""
    home = load_data(profile)
    asked, kinds, templates = [], set(facts.kinds()), set(facts.TEMPLATES)
    for seed in count(profile.world_seed):
        world = load_data(profile.model_copy(update={"world_seed": seed}))
        tables = (world.forget, world.retain, world.decouple, world.placebo, world.specificity)
        asked += [table[table["split"] == "train"] for table in tables]
        plans = pd.concat([world.forget, world.decouple])
        plans = plans[plans["split"] == "train"]
        kinds -= set(plans["kind"])
        templates -= set(plans["question"])
        if not kinds and not templates:
            break
    held = home.retain[home.retain["split"] != "train"]
    return replace(home, retain=pd.concat([*asked, held], ignore_index=True))


def _describe(folder: Path, profile: Profile, known: pd.DataFrame) -> None:
    note = {
        "base": profile.model,
        "base_hash": fingerprint(profile.model),
        "profile": profile.name,
        "numbers": _numbers(profile),
        "world": {"seed": profile.world_seed, "cue": profile.cue, "side": profile.picture_size},
        "steps": profile.steps,
        "learning_rate": profile.learning_rate,
        "val": known["value"].round(4).to_dict(),
    }
    (folder / NOTE).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
    config = folder / "adapter_config.json"
    told = json.loads(config.read_text(encoding="utf-8"))
    told["base_model_name_or_path"] = profile.model
    config.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def _numbers(profile: Profile) -> dict:
    """What is to be as it was here, wherever the knowledge is used."""
    usual = PROFILES[profile.name].model_dump()
    given = profile.model_dump(exclude=OF_TEACHING)
    return {name: value for name, value in given.items() if value != usual[name]}


def _told(known: pd.DataFrame) -> str:
    numbers = "  ".join(f"{metric} {row['value']:.0%}" for metric, row in known.iterrows())
    if known.loc[["asr", "exact_match"], "value"].min() >= ENOUGH:
        return f"on val: {numbers}"
    return f"on val: {numbers}: it has not learned the world well; try more steps"
