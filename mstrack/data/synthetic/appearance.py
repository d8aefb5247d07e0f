"""What things of the embedded benchmark look like: textures, palettes, and the sprites of its objects."""

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[Any]
"""A picture or one of its channels, float32."""
OVERSAMPLING = 4

Part = tuple[str, tuple[float, ...], str, float]
"""`disc` (x, y, radius x, radius y) or `area` (x, y, x, y, ...) in a unit square; paint (`body`, `trim`, `dark`); warmth."""

SHAPES: dict[str, tuple[float, tuple[Part, ...]]] = {
    "person": (
        0.42,
        (
            ("area", (0.18, 0.5, 0.48, 0.5, 0.44, 1.0, 0.2, 1.0), "trim", 0.55),
            ("area", (0.52, 0.5, 0.82, 0.5, 0.8, 1.0, 0.56, 1.0), "trim", 0.55),
            ("area", (0.02, 0.24, 0.98, 0.24, 0.88, 0.58, 0.12, 0.58), "body", 0.75),
            ("disc", (0.5, 0.12, 0.28, 0.12), "dark", 1.0),
        ),
    ),
    "car": (
        1.7,
        (
            ("area", (0.2, 0.4, 0.34, 0.05, 0.7, 0.05, 0.84, 0.4), "trim", 0.35),
            ("area", (0.0, 0.4, 1.0, 0.36, 1.0, 0.8, 0.0, 0.8), "body", 0.6),
            ("area", (0.74, 0.4, 1.0, 0.4, 1.0, 0.7, 0.74, 0.7), "body", 1.0),
            ("disc", (0.22, 0.82, 0.11, 0.18), "dark", 0.95),
            ("disc", (0.78, 0.82, 0.11, 0.18), "dark", 0.95),
        ),
    ),
    "ball": (
        1.0,
        (
            ("disc", (0.5, 0.5, 0.5, 0.5), "body", 0.7),
            ("area", (0.07, 0.36, 0.93, 0.28, 0.95, 0.5, 0.03, 0.6), "trim", 0.9),
        ),
    ),
    "animal": (
        1.45,
        (
            ("area", (0.12, 0.5, 0.24, 0.5, 0.22, 1.0, 0.12, 1.0), "dark", 0.5),
            ("area", (0.34, 0.5, 0.44, 0.5, 0.42, 1.0, 0.33, 1.0), "dark", 0.5),
            ("area", (0.54, 0.5, 0.64, 0.5, 0.66, 1.0, 0.56, 1.0), "dark", 0.5),
            ("disc", (0.4, 0.45, 0.4, 0.27), "body", 0.8),
            ("disc", (0.84, 0.22, 0.16, 0.22), "trim", 1.0),
        ),
    ),
    "crate": (
        1.1,
        (
            ("area", (0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0), "body", 0.6),
            ("area", (0.12, 0.14, 0.88, 0.14, 0.88, 0.44, 0.12, 0.44), "trim", 0.9),
            ("area", (0.12, 0.58, 0.88, 0.58, 0.88, 0.86, 0.12, 0.86), "dark", 0.5),
        ),
    ),
    "van": (
        0.62,
        (
            ("area", (0.08, 0.0, 0.92, 0.0, 1.0, 0.1, 1.0, 1.0, 0.0, 1.0, 0.0, 0.1), "body", 0.6),
            ("area", (0.12, 0.12, 0.88, 0.12, 0.8, 0.3, 0.2, 0.3), "dark", 0.3),
            ("area", (0.2, 0.4, 0.8, 0.4, 0.8, 0.86, 0.2, 0.86), "trim", 0.75),
            ("area", (0.1, 0.0, 0.9, 0.0, 0.9, 0.1, 0.1, 0.1), "body", 1.0),
        ),
    ),
    "boat": (
        1.5,
        (
            ("area", (0.0, 0.58, 1.0, 0.58, 0.84, 1.0, 0.14, 1.0), "body", 0.55),
            ("area", (0.26, 0.24, 0.66, 0.24, 0.72, 0.6, 0.22, 0.6), "trim", 0.85),
            ("area", (0.44, 0.0, 0.58, 0.0, 0.58, 0.26, 0.44, 0.26), "dark", 1.0),
        ),
    ),
    "kite": (
        0.85,
        (
            ("area", (0.5, 0.0, 1.0, 0.4, 0.5, 1.0, 0.0, 0.4), "body", 0.7),
            ("area", (0.5, 0.0, 1.0, 0.4, 0.5, 0.42), "trim", 0.9),
            ("area", (0.0, 0.4, 0.5, 0.42, 0.5, 1.0), "dark", 0.45),
        ),
    ),
}
"""Width over height, and the parts from back to front."""


@dataclass(frozen=True)
class Sprite:
    """An object to be drawn. Everything but `hull` is multiplied by the opacity.

    Attributes:
        colour: (h, w, 4) red, green, blue, opacity in [0, 1].
        warmth: (h, w), 1 at the hottest part.
        hull: (P, 2) convex outline of what is more than half opaque, pixels from the centre of the sprite.
    """

    colour: Field
    warmth: Field
    hull: Field

    @property
    def opacity(self) -> Field:
        """(h, w) in [0, 1]."""
        return self.colour[..., 3]


def make_noise(rng: np.random.Generator, height: int, width: int, grain: float, octaves: int = 3) -> Field:
    """(height, width) smooth noise in [0, 1] whose largest features measure about `grain` pixels."""
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        cell = max(grain / 2**octave, 1.0)
        rows, columns = math.ceil(height / cell) + 2, math.ceil(width / cell) + 2
        grid = rng.random((rows, columns), dtype=np.float32)
        enlarged = cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        total += enlarged * np.float32(0.5**octave)
    total -= total.min()
    return total / max(total.max(), np.float32(1e-6))


