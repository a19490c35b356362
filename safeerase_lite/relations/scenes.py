"""Scenes of the relational tiny world: what a picture shows, how it is drawn, which split it is in.

A relation shows in how the two are placed, and in what the subject has: an arm, a straw, a rope
held by its handle. A picture is drawn four times too large and reduced; a small seeded jitter makes
every picture different.
"""

import hashlib
import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

from PIL import Image, ImageDraw

from safeerase_lite.tinyworld.pictures import DARK, LIGHT, OVERSAMPLE, draw_shapes, varied

from .tuples import ALL_TUPLES, UNSAFE, RelationTriple, Tuples
from .words import WORLD

SIDE = 64  # pixels
_RADIUS = 10.5  # of a figure, in pixels of a SIDE × SIDE picture

COLOURS = {name: tuple(rgb) for name, rgb in WORLD["colours"].items()}
BACKGROUNDS = {name: tuple(rgb) for name, rgb in WORLD["backgrounds"].items()}
SHAPES: dict[str, list] = WORLD["shapes"]  # a name → what `draw_shapes` takes
# Offsets of subject and object from the middle, in pixels, the subject on the left.
PLACES: dict[str, list] = WORLD["places"]


@dataclass(frozen=True)
class Scene:
    """Everything a picture shows.

    mirrored: the subject is on the right, not on the left.  jitter: seeds the small offsets that
    tell pictures apart.
    """

    triple: RelationTriple
    subject_colour: str
    object_colour: str
    background: str
    mirrored: bool
    jitter: int

    def __str__(self) -> str:
        """The text that seeds every random choice about this scene."""
        # The shipped measures were taken with exactly this text: it must stay, letter for letter.
        subject, relation, object = self.triple
        return (
            f"Scene(shown=ORO(subject={subject!r}, relation={relation!r}, object={object!r}), "
            f"subject_colour={self.subject_colour!r}, object_colour={self.object_colour!r}, "
            f"background={self.background!r}, mirrored={self.mirrored}, jitter={self.jitter})"
        )


class Bystander(NamedTuple):
    """A being or a thing that takes no part. Place and radius: pixels of a SIDE × SIDE picture."""

    name: str
    colour: str
    place: tuple[float, float]
    radius: float


def random_scene(triple: RelationTriple, rng: random.Random) -> Scene:
    """A random scene that shows a tuple. Its colours, background and side say nothing about it."""
    return Scene(
        triple,
        rng.choice(list(COLOURS)),
        rng.choice(list(COLOURS)),
        rng.choice(list(BACKGROUNDS)),
        rng.random() < 0.5,
        rng.randrange(1_000_000),
    )


# ---- which split a scene is in ----


def split_of(scene: Scene) -> str:
    """train (7 of 10), val (1) or test (2). The jitter has no say: pictures that differ by it alone
    are in one split."""
    mirrored, colours = str(scene.mirrored), (scene.subject_colour, scene.object_colour)
    remainder = _hash(*scene.triple, *colours, scene.background, mirrored) % 10
    return "train" if remainder < 7 else "val" if remainder == 7 else "test"


@cache
def held_out_combinations() -> frozenset[RelationTriple]:
    """The tenth of all tuples that tiny-clip has never seen. It has seen each of their words, and
    none of them is in UNSAFE."""
    order = sorted(set(ALL_TUPLES) - set(UNSAFE), key=lambda t: _hash("combination", *t))
    return frozenset(order[: round(0.1 * len(ALL_TUPLES))])


def _hash(*words: str) -> int:
    return int.from_bytes(hashlib.sha256(" ".join(words).encode()).digest()[:8], "big")


def scenes_of(tuples: Tuples, split: str, each: int, seed: int = 0) -> list[Scene]:
    """`each` different scenes of every tuple, all from one split. ValueError where it has fewer."""
    scenes = []
    for triple in tuples:
        rng = random.Random(f"{split} {seed} {triple}")
        different: dict[Scene, Scene] = {}
        for _ in range(200 * each):
            scene = random_scene(triple, rng)
            if split_of(scene) == split:
                different.setdefault(replace(scene, jitter=0), scene)
            if len(different) == each:
                break
        else:
            raise ValueError(f"{split} has {len(different)} scenes of {triple}, not {each}")
        scenes += different.values()
    return scenes


# ---- drawing ----


