"""Opening recordings of event cameras, reading .aedat4, and counting what a recording holds.

An .aedat4 file of any length is read block by block.
"""

import struct
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aedat
import numpy as np

from mstrack.data.events.tables import holds_columns, open_h5, open_npz
from mstrack.data.events.types import BLOCK, CameraFrame, DamagedFileError, Events, Recording, check_size, damage
from mstrack.errors import UserError, warn

SUFFIXES = (".aedat4", ".npz", ".h5", ".hdf5")


@dataclass(frozen=True)
class RecordingInfo:
    """What a recording holds, counted.

    Attributes:
        path: The file.
        size: Bytes.
        width: Of the sensor in pixels, likewise `height`.
        height: See `width`.
        streams: As in `Recording`.
        events: Their number, as far as the file can be read; likewise `frames`.
        frames: See `events`.
        seconds: From the first to the last event, or frame where there is no event.
        damage: What is wrong with the file, None where it was read to its end.
    """

    path: Path
    size: int
    width: int
    height: int
    streams: tuple[str, ...]
    events: int
    frames: int
    seconds: float
    damage: str | None

    def __str__(self) -> str:
        return (
            f"{self.path.name}: {self.width} x {self.height} pixels, {self.events} events and {self.frames} frames in"
            f" {self.seconds:.2f} s, streams {', '.join(self.streams)}"
        )


