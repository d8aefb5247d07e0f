"""One event recording into a folder of PNG frames, with `events.json` beside them that says how they were made."""

import contextlib
import glob
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mstrack import __version__
from mstrack.data.events.files import SUFFIXES, holds_events, open_recording
from mstrack.data.events.recipes import Recipe, encode, find_recipe
from mstrack.data.events.times import Timing
from mstrack.data.events.types import CameraFrame
from mstrack.data.events.windows import paint
from mstrack.data.layout import list_frames
from mstrack.errors import UserError, warn
from mstrack.machine import cache_root
from mstrack.results import read_json, write_json, write_text

try:
    import fcntl
except ImportError:  # not on every system; without it what a killed process left is not cleaned up
    fcntl = None  # type: ignore[assignment]

DESCRIPTION = "events.json"
STALE = 60.0
"""Seconds after which a temporary folder that nobody holds is one that a killed process left."""


@dataclass(frozen=True)
class Converted:
    """What became of one recording.

    Attributes:
        source: The recording.
        folder: Its event frames, `%06d.png`.
        frames: Their number.
        events: Events in all frames together.
        state: `made`, `redone` or `kept`.
        reason: Why it was redone, else empty.
        start: Where frames were cut by a rate: when frame 0 begins, in the recording's microseconds.
    """

    source: Path
    folder: Path
    frames: int
    events: int
    state: str
    reason: str = ""
    start: int | None = None

    def __str__(self) -> str:
        why = f" ({self.reason})" if self.reason else ""
        since = "" if self.start is None else f", frame 0 begins at {self.start} us"
        return f"{self.source.name}: {self.frames} frames, {self.events} events{since}, {self.state}{why}"


def name_folders(path: Path, recipe: str) -> tuple[str, str]:
    """(event frames, camera frames): names of the folders of a recording, with its stem where it has neighbours."""
    neighbours = [other for other in path.parent.iterdir() if other.suffix.lower() in SUFFIXES and other != path]
    prefix = f"{path.stem}_" if any(holds_events(other) for other in neighbours) else ""
    return f"{prefix}events_{recipe}", f"{prefix}rgb"


def convert(
    path: Path | str,
    recipe: str,
    out: Path | str | None = None,
    *,
    with_frames: bool = False,
    timing: Timing | None = None,
    partial: bool = False,
) -> Converted:
    """Write the event frames of one recording, unless they are there already.

    The frames appear all at once, in `events_<recipe>/%06d.png` (`<stem>_events_<recipe>` where several recordings lie in one
    folder), numbered from 0 as the recording's frames.

    Args:
        path: The recording, .aedat4, .npz or .h5.
        recipe: A name of `recipes.RECIPES`.
        out: The folder that the folders of frames are made in; None: where the recording lies.
        with_frames: Also write the camera's own frames, to `rgb/%06d.png`.
        timing: When the frames are; None: as the recording's own frames say. Colour frames in `rgb` beside the recording say
            how many there are at a rate, and how large the pictures are where the recording does not say it.
        partial: Keep what a damaged recording holds before the damage.

    Raises:
        UserError: The recording cannot be used, `rgb` holds no images, or the folder cannot be written or holds something else.
    """
    path = Path(path)
    try:
        names = name_folders(path, recipe)
    except OSError as error:
        raise UserError(f"recording {path} cannot be read: {error.strerror}.") from error
    colour = path.parent / "rgb"
    if timing is not None and timing.given and colour.is_dir() and not (colour / DESCRIPTION).exists():
        timing = timing.beside(list_frames(colour))
    parent = path.parent if out is None else Path(out)
    return convert_to(path, recipe, parent / names[0], parent / names[1] if with_frames else None, timing, partial)


def convert_to(
    path: Path, recipe: str, folder: Path, camera: Path | None = None, timing: Timing | None = None, partial: bool = False
) -> Converted:
    """`convert` into a folder of any name; `camera` is that of the camera frames, None for none."""
    wanted = _describe(path, find_recipe(recipe), timing or Timing())
    found = read_description(folder)
    reason = _judge(path, folder, wanted, partial)
    if camera is not None and not (lacking := _judge(path, camera, {"source": wanted["source"]}, partial)):
        camera = None
    elif camera is not None:
        reason = reason or lacking
    if found and not reason:
        return Converted(path, folder, found["frames"], found["events"], "kept", start=found.get("start"))
    for place in filter(None, (folder, camera)):
        if place.exists() and not _is_ours(place):
            raise UserError(
                f"{place} is there already and was not made here (no {DESCRIPTION}): rename it, or choose another folder."
            )
    try:
        frames, events, start = _write(path, find_recipe(recipe), folder, camera, timing or Timing(), partial, wanted)
    except OSError as error:
        raise UserError(f"event frames cannot be written to {folder}: {error.strerror or error}.") from error
    return Converted(path, folder, frames, events, "redone" if found else "made", reason if found else "", start)


def find_current(path: Path, recipe: str, folder: Path, timing: Timing | None = None) -> int | None:
    """The number of frames in a finished folder that fits recording and recipe, None where there is no such folder."""
    if _judge(path, folder, _describe(path, find_recipe(recipe), timing or Timing()), True):
        return None
    return int((read_description(folder) or {"frames": 0})["frames"])


def find_fault(path: Path, recipe: str, folder: Path) -> str:
    """Why a folder does not hold the frames of a recording as it is now, empty where it does, at whatever times they are."""
    found = read_description(folder)
    if found is None:
        return f"its {DESCRIPTION} cannot be read"
    return _judge(path, folder, {**_describe(path, find_recipe(recipe), Timing()), "timing": found.get("timing")}, True)


