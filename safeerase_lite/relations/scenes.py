"""Scenes of the relational tiny world: what a picture shows, how it is drawn, which split it is in.

A relation shows in how the two are placed, and in what the subject has: an arm, a straw, a rope
held by its handle. A picture is drawn four times too large and reduced; a small seeded jitter makes
every picture different.
"""

import hashlib
import random
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from PIL import Image, ImageDraw

from .tuples import ALL_TUPLES, UNSAFE, RelationTriple, Tuples

SIDE = 64  # pixels
SPLITS = ("train", "val", "test")
_OVERSAMPLING = 4
_RADIUS = 10.5  # of a figure, in pixels of a SIDE × SIDE picture
_DARK, _LIGHT = (40, 40, 46), (250, 250, 250)

COLOURS = {
    "red": (205, 60, 50),
    "orange": (235, 150, 50),
    "green": (70, 150, 80),
    "blue": (70, 110, 200),
    "purple": (140, 80, 170),
    "brown": (135, 95, 65),
}
BACKGROUNDS = {
    "white": (245, 245, 242),
    "grey": (185, 187, 190),
    "pink": (240, 205, 212),
    "mint": (196, 230, 208),
}


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
    """A being or a thing that takes no part. Place and radius are in pixels of a SIDE × SIDE
    picture."""

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
    """`each` different scenes of every tuple, all from one split.

    Raises:
        ValueError: no such split, or the split has fewer scenes of a tuple.
    """
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}: {', '.join(SPLITS)}")
    scenes = []
    for triple in tuples:
        rng = random.Random(f"{split} {seed} {triple}")
        different: dict[tuple, Scene] = {}
        for _ in range(200 * each):
            scene = random_scene(triple, rng)
            if split_of(scene) == split:
                colours = scene.subject_colour, scene.object_colour, scene.background
                different.setdefault((*colours, scene.mirrored), scene)
            if len(different) == each:
                break
        else:
            raise ValueError(f"{split} has {len(different)} scenes of {triple}, not {each}")
        scenes += different.values()
    return scenes


# ---- shapes in the square [-1, 1]², y down ----

# A shape is (kind, numbers …, fill); fill None is the figure's own colour.


def _eyes(y=-0.15, apart=0.3, size=0.13):
    eyes = [("disc", x, y, size, _LIGHT) for x in (-apart, apart)]
    return eyes + [("disc", x, y, size / 2, _DARK) for x in (-apart, apart)]


def _box(x0, y0, x1, y1, fill=None):
    return ("polygon", ((x0, y0), (x1, y0), (x1, y1), (x0, y1)), fill)


