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
LARGEST = 20
"""A first box with a side above so many sides of the image is a mistake, and its crop would not fit into the memory."""
FAR = 1 << 30
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
    patches = _resize(*_send(parts, size, device)).unflatten(0, (len(frames), len(frames[0])))
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


def _send(parts: _Parts, size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """What `_resize` takes, sent to the device in one piece and without waiting for it."""
    count = len(parts.images)
    shapes = np.array([image.shape[:2] for image in parts.images])
    areas = shapes.prod(1)
    numbers = 8 * count * size
    packed = torch.empty(4 * numbers + 3 * (1 + int(areas.sum())), dtype=torch.uint8, pin_memory=device.type == "cuda")
    host = packed.numpy()
    pixels = host[4 * numbers :].reshape(-1, 3)
    pixels[0] = 0
    offsets = 1 + np.cumsum(areas) - areas
    for image, start, area in zip(parts.images, offsets, areas, strict=True):
        pixels[start : start + area].reshape(image.shape)[:] = image
    both, weights = _taps(np.array(parts.starts).T, np.array(parts.sides), shapes.T, size)
    both[0] = np.where(both[0] < 0, -FAR, offsets[:, None] + both[0] * shapes[:, 1, None])
    both[1] = np.where(both[1] < 0, -FAR, both[1])
    tables = host[: 4 * numbers].view(np.int32).reshape(2, 2, 2, count, size)
    tables[0], tables[1] = both, weights
    sent = packed.to(device, non_blocking=True)
    indices, shares = sent[: 4 * numbers].view(torch.int32).view(tables.shape)
    return sent[4 * numbers :].view(-1, 3), indices, shares


def _resize(pixels: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """Crops N x size x size x 3, int32 in 0-255: zeros where a square leaves its image, and otherwise what `cv2.resize` gives.

    That is, weights in 1/2048 along both axes; sums across cut by 4 bits, their products with the weights down by 16, the sum
    of these rounded by the last 2. Where a neighbour would lie outside the square, across its weight goes to the border pixel,
    and down it is the border pixel.

    Args:
        pixels: (P, 3) uint8, those of all images, after one of zeros.
        indices: (2, 2, N, size) int32: down and across, the two neighbours of each pixel of a crop. Their sum is the index of
            a pixel, or negative where one is outside.
        weights: (2, 2, N, size) int32, in 1/2048.
    """
    down, across = indices[0][:, None, :, :, None], indices[1][None, :, :, None, :]
    at = (down + across).clamp_(min=0)
    picked = pixels.index_select(0, at.view(-1)).view(*at.shape, 3)
    weighted = picked * weights[1][None, :, :, None, :, None]
    lines = weighted[:, 0].add_(weighted[:, 1])
    lines.bitwise_right_shift_(4).mul_(weights[0][:, :, :, None, None]).bitwise_right_shift_(16)
    return lines[0].add_(lines[1]).add_(2).bitwise_right_shift_(2)


def _taps(
    starts: NDArray[np.int64], sides: NDArray[np.int64], lengths: NDArray[np.int64], size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which two pixels of a part each pixel of a crop mixes along each axis, and how much of each.

    Args:
        starts: (2, N) where the parts begin in their squares: rows, columns.
        sides: (N,) sides of the squares.
        lengths: (2, N) pixels of the parts.
        size: Side of the crop.

    Returns:
        (2, 2, N, size) axis and neighbour: pixel of the part, -1 outside it; and the weights of both in 1/2048.
    """
    scale = 1 / (size / sides.astype(np.float64))
    where = ((np.arange(size) + 0.5) * scale[:, None] - 0.5).astype(np.float32)
    first = np.floor(where)
    pixel, last = first.astype(np.int64), sides[:, None] - 1
    down = where - first
    across = np.where((pixel < 0) | (pixel >= last), np.float32(0), down)  # at both ends the nearest pixel counts alone
    share = np.stack([[1 - down, down], [1 - across, across]])
    weights = np.rint(share * np.float32(1 << COEFFICIENT_BITS)).astype(np.int64)
    both = np.stack([pixel, pixel + 1]).clip(0, last) - starts[:, None, :, None]
    return np.where((both < 0) | (both >= lengths[:, None, :, None]), -1, both), weights


def _normalise(patches: Tensor, frames: List[Pair]) -> Tensor:
    """A x M x size x size x 3, in 0-255, to what the network takes; zeros for images that are not there."""
    images = normalise(patches.permute(0, 1, 4, 2, 3).to(torch.float32, memory_format=torch.contiguous_format))
    for i, pair in enumerate(frames):
        for m, image in enumerate(pair):
            if image is None:
                images[i, m] = 0
    return images


def check_images(frame: Frame, name: str) -> None:
    """Refuse images that would be tracked wrongly.

    Raises:
        UserError: They are no frame, not H x W x 3 uint8, or differ in size.
    """
    if not hasattr(frame, "rgb"):
        given = type(frame).__name__
        raise UserError(f"{name}: a {given} was given, expected mstrack.Frame(rgb=image, aux=image), or aux=None.")
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
        UserError: It is not four finite numbers, has no size, lies outside the image or is far larger.
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
    if w > LARGEST * width or h > LARGEST * height:
        raise UserError(
            f"{name}: the box x, y, w, h = {x:g}, {y:g}, {w:g}, {h:g} is more than {LARGEST} times as large as the image of"
            f" {width} x {height} pixels (width x height). Is it of another image, or in other units?"
        )
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        raise UserError(
            f"{name}: the box x, y, w, h = {x:g}, {y:g}, {w:g}, {h:g} lies outside the image of {width} x {height} pixels"
            " (width x height). Are these corners, or normalised, or of another image?"
        )
    return numbers
