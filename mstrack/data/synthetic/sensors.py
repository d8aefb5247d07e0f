"""The four cameras of the embedded benchmark: each turns a `Moment` into the image of its modality, faults included."""

import cv2
import numpy as np
from numpy.typing import NDArray

from mstrack.data.sequence import Image
from mstrack.data.synthetic.appearance import Field, make_noise
from mstrack.data.synthetic.looks import SIDE, Look
from mstrack.data.synthetic.scene import NORMAL_HEAT, Moment

BANK = SIDE + 64
MAX_RANGE = 8000.0
"""The depth camera measures nothing beyond, millimetres."""
DISPARITY = 3.2e5
"""Depth x disparity in millimetres x pixels of the depth camera; disparities are rounded to 1/4 pixel."""
ON, OFF, CANVAS = (30, 30, 220), (200, 30, 30), 255
"""Colours of an event frame in BGR, as VisEvent and COESOT publish them; OFF is painted last."""
DARKEST = 0.06
"""Added to an intensity before its logarithm: an event camera is blind far below it."""


class _Grain:
    """Gaussian noise for many frames: random windows of one bank, which is much cheaper than new numbers."""

    def __init__(self, rng: np.random.Generator, channels: int) -> None:
        self._rng = rng
        self._bank = rng.standard_normal((BANK, BANK, channels), dtype=np.float32).squeeze()

    def draw(self) -> Field:
        """(S, S) or (S, S, C), standard normal."""
        top, left = self._rng.integers(0, BANK - SIDE, 2)
        window = self._bank[top : top + SIDE, left : left + SIDE]
        return window[:: self._rng.choice((-1, 1)), :: self._rng.choice((-1, 1))]


class ColourCamera:
    """Low light, glare and blur happen here; camouflage is a property of the target."""

    def __init__(self, rng: np.random.Generator, look: Look, attributes: tuple[str, ...]) -> None:
        self._rng, self._grain = rng, _Grain(rng, 3)
        dark = "low_light" in attributes
        self._exposure = rng.uniform(*look.exposure) if dark else rng.uniform(0.85, 1.05)
        self._noise = rng.uniform(*(look.dark_noise if dark else look.clean_noise))
        self._glare = rng.uniform(*look.glare) if "glare" in attributes else 0.0
        self._radius = rng.uniform(*look.glare_radius)
        self._tint = rng.uniform((0.95, 0.85, 0.65), (1.0, 1.0, 1.0)).astype(np.float32)
        self._blurred = "blur" in attributes
        self._defocus, self._shake = rng.uniform(*look.defocus), rng.uniform(*look.shake)
        self._phase = rng.uniform(0, 2 * np.pi, 4)

    def capture(self, moment: Moment, t: int) -> Image:
        """(S, S, 3) uint8, RGB order."""
        p = self._phase
        image: Field = moment.colour * np.float32(self._exposure * (1 + 0.04 * np.sin(0.9 * t + p[0])))
        if self._glare:
            self._shine(image, moment, t)
        if self._blurred:
            sigma = self._defocus * (0.8 + 0.3 * np.sin(0.3 * t + p[3]))
            image = cv2.GaussianBlur(_smear(image, self._shake, 0.35 * t + p[3]), (0, 0), sigma)
        image += np.float32(self._noise) * self._grain.draw() * (0.6 + np.sqrt(np.clip(image, 0, 1)))
        return _to_bytes(image)

    def _shine(self, image: Field, moment: Moment, t: int) -> None:
        """A lamp or its reflection that moves with the target, never quite where it is, and is hidden with it."""
        p, box = self._phase, moment.box
        size = max(float(np.sqrt(box[2] * box[3])), 8.0)
        away = 0.6 * size * np.array([np.sin(0.13 * t + p[1]), np.cos(0.11 * t + p[2])])
        x, y = box[:2] + box[2:] / 2 + away
        reach = self._radius * size
        columns = (np.arange(SIDE, dtype=np.float32) - np.float32(x)) / np.float32(reach)
        rows = (np.arange(SIDE, dtype=np.float32) - np.float32(y)) / np.float32(reach)
        halo = np.exp(-rows * rows)[:, None] * np.exp(-columns * columns)[None]
        veil = 1 / (1 + 0.6 * (rows[:, None] ** 2 + columns[None] ** 2))
        streak = np.exp(-((5 * rows) ** 2))[:, None] * np.exp(-np.abs(0.8 * columns))[None]
        shown = moment.visible.sum() / max(moment.target.sum(), 1)
        strength = self._glare * (0.85 + 0.25 * np.sin(0.4 * t + p[3])) * (0.15 + 0.85 * shown)
        light = np.float32(strength) * (halo + 0.25 * veil + 0.3 * streak)
        image += light[..., None] * self._tint


