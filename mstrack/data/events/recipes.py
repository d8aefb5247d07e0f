"""The recipes that paint a window of events into a frame, H x W x 3 uint8 in RGB order.

Painters take events in pieces, so that a window of any length needs no more memory than the frame. An event is given as its
time and its `code`: 2 * (y * width + x) + (1 if ON else 0).
"""

import struct
import zlib
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from mstrack.errors import UserError
from mstrack.registry import unknown

Image = NDArray[np.uint8]

BLANK, ON, OFF = (255, 255, 255), (220, 30, 30), (30, 30, 200)
"""RGB colours of the VisEvent and COESOT scripts: canvas, brighter, darker."""
PARTS = 3
"""Of a window, one per channel, in `stack3` and `voxel`."""
GREY = 127
PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1]
FLAT_PNG = [*PNG, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
if hasattr(cv2, "IMWRITE_PNG_FILTER"):
    FLAT_PNG += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE]  # a third of the time for painted images


class Painter(Protocol):
    """Paints one window after the other."""

    def __init__(self, width: int, height: int) -> None: ...

    def start(self, begin: int, end: int) -> None:
        """Begin the window [begin, end) in microseconds on an empty canvas."""

    def add(self, t: NDArray[np.int64], code: NDArray[np.int64]) -> None:
        """Paint N events of the window, not earlier than those before."""

    def finish(self) -> Image:
        """The frame, H x W x 3 uint8, the caller's own."""


def _palette() -> NDArray[np.uint32]:
    """RGBA for each pair of bytes (saw OFF, saw ON) read as one number; OFF was painted last."""
    palette = np.zeros((1 << 16, 4), np.uint8)
    for pair, colour in (((0, 0), BLANK), ((0, 1), ON), ((1, 0), OFF), ((1, 1), OFF)):
        palette[np.array(pair, np.uint8).view(np.uint16)[0], :3] = colour
    return palette.view(np.uint32)[:, 0]


PALETTE = _palette()


class ColourPainter:
    """Red where a pixel became brighter in the window, blue where it became darker (or both), else white."""

    def __init__(self, width: int, height: int) -> None:
        self.shape = (height, width)
        self.seen = np.zeros(2 * width * height, np.uint8)

    def start(self, begin: int, end: int) -> None:
        """See `Painter`."""
        self.seen[:] = 0

    def add(self, t: NDArray[np.int64], code: NDArray[np.int64]) -> None:
        """See `Painter`."""
        self.seen[code] = 1

    def finish(self) -> Image:
        """See `Painter`."""
        colours = PALETTE[self.seen.view(np.uint16)].view(np.uint8)
        return cv2.cvtColor(colours.reshape(*self.shape, 4), cv2.COLOR_RGBA2RGB, dst=np.empty((*self.shape, 3), np.uint8))  # type: ignore[return-value]


class StackPainter:
    """One channel for each third of the window: grey, 0 where the last event was ON, 255 where it was OFF.

    The rule of FE108's stacks, whose script also takes the starts of the frames as bounds. Not copied from it: the omission of
    pixels with x = 0 or y = 0. The first third is the red channel.
    """

    def __init__(self, width: int, height: int) -> None:
        self.canvas = np.empty((height, width, PARTS), np.uint8)

    def start(self, begin: int, end: int) -> None:
        """See `Painter`."""
        self.canvas[:] = GREY
        self.edges = np.linspace(begin, end, PARTS + 1)[1:-1]

    def add(self, t: NDArray[np.int64], code: NDArray[np.int64]) -> None:
        """See `Painter`."""
        place = (code >> 1) * PARTS
        for first in np.searchsorted(t, self.edges):
            place[first:] += 1
        # Where an index repeats, NumPy keeps the last value. ON: 0; OFF: -1, which is 255.
        self.canvas.reshape(-1)[place] = ((code & 1) - 1).astype(np.uint8)

    def finish(self) -> Image:
        """See `Painter`."""
        return self.canvas.copy()


