"""Named scoring conventions: which frames count, and what overlap and error each of them has.

The toolkits of the benchmarks agree on the thresholds' meaning (overlap above, error at most) and on averaging over
frames, then over sequences. They differ in what this module holds: which frames are left out of the denominator, and
what an absent target, a broken annotation or a broken prediction is worth. A convention is one function and one line of
`PROTOCOLS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mstrack.boxes import Boxes, centres, iou
from mstrack.errors import UserError
from mstrack.registry import unknown

Values = NDArray[np.float64]


class Measured(NamedTuple):
    """One sequence of N frames against its truth, before any threshold."""

    overlap: Values
    """(N,) intersection over union; -inf fails every threshold."""
    distance: Values
    """(N,) distance of the centres in pixels; inf fails every threshold."""
    normalised: Values
    """(N,) distance of the centres, each axis divided by the true width or height; inf fails every threshold."""
    counted: NDArray[np.bool_]
    """(N,) True for the frames of the denominator."""


@dataclass(frozen=True)
class Protocol:
    """A convention: its name, what it does in one sentence, and `measure(boxes, truths, valid)`, all of N frames."""

    name: str
    description: str
    measure: Callable[[Boxes, Boxes, NDArray[np.bool_]], Measured]


def measure_plain(boxes: Boxes, truths: Boxes, valid: NDArray[np.bool_]) -> Measured:
    """The textbook convention.

    Frames whose target is absent, or whose annotation is NaN or has no area, are in neither numerator nor denominator.
    The first frame is not forced to the truth, predictions are neither repaired nor rounded, and a missing one (NaN)
    fails.

    Args:
        boxes: (N, 4) predictions x, y, w, h in pixels.
        truths: (N, 4) annotations.
        valid: (N,) False where the target is absent or its box unusable.
    """
    counted = valid & np.isfinite(truths).all(axis=1) & (truths[:, 2:] > 0).all(axis=1)
    given = counted & np.isfinite(boxes).all(axis=1)
    overlap = np.full(len(truths), -np.inf)
    distance = np.full(len(truths), np.inf)
    normalised = distance.copy()
    predicted, true = _centre_pixels(boxes[given]), _centre_pixels(truths[given])
    size = truths[given, 2:]
    overlap[given] = iou(boxes[given], truths[given])
    distance[given] = np.linalg.norm(predicted - true, axis=1)
    normalised[given] = np.linalg.norm(predicted / size - true / size, axis=1)
    return Measured(overlap, distance, normalised, counted)


def _centre_pixels(boxes: Boxes) -> Values:
    """(N, 4) -> (N, 2), half a pixel left of and above `boxes.centres`.

    No difference of two centres changes, but its last bit does: integer boxes lie exactly on the thresholds, and with
    this form, and the division before the subtraction, they fall on the side where the MATLAB toolkits put them.
    """
    return centres(boxes) - 0.5


PROTOCOLS = {
    "plain": Protocol(
        "plain",
        "Frames without a visible, annotated target are left out; nothing is repaired; a missing prediction fails.",
        measure_plain,
    ),
}

DEFAULTS = {"synthetic": "plain"}


def find_protocol(name: str) -> Protocol:
    """The convention of that name.

    Raises:
        UserError: There is none; the message lists them.
    """
    if name not in PROTOCOLS:
        raise UserError(unknown("protocol", name, PROTOCOLS))
    return PROTOCOLS[name]


def protocol_of(dataset: str) -> str:
    """The name of the convention that a dataset's published numbers use; `plain` where it has none of its own."""
    return DEFAULTS.get(dataset, "plain")
