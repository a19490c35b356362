"""The SafeEraser layout on disk, read as validated records.

The layout is that of the benchmark (arXiv 2502.12520): `all_train.json`, `all_val.json`, perhaps
`all_test.json`, and `prompt.json`. The tiny world uses the same layout and adds three optional keys
to a record: `SDkeyword`, `placebo_pairs` and `specificity_pairs`. Unknown keys are ignored, unless
they look like a required key that is absent; null counts as absent.

The models below say what a file must hold. An error names the file, the index of the record and the
key, and of several the first ten are listed. It never quotes the value: on real data a value may be
harmful.
"""

import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from safeerase_lite.utils import UserError

from .json_files import RepeatedKey, read_json, read_json_records

SAFE_IMAGE_TABLES = ("decouple", "placebo")
RETAIN_LEVELS = {"UnharmPair_text": "concept", "UnharmPair_image": "image"}  # key prefix → level
RETAIN_KEYS = tuple(f"{prefix}{number}" for prefix in RETAIN_LEVELS for number in (1, 2))
RETAIN_KEY = re.compile(f"({'|'.join(RETAIN_LEVELS)})[1-9][0-9]*")
ADDED_KEYS = {"split", "index", "retain"}  # to what a file holds of a record, by the reader
LISTED, LIKENESS = 10, 0.85  # problems of one error; of a misspelt key and the one that is meant
IMAGE_TOKEN = "<image>"  # LLaVA's token, which stands for the image


def read_records(root: Path) -> list["Record"]:
    """The validated records of every split, in the order of the files.

    Warns of keys that look like an optional one that is absent. Raises a UserError that lists the
    first problems of all files.
    """
    if not root.is_dir():
        raise UserError(f"{root} is no folder: give the one that holds all_train.json")
    records, problems, lookalikes = [], [], Counter()
    for split in present_splits(root):
        name = f"all_{split}.json"
        rows = read_json_records(root / name)
        if (key := _key_of_records(rows)) is not None:
            advice = f"give the list {key!r} alone"
            problems.append(f"{name}: is an object, not a list of records: {advice}")
            continue
        for index, fields in enumerate(rows):
            where = f"{name}, record at index {index}"
            context = {"root": root, "split": split, "index": index, "lookalikes": set()}
            record, found = validate(Record, fields, where, context)
            records.append(record)
            problems += found
            lookalikes.update((name, *pair) for pair in context["lookalikes"])
    refuse(problems)
    for (name, key, absent), count in sorted(lookalikes.items()):
        warnings.warn(
            f"{name}: {count} {'record holds' if count == 1 else 'records hold'} {key!r} and no "
            f"{absent!r}, which is then absent: rename it if that is meant",
            stacklevel=2,
        )
    return records


def _key_of_records(rows: list) -> str | None:
    """The key of the records in a file that is no list of them but an object of several values."""
    match rows:
        case [dict(whole)] if not whole.keys() & (Record.required_keys() - ADDED_KEYS):
            lists = {key: value for key, value in whole.items() if value and type(value) is list}
            keys = [key for key, value in lists.items() if all(type(v) is dict for v in value)]
            return keys[0] if len(keys) == 1 else None


def read_refusals(root: Path) -> list[str]:
    """The refusals of `prompt.json`, at least one."""
    path = root / "prompt.json"
    refusals, problems = validate(Refusals, read_json(path), path.name)
    refuse(problems)
    return refusals.idk


def present_splits(root: Path) -> list[str]:
    """train and val, which must be there, and test when it is."""
    has_test = os.path.lexists(root / "all_test.json")
    return ["train", "val", "test"] if has_test else ["train", "val"]


# ---- What a file holds ----


