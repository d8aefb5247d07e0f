"""Pictures that travel inside a page: frames with boxes, and heat maps, small and as data URIs."""

import base64
from collections.abc import Mapping
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from mstrack.boxes import Boxes, iou
from mstrack.data.sequence import Image, Sequence

MOMENTS = 6
THUMBNAIL_WIDTH = 256
JPEG_QUALITY = 72
HEAT_MAP_SIDE = 256


class Box(NamedTuple):
    """A rectangle in pixels of the frame; `key` says whose it is, None for the ground truth."""

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

    `top_before` and `top_after` are the shares (percent) of the sum that the largest 1 % of the entries hold.
    """

    before: str
    after: str
    low: float
    high: float
    logarithmic: bool
    top_before: float
    top_after: float


def choose_sequences(values: NDArray[np.float64], count: int) -> list[int]:
    """Where methods differ most: (M, S) scores -> at most `count` sequence indices, largest spread first."""
    spread = np.ptp(values, axis=0)
    order = np.argsort(-spread, kind="stable")
    return [int(i) for i in order if np.isfinite(spread[i])][:count]


def draw_strip(sequence: Sequence, tracks: Mapping[int, Boxes], names: Mapping[int, str]) -> list[Moment]:
    """Frames spread evenly over the sequence, with the ground truth and every method's box.

    Args:
        sequence: Its frames are read from disk; the first, whose box is given, is left out where there are others.
        tracks: (N, 4) predicted boxes by the method's key; missing rows and NaN are not drawn.
        names: What to call each key in words.

    Raises:
        UserError: A frame cannot be read.
    """
    last = len(sequence) - 1
    numbers = np.unique(np.linspace(0, last, MOMENTS + 1).round().astype(int))[1 if last else 0 :]
    return [_draw_moment(sequence, int(t), tracks, names) for t in numbers]


def draw_heat_maps(before: ArrayLike, after: ArrayLike) -> HeatMaps:
    """Two non-negative matrices in one colour scale (viridis).

    The scale runs over the middle 98 % of the positive entries of both, by logarithm where that spans more than a factor of
    100. Sides longer than `HEAT_MAP_SIDE` are averaged down.
    """
    first, second = (np.asarray(matrix, dtype=np.float64) for matrix in (before, after))
    together = np.concatenate([first.ravel(), second.ravel()])
    positive = together[np.isfinite(together) & (together > 0)]
    low, high = np.quantile(positive, [0.01, 0.99]) if len(positive) else (0.0, 1.0)
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


def _draw_moment(sequence: Sequence, t: int, tracks: Mapping[int, Boxes], names: Mapping[int, str]) -> Moment:
    frame = sequence.frame(t)
    height, width = frame.rgb.shape[:2]
    present = bool(sequence.valid[t]) and bool(np.isfinite(sequence.boxes[t]).all())
    boxes = [_box(None, sequence.boxes[t])] if present else []
    words = []
    for key, track in tracks.items():
        if t >= len(track) or not np.isfinite(track[t]).all():
            words.append(f"{names[key]} has no box")
            continue
        boxes.append(_box(key, track[t]))
        if present:
            words.append(f"{names[key]} overlaps the ground truth by {iou(track[t], sequence.boxes[t]):.2f}")
    images = [_jpeg(image) for image in (frame.rgb, frame.aux) if image is not None]
    modalities = "colour" if frame.aux is None else f"colour and {sequence.modality}"
    opening = f"{sequence.name}, frame {t}, {modalities}" + ("" if present else ", target absent")
    return Moment(t, present, images, width, height, boxes, "; ".join([opening, *words]) + ".")


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
    grey = np.round(255 * (values - low) / max(high - low, 1e-300)).astype(np.uint8)
    _, data = cv2.imencode(".png", cv2.applyColorMap(grey, cv2.COLORMAP_VIRIDIS))
    return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode("ascii")


def _top_share(matrix: NDArray[np.float64]) -> float:
    values = np.sort(np.nan_to_num(matrix).ravel())[::-1]
    total = values.sum()
    return float(100 * values[: max(1, len(values) // 100)].sum() / total) if total > 0 else float("nan")
