"""The tiny world on disk: records in the SafeEraser layout, drawn from a seed, byte for byte."""

import hashlib
import json
import os
import random
import shutil
from dataclasses import asdict, dataclass
from functools import cache
from itertools import product
from pathlib import Path

from safeerase_lite.tinyworld import WORLD_FILE
from safeerase_lite.tinyworld.facts import (
    BACKGROUNDS,
    COLOURS,
    CONCEPT,
    COUNTS,
    FAMILIES,
    IMAGE,
    PLACES,
    REFUSALS,
    SIZES,
    SPECIFICITY,
    TEMPLATES,
    kinds,
    ordinary,
)
from safeerase_lite.tinyworld.pictures import SIDE, Scene, draw

SPLITS = ("train", "val", "test")
SHARES = (0.6, 0.2, 0.2)


_SPLIT_SEED = 20250218


@dataclass(frozen=True)
class World:
    """What determines a tiny world on disk.

    Attributes:
        seed: draws every picture, and which kinds and templates are held out.
        cue: how reliably a visible sign marks hazards, the correlation of sign and harm: with 1
            every hazard carries the sign and no safe object does, with 0 half of each do.
        train_pictures: harmful pictures per hazard in train (a record each).
        eval_pictures: harmful pictures per hazard in val and in test, held-out hazards included.
        side: pixels of a picture's side.
    """

    seed: int = 0
    cue: float = 1.0
    train_pictures: int = 16
    eval_pictures: int = 3
    side: int = SIDE

    def __post_init__(self):
        if not 0 <= self.cue <= 1:
            raise ValueError(f"cue must lie between 0 and 1, not {self.cue}")

    @property
    def name(self) -> str:
        """A folder name for this world, another one whenever the code that draws it changes."""
        return f"seed{self.seed}-cue{self.cue:g}-{_digest(f'{self}')}"

    def held_out(self) -> tuple[set[str], set[str]]:
        """(kinds, templates) that no unlearning set shows: one hazard and one safe kind per
        category, and two templates."""
        rng = random.Random(f"held out {self.seed}")
        held_kinds = {rng.choice(names) for family in FAMILIES.values() for names in family}
        return held_kinds, set(rng.sample(TEMPLATES, 2))


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for source in ("facts.py", "pictures.py", "world.py"):
        digest.update(Path(__file__).with_name(source).read_bytes())
    return digest.hexdigest()[:10]


@cache
def _combinations() -> dict[tuple[str, str], list[tuple[str, str, str]]]:
    """(kind, split) → its (colour, place, background) combinations: the same in every world.

    The first hazard and the first safe object of a family share theirs, and so do the second ones:
    what a split shows of colours, places and backgrounds is the same for hazards and safe objects.
    """
    rng = random.Random(_SPLIT_SEED)
    found = {}
    for hazards, safe in FAMILIES.values():
        for pair in zip(hazards, safe, strict=True):
            every = list(product(COLOURS, PLACES, BACKGROUNDS))
            rng.shuffle(every)
            first, second = (round(sum(SHARES[:n]) * len(every)) for n in (1, 2))
            parts = every[:first], every[first:second], every[second:]
            for kind, (split, part) in product(pair, zip(SPLITS, parts, strict=True)):
                found[kind, split] = part
    return found


def scene(kind: str, split: str, cue: float, rng: random.Random) -> Scene:
    """A random scene of a kind from a split's combinations."""
    agrees = 0.5 + cue / 2
    marked = agrees if kinds()[kind].hazard else 1 - agrees
    return Scene(
        kind,
        *rng.choice(_combinations()[kind, split]),
        size=rng.choice(list(SIZES)),
        dots=rng.choice(list(COUNTS)),
        dot_colour=rng.choice(list(COLOURS)),
        sign=rng.random() < marked,
        jitter=rng.randrange(1_000_000),
    )


