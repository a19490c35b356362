"""JSON files of unknown origin: read completely, or refused with the line that is wrong."""

import json
from pathlib import Path
from typing import Any

from safeerase_lite.utils import UserError

from .layouts import name_of

GIT_LFS_HEADER = b"version https://git-lfs.github.com/spec/"


class RepeatedKey:
    """Read in place of an object in which a key occurs twice: nobody can say which is meant."""


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises UserError when it cannot be read."""
    return _parse(read_text(path), path.name)


def read_json_records(path: Path) -> list:
    """The records of a file that is one JSON list, perhaps the one value of an object, or one JSON
    record per line."""
    text = read_text(path)
    lines = enumerate(text.split("\n"), start=1)  # splitlines() would also cut at U+2028
    lines = [(number, line) for number, line in lines if line.strip()]
    if lines and _is_json(lines[0][1]):
        records = [_parse(line, path.name, number) for number, line in lines]
    else:
        records = [_parse(text, path.name)] if lines else []
    if len(records) == 1:
        [value] = records
        inside = list(value.values()) if isinstance(value, dict) and len(value) == 1 else [value]
        records = inside[0] if isinstance(inside[0], list) else records
    if not records:
        raise UserError(f"{path.name}: holds no record; fill it or download it again")
    return records


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _parse(text: str, name: str, first_line: int = 1):
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        line, problem = first_line + error.lineno - 1, f"{error.msg}, column {error.colno}"
    except (ValueError, RecursionError):
        line, problem = first_line, "a number too long, or lists nested too deep"
    raise UserError(f"{name}, line {line}: not valid JSON ({problem}); correct that line")


def _object(pairs: list[tuple[str, object]]) -> dict | RepeatedKey:
    fields = dict(pairs)
    return fields if len(fields) == len(pairs) else RepeatedKey()


def read_text(path: Path) -> str:
    """The text of a file in UTF-8. Raises UserError when it cannot be read."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        other = name_of(path.parent)
        raise UserError(
            f"{path.parent} looks like {other}: ask its questions with `safeerase data ask`"
            if other not in ("", "SafeEraser")
            else f"{path.name} is missing in {path.parent}; a SafeEraser folder holds "
            "all_train.json, all_val.json and prompt.json"
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
