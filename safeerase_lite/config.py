"""One settings record: every number of an experiment, stated once, with its source.

A profile is a machine class and its numbers: `tiny` is a tiny model on any CPU; `laptop` a small
real one there; `t4` runs on a Colab-class GPU with 15 GB, in 4-bit; `full` on one with 24 GB or
more, in half precision.
"""

import json
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator

from .tinyworld import is_tiny_world, shipped_model
from .utils import MAX_SEED, UserError, check_choice

Decouple = Literal["none", "pd", "placebo"]
WeightPreset = Literal["official", "matched"]
Split = Literal["train", "val", "test"]
Seed = Annotated[int, Field(ge=-MAX_SEED, le=MAX_SEED)]

ORACLE = "oracle"  # the judge that knows the tiny world
GOLD = "tiny-llava-gold"  # trained like tiny-llava, but it never saw a forget answer
LLAVA_7B = "llava-hf/llava-1.5-7b-hf"
LLAVA_13B = "llava-hf/llava-1.5-13b-hf"
SMOLVLM_256M = "HuggingFaceTB/SmolVLM-256M-Instruct"
INJECTED_NOTE = "injected.json"


class Config(BaseModel):
    """The settings of one experiment. Frozen; made by `config`, which fills in what is None."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    profile: str = "tiny"
    objective: str = "vanilla"  # vanilla, gold, or a key of `objectives.OBJECTIVES`
    decouple: Decouple = "none"  # pd: harmful question, safe picture; placebo: ordinary question
    weights: WeightPreset = "official"  # of the loss terms; see `objectives.loss_weights`
    seed: Seed = 0  # of the adapter's first weights and of every batch

    model: str = Field("tiny-llava", min_length=1)  # a shipped model, a folder, or a Hub name
    data_dir: str | None = Field(None, min_length=1)  # the SafeEraser layout; None: the tiny world
    dedupe: Literal["none", "val"] = "none"  # val: val and test without what train has
    categories: tuple[str, ...] = ()  # none named: all, but of real data not Privacy and Sex
    world_seed: Seed = 0  # the tiny world's seed
    cue: float = Field(1.0, ge=0, le=1)  # how reliably a sign marks hazards in the tiny world
    picture_size: int = Field(48, ge=48, le=1344)  # side of the tiny world's pictures, pixels

    precision: Literal["nf4", "dense"] = "nf4"
    compute: Literal["float32", "float16", "bfloat16"] = "float32"
    lora_rank: int = Field(32, ge=1)  # r = 32, alpha = 256, dropout 0.05: SafeEraser's code
    lora_alpha: int = Field(256, ge=1)
    lora_dropout: float = Field(0.05, ge=0, lt=1)
    projector: Literal["trained", "frozen"] = "trained"  # trained in SafeEraser's code
    gradient_checkpointing: bool = False

    pictures: int = Field(8, ge=1)  # harmful pictures per step, over all accumulation steps
    accumulation: int = Field(1, ge=1)
    steps: int = Field(60, ge=1)  # of each request
    requests: int | None = Field(None, ge=1)  # categories, forgotten in turn; None: all at once
    warmup: float = Field(0.06, ge=0, le=1)  # share of the steps
    gradient_clip: float = Field(1.0, gt=0)
    optimizer: Literal["adamw", "paged_adamw_8bit"] = "adamw"
    learning_rate: float | None = Field(None, gt=0)  # None: the objective's tuned rate, else 1e-4
    npo_beta: float = Field(0.1, gt=0)
    forget_cap: float = Field(4.0, gt=0)  # nats per token, the tiny gold's: bounded ascent's end
    decouple_share: float = Field(1.0, gt=0, le=1)  # of each kind's pictures that PD is given
    decouple_kinds: int | None = Field(None, ge=1)  # kinds that PD is given; None: all
    checkpoint_every: int = Field(20, ge=1)  # steps

    judge: str | None = Field(None, min_length=1)  # None: oracle for the tiny world, else rule
    judge_consent: bool = False  # may texts and pictures leave this machine to be judged?
    splits: tuple[Split, ...] = ("train", "val", "test")  # the splits that are evaluated
    samples: int = Field(3, ge=0)  # sampled answers to forget questions, beside the greedy one
    eval_batch_size: int = Field(128, ge=1)
    max_new_tokens: int = Field(40, ge=1)  # an answer is cut there

    _given: dict[str, Any] | None = PrivateAttr(None)  # what the user stated; None: every field

    @field_validator("*", mode="before")
    @classmethod
    def _as_meant(cls, value: Any, info) -> Any:
        """A path is its text, and one text a tuple of one; True is no number."""
        kind = cls.model_fields[info.field_name].annotation
        if isinstance(value, bool) and kind is not bool:
            raise ValueError("Input should be neither true nor false")
        if isinstance(value, str) and get_origin(kind) is tuple:
            return (value,)
        return str(value) if isinstance(value, Path) else value

    @property
    def label(self) -> str:
        """The run's name in tables and charts, such as "PO+PD seed 0"."""
        from .unlearning.objectives import label_of

        added = {"none": "", "pd": "+PD", "placebo": "+placebo"}[self.decouple]
        return f"{label_of(self.objective)}{added} seed {self.seed}"


