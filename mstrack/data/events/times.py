"""When the frames of a recording are, and so which window of events belongs to each."""

import math
from collections.abc import Sequence as List
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mstrack.data.events.recipes import Recipe
from mstrack.data.events.types import CameraFrame, DamagedFileError, Intake, Recording
from mstrack.data.imagefiles import FrameFile, decode
from mstrack.errors import UserError, warn

MOST_BLANK = 100_000
"""More frames than this without an event, where frames are cut by a rate, come from a damaged time."""


@dataclass(frozen=True)
class Timing:
    """When the frames are, where the recording has no frames of its own, or others are wanted.

    Attributes:
        times: Text file, a frame per line: its time in microseconds, or start and end of its exposure.
        fps: Frames per second from the first event on.
        frames: How many colour frames the recording goes with: at a rate, no more windows than these are made.
        size: Their width and height in pixels, for a recording that does not state its own.
    """

    times: Path | None = None
    fps: float | None = None
    frames: int | None = None
    size: tuple[int, int] | None = None

    @property
    def given(self) -> bool:
        """Whether the frames are at other times than those that the recording has."""
        return self.times is not None or self.fps is not None

    def beside(self, colour: List[FrameFile]) -> "Timing":
        """The same, for a recording that goes with these colour frames.

        Raises:
            UserError: The first of them cannot be read.
        """
        height, width = decode(colour[0], cv2.IMREAD_UNCHANGED).shape[:2]
        return replace(self, frames=None if self.fps is None else len(colour), size=(width, height))

    def describe(self) -> dict[str, Any]:
        """What of `frames` and `size` is known."""
        return {name: value for name, value in (("frames", self.frames), ("size", self.size and [*self.size])) if value}

    def __post_init__(self) -> None:
        if self.times is not None and self.fps is not None:
            raise UserError(
                f"frame times were given twice, as the file {self.times} and as {self.fps} frames per second: give one."
            )
        if self.fps is not None and not (math.isfinite(self.fps) and 0 < self.fps <= 1e5):
            raise UserError(f"{self.fps} frames per second were given; expected a number above 0 and up to 100000.")


