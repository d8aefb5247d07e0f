"""Pictures that travel inside a page: frames with boxes, and heat maps, small and as data URIs."""

import base64
from collections.abc import Mapping
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from mstrack.boxes import Boxes, centres, iou
from mstrack.data.sequence import Image, Sequence

MOMENTS = 6
THUMBNAIL_WIDTH = 288
WINDOW_WIDTH = 256
JPEG_QUALITY = 72
HEAT_MAP_SIDE = 256


class Box(NamedTuple):
    """A rectangle in pixels of the picture; `key` says whose it is, None for the ground truth."""

    key: int | None
    x: float
    y: float
    w: float
    h: float


class Moment(NamedTuple):
    """One frame of a strip: its number, whether the target is there, a data URI per modality, size in pixels, boxes.

    `description` says in words what it shows.
    """

    frame: int
    present: bool
    images: list[str]
    width: int
    height: int
    boxes: list[Box]
    description: str


class HeatMaps(NamedTuple):
    """Two matrices in the colours of one scale, as data URIs, and what the ends of the scale stand for.

    `top_before` and `top_after` are the shares (percent) of the sum that the largest 1 % of the entries hold; 0 where all
    are zero.
    """

    before: str
    after: str
    low: float
    high: float
    logarithmic: bool
    top_before: float
    top_after: float


def choose_sequences(values: NDArray[np.float64], count: int) -> list[int]:
    """Where methods differ most, or where a single one is worst: (M, S) scores -> at most `count` sequence indices."""
    spread = np.ptp(values, axis=0) if len(values) > 1 else -values[0]
    order = np.argsort(-spread, kind="stable")
    return [int(i) for i in order if np.isfinite(spread[i])][:count]


def draw_strip(sequence: Sequence, tracks: Mapping[int, Boxes], names: Mapping[int, str]) -> list[Moment]:
    """Frames spread evenly over the sequence, with the ground truth and every method's box.

    Where the target is small in a large frame, a window around it is shown: eight times its size, at least `WINDOW_WIDTH`
    pixels wide, in the proportions of the frame and the same for all frames of the strip.

    Args:
        sequence: Its frames are read from disk; the first, whose box is given, is left out where there are others.
        tracks: (N, 4) predicted boxes by the method's key; missing rows, NaN and boxes without an area are not drawn.
        names: What to call each key in words.

    Raises:
        UserError: A frame cannot be read.
    """
    last = len(sequence) - 1
    numbers = np.unique(np.linspace(0, last, MOMENTS + 1).round().astype(int))[1 if last else 0 :]
    usable = np.array([_has_area(box) for box in sequence.boxes], bool) & sequence.valid
    size = float(np.median(np.sqrt(np.prod(sequence.boxes[usable, 2:], axis=1)))) if usable.any() else np.inf
    return [_draw_moment(sequence, int(t), max(8 * size, WINDOW_WIDTH), usable, tracks, names) for t in numbers]


def draw_heat_maps(before: ArrayLike, after: ArrayLike) -> HeatMaps:
    """Two non-negative matrices in one colour scale (viridis).

    The scale ends at the 99 % quantile of the positive entries of both and begins at the 1 % quantile, but at most three
    decades lower; it is logarithmic where it spans more than two. Sides longer than `HEAT_MAP_SIDE` are averaged down.
    """
    first, second = (np.asarray(matrix, dtype=np.float64) for matrix in (before, after))
    together = np.concatenate([first.ravel(), second.ravel()])
    positive = together[np.isfinite(together) & (together > 0)]
    low, high = np.quantile(positive, [0.01, 0.99]) if len(positive) else (0.0, 1.0)
    low = max(low, high / 1000)
    logarithmic = bool(low > 0 and high > 100 * low)
    return HeatMaps(
        before=_colour(first, float(low), float(high), logarithmic),
        after=_colour(second, float(low), float(high), logarithmic),
        low=float(low),
        high=float(high),
        logarithmic=logarithmic,
        top_before=_top_share(first),
        top_after=_top_share(second),
    )


def _draw_moment(
    sequence: Sequence,
    t: int,
    wanted_width: float,
    usable: NDArray[np.bool_],
    tracks: Mapping[int, Boxes],
    names: Mapping[int, str],
) -> Moment:
    frame = sequence.frame(t)
    present = bool(usable[t])
    nearest = min(np.flatnonzero(usable), key=lambda other: abs(other - t), default=t)
    left, top, width, height = _window(frame.rgb.shape, sequence.boxes[nearest], wanted_width)
    origin = np.array([left, top, 0, 0])
    boxes = [_box(None, sequence.boxes[t] - origin)] if present else []
    words = []
    for key, track in tracks.items():
        if t >= len(track) or not _has_area(track[t]):
            words.append(f"{names[key]} has no box")
            continue
        boxes.append(_box(key, track[t] - origin))
        if present:
            words.append(f"{names[key]} overlaps the ground truth by {iou(track[t], sequence.boxes[t]):.2f}")
    images = [_jpeg(image[top : top + height, left : left + width]) for image in (frame.rgb, frame.aux) if image is not None]
    modalities = "colour" if frame.aux is None else f"colour and {sequence.modality}"
    opening = f"{sequence.name}, frame {t}, {modalities}" + ("" if present else ", target absent")
    return Moment(t, present, images, width, height, boxes, "; ".join([opening, *words]) + ".")


def _window(shape: tuple[int, ...], box: NDArray[np.float64], wanted_width: float) -> tuple[int, int, int, int]:
    """Left, top, width, height of the part of a frame to show: around the box, inside the frame, in its proportions."""
    height, width = shape[:2]
    share = min(1.0, wanted_width / width)
    if share == 1:
        return 0, 0, width, height
    size = np.array([max(1, round(share * width)), max(1, round(share * height))])
    left, top = np.clip(np.round(centres(box) - size / 2), 0, np.array([width, height]) - size).astype(int)
    return int(left), int(top), int(size[0]), int(size[1])


def _has_area(values: NDArray[np.float64]) -> bool:
    return bool(np.isfinite(values).all() and min(values[2:]) > 0)


def _box(key: int | None, values: NDArray[np.float64]) -> Box:
    return Box(key, *(round(float(v), 1) for v in values))


def _jpeg(image: Image) -> str:
    small = _shrink(image, THUMBNAIL_WIDTH / image.shape[1])
    _, data = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")


def _shrink(image: NDArray, scale: float) -> NDArray:
    """Average down by `scale`; an image that is small enough stays as it is."""
    if scale >= 1:
        return image
    size = [max(1, round(scale * side)) for side in image.shape[1::-1]]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _colour(matrix: NDArray[np.float64], low: float, high: float, logarithmic: bool) -> str:
    values = _shrink(np.clip(np.nan_to_num(matrix), low, high), HEAT_MAP_SIDE / max(matrix.shape))
    if logarithmic:
        values, low, high = np.log(values), float(np.log(low)), float(np.log(high))
    grey = np.round(255 * np.clip((values - low) / ((high - low) or 1.0), 0, 1)).astype(np.uint8)
    _, data = cv2.imencode(".png", cv2.applyColorMap(grey, cv2.COLORMAP_VIRIDIS))
    return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode("ascii")


def _top_share(matrix: NDArray[np.float64]) -> float:
    values = np.sort(np.nan_to_num(matrix).ravel())[::-1]
    total = values.sum()
    return float(100 * values[: max(1, len(values) // 100)].sum() / total) if total > 0 else 0.0
