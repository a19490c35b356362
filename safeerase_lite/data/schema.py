"""The SafeEraser layout on disk, read as validated records.

The layout is that of the benchmark (arXiv 2502.12520): `all_train.json`, `all_val.json`, perhaps
`all_test.json`, and `prompt.json`. The tiny world uses the same layout and adds three optional keys
to a record: `SDkeyword`, `placebo_pairs` and `specificity_pairs`. Unknown keys are let be.
An error names a file, an index and a key of the layout, and never quotes what stands there: on real
data it may be harmful.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from safeerase_lite.utils import UserError

SAFE_PICTURE_TABLES = ("decouple", "placebo")
RETAIN_LEVELS = {"UnharmPair_text": "concept", "UnharmPair_image": "image"}
PICTURE_MARK = "<image>"  # LLaVA's token, which stands for the picture
GIT_LFS_HEADER = b"version https://git-lfs.github.com/spec/"
JSON_TYPES = {
    dict: "an object",
    list: "a list",
    str: "a text",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    type(None): "null",
}


class Repeated(dict):
    """An object in which a key stands twice: which of the two is meant nobody can say."""


@dataclass(frozen=True)
class Question:
    """A question of a record; `group` is its retain level or its specificity family."""

    table: str
    question: str
    answer: str
    group: str = ""


@dataclass(frozen=True)
class Record:
    """A validated record. `safe_kind` is its `SDkeyword`, or else the path of its safe picture.

    A record without a safe picture has no questions about one. `rebuilt`: instead of a safe answer
    it carries `safeNb_pairs`, the harmful picture with a harmless question.
    """

    split: str
    index: int
    category: str
    kind: str
    picture: Path
    safe_kind: str | None
    safe_picture: Path | None
    questions: tuple[Question, ...]
    rebuilt: bool

    @property
    def pictures(self) -> list[Path]:
        return [self.picture] if self.safe_picture is None else [self.picture, self.safe_picture]

    @property
    def content(self) -> tuple:
        """What makes two records the same, whatever their splits and their safe pictures."""
        about_harmful = [q for q in self.questions if q.table not in SAFE_PICTURE_TABLES]
        return self.category, self.kind, self.picture, *about_harmful


def read_records(root: Path) -> list[Record]:
    """The validated records of every split, in the order of the files."""
    if not root.is_dir():
        raise UserError(f"{root} is no folder: give the one that holds all_train.json")
    return [
        _record(fields, split, index, root)
        for split in present_splits(root)
        for index, fields in enumerate(_read_json_records(root / f"all_{split}.json"))
    ]


def read_refusals(root: Path) -> list[str]:
    """The refusals of `prompt.json`, at least one."""
    path = root / "prompt.json"
    fields = _parse_json(_read_text(path), path.name)
    refusals = _required(fields, "idk", list, path.name)
    return [_checked_text(text, f"{path.name}, idk[{i}]") for i, text in enumerate(refusals)]


def present_splits(root: Path) -> list[str]:
    """train and val, which must be there, and test when it is."""
    has_test = os.path.lexists(root / "all_test.json")
    return ["train", "val", "test"] if has_test else ["train", "val"]


def _record(fields: object, split: str, index: int, root: Path) -> Record:
    where = f"all_{split}.json, record at index {index}"
    has_alias = _has(fields, "image_id", where) and not _has(fields, "image_path", where)
    picture = _picture_path(fields, "image_id" if has_alias else "image_path", where, root)
    safe_picture = safe_kind = None
    if _has(fields, "SDImage_path", where):
        safe_picture = _picture_path(fields, "SDImage_path", where, root)
        safe_kind = safe_picture.relative_to(root).as_posix()
        if _has(fields, "SDkeyword", where):
            safe_kind = _text(fields, "SDkeyword", where)
    questions = tuple(
        question
        for question in _questions(fields, where)
        if safe_picture or question.table not in SAFE_PICTURE_TABLES
    )
    decoupled = any(question.table == "decouple" for question in questions)
    return Record(
        split=split,
        index=index,
        category=_category(fields, where),
        kind=_text(fields, "keyword", where),
        picture=picture,
        safe_kind=safe_kind,
        safe_picture=safe_picture,
        questions=questions,
        rebuilt=_has(fields, "safeNb_pairs", where) and not decoupled,
    )


def _questions(fields: dict, where: str) -> Iterator[Question]:
    for pair, place in _items(fields, "unsafe_pairs", where):
        question = _text(pair, "question", place)
        yield Question("forget", question, _text(pair, "model_response", place))
        if _has(pair, "sd_response", place):
            yield Question("decouple", question, _text(pair, "sd_response", place))
    for prefix, level in RETAIN_LEVELS.items():
        present = {key for key in fields if key.startswith(prefix)}
        for key in sorted(present | {f"{prefix}1", f"{prefix}2"}):
            pair, place = _required(fields, key, dict, where), f"{where}, {key}"
            question = _text(pair, "Question", place)
            yield Question("retain", question, _text(pair, "Prediction", place), group=level)
    for pair, place in _optional_items(fields, "placebo_pairs", where):
        question = _text(pair, "question", place)
        yield Question("placebo", question, _text(pair, "answer", place))
    for pair, place in _optional_items(fields, "specificity_pairs", where):
        question, family = _text(pair, "question", place), _text(pair, "family", place)
        yield Question("specificity", question, _text(pair, "answer", place), group=family)


def _category(fields: dict, where: str) -> str:
    """Unlike other texts it is printed, so nothing in it may steer a terminal."""
    category = _text(fields, "category", where).strip()
    if not category.isprintable():
        raise UserError(f"{where}, category: holds a character that does not print; correct it")
    return category


def _picture_path(fields: object, key: str, where: str, root: Path) -> Path:
    """Where a picture is under `root`; leading folders that do not exist there are dropped."""
    text = _text(fields, key, where)
    path = PureWindowsPath(text)  # takes / and \ alike
    parts = path.parts[1:] if path.anchor else path.parts
    if ".." in parts:
        raise UserError(f"{where}, {key}: holds '..'; keep the path inside the folder")
    for start in range(len(parts)):
        if os.path.isdir(root / parts[start]):
            return root.joinpath(*parts[start:])
    return root.joinpath(*parts)


def _has(fields: object, key: str, where: str) -> bool:
    """Whether an optional key is there; null counts as absent."""
    return _checked(fields, dict, where).get(key) is not None


def _required(fields: object, key: str, type_: type, where: str):
    if key not in _checked(fields, dict, where):
        raise UserError(f"{where}: {key!r} is missing; add it")
    value = _checked(fields[key], type_, f"{where}, {key}")
    if not value:
        raise UserError(f"{where}, {key}: is empty; fill it in")
    return value


def _items(fields: object, key: str, where: str) -> list[tuple[object, str]]:
    """The items of a list, each with the place to name when it is wrong."""
    items = _required(fields, key, list, where)
    return [(item, f"{where}, {key}[{i}]") for i, item in enumerate(items)]


def _optional_items(fields: object, key: str, where: str) -> list[tuple[object, str]]:
    return _items(fields, key, where) if _has(fields, key, where) else []


def _text(fields: object, key: str, where: str) -> str:
    return _checked_text(_required(fields, key, str, where), f"{where}, {key}")


def _checked_text(value: object, where: str) -> str:
    text = _checked(value, str, where)
    if not text.strip():
        raise UserError(f"{where}: is empty; fill it in")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where}: character {error.start} is half of a surrogate pair; correct the text"
        ) from None
    if PICTURE_MARK in text:
        raise UserError(
            f"{where}: holds {PICTURE_MARK}; remove it: where the picture goes, it is added"
        )
    return text


def _checked(value: object, type_: type, where: str):
    if not isinstance(value, type_):
        found = next(name for kind, name in JSON_TYPES.items() if isinstance(value, kind))
        raise UserError(f"{where}: should be {JSON_TYPES[type_]}, is {found}; correct the file")
    if isinstance(value, Repeated):
        raise UserError(f"{where}: a key stands there twice; remove the one that is not meant")
    return value


def _object(pairs: list[tuple[str, object]]) -> dict:
    fields = dict(pairs)
    return fields if len(fields) == len(pairs) else Repeated(fields)


def _read_json_records(path: Path) -> list:
    """The records of a file that is one JSON list, or one JSON record per line."""
    text = _read_text(path)
    if text.lstrip().startswith("["):
        records = _parse_json(text, path.name)
    else:
        lines = enumerate(text.split("\n"), start=1)  # splitlines() would also cut at U+2028
        records = [_parse_json(line, path.name, number) for number, line in lines if line.strip()]
    if not records:
        raise UserError(f"{path.name}: holds no record; fill it or download it again")
    return records


def _parse_json(text: str, name: str, first_line: int = 1):
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        line, problem = first_line + error.lineno - 1, f"{error.msg}, column {error.colno}"
    except (ValueError, RecursionError):
        line, problem = first_line, "a number too long, or lists nested too deep"
    raise UserError(f"{name}, line {line}: not valid JSON ({problem}); correct that line")


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(
            f"{path.name} is missing in {path.parent}; a SafeEraser folder holds all_train.json, "
            "all_val.json and prompt.json"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the file") from error
    if content.startswith(GIT_LFS_HEADER):
        raise UserError(f"{path.name}: is a Git-LFS pointer; run `git lfs pull` where it came from")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path.name}, line {line}: not UTF-8; save the file as UTF-8") from None