SHAPES = {
    "imp": [("polygon", ((-0.75, 0), (-0.95, -1), (-0.2, -0.35)), _DARK),
            ("polygon", ((0.75, 0), (0.95, -1), (0.2, -0.35)), _DARK),
            ("ellipse", -1, -0.45, 1, 0.85, None), *_eyes(-0.05, 0.42, 0.2),
            ("arc", 0, 0.1, 0.5, 20, 160, 0.16, _LIGHT)],
    "robot": [_box(-0.7, -0.5, 0.7, 0.9), _box(-0.08, -1, 0.08, -0.5),
              ("disc", 0, -0.95, 0.17, None), _box(-0.45, 0.35, 0.45, 0.55, _DARK),
              *_eyes(-0.05, 0.3, 0.16)],
    "owl": [("ellipse", -0.7, -0.8, 0.7, 1, None), ("polygon", ((-0.7, -1), (-0.1, -0.7),
            (-0.65, -0.3)), None), ("polygon", ((0.7, -1), (0.1, -0.7), (0.65, -0.3)), None),
            *_eyes(-0.25, 0.3, 0.28), ("polygon", ((-0.12, 0), (0.12, 0), (0, 0.28)), _DARK)],
    "fox": [("polygon", ((-0.95, -1), (-0.35, -0.55), (0.35, -0.55), (0.95, -1), (0.8, 0.1),
                         (0, 1), (-0.8, 0.1)), None),
            ("polygon", ((-0.3, 0.62), (0.3, 0.62), (0, 1)), _DARK),
            ("polygon", ((-0.75, 0.1), (-0.2, 0.25), (-0.3, 0.6)), _LIGHT),
            ("polygon", ((0.75, 0.1), (0.2, 0.25), (0.3, 0.6)), _LIGHT), *_eyes(-0.15, 0.35)],
    "bear": [("disc", -0.62, -0.65, 0.35, None), ("disc", 0.62, -0.65, 0.35, None),
             ("disc", 0, 0.1, 0.85, None), ("ellipse", -0.4, 0.2, 0.4, 0.75, _LIGHT),
             ("disc", 0, 0.35, 0.14, _DARK), *_eyes(-0.15, 0.33)],
    "snail": [("disc", -0.15, -0.05, 0.72, None), ("ring", -0.15, -0.05, 0.45, 0.14, _DARK),
              ("disc", -0.15, -0.05, 0.14, _DARK), _box(-1, 0.65, 0.9, 0.98),
              ("line", ((0.8, 0.7), (0.75, -0.3)), 0.14, None),
              ("line", ((0.8, 0.7), (1, -0.25)), 0.14, None), ("disc", 0.75, -0.35, 0.12, _DARK),
              ("disc", 1, -0.3, 0.12, _DARK)],
    "knight": [_box(-0.6, -0.6, 0.6, 1), ("disc", 0, -0.5, 0.6, None),
               _box(-0.45, -0.25, 0.45, 0.02, _DARK), ("line", ((0, -0.1), (0, 0.8)), 0.1, _DARK),
               ("line", ((0, -1), (0.5, -0.95), (0.85, -0.55)), 0.2, None)],
    "ghost": [("ellipse", -0.75, -1, 0.75, 0.5, None), ("polygon", ((-0.75, -0.25), (0.75, -0.25),
              (0.75, 1), (0.38, 0.65), (0, 1), (-0.38, 0.65), (-0.75, 1)), None),
              ("ellipse", -0.17, 0.1, 0.17, 0.5, _DARK), *_eyes(-0.3, 0.3, 0.19)],
    "fizz": [_box(-0.45, -0.1, 0.45, 1), ("polygon", ((-0.45, -0.1), (0.45, -0.1), (0.18, -0.55),
             (-0.18, -0.55)), None), _box(-0.18, -0.85, 0.18, -0.5),
             _box(-0.25, -1, 0.25, -0.82, _DARK), _box(-0.45, 0.25, 0.45, 0.65, _LIGHT)],
    "cocoa": [_box(-0.8, -0.5, 0.4, 0.9), ("ring", 0.45, 0.2, 0.48, 0.2, None),
              ("ellipse", -0.8, -0.7, 0.4, -0.3, _DARK)],
    "balloon": [("ellipse", -0.65, -1, 0.65, 0.45, None), ("polygon", ((-0.15, 0.6), (0.15, 0.6),
                (0, 0.4)), None), ("line", ((0, 0.55), (0.15, 0.75), (-0.1, 1)), 0.08, _DARK),
                ("ellipse", -0.35, -0.75, -0.1, -0.35, _LIGHT)],
    "drum": [_box(-0.85, -0.5, 0.85, 0.85), ("ellipse", -0.85, -0.8, 0.85, -0.2, _LIGHT),
             ("line", ((-0.85, -0.4), (-0.42, 0.8), (0, -0.2), (0.42, 0.8), (0.85, -0.4)), 0.1,
              _DARK)],
    "lamp": [("polygon", ((-0.4, -1), (0.4, -1), (0.85, 0.05), (-0.85, 0.05)), None),
             _box(-0.1, 0.05, 0.1, 0.8, _DARK), _box(-0.55, 0.75, 0.55, 1, _DARK)],
    "cake": [("polygon", ((-1, 0.1), (0.75, -0.65), (1, 0.1)), None), _box(-1, 0.1, 1, 0.4, _LIGHT),
             _box(-1, 0.4, 1, 0.9), ("disc", 0.6, -0.72, 0.2, _DARK)],
    "kite": [("polygon", ((0, -1), (0.7, -0.25), (0, 0.5), (-0.7, -0.25)), None),
             ("line", ((0, -1), (0, 0.5)), 0.08, _LIGHT),
             ("line", ((-0.7, -0.25), (0.7, -0.25)), 0.08, _LIGHT),
             ("line", ((0, 0.5), (0.25, 0.65), (-0.1, 0.8), (0.2, 1)), 0.1, _DARK)],
    "anchor": [("ring", 0, -0.75, 0.26, 0.12, None), _box(-0.12, -0.55, 0.12, 0.85),
               _box(-0.5, -0.35, 0.5, -0.13), ("arc", 0, 0.1, 0.85, 20, 160, 0.24, None)],
}  # fmt: skip

# Offsets of subject and object from the middle, in pixels, the subject on the left.
PLACES = {
    "tasting": ((-11, 4), (11, 4)),
    "holding": ((-10, 0), (10, 3)),
    "lifting": ((0, 13), (0, -12)),
    "riding": ((0, -11), (0, 12)),
    "pulling": ((-17, 0), (17, 0)),
    "chasing": ((-15, 0), (19, 0)),
    "watching": ((-18, 0), (18, 0)),
}


# ---- drawing ----


