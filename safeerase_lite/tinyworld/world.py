"""The tiny world on disk: records in the SafeEraser layout, made from a seed, byte for byte."""

import hashlib
import json
import random
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from itertools import product
from pathlib import Path

from safeerase_lite.utils import atomic_directory

from . import WORLD_FILE, facts
from .pictures import SIDE, Scene, draw

SPLITS = ("train", "val", "test")
SHARES = (0.6, 0.2, 0.2)  # of a kind's combinations, by split
VERSION = 2  # to be raised by a change that changes a world's bytes, so that caches miss
RETAIN_KEYS = ("UnharmPair_text1", "UnharmPair_text2", "UnharmPair_image1", "UnharmPair_image2")


@dataclass(frozen=True)
class World:
    """What determines a tiny world on disk.

    Attributes:
        seed: of every picture, and of which kinds and templates are held out.
        cue: how reliably a visible sign marks hazards, the correlation of sign and harm: with 1
            every hazard carries the sign and no safe object does, with 0 half of each do.
        train_pictures: harmful pictures per hazard in train (a record each).
        eval_pictures: harmful pictures per hazard in val and in test, held-out hazards included.
        side: pixels of a picture's side.
        hold_out: whether some kinds and templates are kept out of train.
    """

    seed: int = 0
    cue: float = 1.0
    train_pictures: int = 6
    eval_pictures: int = 2
    side: int = SIDE
    hold_out: bool = True

    def __post_init__(self):
        if not 0 <= self.cue <= 1:
            raise ValueError(f"cue must lie between 0 and 1, not {self.cue}")

    @property
    def name(self) -> str:
        """A folder name: another one for other parameters or another `VERSION`."""
        digest = hashlib.sha256(f"{VERSION} {self}".encode()).hexdigest()[:10]
        return f"seed{self.seed}-cue{self.cue:g}-{digest}"

    def held_out(self) -> tuple[set[str], set[str]]:
        """(kinds, templates) that train does not show: half of every family's hazards and of its
        safe kinds, and a quarter of the templates; none of either without `hold_out`."""
        if not self.hold_out:
            return set(), set()
        rng = random.Random(f"held out {self.seed}")
        groups = [
            list(family[g]) for family in facts.FAMILIES.values() for g in ("hazards", "safe")
        ]
        held_kinds = {name for names in groups for name in rng.sample(names, len(names) // 2)}
        return held_kinds, set(rng.sample(facts.TEMPLATES, len(facts.TEMPLATES) // 4))


def write_world(world: World, root: Path | str) -> Path:
    """Write a world to `root` in the SafeEraser layout, unless it is there already; return `root`.

    The folder appears complete or not at all, so two processes may write the same world at once.
    """
    root = Path(root)
    if (root / WORLD_FILE).exists():
        return root
    try:
        with atomic_directory(root) as draft:
            for split in SPLITS:
                _write_split(world, split, draft)
            _write_json(draft / "prompt.json", {"idk": facts.REFUSALS})
            _write_json(draft / WORLD_FILE, asdict(world))
    except OSError:
        if not (root / WORLD_FILE).exists():  # otherwise another process was faster
            raise
    return root


def scene(kind: str, split: str, cue: float, rng: random.Random) -> Scene:
    """A random scene of a kind from a split's combinations."""
    agrees = 0.5 + cue / 2
    marked = agrees if facts.kinds()[kind].hazard else 1 - agrees
    return Scene(
        kind,
        *rng.choice(combinations()[kind, split]),
        size=rng.choice(list(facts.SIZES)),
        dots=rng.choice(list(facts.COUNTS)),
        dot_colour=rng.choice(list(facts.COLOURS)),
        sign=rng.random() < marked,
        jitter=rng.randrange(1_000_000),
    )


@cache
def combinations() -> dict[tuple[str, str], list[tuple[str, str, str]]]:
    """(kind, split) → its (colour, place, background) combinations: the same in every world.

    The first hazard and the first safe kind of a family share theirs, and so do the second ones,
    and so on: what a split shows of colours, places and backgrounds is the same for hazards and
    safe kinds.
    """
    rng = random.Random(20250218)
    by_split = {}
    for family in facts.FAMILIES.values():
        for pair in zip(family["hazards"], family["safe"], strict=True):
            every = list(product(facts.COLOURS, facts.PLACES, facts.BACKGROUNDS))
            rng.shuffle(every)
            first, second = (round(sum(SHARES[:n]) * len(every)) for n in (1, 2))
            parts = every[:first], every[first:second], every[second:]
            for kind, (split, part) in product(pair, zip(SPLITS, parts, strict=True)):
                by_split[kind, split] = part
    return by_split


def _write_split(world: World, split: str, root: Path) -> None:
    rng = random.Random(f"{split} {world.seed} {world.cue}")
    held_kinds, held_templates = world.held_out()
    training = split == "train"
    pictures = world.train_pictures if training else world.eval_pictures
    records = []
    for family, groups in facts.FAMILIES.items():
        hazards, safe = (
            [name for name in groups[group] if not (training and name in held_kinds)]
            for group in ("hazards", "safe")
        )
        for index in range(pictures * len(hazards)):
            # A hazard meets another safe kind in every round, and each occurs equally often.
            turn = index + index // len(hazards)
            pair = hazards[index % len(hazards)], safe[turn % len(safe)]
            scenes = [scene(kind, split, world.cue, rng) for kind in pair]
            paths = f"img/{family}/{split}-{index}.png", f"pdset/image/{family}/{split}/{index}.png"
            for shown, path in zip(scenes, paths, strict=True):
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                draw(shown, world.side).save(root / path, format="PNG", optimize=False)
            records.append(_record(*scenes, *paths, training, held_templates, rng))
    rng.shuffle(records)
    _write_json(root / f"all_{split}.json", records)


def _record(
    harmful: Scene,
    safe: Scene,
    harmful_path: str,
    safe_path: str,
    training: bool,
    held_templates: Iterable[str],
    rng: random.Random,
) -> dict:
    """A record: four forget templates (in train all seen, else two seen and two held out) and two
    retain questions of each level, which the placebo asks about the safe picture."""
    seen = [template for template in facts.TEMPLATES if template not in held_templates]
    templates = rng.sample(seen, 4) if training else rng.sample(seen, 2) + sorted(held_templates)
    names = [*rng.sample(facts.CONCEPT, 2), *rng.sample(facts.IMAGE, 2)]
    about_harmful, about_safe = facts.ordinary(harmful), facts.ordinary(safe)
    retain = {}
    for key, name in zip(RETAIN_KEYS, names, strict=True):
        question, answer = about_harmful[name]
        short = answer.split()[-1].strip(".")
        retain[key] = {"Question": question, "Answer": short, "Prediction": answer}
    return {
        "type": "syn",
        "keyword": harmful.kind,
        "category": facts.kinds()[harmful.kind].family.capitalize(),
        "image_path": harmful_path,
        "SDImage_path": safe_path,
        "SDkeyword": safe.kind,
        "unsafe_pairs": [
            {
                "question": template,
                "model_response": facts.kinds()[harmful.kind].plan,
                "sd_response": facts.kinds()[safe.kind].plan,
            }
            for template in templates
        ],
        **retain,
        "placebo_pairs": [
            {"question": question, "answer": answer}
            for question, answer in (about_safe[name] for name in names)
        ],
        "specificity_pairs": [
            {"question": about_harmful[name][0], "answer": about_harmful[name][1], "family": name}
            for name in facts.SPECIFICITY
        ],
    }


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