def open_recording(path: Path | str, size: tuple[int, int] | None = None) -> Recording:
    """Read the header of a recording.

    Args:
        path: The file.
        size: Width and height of the colour frames, for an .npz or .h5 file that does not state its own.

    Raises:
        UserError: No such file, another kind of file, or a damaged header.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path} is no event recording; expected a file that ends in {', '.join(SUFFIXES)}.")
    try:
        with path.open("rb") as file:
            head = file.read(1 << 20)
    except OSError as error:
        raise UserError(f"recording {path} cannot be read: {error.strerror}.") from error
    if not head:
        raise UserError(f"recording {path} is empty. Copy it again.")
    if path.suffix.lower() == ".aedat4":
        return _open_aedat4(path, head)
    return open_npz(path, size) if path.suffix.lower() == ".npz" else open_h5(path, size)


def holds_events(path: Path) -> bool:
    """Whether a file is an event recording: by its name, and for .npz and .h5 by the names of its arrays."""
    return path.suffix.lower() == ".aedat4" or (path.suffix.lower() in SUFFIXES and holds_columns(path))


def recording_info(path: Path | str) -> RecordingInfo:
    """Count what a recording holds; a damaged one is read as far as possible.

    Raises:
        UserError: As `open_recording`.
    """
    recording = open_recording(path)
    events = frames = 0
    of_events: list[int] = []
    of_frames: list[int] = []
    finding = None
    try:
        for packet in recording.packets():
            if isinstance(packet, CameraFrame):
                frames += 1
                of_frames = [*of_frames[:1], packet.begin]
            elif len(packet.t):
                events += len(packet.t)
                of_events = [*(of_events[:1] or [int(packet.t[0])]), int(packet.t[-1])]
    except DamagedFileError as error:
        finding = error.finding
    times = of_events or of_frames
    return RecordingInfo(
        recording.path,
        recording.path.stat().st_size,
        recording.width,
        recording.height,
        recording.streams,
        events,
        frames,
        (times[-1] - times[0]) / 1e6 if times else 0.0,
        finding,
    )


def _open_aedat4(path: Path, head: bytes) -> Recording:
    if not head.startswith(b"#!AER-DAT4"):
        what = head[:12].decode("ascii", "replace").strip() if head.startswith(b"#!AER-DAT") else "something else"
        raise UserError(f"recording {path} is not AEDAT 4, it holds {what}. Convert older recordings with the DV software.")
    _check_header(path, head)
    streams = _open_decoder(path).id_to_stream()
    chosen: dict[str, int] = {}
    for number, stream in sorted(streams.items()):
        if stream["type"] in ("events", "frame"):
            chosen.setdefault(stream["type"], number)
    sizes = [(streams[number]["width"], streams[number]["height"]) for _, number in sorted(chosen.items())]
    width, height = check_size(path, *sizes[0]) if sizes else (0, 0)
    kinds = tuple(str(stream["type"]) for _, stream in sorted(streams.items()))
    return Recording(path, width, height, kinds, lambda quiet: _read_aedat4(path, chosen, quiet))


def _check_header(path: Path, head: bytes) -> None:
    """Refuse a description of the streams that is no text: aedat 2.3 ends the process where it cannot quote it."""
    try:
        (length,) = struct.unpack_from("<I", head, 14)
        header = head[18 : 18 + length]
        (table,) = struct.unpack_from("<I", header)
        layout = table - struct.unpack_from("<i", header, table)[0]
        field = table + struct.unpack_from("<H", header, layout + 8)[0]  # the third field of a FlatBuffers table
        text = field + struct.unpack_from("<I", header, field)[0]
        (length,) = struct.unpack_from("<I", header, text)
        struct.unpack_from(f"<{length}s", header, text + 4)[0].decode()
    except (struct.error, UnicodeDecodeError) as error:
        raise UserError(f"recording {path} is damaged: its header cannot be read ({error}). Copy it again.") from error


def _open_decoder(path: Path) -> Any:
    decoder, error = _attempt(lambda: aedat.Decoder(path))
    if error is not None:
        raise UserError(f"recording {path} is damaged: its header cannot be read ({_reason(error)}). Copy it again.") from error
    return decoder


def _read_aedat4(path: Path, chosen: Mapping[str, int], quiet: bool) -> Iterator[Events | CameraFrame]:
    decoder = _open_decoder(path)
    events = frames = 0
    told = quiet
    while True:
        blocks, frame, notes, error = _gather(decoder, chosen)
        if notes and not told:
            told = True
            warn(str(path), "format", f"{notes[0]}; such frames are left out")
        if blocks:
            # As bytes: joining records field by field is ten times slower.
            block = np.concatenate([part.view(np.uint8) for part in blocks]).view(blocks[0].dtype)
            events += len(block)
            yield Events(block["t"], block["x"], block["y"], block["on"])
        if frame is not None:
            yield _camera_frame(frames, frame)
            frames += 1
        if isinstance(error, StopIteration):
            return
        if error is not None:
            raise damage(path, _reason(error), events, frames) from error


def _gather(
    decoder: Any, chosen: Mapping[str, int]
) -> tuple[list[Any], dict[str, Any] | None, list[str], BaseException | None]:
    """Packets up to the next frame, a full block or the end: (arrays of events, frame, warnings, what ended it)."""
    blocks: list[Any] = []
    size = 0
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        while size < BLOCK:
            packet, error = _attempt(lambda: next(decoder))
            if error is not None:
                return blocks, None, [str(note.message) for note in notes], error
            if packet["stream_id"] == chosen.get("events"):
                blocks.append(packet["events"])
                size += len(packet["events"])
            elif packet["stream_id"] == chosen.get("frame"):
                return blocks, packet["frame"], [str(note.message) for note in notes], None
    return blocks, None, [str(note.message) for note in notes], None


def _attempt(act: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    """The result of calling into aedat, or its exception."""
    try:
        return act(), None
    except Exception as error:
        return None, error
    except BaseException as error:
        # A damaged file can make aedat's Rust code panic, which pyo3 raises as a class that is no Exception and has no module.
        if type(error).__name__ != "PanicException":
            raise
        return None, error


def _reason(error: BaseException) -> str:
    text = str(error)
    return "it ends in the middle of a packet" if text == "failed to fill whole buffer" else text or type(error).__name__


def _camera_frame(index: int, frame: Mapping[str, Any]) -> CameraFrame:
    """Recorders of the DV library leave the start of the frame 0 and fill in the exposure alone."""
    exposure = (int(frame["exposure_begin_t"]), int(frame["exposure_end_t"]))
    begin = next((time for time in (int(frame["begin_t"]), exposure[0]) if time > 0), int(frame["t"]))
    return CameraFrame(index, begin, exposure, frame["pixels"])