# Fields that a run does not record: they change no result, or a hash in the record covers them.
NOT_RECORDED = ("data_dir", "dedupe", "categories", "checkpoint_every", "judge_consent")
# Fields without a meaning for a model that is not trained, and for data that is no tiny world.
OF_TRAINING = (
    "lora_rank", "lora_alpha", "lora_dropout", "projector", "gradient_checkpointing",
    "pictures", "accumulation", "steps", "warmup", "gradient_clip", "optimizer", "learning_rate",
    "npo_beta", "forget_cap",
)  # fmt: skip
OF_TINY_WORLDS = ("world_seed", "cue", "picture_size")

_TINY = {"lora_rank": 16, "lora_alpha": 32, "lora_dropout": 0.0, "pictures": 4, "steps": 96,
         "eval_batch_size": 256}  # fmt: skip

# A real model on two cores: an hour to teach it a small world and to unlearn that twice (`laptop`).
_LAPTOP = {
    "model": SMOLVLM_256M,
    "picture_size": 512,  # the input size of its vision tower; a picture is one view of 64 tokens
    "categories": ("Gloom", "Static"),  # of the tiny world's eight: 16 hazards, 16 safe kinds
    "precision": "dense",  # 0.5 GB; on a CPU 4-bit layers are slower
    "compute": "bfloat16",  # float32 where a CPU has no instructions for it
    "lora_dropout": 0.0,  # its masks take time
    "pictures": 2,
    "steps": 60,
    "learning_rate": 1e-4,  # SafeEraser's code, like rank and alpha; not tuned for this model
    "splits": ("test",),
    "samples": 0,
    "checkpoint_every": 10,
    "eval_batch_size": 32,
}

# LLaVA-1.5 in 4-bit on a card of 15 GB, as Colab lends them. Bytes are those of
# `resources.account` for 7B.
_T4 = {
    "model": LLAVA_7B,
    "picture_size": 336,  # the input size of LLaVA-1.5's vision tower
    "precision": "nf4",  # 3.3 GB, double quantisation included; in half precision 13
    "compute": "float16",  # a T4 (compute capability 7.5) only emulates bfloat16
    "gradient_checkpointing": True,  # 2.2 GB of activations instead of 36
    "pictures": 8,  # with four questions of each set: 32, the batch of SafeEraser's code
    "accumulation": 8,  # a picture with all its questions: 4,600 tokens at most
    "optimizer": "paged_adamw_8bit",  # 0.2 GB of moments instead of 0.8; SafeEraser's code: AdamW
    "learning_rate": 1e-4,  # SafeEraser's code, like rank, alpha, dropout, warm-up and clip
    "steps": 900,  # 28,800 questions of each set: three passes over the benchmark's 9,600
    "checkpoint_every": 5,  # a borrowed session can end at any time
    "eval_batch_size": 12,  # 11.5 GB with keys and values, more than training; 13B would take 18
    "max_new_tokens": 256,  # a plan of 140 words, with a margin
}

# The setting of SafeEraser's code, on a card of 24 GB or more; 13B needs 40 GB.
_FULL = _T4 | {
    "precision": "dense",
    "compute": "bfloat16",
    "optimizer": "adamw",
    "steps": 3000,  # ten epochs
}

_FIELDS: dict[str, dict[str, Any]] = {
    "tiny": _TINY,
    "laptop": _LAPTOP,
    "t4": _T4,
    "full": _FULL,
}
PROFILES = {name: Config(profile=name, **fields) for name, fields in _FIELDS.items()}

# A model that needs other numbers than its profile: 13B in 4-bit takes 12.5 GB, half a picture's
# questions at a time.
_OF_MODEL = {("t4", LLAVA_13B): {"accumulation": 16, "eval_batch_size": 4}}


