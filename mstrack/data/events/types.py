"""What a recording of an event camera is, blocks of events and camera frames in the order of the file, and what can be used."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mstrack.errors import UserError, warn

BLOCK = 1 << 17
"""Events that are handled at once: enough that Python's share of the time is small."""
MOST_PIXELS = 1 << 24


class Events(NamedTuple):
    """N events in the order of the file."""

    t: NDArray[np.integer]
    """Microseconds."""
    x: NDArray[np.integer]
    y: NDArray[np.integer]
    on: NDArray[np.bool_]
    """True: brighter (ON)."""


@dataclass(frozen=True)
class CameraFrame:
    """A frame of the recording's own camera; times in microseconds."""

    index: int
    begin: int
    """Start of the frame; of its exposure, or its timestamp, where the file does not say."""
    exposure: tuple[int, int]
    pixels: NDArray[Any]
    """H x W or H x W x 3 (RGB) or x 4 (RGBA), uint8; H x W uint16."""


class DamagedFileError(UserError):
    """A recording that cannot be read to its end; `finding` says why and how far, the message also what to do."""

    def __init__(self, finding: str) -> None:
        super().__init__(f"{finding}. Copy it again, or convert what is there (`mst data events --partial`, partial=True).")
        self.finding = finding

    def __reduce__(self) -> tuple[type, tuple[str, ...]]:
        return type(self), (self.finding,)


@dataclass(frozen=True)
class Recording:
    """A file that was opened, its header read.

    Attributes:
        path: The file.
        width: Of the sensor in pixels, likewise `height`.
        height: See `width`.
        streams: What it holds: `events`, `frame`, `imus`, `triggers`.
        read: Behind `packets`.
    """

    path: Path
    width: int
    height: int
    streams: tuple[str, ...]
    read: Callable[[bool], Iterator[Events | CameraFrame]]

    def packets(self, quiet: bool = False) -> Iterator[Events | CameraFrame]:
        """Read from the start: blocks of events and camera frames in the order of the file; `quiet`: without warnings.

        Raises:
            DamagedFileError: After the last readable one.
            UserError: The content is not what it should be.
        """
        return self.read(quiet)


def damage(path: Path, reason: str, events: int, frames: int) -> DamagedFileError:
    """The error of a file that cannot be read further than so many events and frames."""
    return DamagedFileError(f"recording {path} is damaged: {reason}, after {events} events and {frames} frames")


def check_size(path: Path, width: int, height: int) -> tuple[int, int]:
    """(width, height) of a sensor.

    Raises:
        UserError: There is no such sensor.
    """
    if not 0 < width * height <= MOST_PIXELS or width < 0:
        raise UserError(f"recording {path} is damaged: a sensor of {width} x {height} pixels. Copy it again.")
    return width, height


class Intake:
    """Leaves out what cannot be painted, and counts it."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.latest: int | None = None
        self.outside = self.disordered = self.total = 0

    def clean(self, events: Events) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(times, codes) of the events inside the sensor that are not earlier than one before."""
        t, x, y, on = events.t.astype(np.int64), *events[1:]
        self.total += len(t)
        if len(t) and (x.max() >= self.width or y.max() >= self.height or x.min() < 0 or y.min() < 0):
            inside = (x < self.width) & (y < self.height) & (x >= 0) & (y >= 0)
            t, x, y, on = t[inside], x[inside], y[inside], on[inside]
            self.outside += len(inside) - len(t)
        if len(t) and ((self.latest is not None and t[0] < self.latest) or (t[1:] < t[:-1]).any()):
            ordered = t >= np.maximum.accumulate(t if self.latest is None else np.maximum(t, self.latest))
            t, x, y, on = t[ordered], x[ordered], y[ordered], on[ordered]
            self.disordered += len(ordered) - len(t)
        if len(t):
            self.latest = int(t[-1])
        code = y.astype(np.int64)
        code *= self.width
        code += x.astype(np.int64, copy=False)
        code *= 2
        code += on
        return t, code

    def tell(self, name: str) -> None:
        """Tell what was left out."""
        if self.outside:
            text = (
                f"{self.outside} of {self.total} events lie outside the sensor of {self.width} x {self.height} pixels: left out"
            )
            warn(name, "outside", text)
        if self.disordered:
            text = f"the times of {self.disordered} of {self.total} events jump back: left out"
            warn(name, "order", text)
