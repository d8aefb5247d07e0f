"""`mst track`: one clip from image folders, videos or an event recording, and its frames with the boxes drawn."""

import contextlib
from collections.abc import Callable, Iterator
from collections.abc import Sequence as List
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mstrack.data import video
from mstrack.data.alignment import pair
from mstrack.data.drawing import draw_frame
from mstrack.data.events import SUFFIXES as EVENT_SUFFIXES
from mstrack.data.events import EventFrames, Timing, UnknownTimesError, recording_info, render_frames, stream
from mstrack.data.layout import list_frames
from mstrack.data.own import read_description
from mstrack.data.sequence import Frame, Sequence
from mstrack.errors import UserError
from mstrack.results import Track, name_part, replacing, write_json, write_track
from mstrack.tracker import TrackerBatch

Progress = Callable[[int, int, str], None]


def track_clip(
    tracker: TrackerBatch,
    frames: Iterator[Frame],
    count: int,
    box: tuple[float, float, float, float],
    out: Path,
    settings: dict[str, Any],
    as_video: bool = False,
    progress: Progress | None = None,
) -> Track:
    """Follow a target through a clip; the next frame is read, and the last picture written, while the network works.

    Args:
        tracker: The tracker.
        frames: What `open_clip` gives.
        count: How many frames there should be, for the progress.
        box: x, y, w, h of the target in the first frame, in pixels.
        out: Folder that gets `track.txt`, `track_confidence.txt`, `run.json`, and `frames/` or `track.mp4`.
        settings: What `run.json` shall say of the clip.
        as_video: Write an .mp4 instead of frames.
        progress: Called with (frames done, all, text).

    Raises:
        UserError: A frame cannot be read or lacks its second modality, or the box does not lie in the first image.
    """
    boxes: list[NDArray[np.float64]] = []
    scores: list[float] = []
    with _Pictures(out, as_video) as pictures, ThreadPoolExecutor(1) as writer:
        written: Future[None] | None = None
        for frame in _read_ahead(frames):
            if not boxes:
                tracker.init([frame], [box], [str(out)])
                boxes.append(np.array(box))
                scores.append(1.0)
            else:
                found, peak = tracker.update([frame])
                boxes.append(found[0])
                scores.append(float(peak[0]))
            if written is not None:
                written.result()
            written = writer.submit(pictures.add, frame, boxes[-1], f"{len(boxes) - 1}  {scores[-1]:.2f}")
            if progress is not None:
                progress(len(boxes), count, "")
        if written is not None:
            written.result()
    track = Track(np.array(boxes), np.array(scores), tuple(tracker.lacking[0]))
    write_track(out, "track", track)
    write_json(out / "run.json", {**settings, "box": list(box), "frames without second modality": list(track.lacking)})
    return track


def open_clip(
    rgb: Path,
    aux: Path | None,
    modality: str = "thermal",
    encoding: str | None = None,
    recipe: str = "interval",
    missing: str = "error",
    timing: Timing | None = None,
) -> tuple[int, Iterator[Frame]]:
    """The frames of a clip, in order, and how many there are.

    Args:
        rgb: A folder of colour frames, sorted by the numbers in their names; a video; or an .aedat4 recording, whose camera
            frames and events are both taken.
        aux: The second modality: a folder, a video, or a file of events; None for a clip without.
        modality: How `aux` is read: `event`, `depth`, `thermal`.
        encoding: What is made of its files, see `images.ENCODINGS`; None: the default.
        recipe: How events become frames, see `events.recipes`.
        missing: The tracker's policy. Unless it is `error`, colour frames may lack their counterpart, see `alignment.pair`.
        timing: When the colour frames are, where `aux` is a file of events that does not say it.

    Raises:
        UserError: A folder or file is missing, empty or damaged; a colour frame lacks its counterpart; times are given for
            something else, or not given for such a file.
    """
    timing = timing or Timing()
    if timing.given and (aux is None or aux.suffix.lower() not in EVENT_SUFFIXES):
        kinds = ", ".join(EVENT_SUFFIXES)
        raise UserError(
            f"--times and --fps say when the frames are that go with a file of events ({kinds}) in --aux: leave them out."
        )
    if rgb.suffix.lower() in EVENT_SUFFIXES:
        if aux is not None:
            raise UserError(f"{rgb} is a recording of frames and events: leave out --aux {aux}.")
        info = recording_info(rgb)
        if not info.frames:
            raise UserError(
                f"{rgb} holds no camera frames ({info}). Give a folder of frames with --rgb, --aux {rgb}, and the frames' times"
                " with --times or --fps."
            )
        return info.frames, _stream(rgb, recipe)
    colour = _list(rgb)
    other = None if aux is None else _list_events(aux, recipe, colour, timing) or _list(aux)
    paired = None if other is None else pair(rgb.name, colour, other, modality)
    lacking = 0 if paired is None else sum(frame is None for frame in paired)
    if other is not None and lacking and missing == "error":
        raise UserError(
            f"{rgb} has {len(colour)} frames and {aux} has {len(other)}: {lacking} colour frame(s) lack their counterpart. Each"
            " needs one, or a policy for those without (--missing zero, copy or last)."
        )
    sequence = Sequence(
        name=rgb.name,
        rgb=colour,
        boxes=np.full((len(colour), 4), np.nan),
        valid=np.zeros(len(colour), dtype=bool),
        aux=paired,
        modality="rgb" if other is None else modality,
        encoding=None if other is None else encoding,
    )
    return len(colour), (sequence.frame(index) for index in range(len(sequence)))


