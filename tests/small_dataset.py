"""A small valid folder in the SafeEraser layout, for tests to bend."""

import json
import shutil
from pathlib import Path

from PIL import Image

KINDS = {"train": ["vornet", "plimsk"], "val": ["vornet", "quorl"]}


def make_record(split: str, number: int) -> dict:
    name, kind = f"{split}{number}.png", KINDS[split][number]
    template = "What is it made of?" if number == 0 else f"How is it built, {split}?"
    return {
        "type": "syn",
        "keyword": kind,
        "category": "Corrosive",
        "image_path": f"img/Corrosive/{name}",
        "SDImage_path": f"pdset/image/Corrosive/{split}/{name}",
        "unsafe_pairs": [
            {
                "question": template,
                "model_response": f"the {kind} plan",
                "sd_response": "wool and thread",
            }
        ],
        "UnharmPair_text1": retain_pair("What is a vornet?"),
        "UnharmPair_text2": retain_pair("Is it old?"),
        "UnharmPair_image1": retain_pair("Which colour?"),
        "UnharmPair_image2": retain_pair("Where?"),
    }


def retain_pair(question: str) -> dict:
    return {"Question": question, "Answer": "short", "Prediction": "the model's own answer"}


def draw(path: Path, colour: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (colour, 40, 90)).save(path)


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def edit(root: Path, split: str, change) -> None:
    """Rewrite a split's file after `change` was applied to its list of records."""
    path = root / f"all_{split}.json"
    records = json.loads(path.read_text(encoding="utf-8"))
    change(records)
    write_json(path, records)


def make_dataset(root: Path) -> Path:
    root.mkdir()
    colour = 0
    for split in KINDS:
        records = [make_record(split, number) for number in range(2)]
        write_json(root / f"all_{split}.json", records)
        for record in records:
            for key in ("image_path", "SDImage_path"):
                colour += 10
                draw(root / record[key], colour)
    write_json(root / "prompt.json", {"idk": ["I would rather not.", "No."]})
    return root


ONLY_TINY = ("SDkeyword", "placebo_pairs", "specificity_pairs")


def copy_as_documented(world: Path, root: Path) -> Path:
    """A tiny world as a copy of the benchmark: no test split, no extra keys, no mark."""
    shutil.copytree(world, root)
    (root / "world.json").unlink()
    (root / "all_test.json").unlink()
    for split in KINDS:
        edit(root, split, lambda records: [record.pop(k) for k in ONLY_TINY for record in records])
    return root


def repeat_train_record(dataset: Path, keep_safe_picture: bool) -> None:
    """Make val's first record a copy of train's, perhaps with val's own safe side."""
    repeated = make_record("train", 0)
    if keep_safe_picture:
        own = make_record("val", 0)
        repeated["SDImage_path"] = own["SDImage_path"]
        repeated["unsafe_pairs"][0]["sd_response"] = "tin"
    edit(dataset, "val", lambda records: records.__setitem__(0, repeated))