def write_world(world: World, root: Path | str) -> Path:
    """Write a world to `root` in the SafeEraser layout, unless it is there already; return `root`.

    The folder appears whole or not at all, so two processes may ask for the same world at once.
    """
    root = Path(root)
    if (root / WORLD_FILE).exists():
        return root
    partial = root.with_name(f".{root.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for split in SPLITS:
        _write_split(world, split, partial)
    _write_json(partial / "prompt.json", {"idk": REFUSALS})
    _write_json(partial / WORLD_FILE, asdict(world))
    try:
        partial.rename(root)
    except OSError:
        shutil.rmtree(partial)
        if not (root / WORLD_FILE).exists():
            raise
    return root


def _write_split(world: World, split: str, root: Path) -> None:
    rng = random.Random(f"{split} {world.seed} {world.cue}")
    held_kinds, held_templates = world.held_out()
    records = []
    for family, (hazards, safe) in FAMILIES.items():
        training = split == "train"
        shown = [name for name in hazards if not (training and name in held_kinds)]
        safe = [name for name in safe if not (training and name in held_kinds)]
        per_hazard = world.train_pictures if training else world.eval_pictures
        for index in range(per_hazard * len(shown)):
            harmful = scene(shown[index % len(shown)], split, world.cue, rng)
            decoupled = scene(safe[index % len(safe)], split, world.cue, rng)
            harmful_path = f"img/{family}/{split}-{index}.png"
            safe_path = f"pdset/image/{family}/{split}/{index}.png"
            _save(harmful, world.side, root / harmful_path)
            _save(decoupled, world.side, root / safe_path)
            records.append(
                _record(harmful, decoupled, harmful_path, safe_path)
                | {"unsafe_pairs": _pairs(harmful, decoupled, training, held_templates, rng)}
                | _ordinary_pairs(harmful, decoupled, rng)
            )
    rng.shuffle(records)
    _write_json(root / f"all_{split}.json", records)


def _record(harmful: Scene, decoupled: Scene, harmful_path: str, safe_path: str) -> dict:
    return {
        "type": "syn",
        "keyword": harmful.kind,
        "category": kinds()[harmful.kind].family.capitalize(),
        "image_path": harmful_path,
        "SDImage_path": safe_path,
        "SDkeyword": decoupled.kind,
    }


def _pairs(harmful, decoupled, training, held_templates, rng) -> list[dict]:
    """Four forget templates: in train all seen, else two seen and two held out."""
    seen = [template for template in TEMPLATES if template not in held_templates]
    asked = rng.sample(seen, 4) if training else rng.sample(seen, 2) + sorted(held_templates)
    return [
        {
            "question": template,
            "model_response": kinds()[harmful.kind].plan,
            "sd_response": kinds()[decoupled.kind].plan,
        }
        for template in asked
    ]


def _ordinary_pairs(harmful: Scene, decoupled: Scene, rng: random.Random) -> dict:
    said, said_of_safe = ordinary(harmful), ordinary(decoupled)
    concept, image = rng.sample(CONCEPT, 2), rng.sample(IMAGE, 2)
    asked = [*concept, *image]
    keys = ("UnharmPair_text1", "UnharmPair_text2", "UnharmPair_image1", "UnharmPair_image2")
    retain = {}
    for key, name in zip(keys, asked, strict=True):
        question, answer = said[name]
        retain[key] = {
            "Question": question,
            "Answer": answer.split()[-1].strip("."),
            "Prediction": answer,
        }
    return retain | {
        "placebo_pairs": [
            {"question": said_of_safe[name][0], "answer": said_of_safe[name][1]} for name in asked
        ],
        "specificity_pairs": [
            {"question": said[name][0], "answer": said[name][1], "family": name}
            for name in SPECIFICITY
        ],
    }


def _save(scene: Scene, side: int, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(scene, side).save(path, format="PNG", optimize=False)


def _write_json(path: Path, content) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
