"""From frames and boxes to what a network is fed: crops of all modalities, normalised; cut on the host, or on the device.

Both give the same numbers, to the bit. On the host OpenCV resizes each crop by itself. On a GPU the part of each frame that is
read goes there as it is, and a few kernels resize the crops of all sequences together, in OpenCV's own fixed-point arithmetic.
"""

from collections.abc import Callable
from collections.abc import Sequence as List
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mstrack.data.crops import crop, square_around
from mstrack.data.images import Image
from mstrack.data.sequence import Frame
from mstrack.errors import UserError
from mstrack.models.blocks import normalise

Pair = tuple[Image | None, ...]
"""The images of one frame, one per modality of the network; None: fed as zeros."""
Cutter = Callable[[List[Pair], NDArray[np.float64], float, int, torch.device], tuple[Tensor, NDArray[np.float64]]]
COEFFICIENT_BITS = 11
FAR = 1 << 40
"""Added to the index of a pixel outside the image, so that it is known by its sign."""


def cutter_of(device: torch.device) -> Cutter:
    """Where crops are cut for a network on that device."""
    return cut_on_device if device.type == "cuda" else cut_on_host


def cut_on_host(
    frames: List[Pair], boxes: NDArray[np.float64], factor: float, size: int, device: torch.device
) -> tuple[Tensor, NDArray[np.float64]]:
    """Cut, resize and normalise the squares around boxes.

    Args:
        frames: A frames, M images each.
        boxes: (A, 4) x, y, w, h in pixels.
        factor: Side of the square in units of sqrt(w h).
        size: Side of the crop in pixels.
        device: Where the crops are wanted.

    Returns:
        Crops A x M x 3 x size x size, float32; and their (A,) scales, crop pixels per image pixel.

    Raises:
        UserError: A box is not finite, or has no size.
    """
    patches = np.zeros((len(frames), len(frames[0]), size, size, 3), dtype=np.uint8)
    scales = np.empty(len(frames))
    for i, images in enumerate(frames):
        for m, image in enumerate(images):
            if image is not None:
                patches[i, m], scales[i] = crop(image, boxes[i], factor, size)
    return _normalise(torch.from_numpy(patches).to(device), frames), scales


def cut_on_device(
    frames: List[Pair], boxes: NDArray[np.float64], factor: float, size: int, device: torch.device
) -> tuple[Tensor, NDArray[np.float64]]:
    """The same, computed on the device; arguments, result and errors as of `cut_on_host`."""
    parts = _Parts([], [], [])
    sides = np.empty(len(frames))
    for i, images in enumerate(frames):
        square = square_around(boxes[i], factor)
        sides[i] = square.side
        for image in images:
            if image is None:
                parts.add(np.empty((0, 0, 3), dtype=np.uint8), 0, 0, square.side)
                continue
            rows, columns = square.inside(image.shape)
            inside = square.place(rows, columns)
            parts.add(image[rows, columns], inside[0].start, inside[1].start, square.side)
    patches = _resize(parts, size, device).unflatten(0, (len(frames), len(frames[0])))
    return _normalise(patches, frames), size / sides


class _Parts(NamedTuple):
    """What is read of N images."""

    images: list[Image]
    starts: list[tuple[int, int]]
    """Row and column of each within its square."""
    sides: list[int]
    """Of the squares."""

    def add(self, image: Image, row: int, column: int, side: int) -> None:
        self.images.append(image)
        self.starts.append((row, column))
        self.sides.append(side)


def _resize(parts: _Parts, size: int, device: torch.device) -> Tensor:
    """Crops N x size x size x 3, uint8: zeros where a square leaves its image, and otherwise what `cv2.resize` gives.

    That is, weights in 1/2048 along both axes; sums across cut by 4 bits, their products with the weights down by 16, the sum
    of these rounded by the last 2. Where a neighbour would lie outside the square, across its weight goes to the border pixel,
    and down it is the border pixel.
    """
    heights, widths = (np.array([image.shape[axis] for image in parts.images]) for axis in (0, 1))
    pixels = np.concatenate([np.zeros((1, 3), dtype=np.uint8), *(image.reshape(-1, 3) for image in parts.images)])
    offsets = 1 + np.concatenate([[0], np.cumsum(heights * widths)[:-1]])
    starts, sides = np.array(parts.starts), np.array(parts.sides)
    rows, down = _taps(starts[:, 0], sides, heights, size, False)
    columns, across = _taps(starts[:, 1], sides, widths, size, True)
    rows = np.where(rows < 0, -FAR, offsets[:, None] + rows * widths[:, None])
    columns = np.where(columns < 0, -FAR, columns)
    flat, indices, weights = (
        _send(array, device) for array in (pixels, np.stack([rows, columns]), np.stack([down, across]).astype(np.int32))
    )
    total = torch.zeros((), dtype=torch.int32, device=device)
    for row, weight in zip(indices[0], weights[0], strict=True):
        line = torch.zeros((), dtype=torch.int32, device=device)
        for column, share in zip(indices[1], weights[1], strict=True):
            at = (row[:, :, None] + column[:, None, :]).clamp_(min=0)
            line = line + flat[at].int() * share[:, None, :, None]
        total = total + ((weight[:, :, None, None] * (line >> 4)) >> 16)
    return ((total + 2) >> 2).to(torch.uint8)


