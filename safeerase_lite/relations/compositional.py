"""Published tests of who does what to whom, read in their authors' layout.

| name | files in the folder |
|---|---|
| vg-relation | visual_genome_relation.json; images/ |
| vg-attribution | visual_genome_attribution.json; images/ |
| sugarcrepe | swap_obj.json, replace_rel.json or any other of its seven; val2017/ |
| winoground | examples.jsonl; images/, unpacked from images.zip |

Where the authors keep them: ARO (Yuksekgonul et al. 2023) on Google Drive, fetched by
`dataset_zoo` of github.com/mertyg/vision-language-models-are-bows; SugarCrepe (Hsieh et al. 2023)
in `data/` of github.com/RAIVNLab/sugar-crepe, its pictures being COCO's val2017; Winoground (Thrush
et al. 2022) in `data/` of the Hub's facebook/winoground, which is gated. None of their data ship
with this project.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from safeerase_lite.data.images import inspect_images, require_valid_images
from safeerase_lite.data.json_files import read_json, read_json_records
from safeerase_lite.data.schema import ImagePath, Layout, Text, refuse, validate
from safeerase_lite.utils import UserError, check_choice

_SUGARCREPE = ("swap_obj", "swap_att", "replace_rel", "replace_obj", "replace_att", "add_obj",
               "add_att")  # fmt: skip


class Example(NamedTuple):
    """One record: pictures and captions, of which the i-th caption belongs to the i-th picture.

    With one picture, its caption is the first and the second is false.
    crop: left, top, right, bottom in pixels, or None.
    """

    part: str  # the file that it comes from
    pictures: tuple[str, ...]
    captions: tuple[str, str]
    crop: tuple[float, float, float, float] | None = None


def read_examples(name: str, folder: Path | str) -> list[Example]:
    """The records of a published test; pictures are paths in the folder, all checked.

    Raises:
        UserError: no such test; the folder holds another one; a record or a picture is not as
            published.
    """
    check_choice(name, tuple(READERS), "test")
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: name the folder of {name}")
    files = [folder / file for file in READERS[name][0] if (folder / file).is_file()]
    if not files:
        others = [
            n for n, (marks, _) in READERS.items() if any((folder / m).is_file() for m in marks)
        ]
        looks = f"looks like {others[0]}, not {name}" if others else f"is not {name}"
        marks = " or ".join(READERS[name][0])
        raise UserError(f"{folder} {looks}: it holds no {marks}")
    examples = [example for file in files for example in READERS[name][1](file)]
    images = inspect_images([p for example in examples for p in example.pictures], folder)
    require_valid_images(images, folder)
    return examples


def _checked(model, fields: object, file: Path, record: object) -> Any:
    context = {"root": file.parent, "lookalikes": set()}
    checked, problems = validate(model, fields, f"{file.name}, record {record!r}", context)
    refuse(problems)
    return checked


# ---- ARO (arXiv 2210.01936) ----


class _Region(Layout):
    image: ImagePath = Field(alias="image_path")
    x: float = Field(alias="bbox_x")
    y: float = Field(alias="bbox_y")
    width: float = Field(alias="bbox_w", gt=0)
    height: float = Field(alias="bbox_h", gt=0)
    true: Text = Field(alias="true_caption")
    false: Text = Field(alias="false_caption")


def _aro(file: Path) -> Iterator[Example]:
    """A region of a picture, its caption, and the caption with two words exchanged."""
    for index, fields in enumerate(read_json_records(file)):
        row = _checked(_Region, fields, file, index)
        crop = row.x, row.y, row.x + row.width, row.y + row.height
        yield Example(file.stem, (f"images/{row.image}",), (row.true, row.false), crop)


# ---- SugarCrepe (arXiv 2306.14610) ----


class _Pair(Layout):
    image: ImagePath = Field(alias="filename")
    true: Text = Field(alias="caption")
    false: Text = Field(alias="negative_caption")


def _sugarcrepe(file: Path) -> Iterator[Example]:
    """Numbered records: a picture of COCO, its caption, and one that is nearly right."""
    content = read_json(file)
    if not isinstance(content, dict):
        raise UserError(f"{file.name}: is no object of numbered records: download it again")
    for key, fields in content.items():
        row = _checked(_Pair, fields, file, key)
        yield Example(file.stem, (f"val2017/{row.image}",), (row.true, row.false))


# ---- Winoground (arXiv 2204.03162) ----


class _Quadruple(Layout):
    image_0: ImagePath
    image_1: ImagePath
    caption_0: Text
    caption_1: Text


def _winoground(file: Path) -> Iterator[Example]:
    """Two pictures and two captions of the same words."""
    for index, fields in enumerate(read_json_records(file)):
        row = _checked(_Quadruple, fields, file, index)
        pictures = (f"images/{row.image_0}.png", f"images/{row.image_1}.png")
        yield Example(file.stem, pictures, (row.caption_0, row.caption_1))


# A test's name → the files that it is known by, and what reads one of them.
READERS: dict[str, tuple[tuple[str, ...], Callable[[Path], Iterator[Example]]]] = {
    "vg-relation": (("visual_genome_relation.json",), _aro),
    "vg-attribution": (("visual_genome_attribution.json",), _aro),
    "sugarcrepe": (tuple(f"{part}.json" for part in _SUGARCREPE), _sugarcrepe),
    "winoground": (("examples.jsonl",), _winoground),
}
