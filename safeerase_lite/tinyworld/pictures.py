"""Scenes and how they are drawn: one object, a few dots, a plain background, perhaps a sign.

A picture is drawn four times too large and reduced, so edges are smooth, and a small seeded jitter
makes every picture different.
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from .facts import BACKGROUNDS, COLOURS, PLACES, SIZES

SIDE = 48
OVERSAMPLE = 4
DARK, LIGHT = (40, 40, 46), (250, 250, 250)
# A kind → its shapes, as `draw_shapes` takes them.
SHAPES = json.loads(Path(__file__).with_name("shapes.json").read_text(encoding="utf-8"))


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
    image = Image.new("RGB", (pixels, pixels), varied(BACKGROUNDS[scene.background], rng, 6))
    canvas = ImageDraw.Draw(image)

    radius = SIZES[scene.size] * rng.uniform(0.95, 1.05)
    x, y = (coordinate + rng.uniform(-1.5, 1.5) for coordinate in PLACES[scene.place])
    for dot_x, dot_y in _dot_places(scene, rng, x, y):
        box = [(dot_x - 2.2) * scale, (dot_y - 2.2) * scale,
               (dot_x + 2.2) * scale, (dot_y + 2.2) * scale]  # fmt: skip
        canvas.ellipse(box, fill=COLOURS[scene.dot_colour], outline=DARK, width=round(0.5 * scale))
    fill = varied(COLOURS[scene.colour], rng, 10)
    draw_shapes(canvas, SHAPES[scene.kind], (x * scale, y * scale), radius * scale, fill)
    if scene.sign:
        _draw_sign(canvas, (x + 0.62 * radius, y - 0.62 * radius), scale)
    return image.resize((side, side), Image.Resampling.BOX)


def draw_shapes(canvas: ImageDraw.ImageDraw, shapes: list, place, unit: float, colour, facing=1):
    """Draw shapes of the square [-1, 1]², y down, about a place; 1 is `unit` pixels.

    A shape is a method of the canvas, the points it takes, and its other options; one without a
    fill has the colour. facing: -1 mirrors the shapes.
    """
    x, y = place
    for method, points, options in shapes:
        corners = [(x + facing * px * unit, y + py * unit) for px, py in points]
        if facing == -1 and method not in ("polygon", "line"):  # a box begins at its left
            (right, top), (left, bottom) = corners
            corners = [(left, top), (right, bottom)]
        fill = {"dark": DARK, "light": LIGHT}.get(options.get("fill"), colour)
        if "width" in options:
            options = options | {"width": round(options["width"] * unit)}
        getattr(canvas, method)(corners, **options | {"fill": fill})


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
    canvas.rectangle([x - half, y - half, x + half, y + half], fill=LIGHT, outline=DARK)
    canvas.rectangle([x - half, y - half, x, y], fill=(15, 15, 18))
    canvas.rectangle([x, y, x + half, y + half], fill=(15, 15, 18))


def varied(colour: tuple[int, int, int], rng: random.Random, by: int) -> tuple[int, ...]:
    """A colour lighter or darker by up to so much."""
    shift = rng.randint(-by, by)
    return tuple(max(0, min(255, channel + shift)) for channel in colour)
