"""One-pass evaluation: success and precision curves per sequence, and their means.

Success (share of frames whose overlap exceeds a threshold) and precision (centre error at most a threshold) follow Wu
et al., OTB 2013; precision normalised by the size of the target follows Mueller et al., TrackingNet 2018. Which frames
count, and what a broken one is worth, is a matter of the protocol, see `protocols.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mstrack.metrics.frames import Mask, Values
from mstrack.metrics.protocols import MULTIPLES, PIXELS, find_protocol

OVERLAPS, NORMALISED = MULTIPLES
MEASURES = ("SR", "OP50", "OP75", "PR", "NPR")
FURTHER = ("NAUC", "AO", "FR")


@dataclass(frozen=True)
class SequenceScore:
    """The curves of one sequence, as fractions; NaN where no frame counts.

    Attributes:
        success: (21,) share of frames with an overlap above `OVERLAPS`.
        precision: (51,) share of frames with a centre error of at most `PIXELS`.
        normalised_precision: (51,) the same for the error divided by the target's size and `NORMALISED`.
        frames: Number of frames in the denominator.
        iou: (N,) overlap of every frame, 0 where it fails, NaN where the frame is not in the denominator.
        protocol: Name of the convention, which also decides the last bit of the thresholds.
        notes: What was done about a result that does not fit, for example `920 rows for 921 frames: ...`.
    """

    success: Values
    precision: Values
    normalised_precision: Values
    frames: int
    iou: Values
    protocol: str = "plain"
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Summary(Mapping[str, float]):
    """The means over sequences: `summary["SR"]` and the other measures in percent, and the mean curves as fractions.

    Attributes:
        percent: `MEASURES` and `FURTHER` by name, see `per_sequence`.
        success: (21,) mean success curve.
        precision: (51,) mean precision curve.
        normalised_precision: (51,) mean normalised precision curve.
        sequences: Number of sequences in which a frame counts.
        frames: Number of frames in the denominators, over all sequences.
        dropped: By measure, how many of those sequences its mean leaves out because their curve is 0 throughout.
        protocol: Name of the convention.
    """

    percent: dict[str, float]
    success: Values
    precision: Values
    normalised_precision: Values
    sequences: int
    frames: int
    dropped: dict[str, int]
    protocol: str

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
    *,
    present: ArrayLike | None = None,
    aux_truths: ArrayLike | None = None,
) -> SequenceScore:
    """Score one sequence.

    Args:
        boxes: (M, 4) predicted x, y, w, h in pixels; missing rows are NaN; rows beyond N are ignored, and what a
            result with fewer rows is worth is a matter of the protocol.
        confidence: (M,) or None; these measures do not look at it.
        truths: (N, 4) x, y, w, h in pixels as they are in the annotation file, with its zeros, negative values and NaN.
        valid: (N,) bool, False where the target is absent or its box unusable; `plain` looks at it.
        protocol: Name of the convention, see `protocols.py`.
        present: (N,) bool, False where the annotation's own flag says absent; None where it has no flags.
        aux_truths: (K, 4) the annotation of the second modality, where there is one.

    Raises:
        ValueError: An array has another shape.
        UserError: Unknown protocol; or one that takes no shorter results, no such boxes, or needs `aux_truths`.
    """
    predicted, truths, valid = np.asarray(boxes, np.float64), np.asarray(truths, np.float64), np.asarray(valid, bool)
    flags = None if present is None else np.asarray(present, bool)
    aux = None if aux_truths is None else np.asarray(aux_truths, np.float64)
    if predicted.shape[1:] != (4,):
        raise ValueError(f"expected boxes (M, 4), got {predicted.shape}")
    if truths.shape[1:] != (4,) or valid.shape != truths.shape[:1]:
        raise ValueError(f"expected truths (N, 4) and valid (N,), got {truths.shape} and {valid.shape}")
    if flags is not None and flags.shape != valid.shape:
        raise ValueError(f"expected present (N,) beside truths {truths.shape}, got {flags.shape}")
    if aux is not None and aux.shape[1:] != (4,):
        raise ValueError(f"expected aux_truths (K, 4), got {aux.shape}")
    convention = find_protocol(protocol)
    overlap, distance, normalised, counted, notes = convention.measure(predicted, truths, valid, flags, aux)
    frames = int(counted.sum())
    denominator = frames or np.nan
    return SequenceScore(
        success=(len(overlap) - _count_up_to(overlap, convention.grid.overlaps)) / denominator,
        precision=_count_up_to(distance, PIXELS) / denominator,
        normalised_precision=_count_up_to(normalised, convention.grid.normalised) / denominator,
        frames=frames,
        iou=np.where(counted, np.maximum(overlap, 0), np.nan),
        protocol=protocol,
        notes=notes,
    )


def per_sequence(scores: Sequence[SequenceScore], dropped: float | None = np.nan) -> dict[str, Values]:
    """The `MEASURES` and `FURTHER` of S sequences in percent, each (S,); NaN where no frame counts.

    SR is the mean of the 21 success values, OP50 and OP75 are the success at 0.5 and 0.75, PR the precision at 20
    pixels, NPR the normalised precision at 0.2, NAUC the mean of the 51 values of normalised precision, AO the mean
    overlap and FR the failure rate, the share of frames with an overlap of 0.

    Args:
        scores: All of the same protocol.
        dropped: What stands for a sequence that a mean of the protocol leaves out because its curve is 0 throughout:
            NaN, so that the mean of what is finite is that of `summarise`; None keeps its value, 0.

    Raises:
        ValueError: The protocols differ.
    """
    protocol = _common_protocol(scores)
    success, precision, normalised = _curves(scores)
    overlaps = [s.iou[np.isfinite(s.iou)] for s in scores]
    average = np.array([values.mean() if len(values) else np.nan for values in overlaps])
    failures = np.array([(values == 0).mean() if len(values) else np.nan for values in overlaps])
    columns = {
        "SR": success.mean(axis=1),
        "OP50": success[:, 10],
        "OP75": success[:, 15],
        "PR": precision[:, 20],
        "NPR": normalised[:, 20],
        "NAUC": normalised.mean(axis=1),
        "AO": average,
        "FR": failures,
    }
    measured = {name: 100 * column for name, column in columns.items()}
    if dropped is not None and find_protocol(protocol).drops_empty:
        curves = {"SR": success, "OP50": success, "OP75": success, "AO": success}
        curves |= {"PR": precision, "NPR": normalised, "NAUC": normalised}
        for name, curve in curves.items():
            measured[name][_is_empty(curve)] = dropped
    return measured


def summarise(scores: Sequence[SequenceScore], protocol: str | None = None) -> Summary:
    """The unweighted mean over sequences, leaving out those in which no frame counts; NaN where that leaves none.

    Where the protocol says so, the mean of each measure also leaves out the sequences whose own curve is 0 throughout;
    AO goes with success, and FR leaves out none.

    Args:
        scores: All of the same protocol.
        protocol: Its name; None: that of the scores.

    Raises:
        ValueError: The protocols differ.
    """
    protocol = _common_protocol(scores, protocol)
    kept = [s for s in scores if s.frames > 0]
    each = per_sequence(kept)
    curves = _curves(kept)
    if find_protocol(protocol).drops_empty:
        curves = tuple(curve[~_is_empty(curve)] for curve in curves)
    return Summary(
        percent={name: _mean(values[np.isfinite(values)]).item() for name, values in each.items()},
        success=_mean(curves[0]),
        precision=_mean(curves[1]),
        normalised_precision=_mean(curves[2]),
        sequences=len(kept),
        frames=sum(s.frames for s in kept),
        dropped={name: int(np.isnan(values).sum()) for name, values in each.items()},
        protocol=protocol,
    )


def _common_protocol(scores: Sequence[SequenceScore], protocol: str | None = None) -> str:
    names = {s.protocol for s in scores} | ({protocol} if protocol else set())
    if len(names) > 1:
        raise ValueError(f"scores of different protocols do not mix: {', '.join(sorted(names))}")
    return names.pop() if names else "plain"


def _curves(scores: Sequence[SequenceScore]) -> tuple[Values, ...]:
    """(S, 21), (S, 51), (S, 51)."""
    return (
        _stack([s.success for s in scores], len(OVERLAPS)),
        _stack([s.precision for s in scores], len(PIXELS)),
        _stack([s.normalised_precision for s in scores], len(NORMALISED)),
    )


def _is_empty(curves: Values) -> Mask:
    """(S, T) -> (S,) bool: 0 throughout."""
    return np.all(curves == 0, axis=1)


def _count_up_to(values: Values, thresholds: Values) -> Values:
    """How many of the values are at most each threshold: (N,), (T,) -> (T,)."""
    return np.searchsorted(np.sort(values), thresholds, side="right").astype(np.float64)


def _stack(curves: Sequence[Values], points: int) -> Values:
    """S curves -> (S, points), also when S = 0."""
    return np.array(curves, dtype=np.float64).reshape(-1, points)


def _mean(rows: Values) -> Values:
    """Mean over the first axis; NaN, without a warning, where there are no rows."""
    return rows.mean(axis=0) if len(rows) else np.full(rows.shape[1:], np.nan)
