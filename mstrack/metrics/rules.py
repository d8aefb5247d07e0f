"""What a scoring convention consists of, and the procedure that all of them share.

`Protocol.measure` applies the rules in the order in which the toolkits do: cut, round, repair, fill up, compare, then
mark invalid and absent frames. `protocols.py` holds the conventions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from mstrack.boxes import Boxes
from mstrack.errors import UserError
from mstrack.metrics import frames
from mstrack.metrics.frames import Mask, Measured, Rows, Values

Test = Callable[[Rows], Mask]
"""(N, 4) boxes -> (N,) bool."""


class Grid(NamedTuple):
    """The thresholds that conventions share but for the last bit."""

    overlaps: Values
    """(21,) from 0 to 1."""
    normalised: Values
    """(51,) from 0 to 0.5."""


class Absent(StrEnum):
    """What an absence flag does; the value is the sentence for the stamp of a score."""

    LEFT_OUT = "Absent frames are in neither numerator nor denominator."
    FAILED = "Absent frames stay in the denominator and fail every threshold."
    INVALID = "Absent frames are treated like frames with an invalid annotation."
    IGNORED = "Absence flags are not looked at."


class Shorter(StrEnum):
    """What becomes of a result with fewer rows than frames; the value is what is said of it."""

    REFUSED = "not accepted"
    MISSING = "the rest fails"
    ZEROS = "filled up with 0, 0, 0, 0"
    COMMON = "the rest is not scored"


class First(StrEnum):
    """When the first prediction is replaced by the truth: in relation to the repair of broken boxes."""

    NEVER = "never"
    BEFORE = "before the repair"
    AFTER = "after the repair"


class Invalid(NamedTuple):
    """The errors of a frame whose annotation is invalid: -1 is a hit at every threshold, inf a miss; its overlap fails."""

    distance: float
    normalised: float


HITS = Invalid(-1, -1)


@dataclass(frozen=True)
class Protocol:
    """A convention.

    Attributes:
        name: What it is called.
        description: One sentence on what it does.
        source: The toolkits that it comes from.
        grid: Thresholds of overlap and normalised error.
        shorter: What becomes of a result that is too short; one that is too long is cut in all of them.
        refused: Predictions that are an error.
        broken: Predictions, beside their annotations, that take the box before them.
        first: When the first prediction becomes the truth.
        rounded: Whether predictions and annotations become integers, half to even.
        precision: Number type of boxes, overlaps and errors.
        epsilon: Added to the width and height that errors are divided by.
        invalid: Annotations that are no target.
        worth: The errors of such a frame.
        absent: What absence flags do.
        counts_invalid: Whether invalid frames are in the denominator.
        two_truths: Whether the better of two annotations counts, frame by frame.
        drops_empty: Whether each mean leaves out sequences whose curve is 0 everywhere.
        names: What a measure is called in this convention, where not by its own name.
    """

    name: str
    description: str
    source: str
    absent: Absent
    grid: Grid
    shorter: Shorter = Shorter.REFUSED
    refused: Test = frames.none
    broken: Callable[[Rows, Rows], Mask] = frames.never_broken
    first: First = First.NEVER
    rounded: tuple[bool, bool] = (False, False)
    precision: type[np.floating] = np.float64
    epsilon: float = 0.0
    invalid: Test = frames.none
    worth: Invalid = HITS
    counts_invalid: bool = True
    two_truths: bool = False
    drops_empty: bool = False
    names: Mapping[str, str] = field(default_factory=dict)

    def measure(self, boxes: Boxes, truths: Boxes, valid: Mask, present: Mask | None, aux_truths: Boxes | None) -> Measured:
        """One sequence of N frames, before any threshold.

        Args:
            boxes: (M, 4) predictions x, y, w, h in pixels.
            truths: (N, 4) annotations as they are in the file.
            valid: (N,) False where the target is absent or its box unusable; looked at where absent frames are left out.
            present: (N,) False where the annotation says absent; None where it says nothing.
            aux_truths: (K, 4) the second annotation; None where there is none.

        Raises:
            UserError: The result is too short, or has boxes that the convention refuses, or `aux_truths` is lacking.
        """
        notes: list[str] = []
        truths, *others = (self._convert(truth, self.rounded[1]) for truth in self._choose(truths, aux_truths))
        fitted = self._fit(self._convert(boxes, self.rounded[0]), truths, notes)
        compared = frames.compare(fitted, truths, self.epsilon)
        for other in others:
            other = frames.resize(other, len(truths), np.nan)
            compared = frames.best_of(compared, frames.compare(fitted, other, self.epsilon))

        absent = np.zeros(len(truths), bool) if present is None else ~present
        invalid = self.invalid(truths)
        if self.absent is Absent.LEFT_OUT:
            invalid = invalid | absent | ~valid
        elif self.absent is Absent.INVALID:
            invalid = invalid | absent
        lengths = [len(boxes), *map(len, others)] if self.shorter is Shorter.COMMON else []
        scored = np.arange(len(truths)) < min([len(truths), *lengths])
        failed = ~scored | (absent & (self.absent is Absent.FAILED))

        def settle(values: Rows, of_invalid: float, miss: float) -> Values:
            column = np.where(np.isnan(values), miss, values.astype(np.float64))
            return np.where(failed, miss, np.where(invalid, of_invalid, column))

        return Measured(
            overlap=settle(compared.overlap, -1, -np.inf),
            distance=settle(compared.distance, self.worth.distance, np.inf),
            normalised=settle(compared.normalised, self.worth.normalised, np.inf),
            counted=scored & (~invalid | self.counts_invalid),
            notes=tuple(notes),
        )

    def _choose(self, truths: Boxes, aux_truths: Boxes | None) -> list[Boxes]:
        if not self.two_truths:
            return [truths]
        if aux_truths is None:
            raise UserError(
                f"protocol '{self.name}' scores against two annotations per frame (visible and infrared), and there is one. "
                "Name another protocol, such as 'plain'."
            )
        return [truths, aux_truths]

    def _convert(self, boxes: Boxes, rounded: bool) -> Rows:
        converted = boxes.astype(self.precision)
        return np.round(converted) if rounded else converted

    def _fit(self, boxes: Rows, truths: Rows, notes: list[str]) -> Rows:
        """M rows cut, repaired, filled up to N, the first forced."""
        given, length = len(boxes), len(truths)
        if given < length and self.shorter is Shorter.REFUSED:
            raise UserError(
                f"{given} rows for {length} frames, and protocol '{self.name}' ({self.source}) takes no shorter result. "
                "Complete it, or name another protocol, such as 'plain'."
            )
        if given != length:
            notes.append(f"{given} rows for {length} frames: {'cut' if given > length else self.shorter}")
        boxes = boxes[:length].copy()
        refused = np.flatnonzero(self.refused(boxes))
        if len(refused):
            raise UserError(
                f"{len(refused)} box(es) with NaN or a negative size, first {boxes[refused[0]].tolist()} in frame "
                f"{refused[0]}, which protocol '{self.name}' ({self.source}) refuses. Name another, such as 'plain'."
            )
        if self.first is First.BEFORE:
            boxes[:1] = truths[:1]
        broken = self.broken(boxes, truths[:given])
        if broken[1:].any():
            notes.append(f"{broken[1:].sum()} unusable boxes: the box before them")
            boxes = frames.take_previous(boxes, broken)
        if frames.has_nan(boxes).any():
            notes.append(f"{frames.has_nan(boxes).sum()} frames without a box: they fail")
        boxes = frames.resize(boxes, length, 0.0 if self.shorter is Shorter.ZEROS else np.nan)
        if self.first is First.AFTER:
            boxes[:1] = truths[:1]
        return boxes
