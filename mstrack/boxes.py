"""The one box convention: (x, y, w, h), float, 0-based pixels, (x, y) the left top corner. Numpy only."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Boxes = NDArray[np.float64]


def corners(boxes: ArrayLike) -> Boxes:
    """(..., 4) x, y, w, h -> (..., 4) left, top, right, bottom."""
    b = np.asarray(boxes, dtype=np.float64)
    return np.concatenate([b[..., :2], b[..., :2] + b[..., 2:]], axis=-1)


def from_corners(boxes: ArrayLike) -> Boxes:
    """(..., 4) left, top, right, bottom -> (..., 4) x, y, w, h."""
    b = np.asarray(boxes, dtype=np.float64)
    return np.concatenate([b[..., :2], b[..., 2:] - b[..., :2]], axis=-1)


def centres(boxes: ArrayLike) -> Boxes:
    """(..., 4) x, y, w, h -> (..., 2) centre x, y."""
    b = np.asarray(boxes, dtype=np.float64)
    return b[..., :2] + 0.5 * b[..., 2:]


def from_centres(boxes: ArrayLike) -> Boxes:
    """(..., 4) centre x, centre y, w, h -> (..., 4) x, y, w, h."""
    b = np.asarray(boxes, dtype=np.float64)
    return np.concatenate([b[..., :2] - 0.5 * b[..., 2:], b[..., 2:]], axis=-1)


def iou(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union, element by element: (..., 4), (..., 4) -> (...); 0 where the union is empty, NaN for NaN."""
    p, q = corners(a), corners(b)
    sides = np.clip(np.minimum(p[..., 2:], q[..., 2:]) - np.maximum(p[..., :2], q[..., :2]), 0, None)
    intersection = sides[..., 0] * sides[..., 1]
    areas = [np.prod(np.asarray(x, dtype=np.float64)[..., 2:], axis=-1) for x in (a, b)]
    union = areas[0] + areas[1] - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union != 0)


def centre_distance(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Euclidean distance of the centres in pixels: (..., 4), (..., 4) -> (...)."""
    return np.linalg.norm(centres(a) - centres(b), axis=-1)


def clip(boxes: ArrayLike, height: int, width: int, margin: float = 10) -> Boxes:
    """Keep boxes inside the image with at least `margin` pixels visible (OSTrack's `clip_box`).

    The left edge goes to [0, W - margin], the right edge to [margin, W], and no side is shorter than `margin`.
    """
    b = corners(boxes)
    low = np.clip(b[..., :2], 0, np.array([width, height]) - margin)
    high = np.clip(b[..., 2:], margin, np.array([width, height]))
    return np.concatenate([low, np.maximum(margin, high - low)], axis=-1)
