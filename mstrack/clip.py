"""`mst track`: one clip from image folders, and its frames or video with the boxes drawn."""

import re
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

from mstrack.data.images import read_aux, read_rgb
from mstrack.data.sequence import Frame
from mstrack.errors import UserError
from mstrack.results import Track, write_json, write_track
from mstrack.tracker import Tracker

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
COLOUR = (0, 114, 255)

Progress = Callable[[int, int, str], None]


def track_clip(
    tracker: Tracker,
    rgb: Path,
    aux: Path | None,
    box: tuple[float, float, float, float],
    out: Path,
    modality: str = "thermal",
    video: bool = False,
    progress: Progress | None = None,
) -> Track:
    """Follow a target through folders of images.

    Args:
        tracker: The tracker.
        rgb: Folder of colour frames, sorted by the numbers in their names.
        aux: Folder of the second modality, paired with `rgb` by position; None for a clip without.
        box: x, y, w, h of the target in the first frame, in pixels.
        out: Folder that gets `<name of rgb>.txt`, `_confidence.txt`, and `frames/` or `track.mp4`.
        modality: How `aux` files are read: `event`, `depth`, `thermal`.
        video: Write an .mp4 instead of frames.
        progress: Called with (frames done, all, text).

    Raises:
        UserError: A folder is missing or empty, the numbers of frames differ, an image cannot be read, or the box does not
            lie in the first image.
    """
    colour = list_images(rgb)
    other = None if aux is None else list_images(aux)
    if other is not None and len(other) != len(colour):
        raise UserError(f"{rgb} has {len(colour)} frames and {aux} has {len(other)}: each colour frame needs its counterpart.")
    boxes, scores = np.zeros((len(colour), 4)), np.ones(len(colour))
    with _Pictures(out, video) as pictures:
        for i, path in enumerate(colour):
            frame = Frame(read_rgb(path), None if other is None else read_aux(other[i], modality))
            if i == 0:
                tracker.init(frame, box)
                boxes[0] = box
            else:
                found = tracker.update(frame)
                boxes[i], scores[i] = found.box, found.score
            pictures.add(draw(frame, boxes[i], f"{i}  {scores[i]:.2f}"))
            if progress is not None:
                progress(i + 1, len(colour), path.name)
    track = Track(boxes, scores)
    write_track(out, "track", track)
    write_json(out / "run.json", {"rgb": str(rgb), "aux": str(aux) if aux else None, "modality": modality, "box": list(box)})
    return track


def list_images(folder: Path) -> list[Path]:
    """The images of a folder, sorted by the numbers in their names (2 before 10).

    Raises:
        UserError: No such folder, or no image in it.
    """
    if not folder.is_dir():
        raise UserError(f"no folder {folder}. Expected a folder of images ({', '.join(ENDINGS)}).")
    found = [path for path in folder.iterdir() if path.suffix.lower() in ENDINGS]
    if not found:
        raise UserError(f"folder {folder} holds no images ({', '.join(ENDINGS)}).")
    return sorted(found, key=lambda path: _numbers_and_text(path.name))


def draw(frame: Frame, box: NDArray[np.float64], text: str) -> NDArray[np.uint8]:
    """Both modalities side by side with the box on each: H x W (or 2 W) x 3 uint8, RGB."""
    panels = []
    for image in (frame.rgb, frame.aux):
        if image is None:
            continue
        panel = image.copy()
        height, width = panel.shape[:2]
        thickness = max(1, round(min(height, width) / 240))
        x, y, w, h = (round(float(v)) for v in box)
        cv2.rectangle(panel, (x, y), (x + w, y + h), COLOUR, thickness, cv2.LINE_AA)
        panels.append(panel)
    canvas = np.concatenate(panels, axis=1)
    scale = max(0.35, canvas.shape[0] / 900)
    origin = (round(12 * scale), round(30 * scale))
    for colour, thickness in (((0, 0, 0), 4), ((255, 255, 255), 1)):
        cv2.putText(
            canvas, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, max(1, round(thickness * scale)), cv2.LINE_AA
        )
    return canvas


class _Pictures:
    """Annotated frames as JPEG files, or one .mp4 that gets its name when it is whole."""

    def __init__(self, out: Path, video: bool, fps: float = 20.0) -> None:
        self.out, self.video, self.fps = out, video, fps
        self.writer: cv2.VideoWriter | None = None
        self.count = 0

    def __enter__(self) -> "_Pictures":
        folder = self.out if self.video else self.out / "frames"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"folder {folder} cannot be made: {error.strerror}.") from error
        return self

    def add(self, image: NDArray[np.uint8]) -> None:
        bgr = np.ascontiguousarray(image[..., ::-1])
        if not self.video:
            path = self.out / "frames" / f"{self.count:06d}.jpg"
            if not cv2.imwrite(str(path), bgr, [cv2.IMWRITE_JPEG_QUALITY, 90]):
                raise UserError(f"{path} cannot be written.")
        else:
            height, width = (side // 2 * 2 for side in bgr.shape[:2])
            if self.writer is None:
                codec = cv2.VideoWriter.fourcc(*"mp4v")
                self.writer = cv2.VideoWriter(str(self.out / ".track.part.mp4"), codec, self.fps, (width, height))
                if not self.writer.isOpened():
                    raise UserError(
                        f"{self.out / 'track.mp4'} cannot be written: OpenCV here has no mp4 encoder. Leave out --video."
                    )
            self.writer.write(bgr[:height, :width])
        self.count += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.writer is not None:
            self.writer.release()
            part = self.out / ".track.part.mp4"
            if kind is None:
                part.replace(self.out / "track.mp4")
            else:
                part.unlink(missing_ok=True)


def _numbers_and_text(name: str) -> list[tuple[int, int, str]]:
    """Sorting key: runs of digits by value, the rest by spelling."""
    parts = re.findall(r"\d+|\D+", name)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]


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
