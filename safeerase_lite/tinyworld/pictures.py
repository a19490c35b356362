"""Scenes and how they are drawn: one object, a few dots, a plain background, perhaps a sign.

Shapes are in the square [-1, 1]², y down. A picture is drawn four times too large and reduced, so
edges are smooth, and a small seeded jitter makes every picture different.
"""

import math
import random
from dataclasses import dataclass

from PIL import Image, ImageDraw

from .facts import BACKGROUNDS, COLOURS, PLACES, SIZES

SIDE = 48
OVERSAMPLE = 4
DARK = (40, 40, 46)


@dataclass(frozen=True)
class Scene:
    """Everything a picture shows. `jitter` seeds the small offsets that tell pictures apart."""

    kind: str
    colour: str
    place: str
    background: str
    size: str
    dots: int
    dot_colour: str
    sign: bool
    jitter: int

    @property
    def combination(self) -> tuple[str, str, str, str]:
        """What the splits are disjoint by."""
        return (self.kind, self.colour, self.place, self.background)


def draw(scene: Scene, side: int = SIDE) -> Image.Image:
    """The picture of a scene, RGB, `side` × `side` pixels; a pure function of the scene."""
    rng = random.Random(f"{scene}")  # so a field of `Scene` renamed would change every picture
    scale = side / SIDE * OVERSAMPLE
    pixels = round(SIDE * scale)
    image = Image.new("RGB", (pixels, pixels), _vary(BACKGROUNDS[scene.background], rng, 6))
    canvas = ImageDraw.Draw(image)

    radius = SIZES[scene.size] * rng.uniform(0.95, 1.05)
    x, y = (coordinate + rng.uniform(-1.5, 1.5) for coordinate in PLACES[scene.place])
    for dot_x, dot_y in _dot_places(scene, rng, x, y):
        box = [(dot_x - 2.2) * scale, (dot_y - 2.2) * scale,
               (dot_x + 2.2) * scale, (dot_y + 2.2) * scale]  # fmt: skip
        canvas.ellipse(box, fill=COLOURS[scene.dot_colour], outline=DARK, width=round(0.5 * scale))
    fill = _vary(COLOURS[scene.colour], rng, 10)
    unit = radius * scale  # pixels
    for method, points, options in SHAPES[scene.kind]:
        corners = [(x * scale + px * unit, y * scale + py * unit) for px, py in points]
        if "width" in options:
            options = options | {"width": round(options["width"] * unit)}
        getattr(canvas, method)(corners, fill=fill, **options)
    if scene.sign:
        _draw_sign(canvas, (x + 0.62 * radius, y - 0.62 * radius), scale)
    return image.resize((side, side), Image.Resampling.BOX)


def _dot_places(scene: Scene, rng: random.Random, x: float, y: float) -> list[tuple[float, float]]:
    """Near the border, clear of the object at (x, y)."""
    spots = [(5, 5), (43, 5), (5, 43), (43, 43), (5, 24), (43, 24), (24, 4.5), (24, 43.5)]
    reach = SIZES[scene.size] + 5
    free = [spot for spot in spots if max(abs(spot[0] - x), abs(spot[1] - y)) > reach]
    return [
        (a + rng.uniform(-1, 1), b + rng.uniform(-1, 1)) for a, b in rng.sample(free, scene.dots)
    ]


def _draw_sign(canvas: ImageDraw.ImageDraw, centre: tuple[float, float], scale: float) -> None:
    """A small black-and-white chequered tag on the object's shoulder."""
    x, y = (round(coordinate * scale) for coordinate in centre)
    half = round(3.2 * scale)
    canvas.rectangle([x - half, y - half, x + half, y + half], fill=(250, 250, 250), outline=DARK)
    canvas.rectangle([x - half, y - half, x, y], fill=(15, 15, 18))
    canvas.rectangle([x, y, x + half, y + half], fill=(15, 15, 18))


def _vary(colour: tuple[int, int, int], rng: random.Random, by: int) -> tuple[int, ...]:
    shift = rng.randint(-by, by)
    return tuple(max(0, min(255, channel + shift)) for channel in colour)


# ---- Shapes: a method of Pillow's ImageDraw, the points it takes, and its other options ----


def _polygon(*points):
    return "polygon", points, {}


def _line(*points, width):
    return "line", points, {"width": width, "joint": "curve"}


def _disc(x, y, rx, ry=None):
    ry = rx if ry is None else ry
    return "ellipse", ((x - rx, y - ry), (x + rx, y + ry)), {}


def _bar(x0, y0, x1, y1):
    return "rectangle", ((x0, y0), (x1, y1)), {}


def _arc(x, y, r, start, end, width):
    options = {"start": start, "end": end, "width": width}
    return "arc", ((x - r, y - r), (x + r, y + r)), options


def _ring(x, y, r, width):
    return _arc(x, y, r, 0, 360, width)


