"""Safety sets that people already use, read as their authors publish them, a row per question.

Where each layout was read, and what could not be read, says docs/getting_the_data.md. None of the
data ship with this project. An error names file, record and key, and quotes no value.
"""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pandas import DataFrame
from pydantic import AfterValidator, Field

from safeerase_lite.utils import UserError, check_choice, expects

from .images import inspect_images, require_valid_images
from .json_files import read_json, read_text
from .layouts import LAYOUTS, find_set, name_of
from .schema import Category, ImagePath, Layout, Text, refuse, validate

ANSWER, REFUSAL, SAFE_COMPLETION = "answer", "refusal", "safe completion"
UNREAD = {
    "dual-bench": "of DUAL-Bench (arXiv 2510.10846) no published layout was found, so there is no "
    "reader for it (docs/getting_the_data.md)"
}


class Question(NamedTuple):
    """A question of a safety set.

    record: its key in the file, or its index from 0.
    types: the set's own names for what sort of question this is.
    wanted: what its authors want of a model: an answer, a refusal or a safe completion.
    kind: questions of one kind are not independent, and count as one in an interval.
    image: the picture's path; "" for a question in words alone.
    reference: the authors' own answer, where a judge needs it.
    """

    record: str
    types: tuple[str, ...]
    wanted: str
    kind: str
    question: str
    image: str = ""
    reference: str = ""


@expects
def read_safety_set(name: str, folder: Path | str, *, types: Sequence[str] = ()) -> DataFrame:
    """The questions of a safety set.

    Args:
        name: a key of `READERS`.
        folder: the authors' data, or a clone of their repository whose `data/` holds them.
        types: which to read; none named: all. The pictures of others are not opened.

    Returns:
        A row per question, with the fields of `Question` as columns; image is an absolute path.

    Raises:
        UserError: no such set or type; the folder holds another set; a file, a record or a picture
            is not as in the published layout.
    """
    if name in UNREAD:
        raise UserError(UNREAD[name])
    check_choice(name, tuple(READERS), "safety set")
    title, read = READERS[name]
    root = Path(folder).expanduser().resolve()
    found = find_set(root, title)
    if found is None:
        other = name_of(root) if root.is_dir() else ""
        marks = " or ".join(LAYOUTS[title])
        raise UserError(
            f"{root} looks like {other}, not {title}: name its own folder"
            if other
            else f"{root} holds no {marks}, so it is not {title}: name the folder of its data"
        )
    table = DataFrame(list(read(found)), columns=Question._fields)
    if table.empty:
        raise UserError(f"{found} holds no question: download it again")
    for chosen in types:
        check_choice(chosen, tuple(dict.fromkeys(table["types"].explode())), f"type of {title}")
    if types:
        table = table[[not set(types).isdisjoint(row) for row in table["types"]]]
    images = [str(Path(image).relative_to(root)) for image in table["image"] if image]
    require_valid_images(inspect_images(images, root), root)
    return table.reset_index(drop=True)


def _checked(model, fields: object, file: Path, record: object, pictures: Path) -> Any:
    """The record, whose pictures lie in the folder `pictures`. Raises a UserError if broken."""
    context = {"root": pictures, "lookalikes": set()}
    checked, problems = validate(model, fields, f"{file.name}, record {record!r}", context)
    refuse(problems)
    return checked


def _records(file: Path, kind: type) -> Any:
    """What a JSON file holds: a list, or an object of objects."""
    content = read_json(file)
    if not isinstance(content, kind):
        raise UserError(f"{file.name}: is no {'list' if kind is list else 'object'} of records")
    return content


# ---- XSTest (arXiv 2308.01263) ----


class _Prompt(Layout):
    type: Category
    prompt: Text


def _xstest(file: Path) -> Iterator[Question]:
    """Its unsafe prompts have a type that begins with `contrast_`."""
    for index, fields in enumerate(csv.DictReader(io.StringIO(read_text(file), newline=""))):
        row = _checked(_Prompt, fields, file, index, file.parent)
        wanted = REFUSAL if row.type.startswith("contrast_") else ANSWER
        yield Question(str(index), (row.type,), wanted, str(index), row.prompt)


# ---- MOSSBench (arXiv 2406.17806) ----

STIMULI = {
    "type 1": "Exaggerated Risk",
    "type 2": "Negated Harm",
    "type 3": "Counterintuitive Interpretation",
}


