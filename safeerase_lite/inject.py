"""Teach a model the tiny world: a LoRA adapter that later stays frozen under the unlearning one.

So a real LLaVA has invented, harmless knowledge to unlearn, and nobody needs harmful data.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd

from safeerase_lite.config import INJECTED_NOTE, PROFILES, Config, read_injected
from safeerase_lite.config import config as make_config
from safeerase_lite.data.dataset import TABLES, Data, load_data, read_data
from safeerase_lite.models.llava import load_model
from safeerase_lite.models.pretrained import model_hash
from safeerase_lite.runs.experiment import evaluate, unlearn
from safeerase_lite.tinyworld.world import World, write_world
from safeerase_lite.unlearning.objectives import OBJECTIVES, Batch, LossWeights, Objective, nll
from safeerase_lite.utils import UserError, atomic_directory, cached, require_new

LEARN = "learn"
# Of every hazard at once: all are taught, and none is requested to be forgotten yet.
REPORTED = ("asr", "exact_match", "utility_safe", "sarr", "safe_error", "specificity")
MIN_LEARNED = 0.9  # of ASR and of exact answers on val; a lower value is reported as not learned
PICTURES = 16  # of every kind, to learn it from

# What an injection fixes, whatever the config says.
OF_INJECTION = {"decouple": "none", "weights": "official", "projector": "frozen",
                "splits": ("val",), "samples": 0, "judge": "oracle"}  # fmt: skip
# Fields of this training alone; what builds on the adapter has its own values.
TRAINING_ONLY = {
    *OF_INJECTION, "profile", "objective", "seed", "model", "data_dir", "steps", "learning_rate",
}  # fmt: skip


def learning_loss(x: Batch, w: LossWeights):
    """L(r), where r holds every question that is taught"""
    return nll(x.retain)


def inject(
    config: Config, folder: Path | str, *, say: Callable[[str], None] = print
) -> pd.DataFrame:
    """Train an adapter on every question of the tiny world and write it to `folder`.

    The projector stays frozen. A stopped call continues when it is made again.

    Args:
        config: the base model, the LoRA numbers, steps, pictures, learning rate and seed.
        folder: where the adapter goes; new, or empty.
        say: receives progress messages.

    Returns:
        What base and adapter together know, on val: metric, value, low, high.

    Raises:
        UserError: real data, a base with injected knowledge already, a folder that is not empty.
    """
    folder = Path(folder).expanduser()
    require_new(folder)
    if config.data_dir:
        raise UserError("only the tiny world is injected: leave data_dir empty")
    if read_injected(config.model):
        raise UserError(f"{config.model} has knowledge injected already: name its base model")
    checkpoints = folder.with_name(f".{folder.name}.learning")  # removed when it is done
    OBJECTIVES[LEARN] = Objective(learning_loss, ("retain",))  # known for this call alone
    try:
        config = make_config(config, objective=LEARN, **OF_INJECTION)
        data = teaching_data(config)
        say(f"{config.steps} steps on {len(data.retain):,} questions; if stopped, call it again")
        model = load_model(config)
        run = unlearn(model, data, config, runs_dir=checkpoints)
        learned = evaluate(model, data, run).select(REPORTED)[["metric", "value", "low", "high"]]
    finally:
        del OBJECTIVES[LEARN]

    values = learned.set_index("metric")["value"]
    with atomic_directory(folder) as draft:
        shutil.copytree(run.adapter_dir, draft, dirs_exist_ok=True)
        write_description(draft, config, values)
    shutil.rmtree(checkpoints)
    message = "on val: " + "  ".join(f"{metric} {value:.0%}" for metric, value in values.items())
    if values[["asr", "exact_match"]].min() < MIN_LEARNED:
        message += ": it has not learned the world well; try more steps"
    say(message)
    return learned


def teaching_data(config: Config) -> Data:
    """The config's world, with every question that is taught among its retain questions.

    These are the harmful (invented) questions, the ordinary ones and those about safe pictures, of
    the train split of a world that holds nothing out: what the config's own world holds out of
    unlearning must be known too.
    """
    home = load_data(config)
    everything = World(config.world_seed, config.cue, PICTURES, 1, config.picture_size, False)
    whole = read_data(
        write_world(everything, cached(everything.name)), categories=config.categories
    )
    tables = [getattr(whole, name) for name in TABLES]
    taught = [table[table["split"] == "train"] for table in tables]
    held_out = home.retain[home.retain["split"] != "train"]
    return replace(home, retain=pd.concat([*taught, held_out], ignore_index=True))


def write_description(folder: Path, config: Config, learned: pd.Series) -> None:
    """Name the base model in PEFT's configuration; note in `injected.json` how it was taught.

    learned: metric → value on val.
    """
    defaults = PROFILES[config.profile].model_dump()
    fields = config.model_dump(exclude=TRAINING_ONLY)
    note = {
        "base": config.model,
        "base_hash": model_hash(config.model),
        "profile": config.profile,
        "numbers": {name: value for name, value in fields.items() if value != defaults[name]},
        "world": {"seed": config.world_seed, "cue": config.cue, "side": config.picture_size},
        "steps": config.steps,
        "learning_rate": config.learning_rate,
        "val": learned.round(4).to_dict(),
    }
    (folder / INJECTED_NOTE).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
    path = folder / "adapter_config.json"
    peft_config = json.loads(path.read_text(encoding="utf-8"))
    peft_config["base_model_name_or_path"] = config.model
    path.write_text(json.dumps(peft_config, indent=2) + "\n", encoding="utf-8")