def read_times(path: Path) -> NDArray[np.int64]:
    """A text file with the times of frames -> (N, 1) or (N, 2) microseconds: time, or start and end; `#` begins a comment.

    Raises:
        UserError: No such file, no lines, a line that is no time, or times that jump back (with file and line number).
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"frame times {path} cannot be read: {getattr(error, 'strerror', None) or 'no text file'}.") from error
    rows: list[list[int]] = []
    for number, line in enumerate(lines, start=1):
        words = line.split("#")[0].replace(",", " ").replace(";", " ").split()
        if not words:
            continue
        try:
            row = [int(word) if word.lstrip("+-").isdigit() else round(float(word)) for word in words]
        except (ValueError, OverflowError):
            row = []
        if len(row) not in (1, 2) or (rows and len(row) != len(rows[0])):
            raise UserError(
                f"{path}, line {number}: '{line.strip()[:80]}' is no time; expected microseconds, or start and end."
            )
        if rows and row[0] < rows[-1][0]:
            raise UserError(f"{path}, line {number}: the times of the frames jump back from {rows[-1][0]} to {row[0]}.")
        rows.append(row)
    if not rows:
        raise UserError(f"frame times {path} is empty.")
    return np.array(rows, np.int64)


class UnknownTimesError(UserError):
    """A recording does not say when its frames are; `finding` is that alone, the message also what to do."""

    def __init__(self, finding: str) -> None:
        super().__init__(
            f"{finding}. Give a text file with the time of each frame, in microseconds, a line each (--times, times=...), or a"
            " frame rate (--fps, fps=...)."
        )
        self.finding = finding


class Windows:
    """The windows of the frames, as far as they are known."""

    def __init__(self, recording: Recording, recipe: Recipe, timing: Timing) -> None:
        self.recording, self.timing = recording, timing
        self.exposure = recipe.window == "exposure"
        self.begins: list[int] = []
        self.ends: list[int] = []
        self.last: int | None = None
        self.complete = self.damaged = False
        if not {"events", "frame"} & set(recording.streams):
            raise UserError(f"recording {recording.path} holds neither events nor frames, only {_list(recording.streams)}.")
        if timing.times is not None:
            rows = read_times(timing.times)
            if self.exposure and rows.shape[1] == 1:
                raise UserError(
                    f"recipe 'exposure' needs start and end of each frame's exposure, two columns; {timing.times} has one."
                    " Use the recipe 'interval'."
                )
            self.begins, self.ends = rows[:, 0].tolist(), rows[:, -1].tolist()
        elif timing.fps is not None:
            if self.exposure:
                raise UserError(
                    "recipe 'exposure' needs the frames' exposures, not a rate: use 'interval', or a file of times."
                )
        elif "frame" not in recording.streams:
            raise UnknownTimesError(
                f"recording {recording.path} holds no frames, only {_list(recording.streams)}, so the times of the frames are"
                " not known"
            )

    def add(self, frame: CameraFrame) -> None:
        """The recording's own frame, in its order."""
        if self.complete or self.timing.given:
            return
        begin, end = frame.exposure if self.exposure else (frame.begin, frame.begin)
        if self.begins and begin < self.begins[-1]:
            raise UnknownTimesError(
                f"recording {self.recording.path}: the times of the frames jump back, from {self.begins[-1]} to {begin} at"
                f" frame {frame.index}"
            )
        self.begins.append(begin)
        self.ends.append(end)

    def reach(self, t: NDArray[np.int64]) -> None:
        """Add the frames of a given rate up to the last of these times of events."""
        fps = self.timing.fps
        if fps is None or self.complete or self._has_all() or not len(t):
            return
        if not self.begins:
            self.begins.append(int(t[0]))
        gap = int(np.diff(t, prepend=self.begins[-1]).max())
        if gap * fps / 1e6 > MOST_BLANK:
            raise UserError(
                f"recording {self.recording.path}: the times of its events jump ahead by {gap / 1e6:.0f} s, over more than"
                f" {MOST_BLANK} frames. It is damaged; give the times of its frames (--times, times=...)."
            )
        while (begin := self._begin(len(self.begins))) <= t[-1] and not self._has_all():
            self.begins.append(begin)

    def _begin(self, index: int) -> int:
        """When a frame of the given rate begins."""
        return self.begins[0] + round(index * 1e6 / (self.timing.fps or 1))

    def _has_all(self) -> bool:
        """Whether there is a window for each colour frame, where these are counted."""
        return self.timing.fps is not None and self.timing.frames is not None and len(self.begins) >= self.timing.frames

    def look_ahead(self) -> None:
        """Read the file once more, for its frames, where they come much later than the events."""
        intake = Intake(self.recording.width, self.recording.height)
        known = len(self.begins)
        try:
            for packet in self.recording.packets(quiet=True):
                if not isinstance(packet, CameraFrame):
                    self.reach(intake.clean(packet)[0])
                elif packet.index >= known:
                    self.add(packet)
        except DamagedFileError:
            self.cut(intake)
        self.finish(intake)

    def cut(self, intake: Intake) -> None:
        """Forget given frames that a damaged file does not reach."""
        self.damaged = True
        if self.timing.times is not None and not self.complete:
            self.begins = [begin for begin in self.begins if intake.latest is not None and begin <= intake.latest]

    def finish(self, intake: Intake) -> None:
        """No more frames come, and no more events."""
        if not self.complete:
            self.last, self.complete = intake.latest, True
            self._count()
        if not self.begins and not self.timing.given and intake.latest is not None:
            raise UnknownTimesError(
                f"recording {self.recording.path} holds no frames, only events, so the times of the frames are not known"
            )

    def _count(self) -> None:
        """Compare the windows of a given rate with the colour frames; one that lacks at the end, without an event, is added."""
        wanted, path = self.timing.frames, str(self.recording.path)
        if self.timing.fps is None or wanted is None or not self.begins or self.last is None:
            return
        if len(self.begins) == wanted - 1 and not self.damaged:
            self.begins.append(self._begin(wanted - 1))
        windows = len(self.begins)
        if self.last >= self._begin(windows):
            windows = math.floor((self.last - self.begins[0]) * self.timing.fps / 1e6) + 1
        if windows != wanted:
            rest = "the surplus is left out" if windows > wanted else "the last colour frames have none"
            text = (
                f"its events last for {windows} frames at {self.timing.fps:g} per second, beside {wanted} colour frames: {rest}"
            )
            warn(path, "pairs", text)

    def find(self, index: int) -> tuple[int, int] | None:
        """The [begin, end) of a window; None where it is not known yet, or there is none."""
        if index >= len(self.begins):
            return None
        begin = self.begins[index]
        if self.exposure:
            return begin, self.ends[index]
        if index + 1 < len(self.begins):
            return begin, self.begins[index + 1]
        if self._has_all():
            return begin, self._begin(index + 1)
        if not self.complete:
            return None
        end = begin if self.last is None else self.last + 1
        if len(self.begins) > 1:
            end = min(end, begin + math.ceil(np.median(np.diff(self.begins))))
        return begin, max(begin, end)

    def next_begin(self, index: int) -> float:
        """The earliest time that a window after `index` can begin at."""
        if index + 1 < len(self.begins):
            return self.begins[index + 1]
        return math.inf if self.complete or self._has_all() else self.begins[index]

    def exhausted(self, index: int) -> bool:
        """Whether no window is left from `index` on."""
        return index >= len(self.begins) and (self.complete or self.timing.times is not None or self._has_all())


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "nothing"