def _taps(
    start: NDArray[np.int64], side: NDArray[np.int64], length: NDArray[np.int64], size: int, ends: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which two pixels of a part each pixel of a crop mixes along an axis, and how much of each.

    Args:
        start: (N,) where the parts begin in their squares.
        side: (N,) sides of the squares.
        length: (N,) pixels of the parts.
        size: Side of the crop.
        ends: Whether the nearest pixel counts alone at both ends of the square.

    Returns:
        (2, N, size) pixel of the part, -1 outside it; and (2, N, size) weights in 1/2048.
    """
    scale = 1 / (size / side.astype(np.float64))
    where = ((np.arange(size) + 0.5) * scale[:, None] - 0.5).astype(np.float32)
    first = np.floor(where)
    share = where - first
    pixel, last = first.astype(np.int64), side[:, None] - 1
    if ends:
        share = np.where((pixel < 0) | (pixel >= last), np.float32(0), share)
    both = np.stack([pixel, pixel + 1]).clip(0, last) - start[:, None]
    weights = np.rint(np.stack([1 - share, share]) * np.float32(1 << COEFFICIENT_BITS)).astype(np.int64)
    return np.where((both < 0) | (both >= length[:, None]), -1, both), weights


def _send(array: NDArray[np.generic], device: torch.device) -> Tensor:
    """To the device, without waiting for it."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _normalise(patches: Tensor, frames: List[Pair]) -> Tensor:
    """A x M x size x size x 3, uint8, to what the network takes; zeros for images that are not there."""
    images = normalise(patches.permute(0, 1, 4, 2, 3).contiguous())
    for i, pair in enumerate(frames):
        for m, image in enumerate(pair):
            if image is None:
                images[i, m] = 0
    return images


def check_images(frame: Frame, name: str) -> None:
    """Refuse images that would be tracked wrongly.

    Raises:
        UserError: They are not H x W x 3 uint8, or differ in size.
    """
    for what, image in (("rgb", frame.rgb), ("aux", frame.aux)):
        if what == "aux" and image is None:
            continue
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            given = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            raise UserError(f"{name}: {what} is {given}, expected an H x W x 3 uint8 array.")
    if frame.aux is not None and frame.aux.shape != frame.rgb.shape:
        sizes = " and ".join(f"{w} x {h}" for h, w in (frame.rgb.shape[:2], frame.aux.shape[:2]))
        raise UserError(f"{name}: rgb and aux differ in size, {sizes} (width x height). They must be aligned.")


def check_box(box: ArrayLike, frame: Frame, name: str) -> NDArray[np.float64]:
    """The box of a target as four float64 numbers.

    Raises:
        UserError: It is not four finite numbers, has no size or lies outside the image.
    """
    try:
        numbers = np.asarray(box, dtype=np.float64)
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if numbers.shape != (4,) or not np.isfinite(numbers).all():
        raise UserError(f"{name}: the box is {box!r}, expected four finite numbers x, y, w, h in pixels.")
    x, y, w, h = numbers.tolist()
    if w <= 0 or h <= 0:
        raise UserError(f"{name}: the box x, y, w, h = {x:g}, {y:g}, {w:g}, {h:g} has no size: w and h must be above 0.")
    height, width = frame.rgb.shape[:2]
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        raise UserError(
            f"{name}: the box x, y, w, h = {x:g}, {y:g}, {w:g}, {h:g} lies outside the image of {width} x {height} pixels"
            " (width x height). Are these corners, or normalised, or of another image?"
        )
    return numbers
