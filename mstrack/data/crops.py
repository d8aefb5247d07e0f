"""The square crop around a target and its inverse, shared by training and tracking (numpy and OpenCV).

The conventions, quirks included, are OSTrack's (`sample_target`, `transform_image_to_crop`, `map_box_back`): published
weights have been trained with them and score less without.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from mstrack.errors import UserError


class Crop(NamedTuple):
    """A square piece of an image, resized."""

    image: NDArray[np.uint8]
    """(size, size, C) uint8; zeros where the square leaves the image."""
    scale: float
    """Crop pixels per image pixel: size / side of the square."""


def crop(image: NDArray[np.uint8], box: ArrayLike, factor: float, size: int) -> Crop:
    """Cut the square of `factor` target sizes around a box and resize it, bilinearly, to `size` pixels.

    The square has side ceil(sqrt(w h) factor) and its left top corner at round(centre - side / 2), halves to even. What
    lies outside the image is zero, and so are the image's last column and row where the square reaches them (the
    published right and bottom padding is one pixel too wide).

    Args:
        image: (H, W, C) uint8, any number of channels (the modalities may be stacked).
        box: x, y, w, h in pixels.
        factor: Side of the square in units of sqrt(w h).
        size: Side of the result in pixels.

    Raises:
        UserError: The box is not finite, or of no size.
    """
    left, top, side = _square(box, factor)
    columns, rows = _inside(left, side, image.shape[1]), _inside(top, side, image.shape[0])
    patch = image[rows, columns]
    if patch.shape[:2] != (side, side):
        padded = np.zeros((side, side, image.shape[2]), dtype=image.dtype)
        padded[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = patch
        patch = padded
    resized = cv2.resize(patch, (size, size), interpolation=cv2.INTER_LINEAR)
    return Crop(np.asarray(resized, dtype=np.uint8), size / side)


def crop_mask(shape: tuple[int, ...], box: ArrayLike, factor: float, size: int) -> NDArray[np.bool_]:
    """Where the `crop` of an image of this shape (H, W, ...) holds padding: (size, size) bool.

    A pixel that mixes image and padding counts as padding, as in OSTrack's attention mask.
    """
    left, top, side = _square(box, factor)
    columns, rows = _inside(left, side, shape[1]), _inside(top, side, shape[0])
    mask = np.ones((side, side))
    mask[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = 0
    return cv2.resize(mask, (size, size), interpolation=cv2.INTER_LINEAR) != 0


def to_crop(box: ArrayLike, reference: ArrayLike, scale: float, size: int) -> NDArray[np.float64]:
    """Map boxes of the image into the crop around `reference`, in units of the crop's side.

    The reference's centre falls on pixel (size - 1) / 2, half a pixel from where `from_crop` has it, as published.

    Args:
        box: (..., 4) x, y, w, h in image pixels.
        reference: (..., 4) the box that the crop was taken around.
        scale: `Crop.scale`.
        size: Side of the crop in pixels.

    Returns:
        (..., 4) x, y, w, h; they may leave [0, 1].
    """
    b, r = np.asarray(box, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    wh = b[..., 2:] * scale
    centre = (size - 1) / 2 + (b[..., :2] + 0.5 * b[..., 2:] - r[..., :2] - 0.5 * r[..., 2:]) * scale
    return np.concatenate([centre - 0.5 * wh, wh], axis=-1) / size


def from_crop(box: ArrayLike, reference: ArrayLike, scale: ArrayLike, size: int) -> NDArray[np.float64]:
    """Map predicted boxes back to the image.

    Args:
        box: (..., 4) centre x, centre y, w, h in units of the crop's side (`Prediction.boxes`).
        reference: (..., 4) x, y, w, h in image pixels: the box that the crop was taken around.
        scale: (...) `Crop.scale`.
        size: Side of the crop in pixels.

    Returns:
        (..., 4) x, y, w, h in image pixels.
    """
    b, r = np.asarray(box, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    side = (size / np.asarray(scale, dtype=np.float64))[..., None]
    wh = b[..., 2:] * side
    centre = r[..., :2] + 0.5 * r[..., 2:] + (b[..., :2] - 0.5) * side
    return np.concatenate([centre - 0.5 * wh, wh], axis=-1)


def jitter(box: ArrayLike, scale: float, centre: float, normal: ArrayLike, uniform: ArrayLike) -> NDArray[np.float64]:
    """Displace and rescale a box at random, as search crops are in training.

    Args:
        box: x, y, w, h in pixels.
        scale: Standard deviation of the logarithm of each side's factor.
        centre: Range of the offset in units of sqrt(w h) of the rescaled box; the offset lies within half of it.
        normal: (2,) standard normal draws for width and height.
        uniform: (2,) uniform draws in [0, 1) for x and y.

    Returns:
        (4,) x, y, w, h in pixels.
    """
    b = np.asarray(box, dtype=np.float64)
    wh = b[2:] * np.exp(np.asarray(normal, dtype=np.float64) * scale)
    offset = np.sqrt(wh.prod()) * centre * (np.asarray(uniform, dtype=np.float64) - 0.5)
    return np.concatenate([b[:2] + 0.5 * b[2:] + offset - 0.5 * wh, wh])


def _square(box: ArrayLike, factor: float) -> tuple[int, int, int]:
    """Left, top and side of the square to cut, in whole pixels."""
    x, y, w, h = (float(v) for v in np.asarray(box))
    if not (w > 0 and h > 0 and all(map(math.isfinite, (x, y, w, h)))):
        raise UserError(f"no crop around box {(x, y, w, h)}: it needs four finite numbers x, y, w, h with w, h > 0.")
    side = math.ceil(math.sqrt(w * h) * factor)
    return round(x + 0.5 * w - side * 0.5), round(y + 0.5 * h - side * 0.5), side


def _inside(start: int, side: int, length: int) -> slice:
    """The part of [start, start + side) that is read from an image axis; the last pixel never is, see `crop`."""
    stop = min(start + side, length - 1)
    first = min(max(start, 0), max(stop, 0))
    return slice(first, max(stop, first))
