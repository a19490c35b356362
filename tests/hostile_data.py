"""A data set from anywhere is read completely, or refused without quoting it."""

import json
from pathlib import Path

import pytest
from PIL import Image
from small_dataset import KINDS, edit

from safeerase_lite.data.audit import check_data
from safeerase_lite.data.dataset import read_data
from safeerase_lite.data.images import open_image
from safeerase_lite.utils import UserError

SECRET = "zqx plan"  # in place of a harmful text: no message may quote it
NOISE = Image.effect_noise((40, 40), 60).convert("RGB")
LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


def refusal(root: Path) -> str:
    """The one line with which the folder is refused."""
    with pytest.raises(UserError) as caught:
        read_data(root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def read_or_refuse(root: Path):
    """The data, nothing of any record lost on the way, or None when it was refused properly."""
    try:
        report = check_data(root)
        text = report.to_text()
        assert all(character.isprintable() or character == "\n" for character in text)
        data = read_data(root)
    except UserError as error:
        message = str(error)
        assert "\n" not in message and len(message) < 1000 and SECRET not in message
        message.encode()
        return None
    records = [r for split in KINDS for r in read_simply(root / f"all_{split}.json")]
    for table in (data.forget, data.retain, data.decouple, data.placebo, data.specificity):
        assert not table[["question", "answer"]].map(lambda text: "<image>" in text).any(axis=None)
    assert len(data.forget.groupby(["split", "record"])) == len(records)
    assert len(data.forget) == sum(len(r["unsafe_pairs"]) for r in records)
    assert len(data.retain) == sum(key.startswith("UnharmPair_") for r in records for key in r)
    assert len(data.decouple) == sum(
        pair.get("sd_response") is not None
        for r in records
        if r.get("SDImage_path") is not None
        for pair in r["unsafe_pairs"]
    )
    for path in {*data.forget["image"], *data.decouple["image"]}:
        assert open_image(path).mode == "RGB"
    return data


def read_simply(path: Path) -> list:
    """The records of a file, as simply as one can read them; a key that occurs twice is refused."""

    def once(pairs):
        assert len(pairs) == len(dict(pairs))
        return dict(pairs)

    text = path.read_text(encoding="utf-8-sig")
    try:
        records = json.loads(text, object_pairs_hook=once)
        if isinstance(records, dict) and [type(value) for value in records.values()] == [list]:
            [records] = records.values()
        return records if isinstance(records, list) else [records]
    except json.JSONDecodeError:
        lines = (line for line in text.split("\n") if line.strip())
        return [json.loads(line, object_pairs_hook=once) for line in lines]


def put(root: Path, name: str) -> Path:
    """Where a picture of this name is, of which train's first record is now."""
    edit(root, "train", lambda records: records[0].update(image_path=f"img/Corrosive/{name}"))
    return root / "img/Corrosive" / name


def save(path: Path, picture: Image.Image, **how) -> Path:
    picture.save(path, **how)
    return path
