"""Profiles: every number of an experiment, stated once, with its source.

`tiny` runs on a laptop's CPU; `t4` on a Colab-class GPU with 15 GB, in 4-bit; `full` on one with 24
GB or more, in half precision.
"""

import difflib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from safeerase_lite.tinyworld import is_tiny_world
from safeerase_lite.utils import UserError

Decouple = Literal["none", "pd", "placebo"]
WeightPreset = Literal["official", "matched"]
Projector = Literal["trained", "frozen"]
Split = Literal["train", "val", "test"]

# Fields that a run does not record: hashes stand for the data, and the rest changes no result.
NOT_RECORDED = ("rates", "data_dir", "categories", "checkpoint_every", "judge_consent")
ORACLE = "oracle"  # the judge that knows the tiny world
LLAVA_7B = "llava-hf/llava-1.5-7b-hf"
LLAVA_13B = "llava-hf/llava-1.5-13b-hf"


class Profile(BaseModel):
    """One machine class and its numbers. Frozen; `profile(name, field=value)` overrides a field."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    model: str = "tiny-llava"  # a shipped model, a folder, or a hub name
    data_dir: str = ""  # the SafeEraser layout; empty: the tiny world
    dedupe: Literal["none", "val"] = "none"  # val: val and test without what train has
    categories: tuple[str, ...] = ()  # none named: all, but of real data not Privacy and Sex
    world_seed: int = 0  # the tiny world's seed
    cue: float = Field(1.0, ge=0, le=1)  # how reliably a sign marks hazards in the tiny world
    picture_size: int = Field(48, ge=48, le=1344)  # side of the tiny world's pictures, pixels

    precision: Literal["nf4", "dense"] = "nf4"
    compute: Literal["float32", "float16", "bfloat16"] = "float32"
    lora_rank: int = Field(32, ge=1)  # r = 32, alpha = 256, dropout 0.05: SafeEraser's code
    lora_alpha: int = Field(256, ge=1)
    lora_dropout: float = Field(0.05, ge=0, lt=1)
    projector: Projector = "trained"  # as in SafeEraser's code
    gradient_checkpointing: bool = False

    batch: int = Field(32, ge=1)  # forget samples per step, over all accumulation steps
    accumulation: int = Field(1, ge=1)
    steps: int = Field(60, ge=1)
    warmup: float = Field(0.06, ge=0, le=1)  # share of the steps
    gradient_clip: float = Field(1.0, gt=0)
    optimizer: Literal["adamw", "paged_adamw_8bit"] = "adamw"  # see `optimizers`
    learning_rate: float | None = Field(None, gt=0)  # None: the tuned rate of `rates`
    rates: dict[str, float] = {}  # "objective" or "objective+pd" → learning rate
    npo_beta: float = Field(0.1, gt=0)
    decouple_share: float = Field(1.0, gt=0, le=1)  # of each kind's pictures that PD is given
    checkpoint_every: int = Field(20, ge=1)  # steps

    judge: str = ORACLE  # see `judges`
    judge_consent: bool = False  # may texts and pictures leave this machine to be judged?
    splits: tuple[Split, ...] = ("train", "val", "test")  # what an evaluation asks
    samples: int = Field(3, ge=0)  # sampled answers to the forget questions, beside the greedy one
    evaluation_batch: int = Field(128, ge=1)
    new_tokens: int = Field(40, ge=1)  # an answer is cut there

    def rate(self, objective: str, decouple: str) -> float:
        """The learning rate of a run. A placebo run takes the rate of its PD run."""
        if self.learning_rate is not None:
            return self.learning_rate
        paired = objective if decouple == "none" else f"{objective}+pd"
        return self.rates.get(paired, self.rates.get(objective, 1e-4))


# Learning rates: for each objective, plain and with PD, the least SARR on val subject to ASR ≤ 5%
# among the same candidates (`benchmarks/tune.py`; neither test nor a fresh world was ever asked).
TINY = Profile(
    name="tiny",
    lora_rank=16,
    lora_alpha=32,
    lora_dropout=0.0,
    batch=16,
    steps=48,
    rates={
        "ga": 1.25e-3,
        "ga+pd": 1e-2,
        "gd": 1.25e-3,
        "gd+pd": 5e-3,
        "kl": 2.5e-3,
        "kl+pd": 5e-3,
        "po": 6e-4,
        "po+pd": 5e-3,
        "npo": 1.25e-3,
        "npo+pd": 1e-2,
    },
)

# LLaVA-1.5 in 4-bit on a card of 15 GB, as Colab lends them. Bytes are those of `memory.account`
# for 7B; of 13B see `INSTEAD`.
T4 = Profile(
    name="t4",
    model=LLAVA_7B,
    picture_size=336,  # what LLaVA-1.5's vision tower takes
    precision="nf4",  # 3.3 GB, double quantisation included; in half precision 13
    compute="float16",  # a T4 (compute capability 7.5) only emulates bfloat16
    lora_rank=32,  # rank, alpha, dropout, batch, warm-up, clip and 1e-4: SafeEraser's code
    lora_alpha=256,
    lora_dropout=0.05,
    projector="trained",
    gradient_checkpointing=True,  # 1.6 GB of activations instead of 20
    batch=32,
    accumulation=32,  # a question of each set in one pass, none of them cut: 2,600 tokens at most
    optimizer="paged_adamw_8bit",  # 0.2 GB of moments instead of 0.8; SafeEraser's code: AdamW
    learning_rate=1e-4,
    steps=900,  # 28,800 questions of each set: three passes over the benchmark's 9,600
    checkpoint_every=5,  # a session that is lent can end at any time
    evaluation_batch=16,  # 12.3 GB with keys and values, more than training; 13B would take 20
    new_tokens=256,  # a plan of 140 words, and room
)

# The setting of SafeEraser's code, on a card of 24 GB or more; 13B needs 40 GB.
FULL = T4.model_copy(
    update={
        "name": "full",
        "precision": "dense",
        "compute": "bfloat16",
        "optimizer": "adamw",
        "steps": 3000,  # ten epochs
        "evaluation_batch": 16,
    }
)

# What `profile(name, model=…)` changes besides: of 13B in 4-bit, 12.1 GB, and answering takes less.
INSTEAD = {("t4", LLAVA_13B): {"evaluation_batch": 4}}

PROFILES = {p.name: p for p in (TINY, T4, FULL)}


def profile(name: str = "tiny", **overrides: Any) -> Profile:
    """A profile by name, any of its fields overridden. A model with numbers of its own (`INSTEAD`)
    brings them.

    The folder of injected knowledge is a profile too: the one it was learned with, its model that
    folder. The judge is the oracle, which knows the tiny world alone; of other data it is `rule`,
    unless another is named.

    Raises:
        UserError: no such profile, no such field, or a value out of its range.
    """
    knowledge = read_injected(overrides.get("model") or name)
    if knowledge and name not in PROFILES:
        name = knowledge.profile
    check_choice(name, tuple(PROFILES), "profile")
    instead = INSTEAD.get((name, overrides.get("model")), {})
    injected = knowledge.numbers | {"model": str(knowledge.folder)} if knowledge else {}
    try:
        found = Profile(**(PROFILES[name].model_dump() | instead | injected | overrides))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            fields = ", ".join(Profile.model_fields)
            raise UserError(f"profile has no field {field!r}; it has {fields}") from None
        raise UserError(f"profile field {field!r}: {first['msg']}") from None
    real = found.data_dir and not is_tiny_world(found.data_dir)
    if real and found.judge == ORACLE and "judge" not in overrides:
        return found.model_copy(update={"judge": "rule"})
    return found


def check_choice(value: str, choices: Any, what: str) -> None:
    """Raise a UserError unless `value` is among the choices (a Literal or a tuple of names); names
    the near miss."""
    options = choices if isinstance(choices, tuple) else get_args(choices)
    if value in options:
        return
    near = difflib.get_close_matches(str(value), options, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise UserError(f"unknown {what} {value!r}: choose one of {', '.join(options)}{hint}")


NOTE = "injected.json"


@dataclass(frozen=True)
class Injected:
    """What an adapter's folder says it stands on.

    base: a shipped model, a folder, or a hub name.  profile: the name of the profile it was
    learned with.  numbers: what is to be another than in that profile.
    """

    folder: Path
    base: str
    profile: str
    numbers: dict[str, Any]


def read_injected(model: str) -> Injected | None:
    """The injected knowledge in a folder, or None when it is another kind of model."""
    note = Path(model) / NOTE
    if not note.is_file():
        return None
    try:
        told = json.loads(note.read_text(encoding="utf-8"))
        return Injected(note.parent, told["base"], told["profile"], told["numbers"])
    except (json.JSONDecodeError, KeyError, TypeError):
        raise UserError(f"{note} does not say base, profile, numbers: inject again") from None
