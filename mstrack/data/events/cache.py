"""Event frames on the fly: references to the frames of a recording, which is rendered into a cache when one is asked for."""

import contextlib
from collections import abc
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, overload

from numpy.typing import NDArray

from mstrack.data.events.folders import convert_to, find_current, name_folders
from mstrack.data.events.recipes import find_recipe
from mstrack.data.events.times import Timing, UnknownTimesError
from mstrack.data.imagefiles import decode
from mstrack.errors import UserError
from mstrack.machine import cache_root

try:
    import fcntl
except ImportError:  # not on every system; without it several processes may render the same recording
    fcntl = None  # type: ignore[assignment]


@dataclass(frozen=True)
class EventFrame:
    """A frame of a recording that is painted when it is first asked for, together with all others of the recording.

    Attributes:
        source: The recording.
        recipe: A name of `recipes.RECIPES`.
        index: The number of the frame in the recording, from 0.
        timing: When the frames are.
    """

    source: Path
    recipe: str
    index: int
    timing: Timing = field(default_factory=Timing)

    def path(self) -> Path:
        """The PNG file of the frame: of the finished `events_<recipe>` beside the recording, else in the cache.

        The cache is `events` in `MST_CACHE`, or in `mstrack` of the user's cache. One process renders, others wait.

        Raises:
            UserError: The recording cannot be used, or has fewer frames.
        """
        try:
            folder, count = _render(self.source, self.recipe, self.timing)
        except UnknownTimesError as error:
            command = f"mst data events {self.source} --recipe {self.recipe} --times FILE"
            raise UserError(f"{error.finding}. Make its frames first: `{command}`, or --fps N.") from error
        if not 0 <= self.index < count:
            raise UserError(f"recording {self.source} has {count} frames, frame {self.index} (from 0) was asked for.")
        path = folder / f"{self.index:06d}.png"
        if not path.exists():
            _render.cache_clear()
            path = _render(self.source, self.recipe, self.timing)[0] / path.name
        return path

    def decode(self, flags: int) -> NDArray[Any]:
        """The frame as OpenCV decodes its file, in BGR order (`imagefiles.Reference`)."""
        return decode(self.path(), flags)

    def __str__(self) -> str:
        return f"{self.source.name}, frame {self.index}"


class EventFrames(abc.Sequence[EventFrame]):
    """References to `count` frames of a recording from frame `first` on; nothing is opened before a frame is asked for.

    Args:
        path: The recording.
        recipe: A name of `recipes.RECIPES`.
        count: Number of frames.
        first: Item 0 is this frame of the recording.
        timing: When the frames are; None: as the recording's own frames say.

    Raises:
        UserError: Unknown recipe.
    """

    def __init__(self, path: Path | str, recipe: str, count: int, first: int = 0, timing: Timing | None = None) -> None:
        find_recipe(recipe)
        self.source, self.recipe, self.timing = Path(path), recipe, timing or Timing()
        self.indices = range(first, first + count)

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, item: int) -> EventFrame: ...

    @overload
    def __getitem__(self, item: slice) -> "EventFrames": ...

    def __getitem__(self, item: int | slice) -> "EventFrame | EventFrames":
        if isinstance(item, slice):
            part = EventFrames(self.source, self.recipe, 0, timing=self.timing)
            part.indices = self.indices[item]
            return part
        return EventFrame(self.source, self.recipe, self.indices[item], self.timing)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EventFrames) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((self.source, self.recipe, self.timing, self.indices))

    def __repr__(self) -> str:
        return f"EventFrames({str(self.source)!r}, {self.recipe!r}, {self.indices})"


def render_frames(source: Path, recipe: str, timing: Timing) -> int:
    """Render a recording now, unless that was done; the number of its frames.

    Raises:
        UserError: The recording cannot be used.
        UnknownTimesError: Neither the recording nor `timing` says when the frames are.
    """
    return _render(source, recipe, timing)[1]


@lru_cache(maxsize=4096)
def _render(source: Path, recipe: str, timing: Timing) -> tuple[Path, int]:
    """(folder of finished frames, their number), rendered into the cache where there is none yet."""
    try:
        beside = source.parent / name_folders(source, recipe)[0]
        status = source.stat()
    except OSError as error:
        raise UserError(f"recording {source} cannot be read: {error.strerror}.") from error
    for folder in (beside, source.parent / f"events_{recipe}"):
        if (count := find_current(source, recipe, folder, timing)) is not None:
            return folder, count
    times = timing.times and timing.times.absolute()
    key = (
        source.absolute(),
        status.st_size,
        status.st_mtime_ns,
        find_recipe(recipe).describe(),
        times,
        timing.fps,
        *timing.describe().items(),
    )
    folder = cache_root() / "events" / f"{source.stem}-{sha256(repr(key).encode()).hexdigest()[:16]}"
    with _lock(folder):
        done = convert_to(source, recipe, folder, timing=timing)
    return folder, done.frames


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Wait until no other process makes `folder`."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        handle = (folder.parent / f".{folder.name}.lock").open("w")
    except OSError as error:
        raise UserError(f"the cache {folder.parent} cannot be written: {error.strerror}. Set MST_CACHE.") from error
    with handle:
        if fcntl:
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