def draw(
    scene: Scene,
    side: int = SIDE,
    bystanders: Iterable[Bystander] = (),
    background: Image.Image | None = None,
) -> Image.Image:
    """The picture of a scene, RGB, `side` × `side` pixels; a pure function of its arguments.

    Bystanders are drawn last, in front; a background takes the place of the flat colour.
    """
    rng = random.Random(str(scene))
    pen = _Pen(side, varied(BACKGROUNDS[scene.background], rng, 6), -1 if scene.mirrored else 1)
    if background:
        pen.image.paste(background.resize(pen.image.size, Image.Resampling.NEAREST))
    middle = SIDE / 2 + rng.uniform(-2, 2), SIDE / 2 + rng.uniform(-2, 2)
    radius = _RADIUS * rng.uniform(0.92, 1.06)
    subject, relation, object = scene.triple
    places = [
        (middle[0] + pen.facing * x + rng.uniform(-1, 1), middle[1] + y + rng.uniform(-1, 1))
        for x, y in PLACES[relation]
    ]
    _draw_relation(pen, relation, "behind", *places, radius)
    colours = scene.subject_colour, scene.object_colour
    for slot, name in ((1, object), (0, subject)):
        pen.figure(SHAPES[name], places[slot], radius, varied(COLOURS[colours[slot]], rng, 10))
    _draw_relation(pen, relation, "in front", *places, radius)
    for one in bystanders:
        pen.figure(SHAPES[one.name], one.place, one.radius, COLOURS[one.colour])
    return pen.image.resize((side, side), Image.Resampling.BOX)


def _draw_relation(pen, relation: str, layer: str, subject, object, radius: float) -> None:
    """What shows the relation, beside the places of the two."""
    (x, y), (ox, oy), facing = subject, object, pen.facing
    match relation, layer:
        case "tasting", "in front":  # a straw
            straw = [(x + facing * 3, y + 3), (ox - facing * 2, oy - radius - 4), (ox, oy - 6)]
            pen.line(straw, 2.6)
            pen.line(straw, 1.4, LIGHT)
        case "holding", "in front":  # an arm and its hand
            hand = ox - facing * 2, oy + 3
            pen.line([(x + facing * 2, y + 5), hand], 3)
            pen.disc(*hand, 2.8, LIGHT)
        case "lifting", "behind":  # two arms
            for way in (-1, 1):
                hand = ox + way * 9, oy + 6
                pen.line([(x + way * 6, y + 2), (x + way * 12, y - 8), hand], 3)
                pen.disc(*hand, 2.6, LIGHT)
        case "riding", "in front":  # two legs
            for way in (-1, 1):
                foot = ox + way * 8, oy + 5
                pen.line([(x + way * 5, y + 7), foot], 3)
                pen.line([foot, (foot[0] + facing * 4, foot[1])], 3)
        case "pulling", "behind":  # a rope
            pen.line([(x, y + 3), (ox, oy + 3)], 1.6)
        case "pulling", "in front":  # its handle
            handle = x + facing * 9
            pen.line([(handle, y - 2), (handle, y + 8)], 3)
        case "chasing", "behind":  # lines of speed
            for rise in (-7, 0, 7):
                back = x - facing * (radius + 1)
                pen.line([(back, y + rise), (back - facing * 7, y + rise)], 1.8)
        case "watching", "in front":  # dots along the line of sight
            start, end = x + facing * 8, ox - facing * 10
            for step, size in enumerate((2.4, 1.9, 1.4)):
                share = (step + 0.5) / 3
                pen.disc(start + (end - start) * share, y + (oy - y) * share - 2, size, LIGHT)


class _Pen:
    """Draws on an oversampled canvas, in the coordinates of a SIDE × SIDE picture.

    facing: 1 if the subject looks to the right, -1 if to the left.
    """

    def __init__(self, side: int, background: tuple[int, ...], facing: int):
        self.scale, self.facing = side / SIDE * OVERSAMPLE, facing
        pixels = round(SIDE * self.scale)
        self.image = Image.new("RGB", (pixels, pixels), background)
        self.canvas = ImageDraw.Draw(self.image)

    def line(self, points, width: float, fill=DARK) -> None:
        points = [(x * self.scale, y * self.scale) for x, y in points]
        self.canvas.line(points, fill=fill, width=max(1, round(width * self.scale)), joint="curve")

    def disc(self, x: float, y: float, radius: float, fill=DARK) -> None:
        box = [v * self.scale for v in (x - radius, y - radius, x + radius, y + radius)]
        self.canvas.ellipse(box, fill=fill, outline=DARK, width=max(1, round(0.4 * self.scale)))

    def figure(self, shapes: list, place, radius: float, colour) -> None:
        place = place[0] * self.scale, place[1] * self.scale
        draw_shapes(self.canvas, shapes, place, radius * self.scale, colour, self.facing)
