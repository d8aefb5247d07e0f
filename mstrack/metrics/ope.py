"""One-pass evaluation: success and precision curves per sequence, and their means.

Success (share of frames whose overlap exceeds a threshold) and precision (centre error at most a threshold) follow Wu
et al., OTB 2013; precision normalised by the size of the target follows Mueller et al., TrackingNet 2018.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mstrack.boxes import Boxes
from mstrack.metrics.protocols import Values, find_protocol

OVERLAPS: Values = np.arange(21, dtype=np.float64) * 0.05
PIXELS: Values = np.arange(51.0)
NORMALISED: Values = np.arange(51, dtype=np.float64) / 100
MEASURES = ("SR", "OP50", "OP75", "PR", "NPR")


@dataclass(frozen=True)
class SequenceScore:
    """The curves of one sequence, as fractions in [0, 1]; NaN where no frame counts.

    Attributes:
        success: (21,) share of frames with an overlap above `OVERLAPS`.
        precision: (51,) share of frames with a centre error of at most `PIXELS`.
        normalised_precision: (51,) the same for the error divided by the target's size and `NORMALISED`.
        frames: Number of frames that count.
        iou: (N,) overlap of every frame, 0 where the prediction is missing, NaN where the frame does not count.
    """

    success: Values
    precision: Values
    normalised_precision: Values
    frames: int
    iou: Values


@dataclass(frozen=True)
class Summary(Mapping[str, float]):
    """The means over sequences: `summary["SR"]` and the other `MEASURES` in percent, and the mean curves in [0, 1].

    Attributes:
        percent: The measures by name.
        success: (21,) mean success curve.
        precision: (51,) mean precision curve.
        normalised_precision: (51,) mean normalised precision curve.
        sequences: Number of sequences in the mean; those without a frame that counts are not.
        frames: Number of frames that count, over all sequences.
    """

    percent: dict[str, float]
    success: Values
    precision: Values
    normalised_precision: Values
    sequences: int
    frames: int

    def __getitem__(self, name: str) -> float:
        return self.percent[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.percent)

    def __len__(self) -> int:
        return len(self.percent)


def score(
    boxes: ArrayLike,
    confidence: ArrayLike | None,
    truths: ArrayLike,
    valid: ArrayLike,
    protocol: str = "plain",
) -> SequenceScore:
    """Score one sequence.

    Args:
        boxes: (M, 4) predicted x, y, w, h in pixels; missing rows are NaN, rows beyond N are ignored.
        confidence: (M,) or None; these measures do not look at it.
        truths: (N, 4) annotated x, y, w, h in pixels.
        valid: (N,) bool, False where the target is absent or its box unusable.
        protocol: Name of the convention, see `protocols.py`.

    Raises:
        ValueError: An array has another shape.
        UserError: Unknown protocol.
    """
    truths, valid = np.asarray(truths, dtype=np.float64), np.asarray(valid, dtype=bool)
    predicted = _fit(np.asarray(boxes, dtype=np.float64), len(truths))
    if truths.shape[1:] != (4,) or valid.shape != truths.shape[:1]:
        raise ValueError(f"expected truths (N, 4) and valid (N,), got {truths.shape} and {valid.shape}")
    overlap, distance, normalised, counted = find_protocol(protocol).measure(predicted, truths, valid)
    frames = int(counted.sum())
    share = np.nan if frames == 0 else 1 / frames
    return SequenceScore(
        success=(len(overlap) - _count_up_to(overlap, OVERLAPS)) * share,
        precision=_count_up_to(distance, PIXELS) * share,
        normalised_precision=_count_up_to(normalised, NORMALISED) * share,
        frames=frames,
        iou=np.where(counted, np.maximum(overlap, 0), np.nan),
    )


def per_sequence(scores: Sequence[SequenceScore]) -> dict[str, Values]:
    """The `MEASURES` of S sequences in percent, each (S,); NaN where no frame counts.

    SR is the mean of the 21 success values, OP50 and OP75 are the success at 0.5 and 0.75, PR the precision at 20
    pixels, NPR the normalised precision at 0.2.
    """
    success = _stack([s.success for s in scores], len(OVERLAPS))
    precision = _stack([s.precision for s in scores], len(PIXELS))
    normalised = _stack([s.normalised_precision for s in scores], len(NORMALISED))
    columns = (success.mean(axis=1), success[:, 10], success[:, 15], precision[:, 20], normalised[:, 20])
    return {name: 100 * column for name, column in zip(MEASURES, columns, strict=True)}


def summarise(scores: Sequence[SequenceScore]) -> Summary:
    """The unweighted mean over sequences, leaving out those in which no frame counts; NaN where that leaves none."""
    kept = [s for s in scores if s.frames > 0]
    return Summary(
        percent={name: _mean(values).item() for name, values in per_sequence(kept).items()},
        success=_mean(_stack([s.success for s in kept], len(OVERLAPS))),
        precision=_mean(_stack([s.precision for s in kept], len(PIXELS))),
        normalised_precision=_mean(_stack([s.normalised_precision for s in kept], len(NORMALISED))),
        sequences=len(kept),
        frames=sum(s.frames for s in kept),
    )


def _fit(boxes: Boxes, length: int) -> Boxes:
    """Cut to `length` rows, or fill up with NaN."""
    if boxes.shape[1:] != (4,):
        raise ValueError(f"expected boxes (M, 4), got {boxes.shape}")
    missing = np.full((max(0, length - len(boxes)), 4), np.nan)
    return np.concatenate([boxes[:length], missing])


def _count_up_to(values: Values, thresholds: Values) -> Values:
    """How many of the values are at most each threshold: (N,), (T,) -> (T,)."""
    return np.searchsorted(np.sort(values), thresholds, side="right").astype(np.float64)


def _stack(curves: Sequence[Values], points: int) -> Values:
    """S curves -> (S, points), also when S = 0."""
    return np.array(curves, dtype=np.float64).reshape(-1, points)


def _mean(rows: Values) -> Values:
    """Mean over the first axis; NaN, without a warning, where there are no rows."""
    return rows.mean(axis=0) if len(rows) else np.full(rows.shape[1:], np.nan)