def _check_text(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty; fill it in")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        problem = f"character {error.start} is half of a surrogate pair; correct the text"
        raise ValueError(problem) from None
    if IMAGE_TOKEN in text:
        raise ValueError(f"holds {IMAGE_TOKEN}; remove it: it is added where the image goes")
    return text


def _check_category(text: str) -> str:
    # A category is printed, unlike other texts: nothing in it may steer a terminal.
    if not text.strip().isprintable():
        raise ValueError("holds a character that does not print; correct it")
    return text.strip()


def _path_in_folder(text: str, info: ValidationInfo) -> str:
    """The path relative to the folder; leading folders that do not exist there are dropped."""
    path = PureWindowsPath(text)  # takes / and \\ alike
    parts = path.parts[1:] if path.anchor else path.parts
    if ".." in parts:
        raise ValueError("holds '..'; keep the path inside the folder")
    root = (info.context or {})["root"]
    start = next((i for i, part in enumerate(parts) if os.path.isdir(root / part)), 0)
    return PurePosixPath(*parts[start:]).as_posix()


Text = Annotated[str, AfterValidator(_check_text)]
Category = Annotated[Text, AfterValidator(_check_category)]
ImagePath = Annotated[Text, AfterValidator(_path_in_folder)]


class Layout(BaseModel):
    """What the models of the layout share: no value is converted, unknown keys are ignored."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", hide_input_in_errors=True)

    keys_besides: ClassVar[tuple[str, ...]] = ()  # required beside those of the fields

    @classmethod
    def required_keys(cls) -> set[str]:
        required = {f.alias or n for n, f in cls.model_fields.items() if f.is_required()}
        return required | {*cls.keys_besides}

    @model_validator(mode="before")
    @classmethod
    def _notice_misspelt_keys(cls, fields: object, info: ValidationInfo) -> object:
        """Refuse an unknown key that looks like a required one that is absent, and note one that
        looks like an optional one: it may as well be a key of its own."""
        if not isinstance(fields, dict):
            return fields
        required = cls.required_keys()
        read = {f.alias or n for n, f in cls.model_fields.items() if f.annotation is not Any}
        read |= required
        absent = {key.casefold(): key for key in read if fields.get(key) is None}
        for key in sorted(fields.keys() - read):
            for near in get_close_matches(key.casefold(), absent, 1, LIKENESS):
                if absent[near] in required:
                    raise ValueError(f"holds {key!r}; did you mean {absent[near]!r}? rename it")
                if info.context:  # where there are records to count
                    info.context["lookalikes"].add((key, absent[near]))
        return fields


class ForgetPair(Layout):
    question: Text
    answer: Text = Field(alias="model_response")
    safe_answer: Text | None = Field(None, alias="sd_response")  # about the safe image


class RetainPair(Layout):
    question: Text = Field(alias="Question")
    answer: Text = Field(alias="Prediction")  # `Answer`, a shorter one, is not used


class PlaceboPair(Layout):
    question: Text
    answer: Text


class SpecificityPair(PlaceboPair):
    family: Text


class Question(NamedTuple):
    """A question of a record; `group` is its retain level or its specificity family."""

    table: str
    question: str
    answer: str
    group: str = ""


class Record(Layout):
    """A record of a split. Image paths are relative to the data set's folder."""

    split: str
    index: int  # in the split's file, from 0
    category: Category
    kind: Text = Field(alias="keyword")
    image: ImagePath = Field(alias="image_path")  # or "image_id"
    safe_image: ImagePath | None = Field(None, alias="SDImage_path")
    safe_keyword: Text | None = Field(None, alias="SDkeyword")
    forget: list[ForgetPair] = Field(alias="unsafe_pairs", min_length=1)
    retain: dict[str, RetainPair]  # the `UnharmPair_…` keys
    placebo: list[PlaceboPair] | None = Field(None, alias="placebo_pairs", min_length=1)
    specificity: list[SpecificityPair] | None = Field(None, alias="specificity_pairs", min_length=1)
    safe_neighbours: Any = Field(None, alias="safeNb_pairs")  # of a rebuilt copy; not read
    keys_besides = RETAIN_KEYS

    @model_validator(mode="before")
    @classmethod
    def _collect(cls, fields: object, info: ValidationInfo) -> object:
        """Add split, index and retain; let `image_id` stand for an `image_path` that is null."""
        if not isinstance(fields, dict):
            return fields
        retain = {}
        for prefix in RETAIN_LEVELS:
            keys = {key for key in (*fields, *RETAIN_KEYS) if RETAIN_KEY.fullmatch(key)}
            retain |= {key: fields.get(key) for key in sorted(keys) if key.startswith(prefix)}
        if fields.get("image_path") is None and fields.get("image_id") is not None:
            fields = fields | {"image_path": fields["image_id"]}
        context = info.context or {}
        return fields | {"split": context["split"], "index": context["index"], "retain": retain}

    @property
    def images(self) -> list[str]:
        return [self.image] if self.safe_image is None else [self.image, self.safe_image]

    @property
    def safe_kind(self) -> str | None:
        """What the safe image shows: `SDkeyword`, or else the image's path stands for it."""
        return self.safe_image and (self.safe_keyword or self.safe_image)

    @property
    def questions(self) -> Iterator[Question]:
        """The questions of every table. Without a safe image there are none about one."""
        for pair in self.forget:
            yield Question("forget", pair.question, pair.answer)
            if self.safe_image and pair.safe_answer:
                yield Question("decouple", pair.question, pair.safe_answer)
        for key, pair in self.retain.items():
            level = next(v for prefix, v in RETAIN_LEVELS.items() if key.startswith(prefix))
            yield Question("retain", pair.question, pair.answer, level)
        for pair in (self.safe_image and self.placebo) or []:
            yield Question("placebo", pair.question, pair.answer)
        for pair in self.specificity or []:
            yield Question("specificity", pair.question, pair.answer, pair.family)

    @property
    def content(self) -> tuple:
        """What makes two records the same, whatever their splits and their safe images."""
        about_harmful = [q for q in self.questions if q.table not in SAFE_IMAGE_TABLES]
        return self.category, self.kind, self.image, *about_harmful

    @property
    def lacks_decouple(self) -> bool:
        """Whether a forget question has no answer about a safe image."""
        return not (self.safe_image and all(pair.safe_answer for pair in self.forget))

    @property
    def rebuilt(self) -> bool:
        """Whether it is of a rebuilt copy: instead of safe answers it has `safeNb_pairs`, other
        questions about the harmful image."""
        decoupled = self.safe_image and any(pair.safe_answer for pair in self.forget)
        return self.safe_neighbours is not None and not decoupled


class Refusals(Layout):
    """What `prompt.json` holds."""

    idk: list[Text] = Field(min_length=1)


# ---- From pydantic's list of errors to one line ----

EXPECTED = {
    "model_type": "an object",
    "list_type": "a list",
    "string_type": "a text",
    "bool_type": "true or false",
}
JSON_TYPES = {dict: "an object", list: "a list", str: "a text", bool: "a boolean"}


def validate(model, fields: object, where: str, context: dict | None = None) -> tuple:
    """The record, or None, and what is wrong with it."""
    try:
        return model.model_validate(fields, context=context), []
    except ValidationError as error:
        return None, [_problem(one, where) for one in error.errors(include_url=False)]


def refuse(problems: list[str]) -> None:
    """Raise a UserError that lists the first of the problems, if there are any."""
    if problems:
        more = f"; and {len(problems) - LISTED} more" * (len(problems) > LISTED)
        raise UserError("; ".join(problems[:LISTED]) + more)


def _problem(error: Any, where: str) -> str:
    value, problem = error["input"], error["type"]
    *parents, key = [where, *(part for part in error["loc"] if part != "retain")]
    place = _place([*parents, key])
    if isinstance(value, RepeatedKey):
        return f"{place}: a key stands there twice; remove the one that is not meant"
    if isinstance(key, str) and parents and (problem == "missing" or value is None):
        absent = "missing" if problem == "missing" else "missing or null"
        return f"{_place(parents)}: {key!r} is {absent}; add it"
    if problem in EXPECTED:
        actual = "null" if value is None else JSON_TYPES.get(type(value), "a number")
        return f"{place}: should be {EXPECTED[problem]}, is {actual}; correct the file"
    if problem == "too_short":
        return f"{place}: is empty; fill it in"
    return f"{place}: {error.get('ctx', {}).get('error')}"  # of a validator above


def _place(parts: list[str | int]) -> str:
    steps = (f"[{part}]" if isinstance(part, int) else f", {part}" for part in parts)
    return "".join(steps).removeprefix(", ")