class ThermalCamera:
    """A microbolometer: smooth, without texture, with column noise; its gain is set by what is in view."""

    def __init__(self, rng: np.random.Generator, look: Look, attributes: tuple[str, ...]) -> None:
        self._grain = _Grain(rng, 1)
        self._noise = rng.uniform(*look.heat_noise)
        self._columns = rng.normal(0, 0.5 * self._noise, SIDE).astype(np.float32)
        self._blur = rng.uniform(0.7, 1.2)
        self._gain, self._level = rng.uniform(0.85, 1.25), rng.uniform(0.25, 0.4)
        self._drift = rng.uniform(0, 2 * np.pi)
        if "thermal_crossover" in attributes:
            self._noise *= 1.5

    def capture(self, moment: Moment, t: int) -> Image:
        """(S, S) uint8, bright where warm."""
        heat = cv2.GaussianBlur(moment.heat, (0, 0), self._blur) - np.float32(NORMAL_HEAT)
        level = self._level + 0.02 * np.sin(0.05 * t + self._drift)
        image = heat * np.float32(self._gain) + np.float32(level) + self._columns
        return _to_bytes(image + np.float32(self._noise) * self._grain.draw())


class DepthCamera:
    """Stereo or structured light: noise that grows with depth, rounded disparities, shadows beside what is near, holes."""

    def __init__(self, rng: np.random.Generator, look: Look, attributes: tuple[str, ...]) -> None:
        self._rng, self._grain = rng, _Grain(rng, 1)
        self._noise = rng.uniform(*look.depth_noise)
        self._lost = "depth_holes" in attributes
        rate = rng.uniform(*(look.lost_rate if self._lost else look.hole_rate))
        self._patches = make_noise(rng, BANK, BANK, 26 if self._lost else 18)
        self._limit = np.float32(np.quantile(self._patches, 1 - rate))
        self._walk = np.cumsum(rng.normal(0, 1.5, (512, 2)), axis=0)

    def capture(self, moment: Moment, t: int) -> NDArray[np.uint16]:
        """(S, S) uint16 millimetres, 0 where nothing was measured."""
        depth = moment.depth
        disparity = np.float32(DISPARITY) / depth
        disparity += disparity * np.float32(self._noise) * self._grain.draw() * (depth / np.float32(4000))
        disparity = np.rint(disparity * 4) / 4
        measured = np.float32(DISPARITY) / np.maximum(disparity, np.float32(1))
        top, left = (32 + self._walk[t % 512]).clip(0, BANK - SIDE).astype(int)
        patches = self._patches[top : top + SIDE, left : left + SIDE] > self._limit
        rough = self._grain.draw()
        holes = patches & (rough > -1.5) | (rough > 2.6) | (measured > MAX_RANGE) | self._shadow(depth)
        if self._lost:
            near = cv2.blur(moment.visible, (13, 13)) + self._patches[top : top + SIDE, left : left + SIDE]
            holes |= (near > np.float32(0.62)) & (rough > -1)
        measured[holes] = 0
        return measured.astype(np.uint16)

    @staticmethod
    def _shadow(depth: Field) -> NDArray[np.bool_]:
        """What the second eye cannot see: a strip to the left of each edge to something nearer."""
        shadow = np.zeros(depth.shape, bool)
        for shift in (1, 2):
            shadow[:, :-shift] |= depth[:, :-shift] - depth[:, shift:] > 350 * shift
        return shadow


class EventCamera:
    """Pixels that fire when the logarithm of their intensity has changed since they last did: in the dark too, not at rest."""

    def __init__(self, rng: np.random.Generator, look: Look, attributes: tuple[str, ...]) -> None:
        self._rng, self._grain = rng, _Grain(rng, 1)
        threshold = rng.uniform(*look.event_threshold)
        self._threshold = threshold * (1 + 0.12 * rng.standard_normal((SIDE, SIDE), dtype=np.float32))
        self._rate = rng.uniform(*look.event_noise) * (2 if "low_light" in attributes else 1)
        self._level: Field | None = None

    def capture(self, moment: Moment) -> Image:
        """(S, S, 3) uint8 in BGR order: red where it became brighter, blue where darker, else white; all white at first."""
        grey = cv2.cvtColor(moment.colour, cv2.COLOR_RGB2GRAY)
        now = cv2.log(cv2.GaussianBlur(grey, (0, 0), 0.6) + np.float32(DARKEST))
        image = np.full((SIDE, SIDE, 3), CANVAS, np.uint8)
        if self._level is None:
            self._level = now
            return image
        change: Field = now - self._level
        change += np.float32(0.2) * self._threshold * self._grain.draw()
        noise = self._rng.random((SIDE, SIDE), dtype=np.float32)
        on, off = change > self._threshold, change < -self._threshold
        self._level = np.where(on | off, now, self._level)
        image[on | (noise < self._rate)] = ON
        image[off | (noise > 1 - self._rate)] = OFF
        return image


def _smear(image: Field, length: float, angle: float) -> Field:
    """Motion blur along a line of the given length and direction."""
    side = 2 * int(length / 2 + 1) + 1
    kernel = np.zeros((side, side), np.float32)
    half = length / 2 * np.array([np.cos(angle), np.sin(angle)])
    ends = np.rint((side // 2 + np.stack([-half, half])) * 16).astype(int)
    cv2.line(kernel, ends[0].tolist(), ends[1].tolist(), 1.0, 1, cv2.LINE_8, 4)
    return cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)


def _to_bytes(image: Field) -> Image:
    """[0, 1] -> 0 .. 255, rounded."""
    return (np.clip(image, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)
