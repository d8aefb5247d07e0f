"""COESOT's breadth-of-challenge score (BOC): success weighed by how much a set of base trackers leaves to be won.

Tang et al., "Revisiting color-event based tracking" (CEUTrack, COESOT): per sequence, the mean success of a tracker times one
minus the mean success of the base trackers; then the mean over sequences, those with no success among them.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from mstrack.metrics.ope import SequenceScore

BASE_TRACKERS = (
    "DiMP50",
    "KeepTrack",
    "KYS",
    "PrDiMP50",
    "STARK-S50",
    "SuperDiMP",
    "TOMP50",
    "TransT50",
    "AiATrack",
    "ATOM",
    "Mixformer1k",
    "OStrack",
    "SiamRPN",
    "TrDiMP",
    "TrSiam",
)
"""The 15 base trackers of the benchmark, as its files spell them."""


def score_breadth(success: ArrayLike, base: ArrayLike) -> float:
    """The BOC score in percent.

    Args:
        success: (S, T) success curves of a tracker in [0, 1], one per sequence.
        base: (B, S, T) curves of B base trackers on the same sequences; the benchmark has 15.

    Raises:
        ValueError: The shapes do not fit.
    """
    own, others = np.asarray(success, np.float64), np.asarray(base, np.float64)
    if own.ndim != 2 or others.ndim != 3 or others.shape[1:] != own.shape:
        raise ValueError(f"expected success (S, T) and base (B, S, T), got {own.shape} and {others.shape}")
    return 100 * float(np.mean(own.mean(axis=1) * (1 - others.mean(axis=(0, 2)))))


def summarise_breadth(scores: Sequence[SequenceScore], base: Sequence[Sequence[SequenceScore]]) -> float:
    """The BOC score in percent, from scores of the same sequences in the same order."""
    return score_breadth([s.success for s in scores], [[s.success for s in run] for run in base])