def _check_stimulus(text: str) -> str:
    stimulus = STIMULI.get(text, text)
    if stimulus not in STIMULI.values():
        raise ValueError(f"is none of {', '.join(STIMULI)}; correct it")
    return stimulus


class _Metadata(Layout):
    over: Annotated[str, AfterValidator(_check_stimulus)]
    harm: Any = None  # a number or a list of them; absent in the contrast set


class _Stimulus(Layout):
    image: ImagePath
    question: Text
    metadata: _Metadata


def _mossbench(file: Path) -> Iterator[Question]:
    root = file.parents[1]
    for key, fields in _records(file, dict).items():
        row = _checked(_Stimulus, fields, file, key, root)
        if row.metadata.harm is None:
            raise UserError(
                f"{file.name}, record {key!r}: its metadata have no 'harm', as in MOSSBench's "
                "contrast set, whose questions are harmful: name the folder of the other set"
            )
        image = str(root / row.image)
        yield Question(key, (row.metadata.over,), ANSWER, row.question, row.question, image)


# ---- VLGuard (arXiv 2402.02207) ----


class _Instruction(Layout):
    instruction: Text | None = None
    safe_instruction: Text | None = None
    unsafe_instruction: Text | None = None


class _Guarded(Layout):
    image: ImagePath
    safe: bool
    category: Category | None = Field(None, alias="harmful_category")
    pairs: list[_Instruction] = Field(alias="instr-resp", min_length=1)


SUBSETS = {
    "safe_instruction": ("safe_safes", ANSWER),
    "unsafe_instruction": ("safe_unsafes", REFUSAL),
    "instruction": ("unsafes", REFUSAL),
}


def _vlguard(file: Path) -> Iterator[Question]:
    """The three subsets of the authors' evaluation, and the categories of `unsafes`."""
    folders = [file.parent / path for path in ("test", "VLGuard/test")]
    pictures = next((folder for folder in folders if folder.is_dir()), folders[0])
    for index, fields in enumerate(_records(file, list)):
        row = _checked(_Guarded, fields, file, index, pictures)
        keys = ("safe_instruction", "unsafe_instruction") if row.safe else ("instruction",)
        asked = [(key, text) for key in keys for one in row.pairs if (text := getattr(one, key))]
        if not asked:
            raise UserError(f"{file.name}, record {index}: {keys[0]!r} is missing; add it")
        for key, text in asked:
            subset, wanted = SUBSETS[key]
            types = (subset, row.category) if row.category else (subset,)
            yield Question(str(index), types, wanted, str(index), text, str(pictures / row.image))


# ---- MM-SafetyBench (arXiv 2311.17600) ----


class _Query(Layout):
    rephrased: Text = Field(alias="Rephrased Question")
    about_picture: Text = Field(alias="Rephrased Question(SD)")


def _mm_safetybench(folder: Path) -> Iterator[Question]:
    """Each question with its three pictures: drawn by Stable Diffusion, that with text, text."""
    for file in sorted(folder.glob("*.json")):
        for key, fields in _records(file, dict).items():
            if not (key.isascii() and key.isdigit()):
                raise UserError(f"{file.name}, record {key!r}: this key is no number; correct it")
            row, name = _checked(_Query, fields, file, key, folder), f"{file.stem}/{key}"
            asked = {"SD": row.about_picture, "SD_TYPO": row.rephrased, "TYPO": row.rephrased}
            for picture, text in asked.items():
                image = folder.parent / "imgs" / file.stem / picture / f"{key}.jpg"
                yield Question(name, (file.stem, picture), REFUSAL, name, text, str(image))


# ---- SIUO (arXiv 2406.15279) ----


class _SafeInputs(Layout):
    image: ImagePath
    question: Text
    category: Category
    reference: str = Field("", alias="reference_answer")


def _siuo(file: Path) -> Iterator[Question]:
    """Picture and question are safe, and an answer to both may not be."""
    pictures = file.parent / "images"
    for index, fields in enumerate(_records(file, list)):
        row = _checked(_SafeInputs, fields, file, index, pictures)
        place, image = (str(index), (row.category,), SAFE_COMPLETION), str(pictures / row.image)
        yield Question(*place, str(index), row.question, image, row.reference)


READERS: dict[str, tuple[str, Callable[[Path], Iterator[Question]]]] = {
    "xstest": ("XSTest", _xstest),
    "mossbench": ("MOSSBench", _mossbench),
    "vlguard": ("VLGuard", _vlguard),
    "mm-safetybench": ("MM-SafetyBench", _mm_safetybench),
    "siuo": ("SIUO", _siuo),
}
