"""The square crop around a target and its inverse, shared by training and tracking (numpy and OpenCV).

The conventions, quirks included, are OSTrack's (`sample_target`, `transform_image_to_crop`, `map_box_back`): published
weights have been trained with them and score less without.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from mstrack.errors import UserError


class Raster(Protocol):
    """What a crop is cut from: an array, or something that gives the part of one that it is asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W) or (H, W, C)."""
        ...

    def __getitem__(self, part: tuple[slice, slice], /) -> NDArray[Any]:
        """The rows and columns of two slices with bounds."""
        ...


Finish = Callable[[NDArray[Any]], NDArray[np.uint8]]
"""Colours of a part of a decoded frame, see `images.Picture`."""


class Square(NamedTuple):
    """A square of whole pixels, which may leave the image."""

    left: int
    top: int
    side: int

    def inside(self, shape: tuple[int, ...]) -> tuple[slice, slice]:
        """Rows and columns that are read of an image of this shape (H, W, ...); its last ones never are, see `crop`."""
        return _inside(self.top, self.side, shape[0]), _inside(self.left, self.side, shape[1])

    def inside_reduced(self, shape: tuple[int, ...], reduction: int) -> tuple[slice, slice]:
        """The same of a frame of this shape that was decoded at 1/reduction of its size, with what their borders touch."""
        rows, columns = (
            slice(part.start // reduction, min(-(-part.stop // reduction) + 1, -(-length // reduction)))
            for part, length in zip(self.inside(shape), shape, strict=False)
        )
        return rows, columns

    def place(self, rows: slice, columns: slice) -> tuple[slice, slice]:
        """Where these rows and columns of the image lie within the square."""
        return slice(rows.start - self.top, rows.stop - self.top), slice(columns.start - self.left, columns.stop - self.left)


class Crop(NamedTuple):
    """A square piece of an image, resized."""

    image: NDArray[np.uint8]
    """(size, size, C) uint8; zeros where the square leaves the image."""
    scale: float
    """Crop pixels per image pixel: size / side of the square."""


def crop(image: Raster, box: ArrayLike, factor: float, size: int, finish: Finish | None = None, stacked: bool = False) -> Crop:
    """Cut the square of `factor` target sizes around a box and resize it, bilinearly, to `size` pixels.

    The square has side ceil(sqrt(w h) factor) and its left top corner at round(centre - side / 2), halves to even. What
    lies outside the image is zero, and so are the image's last column and row where the square reaches them (the
    published right and bottom padding is one pixel too wide).

    Args:
        image: (H, W, C) uint8, any number of channels (the modalities may be stacked); with `finish` as decoded.
        box: x, y, w, h in pixels.
        factor: Side of the square in units of sqrt(w h).
        size: Side of the result in pixels.
        finish: Makes colours of the part that was cut out, before padding: the same as of the whole, for less work.
        stacked: Give what stacking this modality with another would give (the published training samples): OpenCV resizes
            more than four channels alike, but for halves to even where the square is exactly 2 x `size`.

    Raises:
        UserError: The box is not finite, or of no size.
    """
    square = square_around(box, factor)
    rows, columns = square.inside(image.shape)
    patch = image[rows, columns]
    if finish is not None:
        patch = finish(patch) if patch.size else np.zeros((*patch.shape[:2], 3), dtype=np.uint8)
    if patch.shape[:2] != (square.side, square.side):
        padded = np.zeros((square.side, square.side, *patch.shape[2:]), dtype=patch.dtype)
        padded[square.place(rows, columns)] = patch
        patch = padded
    if stacked and square.side == 2 * size:
        resized = np.rint(patch.reshape(size, 2, size, 2, -1).mean(axis=(1, 3)))
    else:
        resized = np.asarray(cv2.resize(patch, (size, size), interpolation=cv2.INTER_LINEAR))
    return Crop(np.asarray(resized, dtype=np.uint8), size / square.side)


def reduction_for(box: ArrayLike, factor: float, size: int) -> int:
    """The largest of 1, 2, 4, 8 by which a frame may be decoded smaller so that its crop still shrinks."""
    shrinks = square_around(box, factor).side / size
    return next((by for by in (8, 4, 2) if shrinks >= by), 1)


def crop_reduced(
    image: Raster,
    shape: tuple[int, ...],
    reduction: int,
    box: ArrayLike,
    factor: float,
    size: int,
    finish: Finish | None = None,
) -> Crop:
    """The `crop` of a frame that was decoded at a fraction of its size: smoother, and in the same place.

    Every pixel of the crop is sampled where `crop` samples the frame, to 1/32 of a pixel of `image`; padding as there.

    Args:
        image: (h, w, C) uint8, each pixel the mean of `reduction` x `reduction` pixels of the frame.
        shape: (H, W, ...) of the frame.
        reduction: 2, 4 or 8.
        box: x, y, w, h in pixels of the frame.
        factor: Side of the square in units of sqrt(w h).
        size: Side of the result in pixels.
        finish: As in `crop`.

    Raises:
        UserError: The box is not finite, or of no size.
    """
    square = square_around(box, factor)
    rows, columns = square.inside(shape)
    scale = size / square.side
    if rows.start == rows.stop or columns.start == columns.stop:
        return Crop(np.zeros((size, size, 3), dtype=np.uint8), scale)
    step = 1 / (scale * reduction)
    parts = square.inside_reduced(shape, reduction)
    part = image[parts]
    part = finish(part) if finish is not None else part
    y, x = (
        (start + 0.5 / scale) / reduction - 0.5 - cut.start for start, cut in zip((square.top, square.left), parts, strict=True)
    )
    resized = cv2.warpAffine(
        part,
        np.array([[step, 0, x], [0, step, y]]),
        (size, size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    if (rows.stop - rows.start, columns.stop - columns.start) != (square.side, square.side):
        down, across = (_share_inside(axis, square.side, size) for axis in square.place(rows, columns))
        resized = np.rint(resized * (down[:, None, None] * across[None, :, None]))
    return Crop(np.asarray(resized, dtype=np.uint8), scale)


def crop_mask(shape: tuple[int, ...], box: ArrayLike, factor: float, size: int) -> NDArray[np.bool_]:
    """Where the `crop` of an image of this shape (H, W, ...) holds padding: (size, size) bool.

    A pixel that mixes image and padding counts as padding, as in OSTrack's attention mask.
    """
    square = square_around(box, factor)
    rows, columns = square.inside(shape)
    mask = np.ones((square.side, square.side))
    mask[square.place(rows, columns)] = 0
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


def square_around(box: ArrayLike, factor: float) -> Square:
    """The square that `crop` cuts.

    Raises:
        UserError: The box is not finite, or of no size.
    """
    x, y, w, h = (float(v) for v in np.asarray(box))
    if not (w > 0 and h > 0 and all(map(math.isfinite, (x, y, w, h)))):
        raise UserError(f"no crop around box {(x, y, w, h)}: it needs four finite numbers x, y, w, h with w, h > 0.")
    side = math.ceil(math.sqrt(w * h) * factor)
    return Square(round(x + 0.5 * w - side * 0.5), round(y + 0.5 * h - side * 0.5), side)


def _inside(start: int, side: int, length: int) -> slice:
    """The part of [start, start + side) that is read from an image axis; the last pixel never is, see `crop`."""
    stop = min(start + side, length - 1)
    first = min(max(start, 0), max(stop, 0))
    return slice(first, max(stop, first))


def _share_inside(inside: slice, side: int, size: int) -> NDArray[np.float32]:
    """How much of the image, and not of padding, is in each of the `size` pixels along an axis of the crop."""
    line = np.zeros((1, side), dtype=np.float32)
    line[0, inside] = 1
    return np.asarray(cv2.resize(line, (size, 1), interpolation=cv2.INTER_LINEAR)[0], dtype=np.float32)