def config(base: str | Config = "tiny", **fields: Any) -> Config:
    """The settings of an experiment: a profile's, with any field overridden.

    Args:
        base: a profile's name; or a Config, whose explicitly given fields are taken over; or the
            folder of injected knowledge, whose profile and numbers are taken.
        fields: any field of Config; None means the profile's own value.

    Returns:
        Settings with nothing left open: the learning rate is the objective's tuned one for this
        profile, the judge is the oracle for the tiny world and `rule` for any other data, and the
        objective "gold" brings the gold model.

    Raises:
        UserError: no such profile, field, objective or judge; a value out of its range; a decouple
            term for a model that is not unlearned, or whose adapter is negated; no gold model; all
            steps are warm-up.
    """
    from .evaluation.judges.rules import parse_judge_name
    from .unlearning.objectives import OBJECTIVES, UNTRAINED, Objective

    given = {name: value for name, value in fields.items() if value is not None}
    if isinstance(base, Config):
        before = base.model_dump(exclude={"profile"}) if base._given is None else base._given
        base, given = base.profile, before | given
    elif not isinstance(base, str | Path):
        raise UserError(
            f"config takes a profile or a Config first, and {base!r} is neither: write "
            'sl.config("tiny", objective="po")'
        )
    profile = str(given.pop("profile", base))
    knowledge = read_injected(str(given.get("model") or profile))
    if knowledge and profile not in PROFILES:
        profile, given = knowledge.profile, {"model": profile} | given
    check_choice(profile, tuple(PROFILES), "profile")
    numbers = _FIELDS[profile] | _OF_MODEL.get((profile, str(given.get("model"))), {})
    if knowledge:
        numbers = numbers | knowledge.numbers
    if given.get("data_dir"):
        for name in ("categories", "splits"):
            numbers.pop(name, None)  # a profile's are those of the tiny world
    try:
        resolved = Config.model_validate(numbers | given | {"profile": profile})
    except ValidationError as error:
        raise UserError(_first_problem(error)) from None
    check_choice(resolved.objective, (*UNTRAINED, *OBJECTIVES), "objective")
    filled: dict[str, Any] = {}
    if resolved.objective in UNTRAINED:
        if resolved.decouple != "none":
            raise UserError(f"{resolved.objective} is not unlearned, so decouple must be 'none'")
        if resolved.requests:
            raise UserError(f"{resolved.objective} is not unlearned, so requests must be None")
    elif not isinstance(OBJECTIVES[resolved.objective], Objective):
        raise UserError(
            f"OBJECTIVES[{resolved.objective!r}] is no Objective: write Objective(formula, "
            "needs=('forget',))"
        )
    elif OBJECTIVES[resolved.objective].negated and resolved.decouple != "none":
        raise UserError(
            f"{resolved.objective} is plain only: its adapter is negated at the end, and what "
            f"{resolved.decouple} teaches would be negated too; set decouple='none'"
        )
    elif OBJECTIVES[resolved.objective].negated and resolved.requests:
        raise UserError(
            f"{resolved.objective} negates its adapter at the end, and a second request would "
            "negate the first once more; set requests=None"
        )
    elif math.ceil(resolved.warmup * resolved.steps) >= resolved.steps:
        raise UserError(
            f"steps={resolved.steps} with warmup={resolved.warmup:g} is warm-up alone, and its "
            "first step has a rate of 0: take more steps"
        )
    elif resolved.learning_rate is None:
        tuned = OBJECTIVES[resolved.objective].learning_rates
        rate = filled["learning_rate"] = tuned.get(profile, 1e-4)
        if profile == "tiny" and profile not in tuned:
            warnings.warn(
                f"no learning rate of {resolved.objective} was tuned for {profile}, so it is the "
                f"official code's {rate:g}: state learning_rate",
                stacklevel=2,
            )
        elif profile == "tiny" and not shipped_model(resolved.model):
            warnings.warn(
                f"the learning rate {rate:g} was tuned on tiny-llava, and the model is "
                f"{resolved.model}: state learning_rate",
                stacklevel=2,
            )
    if resolved.judge is None:
        real = resolved.data_dir and not is_tiny_world(resolved.data_dir)
        filled["judge"] = "rule" if real else ORACLE
    else:
        parse_judge_name(resolved.judge)
    if resolved.objective == "gold":
        if not has_gold(resolved):
            raise UserError(f"{resolved.model!r} has no gold model; only the tiny world has one")
        filled["model"] = GOLD
    resolved = resolved.model_copy(update=filled)
    resolved._given = given
    return resolved


def has_gold(config: Config) -> bool:
    """Whether there is a model like this one that never saw a forget answer."""
    return None not in (shipped_model(config.model), shipped_model(GOLD))


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    name = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        check_choice(name, tuple(Config.model_fields), "config field")
    problem = first["msg"].removeprefix("Value error, ")
    return f"config field {name!r}: {problem}, and is {first['input']!r}"


@dataclass(frozen=True)
class Injected:
    """Invented knowledge that a model was taught, to have something to unlearn: a folder with an
    adapter, which stays frozen under the one that unlearns.

    base: a shipped model, a folder, or a Hub name.  profile: the profile it was taught with.
    numbers: the fields that differ from that profile.
    """

    folder: Path
    base: str
    profile: str
    numbers: dict[str, Any]


def read_injected(model: str) -> Injected | None:
    """The injected knowledge in a folder; None for any other model."""
    note = Path(model) / INJECTED_NOTE
    if not note.is_file():
        return None
    try:
        fields = json.loads(note.read_text(encoding="utf-8"))
        return Injected(note.parent, fields["base"], fields["profile"], fields["numbers"])
    except (json.JSONDecodeError, KeyError, TypeError):
        raise UserError(f"{note} lacks base, profile or numbers: inject again") from None