def modality_of(rgb: Path, aux: Path | None, given: str | None, trained: str) -> str:
    """How the second modality of a clip is read: as was given, else as the data say, else as was trained.

    A recording, or a file of events, is `event`; a folder or video below a `data.yaml` of your own data is what that says.

    Raises:
        UserError: Another one was given than the data say.
    """
    known = None
    if any(path is not None and path.suffix.lower() in EVENT_SUFFIXES for path in (rgb, aux)):
        known = "event"
    elif aux is not None:
        with contextlib.suppress(UserError):  # a clip may lie anywhere, below anybody's data.yaml
            known = read_description(aux.parent)
    known = None if known == "rgb" else known
    if given is not None and known not in (None, given):
        raise UserError(f"{aux or rgb} holds {known}, not {given}: leave out --modality, or give {known}.")
    return given or known or trained


def _read_ahead(frames: Iterator[Frame]) -> Iterator[Frame]:
    """The same frames, each read while the one before is worked on."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, frames, None)
        while (frame := coming.result()) is not None:
            coming = reader.submit(next, frames, None)
            yield frame


def _stream(path: Path, recipe: str) -> Iterator[Frame]:
    """The frames of a recording of frames and events."""
    try:
        for image, events in stream(path, recipe):
            yield Frame(image, events)
    except UnknownTimesError as error:
        raise UserError(
            f"{error.finding}. Make folders of it first, `mst data events {path} --recipe {recipe} --with-frames --times FILE`"
            " (or --fps N), and give these with --rgb and --aux."
        ) from error


def _list_events(path: Path, recipe: str, colour: List[Any], timing: Timing) -> List[Any] | None:
    """References to as many frames of a file of events as are in colour, or all if they are fewer; None: it is no such file."""
    if path.suffix.lower() not in EVENT_SUFFIXES:
        return None
    timing = timing.beside(colour) if timing.given else timing
    return EventFrames(path, recipe, min(len(colour), render_frames(path, recipe, timing)), timing=timing)


def _list(path: Path) -> List[Any]:
    """References to the frames of a folder or a video."""
    suffix = path.suffix.lower()
    if suffix in video.SUFFIXES:
        return video.list_video(path)
    if not path.is_dir():
        kinds = ", ".join((*video.SUFFIXES, *EVENT_SUFFIXES))
        raise UserError(f"no folder {path}. Expected a folder of images, a video or a file of events ({kinds}).")
    return list_frames(path)


class _Pictures:
    """Annotated frames as JPEG files, or one .mp4 that gets its name when it is whole."""

    def __init__(self, out: Path, video: bool, fps: float = 20.0) -> None:
        self.out, self.video, self.fps = out, video, fps
        self.writer: cv2.VideoWriter | None = None
        self.part = name_part(out / "track.mp4")
        self.count = 0

    def __enter__(self) -> "_Pictures":
        folder = self.out if self.video else self.out / "frames"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"folder {folder} cannot be made: {error.strerror}.") from error
        return self

    def add(self, frame: Frame, box: NDArray[np.float64], text: str) -> None:
        bgr = np.ascontiguousarray(draw_frame(frame, box, text)[..., ::-1])
        if not self.video:
            _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 90])
            with replacing(self.out / "frames" / f"{self.count:06d}.jpg", flush=False) as part:
                part.write_bytes(data.tobytes())
        else:
            height, width = (side // 2 * 2 for side in bgr.shape[:2])
            if self.writer is None:
                codec = cv2.VideoWriter.fourcc(*"mp4v")
                self.writer = cv2.VideoWriter(str(self.part), codec, self.fps, (width, height))
                if not self.writer.isOpened():
                    raise UserError(
                        f"{self.out / 'track.mp4'} cannot be written: OpenCV here has no mp4 encoder. Leave out --video."
                    )
            self.writer.write(bgr[:height, :width])
        self.count += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None and not self.video:
            for path in (self.out / "frames").glob("*.jpg"):  # of an earlier, longer clip
                if path.stem.isdecimal() and int(path.stem) >= self.count:
                    path.unlink(missing_ok=True)
        if self.writer is not None:
            self.writer.release()
            if kind is None:
                self.part.replace(self.out / "track.mp4")
            else:
                self.part.unlink(missing_ok=True)


def parse_box(text: str) -> tuple[float, float, float, float]:
    """`x,y,w,h` as numbers.

    Raises:
        UserError: Not four numbers.
    """
    try:
        x, y, w, h = (float(part) for part in text.replace(",", " ").split())
    except ValueError as error:
        raise UserError(f"box '{text}' is not x,y,w,h in pixels, for example 100,80,40,60.") from error
    return x, y, w, h