def _write(
    path: Path, recipe: Recipe, folder: Path, camera: Path | None, timing: Timing, partial: bool, wanted: dict[str, Any]
) -> tuple[int, int, int | None]:
    """Make the folders under temporary names and move them; (frames, events, when frames of a rate begin)."""
    recording = open_recording(path, timing.size)
    blank: list[int] = []
    start: int | None = None
    frames = pictures = events = 0
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(_temporary(folder))
        shots = stack.enter_context(_temporary(camera)) if camera else None
        for item in paint(recording, recipe, timing, keep_partial=partial):
            if not isinstance(item, CameraFrame):
                (target / f"{item.index:06d}.png").write_bytes(encode(item.image, recipe))
                pictures, events = pictures + 1, events + item.events
                blank += [] if item.events else [item.index]
                start = item.begin if start is None and timing.fps is not None else start
            elif shots is not None:
                (shots / f"{item.index:06d}.png").write_bytes(encode(item.pixels))
                frames += 1
        if shots is not None and not frames:
            raise UserError(f"recording {path} holds no camera frames to write: leave out --with-frames (with_frames=True).")
        source = {**wanted["source"], "sha256": _hash(path)}
        origin = {"source": source, "partial": partial, "software": f"mstrack {__version__}"}
        if shots is not None and camera is not None:
            write_json(shots / DESCRIPTION, {**origin, "frames": frames})
            _place(shots, camera)
            if frames != pictures:
                text = f"{frames} camera frames and {pictures} event frames were written: they do not match one by one"
                warn(str(path), "pairs", text)
        size = [recording.width, recording.height]
        content = {"size": size, "frames": pictures, "events": events, "blank": blank}
        content |= {} if start is None else {"start": start}
        write_json(target / DESCRIPTION, {**wanted, **origin, **content})
        _place(target, folder)
    return pictures, events, start


# ---- what is there already


def _describe(path: Path, recipe: Recipe, timing: Timing) -> dict[str, Any]:
    """What decides about the content of the frames."""
    try:
        status = path.stat()
    except OSError as error:
        raise UserError(f"recording {path} cannot be read: {error.strerror}.") from error
    times = None
    if timing.times is not None:
        try:
            times = hashlib.sha256(timing.times.read_bytes()).hexdigest()
        except OSError as error:
            raise UserError(f"frame times {timing.times} cannot be read: {error.strerror}.") from error
    return {
        "recipe": recipe.describe(),
        "timing": {"times_sha256": times, "fps": timing.fps, **timing.describe()},
        "source": {"name": path.name, "bytes": status.st_size, "mtime_ns": status.st_mtime_ns},
    }


def read_description(folder: Path) -> dict[str, Any] | None:
    """The content of `events.json`, None where it is missing, or damaged."""
    try:
        found = read_json(folder / DESCRIPTION)
        return found if {"source", "partial", "frames"} <= set(found) and isinstance(found["source"], dict) else None
    except (OSError, UserError, TypeError):
        return None


def _is_ours(folder: Path) -> bool:
    """Whether a folder may be replaced: it was made here, or is empty."""
    return read_description(folder) is not None or (folder.is_dir() and not any(folder.iterdir()))


def _judge(path: Path, folder: Path, wanted: dict[str, Any], partial: bool) -> str:
    """Why a folder does not do, empty where it does; `wanted` lacks what does not matter."""
    found = read_description(folder)
    if found is None:
        return f"there was no {folder.name}"
    if not _is_same(path, found["source"], wanted["source"]):
        return "the recording has changed"
    if found.get("recipe") != wanted.get("recipe"):
        return "made by another version of the recipe"
    if found.get("timing") != wanted.get("timing"):
        return "made with other frame times"
    if found["partial"] and not partial:
        return "made with --partial"
    with os.scandir(folder) as entries:
        count = sum(entry.name.endswith(".png") for entry in entries)
    return "" if count == found["frames"] else f"{folder.name} holds {count} of {found['frames']} frames"


def _is_same(path: Path, found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether a recording is the one that was converted: by size and time, else by its content."""
    if any(found.get(key) != wanted[key] for key in ("name", "bytes")):
        return False
    return found.get("mtime_ns") == wanted["mtime_ns"] or found.get("sha256") == _recall_hash(path, wanted)


def _recall_hash(path: Path, source: dict[str, Any]) -> str:
    """`_hash`, kept in the cache: the readers of a tree that was copied ask for it each time they open the tree."""
    key = (str(path.absolute()), source["bytes"], source["mtime_ns"])
    note = cache_root() / "events" / "sha256" / hashlib.sha256(repr(key).encode()).hexdigest()[:32]
    with contextlib.suppress(OSError):
        return note.read_text()
    digest = _hash(path)
    with contextlib.suppress(UserError):
        write_text(note, digest)
    return digest


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _temporary(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder`, gone at the end unless it was renamed; remains of killed processes go as well."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for remains in folder.parent.glob(f".{glob.escape(folder.name)}-*"):
        with contextlib.suppress(OSError), _hold(remains):
            if fcntl and time.time() - remains.stat().st_mtime > STALE:
                shutil.rmtree(remains, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        temporary.chmod(0o755)
        with _hold(temporary):
            yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _hold(folder: Path) -> Iterator[None]:
    """Mark a folder as in use; OSError where somebody else uses it."""
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _place(temporary: Path, folder: Path) -> None:
    """Give a finished folder its name, in place of an older one."""
    old = temporary.with_name(f"{temporary.name}-old")
    with contextlib.suppress(FileNotFoundError):
        folder.rename(old)
    try:
        temporary.rename(folder)
    except OSError:
        if read_description(folder) is None:  # else another process was faster
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