def draw(
    scene: Scene,
    side: int = SIDE,
    bystanders: Iterable[Bystander] = (),
    background: Image.Image | None = None,
) -> Image.Image:
    """The picture of a scene, RGB, `side` × `side` pixels; a pure function of its arguments.

    Args:
        bystanders: drawn last, in front.
        background: a picture behind the scene, instead of its flat colour.
    """
    rng = random.Random(str(scene))
    pen = _Pen(side, _shade(BACKGROUNDS[scene.background], rng, 6), -1 if scene.mirrored else 1)
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
    for name, colour, place in (
        (object, scene.object_colour, places[1]),
        (subject, scene.subject_colour, places[0]),
    ):
        pen.figure(SHAPES[name], place, radius, _shade(COLOURS[colour], rng, 10))
    _draw_relation(pen, relation, "in front", *places, radius)
    for one in bystanders:
        pen.figure(SHAPES[one.name], one.place, one.radius, COLOURS[one.colour])
    return pen.image.resize((side, side), Image.Resampling.BOX)


def _shade(colour: tuple[int, int, int], rng: random.Random, by: int) -> tuple[int, ...]:
    shift = rng.randint(-by, by)
    return tuple(max(0, min(255, channel + shift)) for channel in colour)


def _draw_relation(pen, relation: str, layer: str, subject, object, radius: float) -> None:
    """What shows the relation, beside the places of the two."""
    (x, y), (ox, oy), facing = subject, object, pen.facing
    match relation, layer:
        case "tasting", "in front":  # a straw
            straw = [(x + facing * 3, y + 3), (ox - facing * 2, oy - radius - 4), (ox, oy - 6)]
            pen.line(straw, 2.6)
            pen.line(straw, 1.4, _LIGHT)
        case "holding", "in front":  # an arm and its hand
            hand = ox - facing * 2, oy + 3
            pen.line([(x + facing * 2, y + 5), hand], 3)
            pen.disc(*hand, 2.8, _LIGHT)
        case "lifting", "behind":  # two arms
            for way in (-1, 1):
                hand = ox + way * 9, oy + 6
                pen.line([(x + way * 6, y + 2), (x + way * 12, y - 8), hand], 3)
                pen.disc(*hand, 2.6, _LIGHT)
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
                pen.disc(start + (end - start) * share, y + (oy - y) * share - 2, size, _LIGHT)


class _Pen:
    """Draws on an oversampled canvas, in the coordinates of a SIDE × SIDE picture.

    facing: 1 if the subject looks to the right, -1 if to the left.
    """

    def __init__(self, side: int, background: tuple[int, ...], facing: int):
        self.scale, self.facing = side / SIDE * _OVERSAMPLING, facing
        pixels = round(SIDE * self.scale)
        self.image = Image.new("RGB", (pixels, pixels), background)
        self.canvas = ImageDraw.Draw(self.image)

    def line(self, points, width: float, fill=_DARK) -> None:
        points = [(x * self.scale, y * self.scale) for x, y in points]
        self.canvas.line(points, fill=fill, width=max(1, round(width * self.scale)), joint="curve")

    def disc(self, x: float, y: float, radius: float, fill=_DARK) -> None:
        box = [v * self.scale for v in (x - radius, y - radius, x + radius, y + radius)]
        self.canvas.ellipse(box, fill=fill, outline=_DARK, width=max(1, round(0.4 * self.scale)))

    def figure(self, shapes, place, radius: float, colour) -> None:
        """Shapes about a place, mirrored with the picture."""
        canvas = self.canvas

        def at(x, y):
            return (
                (place[0] + self.facing * x * radius) * self.scale,
                (place[1] + y * radius) * self.scale,
            )

        def box(x0, y0, x1, y1):
            (a, top), (b, bottom) = at(x0, y0), at(x1, y1)
            return [min(a, b), top, max(a, b), bottom]

        def pixels(width):
            return round(width * radius * self.scale)

        for kind, *numbers, fill in shapes:
            fill = colour if fill is None else fill
            match kind, numbers:
                case "polygon", [points]:
                    canvas.polygon([at(*point) for point in points], fill=fill)
                case "line", [points, width]:
                    points = [at(*point) for point in points]
                    canvas.line(points, fill=fill, width=pixels(width), joint="curve")
                case "ellipse", corners:
                    canvas.ellipse(box(*corners), fill=fill)
                case "disc", [x, y, r]:
                    canvas.ellipse(box(x - r, y - r, x + r, y + r), fill=fill)
                case "ring", [x, y, r, width]:
                    around = box(x - r, y - r, x + r, y + r)
                    canvas.arc(around, 0, 360, fill=fill, width=pixels(width))
                case "arc", [x, y, r, start, end, width]:
                    around = box(x - r, y - r, x + r, y + r)
                    canvas.arc(around, start, end, fill=fill, width=pixels(width))
