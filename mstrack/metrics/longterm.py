"""Long-term precision, recall and F-score over confidence thresholds (Lukezic et al., 2018), as the VOT toolkit has them.

A tracker that says how sure it is may say so when the target is gone. Confidences of all sequences together give about
100 thresholds; at each, precision is the mean overlap over the frames that a tracker is sure of, recall the sum of those
overlaps over the frames in which the target is visible; both are averaged over sequences, and the best F counts. This is
what the toolkit's unsupervised experiment reports for VOT-RGBD and DepthTrack: overlaps are of boxes rounded to whole
pixels and cut to the image, and where target and answer are both absent the overlap is 1.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mstrack.boxes import Boxes
from mstrack.errors import UserError
from mstrack.metrics import frames
from mstrack.metrics.frames import Mask, Values

MEASURES = ("F", "Pr", "Re")
RESOLUTION = 100
"""Number of thresholds, with the two infinities."""


@dataclass(frozen=True)
class LongTermScore:
    """What one sequence of N frames contributes.

    Attributes:
        overlap: (N,) overlap in whole pixels; 1 where neither target nor prediction is there.
        confidence: (N,) how sure the tracker is; NaN is never sure.
        visible: Number of frames with a target.
    """

    overlap: Values
    confidence: Values
    visible: int


@dataclass(frozen=True)
class LongTermSummary(Mapping[str, float]):
    """`summary["F"]`, `["Pr"]` and `["Re"]` in percent at the threshold of the best F, and the curves as fractions.

    Attributes:
        percent: The `MEASURES` by name.
        thresholds: (T,) from inf down to -inf.
        precision: (T,) mean precision over sequences.
        recall: (T,) mean recall over sequences.
        f: (T,) F-score of the two.
        best: Index of the largest F, the first of several.
        sequences: Number of sequences; those without a visible frame are left out.
        frames: Number of frames in them.
    """

    percent: dict[str, float]
    thresholds: Values
    precision: Values
    recall: Values
    f: Values
    best: int
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
    *,
    size: tuple[int, int] | None = None,
) -> LongTermScore:
    """Score one sequence.

    Args:
        boxes: (N, 4) predicted x, y, w, h in pixels; a row with NaN is a frame in which the tracker reports nothing. The
            toolkit's own result files have no box in frame 0, so that frame fails there; give NaN for the same number.
        confidence: (M,) with M >= N; None is 0 throughout, as in the toolkit, which also has 0 in frame 0.
        truths: (N, 4) annotated x, y, w, h in pixels; NaN where the target is absent.
        valid: (N,) bool, False where the target is absent.
        size: Width and height of the images, which boxes are cut to; None cuts nothing.

    Raises:
        ValueError: An array has another shape.
        UserError: The result has another number of rows than there are frames, or fewer confidences.
    """
    predicted, truths, valid = np.asarray(boxes, np.float64), np.asarray(truths, np.float64), np.asarray(valid, bool)
    sure = np.zeros(len(truths)) if confidence is None else np.asarray(confidence, np.float64)
    if predicted.shape[1:] != (4,) or sure.ndim != 1:
        raise ValueError(f"expected boxes (N, 4) and confidence (N,), got {predicted.shape} and {sure.shape}")
    if truths.shape[1:] != (4,) or valid.shape != truths.shape[:1]:
        raise ValueError(f"expected truths (N, 4) and valid (N,), got {truths.shape} and {valid.shape}")
    if len(predicted) != len(truths) or len(sure) < len(truths):
        raise UserError(f"{len(predicted)} boxes and {len(sure)} confidences for {len(truths)} frames: there must be one each.")
    visible = valid & ~frames.has_nan(truths)
    overlap = overlap_pixels(predicted, np.where(visible[:, None], truths, np.nan), size)
    return LongTermScore(overlap, sure[: len(truths)], int(visible.sum()))


def summarise(scores: Sequence[LongTermScore], resolution: int = RESOLUTION) -> LongTermSummary:
    """Mean curves over sequences and their best F-score; NaN where no sequence has a visible frame.

    Args:
        scores: One per sequence.
        resolution: Number of thresholds, with the two infinities.
    """
    thresholds = choose_thresholds(np.concatenate([[], *(s.confidence for s in scores)]), resolution)
    kept = [s for s in scores if s.visible > 0]
    precision, recall = (curves.mean(axis=0) if kept else curves.sum(axis=0) * np.nan for curves in trace(kept, thresholds))
    f = _f_score(precision, recall)
    best = int(np.argmax(f))
    return LongTermSummary(
        percent={"F": 100 * float(f[best]), "Pr": 100 * float(precision[best]), "Re": 100 * float(recall[best])},
        thresholds=thresholds,
        precision=precision,
        recall=recall,
        f=f,
        best=best,
        sequences=len(kept),
        frames=sum(len(s.overlap) for s in kept),
    )


def per_sequence(scores: Sequence[LongTermScore], resolution: int = RESOLUTION) -> dict[str, Values]:
    """The `MEASURES` of S sequences in percent, each (S,), at the threshold that is best for all; NaN without a target.

    The mean of Pr and Re is that of `summarise`; the mean of F is not, as F is formed from the means.
    """
    summary = summarise(scores, resolution)
    precision, recall = (curves[:, 0] for curves in trace(scores, summary.thresholds[summary.best :][:1]))
    absent = np.array([s.visible == 0 for s in scores], bool)
    columns = {"F": _f_score(precision, recall), "Pr": precision, "Re": recall}
    return {name: np.where(absent, np.nan, 100 * column) for name, column in columns.items()}


def choose_thresholds(confidence: ArrayLike, resolution: int = RESOLUTION) -> Values:
    """Thresholds from inf down to -inf: all confidences, or `resolution - 2` of their ranks evenly from top to bottom.

    Args:
        confidence: (C,) of all frames of all sequences; NaN is left out.
        resolution: Number of thresholds to return at most.
    """
    values = np.asarray(confidence, np.float64)
    ranked = np.sort(values[~np.isnan(values)])[::-1]
    inner = resolution - 2
    if len(ranked) > inner:
        margin = len(ranked) // inner
        ranked = ranked[np.round(np.linspace(margin, len(ranked) - margin, inner)).astype(int)]
    return np.concatenate([[np.inf], ranked, [-np.inf]])


def trace(scores: Sequence[LongTermScore], thresholds: Values) -> tuple[Values, Values]:
    """Precision and recall of S sequences at T thresholds, (S, T) each; precision is 1 where no frame is sure enough."""
    precision, recall = np.ones((len(scores), len(thresholds))), np.zeros((len(scores), len(thresholds)))
    for row, one in enumerate(scores):
        order = np.argsort(-one.confidence)
        ranked = -one.confidence[order]
        ranked = ranked[~np.isnan(ranked)]
        counts = np.searchsorted(ranked, -thresholds, side="right")
        sums = np.concatenate([[0.0], np.cumsum(one.overlap[order])])[counts]
        np.divide(sums, counts, out=precision[row], where=counts > 0)
        recall[row] = sums / max(one.visible, 1)
    return precision, recall


def overlap_pixels(boxes: Boxes, truths: Boxes, size: tuple[int, int] | None = None) -> Values:
    """Overlap of two lists of boxes as masks of whole pixels, (N, 4), (N, 4) -> (N,), in the toolkit's sense.

    Values are rounded half to even in single precision. A row with NaN is empty. Pixels are counted in the rectangle
    around both that lies in the image: where that rectangle has no extent in one direction before it is cut, the two are
    taken as the same (two empty ones, or two lines of one pixel), and where it has none after, as disjoint.

    Args:
        boxes: x, y, w, h in pixels.
        truths: The same, of the target.
        size: Width and height of the image; None cuts nothing.
    """
    (low, high), (true_low, true_high) = _pixel_corners(boxes), _pixel_corners(truths)
    there, true_there = ~frames.has_nan(boxes), ~frames.has_nan(truths)
    first, last = np.minimum(low, true_low), np.maximum(high, true_high)
    same = (first >= last).any(axis=1)
    if size is not None:
        first, last = np.maximum(first, 0), np.minimum(last, np.array(size) - 1.0)
    outside = (first >= last).any(axis=1)

    def count(start: Values, stop: Values, counted: Mask) -> Values:
        sides = np.minimum(stop, last) - np.maximum(start, first) + 1
        return np.where(counted, np.prod(np.maximum(sides, 0), axis=1), 0)

    shared = count(np.maximum(low, true_low), np.minimum(high, true_high), there & true_there)
    union = count(low, high, there) + count(true_low, true_high, true_there) - shared
    overlap = np.divide(shared, union, out=np.zeros(len(union)), where=union > 0)
    return np.where(same, 1.0, np.where(outside, 0.0, overlap))


def _pixel_corners(boxes: Boxes) -> tuple[Values, Values]:
    """First and last pixel, (N, 2) each; the pixel 0, 0 where a row has NaN."""
    empty = frames.has_nan(boxes)[:, None]
    whole = np.round(np.where(empty, 0, boxes).astype(np.float32)).astype(np.float64)
    return whole[:, :2], np.where(empty, 0, whole[:, :2] + whole[:, 2:] - 1)


def _f_score(precision: Values, recall: Values) -> Values:
    total = precision + recall
    return np.divide(2 * precision * recall, total, out=np.where(np.isnan(total), np.nan, 0.0), where=total > 0)