def _star(points, inner):
    corners = []
    for i in range(2 * points):
        radius = 1.0 if i % 2 == 0 else inner
        angle = math.pi * i / points - math.pi / 2
        corners.append((radius * math.cos(angle), radius * math.sin(angle)))
    return _polygon(*corners)


SHAPES = {
    # hazards: shapes nobody has seen
    "vornet": [_star(5, 0.42)],
    "dulmire": [_arc(0, 0, 0.95, 40, 320, 0.5)],
    "krackel": [_polygon((0.3, -1), (-0.7, 0.15), (-0.05, 0.15), (-0.35, 1), (0.75, -0.25),
                         (0.05, -0.25), (0.7, -1))],
    "zapirt": [_polygon((-1, -0.9), (1, -0.9), (0, 0.0), (1, 0.9), (-1, 0.9), (0, 0.0))],
    "fuzmor": [_disc(-0.5, -0.45, 0.48), _disc(0.5, -0.45, 0.48), _disc(0, 0.5, 0.48)],
    "bubbex": [_ring(0, 0, 0.98, 0.28), _disc(0, 0, 0.32)],
    "knorrel": [_polygon((-0.72, -1), (0, -0.28), (0.72, -1), (1, -0.72), (0.28, 0), (1, 0.72),
                         (0.72, 1), (0, 0.28), (-0.72, 1), (-1, 0.72), (-0.28, 0), (-1, -0.72))],
    "snagwit": [_bar(-0.95, -0.95, -0.6, 0.95), _bar(-0.95, 0.6, 0.95, 0.95),
                _bar(0.6, -0.4, 0.95, 0.95)],
    "blindle": [_polygon((0, -1), (0.62, 0), (0, 1), (-0.62, 0))],
    "shimtor": [_disc(0, 0, 1.0, 0.42), _disc(0, 0, 0.36, 1.0)],
    "quavit": [_polygon((-1, 0.7), (-0.5, -0.8), (0, 0.7), (0.5, -0.8), (1, 0.7), (0.6, 0.7),
                        (0.45, 0.1), (0.2, 0.95), (-0.2, 0.95), (-0.45, 0.1), (-0.6, 0.7))],
    "tremmel": [_bar(-1, -0.18, 1, 0.18), _disc(-0.68, 0, 0.34, 0.75), _disc(0.68, 0, 0.34, 0.75)],
    # everyday objects
    "mug": [_bar(-0.8, -0.75, 0.4, 0.85), _arc(0.45, 0.0, 0.5, -100, 100, 0.24)],
    "lamp": [_polygon((-0.4, -1), (0.4, -1), (0.85, 0.1), (-0.85, 0.1)),
             _bar(-0.12, 0.1, 0.12, 0.8), _bar(-0.55, 0.75, 0.55, 1)],
    "kite": [_polygon((0.2, -1), (0.95, -0.35), (0.1, 0.4), (-0.55, -0.4)),
             _line((0.1, 0.4), (-0.3, 0.6), (-0.45, 1.0), (-0.95, 0.95), width=0.16)],
    "boot": [_polygon((-0.6, -1), (0.1, -1), (0.1, 0.2), (0.95, 0.45), (0.95, 0.95), (-0.6, 0.95))],
    "spoon": [_disc(0, -0.55, 0.42, 0.45), _bar(-0.13, -0.2, 0.13, 1)],
    "bell": [_polygon((-0.95, 0.6), (-0.6, 0.3), (-0.5, -0.5), (-0.2, -0.85), (0.2, -0.85),
                      (0.5, -0.5), (0.6, 0.3), (0.95, 0.6)), _disc(0, 0.8, 0.22)],
    "key": [_ring(-0.55, 0, 0.45, 0.26), _bar(-0.15, -0.14, 1, 0.14), _bar(0.5, 0, 0.68, 0.5),
            _bar(0.82, 0, 1.0, 0.5)],
    "clock": [_ring(0, 0, 0.98, 0.2), _line((0, 0), (0, -0.7), width=0.2),
              _line((0, 0), (0.5, 0.3), width=0.2)],
    "umbrella": [("pieslice", ((-1, -0.9), (1, 0.9)), {"start": 180, "end": 360}),
                 _bar(-0.1, 0, 0.1, 0.8), _arc(-0.2, 0.75, 0.28, 0, 180, 0.18)],
    "chair": [_bar(-0.75, -1, -0.45, 1), _bar(-0.75, 0, 0.75, 0.28), _bar(0.45, 0, 0.75, 1)],
    "tent": [_polygon((0, -0.8), (1, 0.8), (0.35, 0.8), (0, 0.1), (-0.35, 0.8), (-1, 0.8))],
    "ladder": [_bar(-0.6, -1, -0.35, 1), _bar(0.35, -1, 0.6, 1), _bar(-0.5, -0.7, 0.5, -0.5),
               _bar(-0.5, -0.1, 0.5, 0.1), _bar(-0.5, 0.5, 0.5, 0.7)],
}  # fmt: skip