class VoxelPainter:
    """Sums of polarities (+1, -1) in three moments of the window, each event shared bilinearly by the two nearest.

    The event volume of Zhu et al. (CVPR 2019), with the window's bounds in place of the first and last event. A frame is
    scaled by its largest magnitude to 0..255, zero to 127. It has nothing to do with COESOT's `_voxel/*.mat`, lists of points
    for another network.
    """

    def __init__(self, width: int, height: int) -> None:
        self.shape = (height, width, PARTS)
        self.sums = np.zeros(width * height * PARTS, np.int64)

    def start(self, begin: int, end: int) -> None:
        """See `Painter`."""
        self.sums[:] = 0
        self.begin, self.length = begin, max(end - begin, 1)

    def add(self, t: NDArray[np.int64], code: NDArray[np.int64]) -> None:
        """See `Painter`."""
        # Weights times `length` are whole numbers, so that sums are exact in whatever pieces the events come.
        half = np.searchsorted(t, self.begin + -(-self.length // 2))
        for moment, part in enumerate((slice(None, half), slice(half, None))):
            polarity = 2 * (code[part] & 1) - 1
            place = (code[part] >> 1) * PARTS + moment
            later = (2 * (t[part] - self.begin) - moment * self.length) * polarity
            np.add.at(self.sums, place, polarity * self.length - later)
            np.add.at(self.sums, place + 1, later)

    def finish(self) -> Image:
        """See `Painter`."""
        largest = max(int(self.sums.max()), -int(self.sums.min()), 1)
        frame = self.sums + float(largest)
        frame *= 255
        frame /= 2 * largest
        return frame.astype(np.uint8).reshape(self.shape)


@dataclass(frozen=True)
class Recipe:
    """How frames are made of events.

    Attributes:
        name: As in `RECIPES`.
        window: `exposure`: from the start to the end of a frame's exposure; `interval`: from a frame to the next.
        painter: The class that paints.
        colours: The only ones in its frames, which differ in red; empty: any.
        parameters: What is written beside the frames.
        version: Goes up whenever the same events give another frame.
    """

    name: str
    window: str
    painter: type[Painter]
    colours: tuple[tuple[int, int, int], ...]
    parameters: dict[str, Any]
    version: int = 1

    def describe(self) -> dict[str, Any]:
        """The recipe as JSON."""
        return {"name": self.name, "version": self.version, "window": self.window, **self.parameters}


_COLOURS = {"canvas": list(BLANK), "on": list(ON), "off": list(OFF), "order": "OFF over ON"}
RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("exposure", "exposure", ColourPainter, (BLANK, ON, OFF), _COLOURS),
        Recipe("interval", "interval", ColourPainter, (BLANK, ON, OFF), _COLOURS),
        Recipe(
            "stack3", "interval", StackPainter, (), {"parts": PARTS, "canvas": GREY, "on": 0, "off": 255, "order": "last event"}
        ),
        Recipe("voxel", "interval", VoxelPainter, (), {"bins": PARTS, "zero": GREY, "scale": "largest magnitude of the frame"}),
    )
}
"""`exposure` is the rule of the VisEvent and COESOT scripts, `interval` the paper's, `stack3` FE108's."""


def find_recipe(name: str) -> Recipe:
    """A recipe by its name.

    Raises:
        UserError: There is none of that name.
    """
    if name not in RECIPES:
        raise UserError(unknown("recipe for event frames", name, RECIPES))
    return RECIPES[name]


def encode(image: NDArray[Any], recipe: Recipe | None = None) -> bytes:
    """A PNG file of H x W, H x W x 3 (RGB) or x 4 (RGBA), 8 or 16 bits: of a camera, or painted by a recipe.

    With few colours it has a palette, two bits per pixel: half the time to write and to read, half the size.
    """
    if recipe is not None and recipe.colours:
        return _encode_indices(image, recipe.colours)
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR if image.shape[2] == 3 else cv2.COLOR_RGBA2BGRA)
    return cv2.imencode(".png", image, FLAT_PNG if recipe else PNG)[1].tobytes()


def _encode_indices(image: Image, colours: tuple[tuple[int, int, int], ...]) -> bytes:
    height, width = image.shape[:2]
    table = np.zeros(256, np.uint8)
    table[[red for red, _, _ in colours]] = np.arange(len(colours))
    indices = np.zeros((height, -(-width // 4) * 4), np.uint8)
    indices[:, :width] = cv2.LUT(cv2.extractChannel(image, 0), table)
    rows = np.zeros((height, 1 + indices.shape[1] // 4), np.uint8)  # each begins with 0, no filter
    for place in range(4):
        rows[:, 1:] |= indices[:, place::4] << (6 - 2 * place)
    header = struct.pack(">IIBBBBB", width, height, 2, 3, 0, 0, 0)  # two bits, palette
    palette = bytes(value for colour in colours for value in colour)
    chunks = ((b"IHDR", header), (b"PLTE", palette), (b"IDAT", zlib.compress(rows.tobytes(), 1)), (b"IEND", b""))
    parts = (struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