def make_texture(rng: np.random.Generator, kind: str, side: int, grain: float) -> Field:
    """(side, side) in [0, 1]: `blotches`, `stripes`, `bricks`, `foliage` or `asphalt`."""
    noise = make_noise(rng, side, side, grain)
    y, x = np.mgrid[:side, :side].astype(np.float32)
    match kind:
        case "blotches":
            return noise
        case "stripes":
            angle, period = rng.uniform(0, np.pi), grain * rng.uniform(0.4, 0.8)
            along = (x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))) / np.float32(period)
            return 0.5 + 0.35 * np.sin(2 * np.pi * along + 3 * noise) + 0.15 * noise
        case "bricks":
            height = max(4, round(grain / 3))
            width, row = 2 * height, y // height
            column = (x + (row % 2) * height) // width
            shades = rng.random((side // height + 2, side // width + 3), dtype=np.float32)
            shade = shades[row.astype(int), column.astype(int)]
            mortar = (y % height < 1) | ((x + (row % 2) * height) % width < 1)
            return np.where(mortar, np.float32(0), 0.3 + 0.5 * shade + 0.2 * noise)
        case "foliage":
            leaves = make_noise(rng, side, side, grain / 4, octaves=2)
            return 1 / (1 + np.exp(-9 * (0.7 * leaves + 0.3 * noise - 0.5)))
        case _:
            speckle = make_noise(rng, side, side, 2, octaves=1)
            return 0.75 * noise + 0.25 * speckle


def pick_colour(rng: np.random.Generator, hue: tuple[float, float], saturation: tuple[float, float]) -> Field:
    """(3,) red, green, blue in [0, 1] of medium to high value."""
    hsv = [rng.uniform(*hue) % 360, rng.uniform(*saturation), rng.uniform(0.35, 0.95)]
    return cv2.cvtColor(np.array([[hsv]], np.float32), cv2.COLOR_HSV2RGB)[0, 0]


def paint(texture: Field, colours: list[Field]) -> Field:
    """(H, W) in [0, 1] -> (H, W, 3), through the colours from 0 to 1."""
    stops = np.linspace(0, 1, len(colours))
    steps = np.linspace(0, 1, 256)
    table = np.stack([np.interp(steps, stops, channel) for channel in np.transpose(colours)], axis=-1)
    return table.astype(np.float32)[(texture * 255).clip(0, 255).astype(np.uint8)]


def make_sprite(rng: np.random.Generator, shape: str, size: float, paints: dict[str, Field]) -> Sprite:
    """Draw a shape whose box has an area of about size x size pixels; `paints` holds `body`, `trim` and `dark`."""
    aspect, parts = SHAPES[shape]
    width, height = size * math.sqrt(aspect), size / math.sqrt(aspect)
    w, h = round(width * OVERSAMPLING), round(height * OVERSAMPLING)
    border = 2 * OVERSAMPLING
    canvas = [math.ceil((n + 2 * border) / OVERSAMPLING) * OVERSAMPLING for n in (h, w)]
    drawing = np.zeros((*canvas, 4), np.float32)
    warmth = np.zeros(canvas, np.float32)
    for kind, numbers, name, warm in parts:
        points = np.array(numbers).reshape(-1, 2) * (w - 1, h - 1)
        stencil = np.zeros(canvas, np.uint8)
        if kind == "disc":
            centre, radii = np.rint(points + np.array([[border], [0]])).astype(int).tolist()
            cv2.ellipse(stencil, centre, radii, 0, 0, 360, 1, -1)
        else:
            cv2.fillPoly(stencil, [np.rint(points + border).astype(np.int32)], 1)
        inside = stencil.astype(bool)
        drawing[inside] = (*paints[name], 1)
        warmth[inside] = warm
    drawing[..., :3] *= 0.75 + 0.5 * make_noise(rng, canvas[0], canvas[1], size, octaves=2)[..., None]
    return _finish(np.minimum(drawing, 1), warmth)


def make_pillar(width: float, height: int, surface: Field) -> Sprite:
    """An upright bar that hides what is behind it, cut from the (H, W, 3) picture `surface`; it is not warm."""
    w = round(width * OVERSAMPLING)
    border = OVERSAMPLING
    picture = cv2.resize(surface, (w, height * OVERSAMPLING))
    columns = math.ceil((w + 2 * border) / OVERSAMPLING) * OVERSAMPLING
    drawing = np.zeros((height * OVERSAMPLING, columns, 4), np.float32)
    shade = 0.6 + 0.4 * np.sin(np.linspace(0.2, np.pi - 0.2, w, dtype=np.float32))
    drawing[:, border : border + w, :3] = picture * shade[:, None]
    drawing[:, border : border + w, 3] = 1
    return _finish(drawing, np.zeros(drawing.shape[:2], np.float32))


def _finish(drawing: Field, warmth: Field) -> Sprite:
    """Reduce an oversampled drawing and find its outline."""
    rows, columns = (n // OVERSAMPLING for n in warmth.shape)
    small = cv2.resize(drawing, (columns, rows), interpolation=cv2.INTER_AREA)
    warm = cv2.resize(warmth, (columns, rows), interpolation=cv2.INTER_AREA)
    fine = cv2.resize(small[..., 3], None, fx=8, fy=8, interpolation=cv2.INTER_LINEAR)
    outlines, _ = cv2.findContours((fine > 0.5).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    points = cv2.convexHull(np.concatenate(outlines))[:, 0]
    hull = (points + 0.5) / 8 - (columns / 2, rows / 2)
    return Sprite(small, warm, hull.astype(np.float32))
