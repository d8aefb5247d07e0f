"""From a recording to its event frames in order, in one pass and bounded memory."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mstrack.data.events.files import open_recording
from mstrack.data.events.recipes import Image, Painter, Recipe, find_recipe
from mstrack.data.events.times import Timing, Windows
from mstrack.data.events.types import CameraFrame, DamagedFileError, Intake, Recording
from mstrack.errors import UserError, warn

MOST_PENDING = 1 << 22
"""Events that wait for the end of their window to be known."""


@dataclass(frozen=True)
class EventPicture:
    """Frame `index` of a recording: `image` (H x W x 3 uint8, RGB), painted of `events` events of its window, from `begin`."""

    index: int
    image: Image
    events: int
    begin: int


def paint(
    recording: Recording, recipe: Recipe, timing: Timing | None = None, *, keep_partial: bool = False
) -> Iterator[EventPicture | CameraFrame]:
    """Paint the event frames of a recording in order, one for each frame; camera frames pass through as they are met.

    What is untidy (events outside the sensor, times that jump back, windows without events) is told in a `DataWarning` each.

    Args:
        recording: The opened file.
        recipe: Of `recipes.RECIPES`.
        timing: When the frames are; None: as the recording's own frames say.
        keep_partial: End a damaged recording with a warning, not an error.

    Raises:
        UserError: The times of the frames are not known, or jump back.
        DamagedFileError: After the last frame that could be made, without `keep_partial`.
    """
    name = str(recording.path)
    windows = Windows(recording, recipe, timing or Timing())
    intake = Intake(recording.width, recording.height)
    easel = _Easel(windows, recipe.painter(recording.width, recording.height))
    try:
        for packet in recording.packets():
            if isinstance(packet, CameraFrame):
                windows.add(packet)
                yield packet
            else:
                t, code = intake.clean(packet)
                easel.add(t, code)
                windows.reach(t)
                if easel.size > MOST_PENDING and not windows.complete:
                    windows.look_ahead()
            if intake.latest is not None:
                yield from easel.work(intake.latest)
    except DamagedFileError as error:
        if not keep_partial:
            raise
        warn(name, "cut", f"{error.finding}; what is before that was kept")
        windows.cut(intake)
    windows.finish(intake)
    yield from easel.work(math.inf)
    if not easel.index:
        raise UserError(f"recording {name} gives no frame: it holds neither frames nor events that could be used.")
    intake.tell(name)
    _warn_blank(name, recording, recipe, easel.blank, easel.index)


class _Easel:
    """Keeps events until the window they belong to is known, and paints one window after the other."""

    def __init__(self, windows: Windows, painter: Painter) -> None:
        self.windows, self.painter = windows, painter
        self.blocks: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
        self.size = 0
        self.index = 0
        self.blank: list[int] = []
        self._painted_to: int | None = None
        self._painted = 0

    def add(self, t: NDArray[np.int64], code: NDArray[np.int64]) -> None:
        """Take in events, not earlier than those before."""
        if len(t):
            self.blocks.append((t, code))
            self.size += len(t)

    def work(self, ready: float) -> Iterator[EventPicture]:
        """Paint the windows that end by `ready`, before which no event will come any more; drop what nobody needs."""
        while (window := self.windows.find(self.index)) is not None:
            begin, end = window
            if end > ready and self.size <= MOST_PENDING:
                return
            if self._painted_to is None:
                self.painter.start(begin, end)
                self._painted_to, self._painted = begin, 0
            until = end if end <= ready else int(ready)
            for t, code in self._between(self._painted_to, until):
                self.painter.add(t, code)
                self._painted += len(t)
            self._painted_to = max(self._painted_to, until)
            self._drop(min(self._painted_to, self.windows.next_begin(self.index)))
            if end > ready:
                return
            if not self._painted:
                self.blank.append(self.index)
            yield EventPicture(self.index, self.painter.finish(), self._painted, begin)
            self.index, self._painted_to = self.index + 1, None
        if self.windows.exhausted(self.index):
            self._drop(math.inf)

    def _between(self, begin: int, end: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        for t, code in self.blocks:
            if t[0] >= end:
                return
            first, last = np.searchsorted(t, (begin, end))
            if first < last:
                yield t[first:last], code[first:last]

    def _drop(self, before: float) -> None:
        """Let go of the blocks that are earlier than `before`."""
        gone = 0
        for t, _ in self.blocks:
            if t[-1] >= before:
                break
            gone += 1
            self.size -= len(t)
        del self.blocks[:gone]


def _warn_blank(name: str, recording: Recording, recipe: Recipe, blank: list[int], count: int) -> None:
    if not blank:
        return
    if "events" not in recording.streams:
        text = f"it holds no events, only {', '.join(recording.streams)}: all {count} frames are blank"
    else:
        text = f"{len(blank)} of {count} frames are blank: no event in their windows (first: frame {blank[0]})"
        if recipe.window == "exposure" and 2 * len(blank) > count:
            text += "; the exposures of this recording miss its events: use the recipe 'interval'"
    warn(name, "blank", text)


def stream(path: Path | str, recipe: str) -> Iterator[tuple[Image, Image]]:
    """(camera frame, event frame) of a recording in order, both H x W x 3 uint8 in RGB order; memory does not grow.

    Grey is repeated to three channels, of 16 bits the upper eight are taken.

    Raises:
        UserError: The recording cannot be used, or has no camera frames.
        DamagedFileError: After the last frame before the damage.
    """
    recording = open_recording(path)
    if "frame" not in recording.streams:
        raise UserError(f"recording {path} holds no camera frames, only {', '.join(recording.streams)}: a tracker needs them.")
    # Read twice: wherever the file keeps its frames, none of them has to wait in memory for its events.
    pictures = (item for item in paint(recording, find_recipe(recipe)) if isinstance(item, EventPicture))
    shots = (item for item in recording.packets(quiet=True) if isinstance(item, CameraFrame))
    for picture, shot in zip(pictures, shots, strict=False):
        yield _to_rgb(shot.pixels), picture.image


def _to_rgb(pixels: np.ndarray) -> Image:
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    return np.repeat(pixels[..., None], 3, axis=-1) if pixels.ndim == 2 else np.ascontiguousarray(pixels[..., :3])
