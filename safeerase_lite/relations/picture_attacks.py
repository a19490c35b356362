"""Pictures of scenes made harder to read. Each attack takes a scene, a strength in [0, 1] and a
random generator, and gives an RGB picture of SIDE × SIDE pixels.

At 0 it is `draw(scene)`. The same generator at a larger strength does more of the same; at 1 hardly
anything is left to see.
"""

import math
import random
from itertools import pairwise

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from safeerase_lite.relations.scenes import COLOURS, SHAPES, SIDE, STANDS, Extra, Scene, draw

BYSTANDERS = 16
_WIDEST = 11.0  # radius of a bystander, in pixels
BLUR = 16  # pixels
NOISE = 400  # standard deviation, where a channel has 256 values
SMALLEST = 0.1  # side of the part that a crop leaves


# ---- context ----


def busy(scene: Scene, strength: float, rng: random.Random) -> Image.Image:
    """Bystanders come, one after the other, and grow: first where there is room, then in front of
    the two who act."""
    way = -1 if scene.mirrored else 1
    acting = [(SIDE / 2 + way * x, SIDE / 2 + y) for x, y in STANDS[scene.shown.relation]]
    places = [(rng.uniform(2, SIDE - 2), rng.uniform(2, SIDE - 2)) for _ in range(BYSTANDERS)]
    places.sort(key=lambda place: -min(math.dist(place, other) for other in acting))
    names = [name for name in SHAPES if name not in scene.shown]
    extras = []
    for number, place in enumerate(places):
        who = rng.choice(names), rng.choice(list(COLOURS))
        grown = min(1.0, 1.5 * strength - 0.9 * number / BYSTANDERS)
        if grown > 0:
            extras.append(Extra(*who, place, _WIDEST * grown))
    return draw(scene, extras=extras)


# ---- out of distribution ----


def palette(scene: Scene, strength: float, rng: random.Random) -> Image.Image:
    """Colours turn about middle grey, light into dark too, by up to half a turn."""
    axis = np.array([rng.gauss(0, 1) for _ in range(3)])
    axis -= axis.mean()  # at a right angle to the greys, so that light and dark change places
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = math.pi * strength
    turn = np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross
    return _picture((_numbers(draw(scene)) - 128) @ turn.T + 128)


def style(scene: Scene, strength: float, rng: random.Random) -> Image.Image:
    """The painting becomes a drawing, lines on paper, and then the lines fade."""
    plain = draw(scene)
    paper = [rng.randint(150, 255) for _ in range(3)]
    ink = [rng.randint(0, 90) for _ in range(3)]
    edges = draw(scene, 4 * SIDE).convert("L").filter(ImageFilter.FIND_EDGES)
    edges = ImageOps.expand(ImageOps.crop(edges, 4), 4).filter(ImageFilter.MaxFilter(5))
    drawing = ImageOps.colorize(ImageOps.autocontrast(edges).resize(plain.size), paper, ink)
    return _along([plain, drawing, Image.new("RGB", plain.size, tuple(paper))], strength)


def background(scene: Scene, strength: float, rng: random.Random) -> Image.Image:
    """Stripes, checks or a gradient come up in the ground, and then through everything."""
    first, second = (np.array(COLOURS[name]) for name in rng.sample(list(COLOURS), 2))
    kind, angle, width = rng.choice(_PATTERNS), rng.uniform(0, math.pi), rng.uniform(4, 9)
    down, right = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    along = right * math.cos(angle) + down * math.sin(angle)
    across = down * math.cos(angle) - right * math.sin(angle)
    share = {
        "stripes": np.floor(along / width) % 2,
        "checks": (np.floor(along / width) + np.floor(across / width)) % 2,
        "gradient": np.clip(along / SIDE + 0.5, 0, 1),
    }[kind]
    pattern = _picture(first + share[..., None] * (second - first))
    return _along([draw(scene), draw(scene, ground=pattern), pattern], strength)


_PATTERNS = ("stripes", "checks", "gradient")


def blur(scene: Scene, strength: float, rng: random.Random) -> Image.Image:
    """Gaussian blur."""
    return draw(scene).filter(ImageFilter.GaussianBlur(BLUR * strength**2))


def noise(scene: Scene, strength: float, rng: random.Random) -> Image.Image:
    """Gaussian noise, of every pixel and channel for itself."""
    plain = _numbers(draw(scene))
    grain = np.random.default_rng(rng.getrandbits(64)).standard_normal(plain.shape)
    return _picture(plain + NOISE * strength**2 * grain)


def crop(scene: Scene, strength: float, rng: random.Random) -> Image.Image:
    """A random part is all that is seen, enlarged."""
    left, top, right, bottom = _window(SIDE * (1 - (1 - SMALLEST) * strength), rng)
    return draw(scene).resize((SIDE, SIDE), Image.Resampling.BILINEAR, (left, top, right, bottom))


def occlusion(scene: Scene, strength: float, rng: random.Random) -> Image.Image:
    """A square patch of one colour lies over a random part."""
    picture = draw(scene)
    patch = [round(edge) for edge in _window(SIDE * strength, rng)]
    picture.paste(COLOURS[rng.choice(list(COLOURS))], patch)
    return picture


# ---- what they share ----


def _along(pictures: list[Image.Image], strength: float) -> Image.Image:
    """The picture at a share of the way from the first to the last, each pair blended."""
    way = strength * (len(pictures) - 1)
    step = min(int(way), len(pictures) - 2)
    return Image.blend(*list(pairwise(pictures))[step], way - step)


def _window(side: float, rng: random.Random) -> tuple[float, float, float, float]:
    """A random square in the picture; a larger one, of the same generator, holds a smaller."""
    left, top = rng.random() * (SIDE - side), rng.random() * (SIDE - side)
    return left, top, left + side, top + side


def _numbers(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture).astype(float)


def _picture(numbers: np.ndarray) -> Image.Image:
    return Image.fromarray(numbers.round().clip(0, 255).astype(np.uint8))
