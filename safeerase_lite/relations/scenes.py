"""Scenes of the relational tiny world, and how they are drawn: somebody does something to another.

A relation is seen by how the two stand, and by what the one who does it has: an arm, a straw, a
rope held by its handle. Shapes live in the square [-1, 1]², y down. A picture is drawn four times
too large and reduced; a small seeded jitter makes every picture different.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image, ImageDraw

from safeerase_lite.relations.tuples import ORO

SIDE = 64
_OVERSAMPLE = 4
_RADIUS = 10.5
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
    """Everything a picture shows. mirrored: the one who does it stands on the right, not on the
    left. jitter: seeds the small offsets that tell pictures apart."""

    shown: ORO
    subject_colour: str
    object_colour: str
    background: str
    mirrored: bool
    jitter: int


class Extra(NamedTuple):
    """A bystander: a being or a thing that takes no part. Place and radius are in pixels of a
    SIDE × SIDE picture."""

    name: str
    colour: str
    place: tuple[float, float]
    radius: float


def scene(shown: ORO, rng: random.Random) -> Scene:
    """A random scene that shows a tuple. Its colours, ground and side say nothing of it."""
    return Scene(
        shown,
        rng.choice(list(COLOURS)),
        rng.choice(list(COLOURS)),
        rng.choice(list(BACKGROUNDS)),
        rng.random() < 0.5,
        rng.randrange(1_000_000),
    )


# ---- what things look like: (shape, …) filled with the colour, unless it is dark or light ----


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


# ---- how they stand ----

# Offsets of subject and object from the middle, in pixels, the subject on the left.
STANDS = {
    "tasting": ((-11, 4), (11, 4)),
    "holding": ((-10, 0), (10, 3)),
    "lifting": ((0, 13), (0, -12)),
    "riding": ((0, -11), (0, 12)),
    "pulling": ((-17, 0), (17, 0)),
    "chasing": ((-15, 0), (19, 0)),
    "watching": ((-18, 0), (18, 0)),
}


def draw(
    scene: Scene,
    side: int = SIDE,
    extras: Iterable[Extra] = (),
    ground: Image.Image | None = None,
) -> Image.Image:
    """The picture of a scene, RGB, `side` × `side` pixels; a pure function of its arguments.

    Args:
        extras: bystanders, drawn last.
        ground: a picture that stands behind the scene instead of its flat ground.
    """
    rng = random.Random(f"{scene}")
    pen = _Pen(side, _shade(BACKGROUNDS[scene.background], rng, 6), -1 if scene.mirrored else 1)
    if ground:
        pen.image.paste(ground.resize(pen.image.size, Image.Resampling.NEAREST))
    middle = SIDE / 2 + rng.uniform(-2, 2), SIDE / 2 + rng.uniform(-2, 2)
    radius = _RADIUS * rng.uniform(0.92, 1.06)
    places = [
        (middle[0] + pen.side * x + rng.uniform(-1, 1), middle[1] + y + rng.uniform(-1, 1))
        for x, y in STANDS[scene.shown.relation]
    ]
    marks = _MARKS[scene.shown.relation]
    marks(pen, *places, radius, behind=True)
    for name, colour, place in (
        (scene.shown.object, scene.object_colour, places[1]),
        (scene.shown.subject, scene.subject_colour, places[0]),
    ):
        pen.figure(SHAPES[name], place, radius, _shade(COLOURS[colour], rng, 10))
    marks(pen, *places, radius, behind=False)
    for extra in extras:
        pen.figure(SHAPES[extra.name], extra.place, extra.radius, COLOURS[extra.colour])
    return pen.picture(side)


class _Pen:
    """Draws in the coordinates of a SIDE × SIDE picture."""

    def __init__(self, side: int, ground: tuple[int, ...], facing: int):
        self.scale, self.side = side / SIDE * _OVERSAMPLE, facing
        pixels = round(SIDE * self.scale)
        self.image = Image.new("RGB", (pixels, pixels), ground)
        self.canvas = ImageDraw.Draw(self.image)

    def picture(self, side: int) -> Image.Image:
        return self.image.resize((side, side), Image.Resampling.BOX)

    def line(self, points, width: float, fill=_DARK) -> None:
        points = [(x * self.scale, y * self.scale) for x, y in points]
        self.canvas.line(points, fill=fill, width=max(1, round(width * self.scale)), joint="curve")

    def disc(self, x: float, y: float, radius: float, fill=_DARK) -> None:
        box = [v * self.scale for v in (x - radius, y - radius, x + radius, y + radius)]
        self.canvas.ellipse(box, fill=fill, outline=_DARK, width=max(1, round(0.4 * self.scale)))

    def figure(self, shapes, place, radius: float, colour) -> None:
        """Shapes about a place, mirrored with the picture."""

        def at(x, y):
            return ((place[0] + self.side * x * radius) * self.scale,
                    (place[1] + y * radius) * self.scale)  # fmt: skip

        def box(x0, y0, x1, y1):
            (a, top), (b, bottom) = at(x0, y0), at(x1, y1)
            return [min(a, b), top, max(a, b), bottom]

        for name, *numbers, fill in shapes:
            fill = colour if fill is None else fill
            if name == "polygon":
                self.canvas.polygon([at(*point) for point in numbers[0]], fill=fill)
            elif name == "line":
                width = round(numbers[1] * radius * self.scale)
                points = [at(*point) for point in numbers[0]]
                self.canvas.line(points, fill=fill, width=width, joint="curve")
            elif name in ("disc", "ring", "arc"):
                x, y, r, *more = numbers
                around = box(x - r, y - r, x + r, y + r)
                if name == "disc":
                    self.canvas.ellipse(around, fill=fill)
                else:
                    start, end = more[:-1] or (0, 360)
                    width = round(more[-1] * radius * self.scale)
                    self.canvas.arc(around, start, end, fill=fill, width=width)
            else:
                self.canvas.ellipse(box(*numbers), fill=fill)


# ---- what the one who does it has; drawn before both, or after ----


def _tasting(pen, subject, object, radius, behind):
    if not behind:
        (x, y), (ox, oy) = subject, object
        straw = [(x + pen.side * 3, y + 3), (ox - pen.side * 2, oy - radius - 4), (ox, oy - 6)]
        pen.line(straw, 2.6)
        pen.line(straw, 1.4, _LIGHT)


def _holding(pen, subject, object, radius, behind):
    if not behind:
        (x, y), (ox, oy) = subject, object
        hand = ox - pen.side * 2, oy + 3
        pen.line([(x + pen.side * 2, y + 5), hand], 3)
        pen.disc(*hand, 2.8, _LIGHT)


def _lifting(pen, subject, object, radius, behind):
    if behind:
        (x, y), (ox, oy) = subject, object
        for way in (-1, 1):
            hand = ox + way * 9, oy + 6
            pen.line([(x + way * 6, y + 2), (x + way * 12, y - 8), hand], 3)
            pen.disc(*hand, 2.6, _LIGHT)


def _riding(pen, subject, object, radius, behind):
    if not behind:
        (x, y), (ox, oy) = subject, object
        for way in (-1, 1):
            foot = ox + way * 8, oy + 5
            pen.line([(x + way * 5, y + 7), foot], 3)
            pen.line([foot, (foot[0] + pen.side * 4, foot[1])], 3)


def _pulling(pen, subject, object, radius, behind):
    (x, y), (ox, oy) = subject, object
    if behind:
        pen.line([(x, y + 3), (ox, oy + 3)], 1.6)
    else:
        handle = x + pen.side * 9
        pen.line([(handle, y - 2), (handle, y + 8)], 3)


def _chasing(pen, subject, object, radius, behind):
    if behind:
        x, y = subject
        for rise in (-7, 0, 7):
            back = x - pen.side * (radius + 1)
            pen.line([(back, y + rise), (back - pen.side * 7, y + rise)], 1.8)


def _watching(pen, subject, object, radius, behind):
    if not behind:
        (x, y), (ox, oy) = subject, object
        start, end = x + pen.side * 8, ox - pen.side * 10
        for step, size in enumerate((2.4, 1.9, 1.4)):
            share = (step + 0.5) / 3
            pen.disc(start + (end - start) * share, y + (oy - y) * share - 2, size, _LIGHT)


_MARKS = {
    "tasting": _tasting,
    "holding": _holding,
    "lifting": _lifting,
    "riding": _riding,
    "pulling": _pulling,
    "chasing": _chasing,
    "watching": _watching,
}


def _shade(colour: tuple[int, int, int], rng: random.Random, by: int) -> tuple[int, ...]:
    shift = rng.randint(-by, by)
    return tuple(max(0, min(255, channel + shift)) for channel in colour)
