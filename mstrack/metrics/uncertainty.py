"""How sure a mean over sequences is: percentile bootstrap (Efron and Tibshirani 1993, chapter 13).

Values are (S,), one number per sequence, or (R, S) for R runs of the same method with different seeds. Sequences are
drawn anew with replacement, and so are the runs where there are several: then the interval covers both. With one run it
says nothing about seeds, and with two or three it is too narrow.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mstrack.metrics.protocols import Values

FEWEST = 6
"""Below this many sequences no interval is given: even if all of 5 differences have one sign, chance does that in 6 %."""

_Generator = np.random.Generator


class Interval(NamedTuple):
    """The bounds of an interval, in the unit of the values."""

    low: float
    high: float


class Difference(NamedTuple):
    """The mean of a - b and the bounds of its interval, in the unit of the values."""

    mean: float
    low: float
    high: float

    @property
    def within_noise(self) -> bool:
        """Whether the data do not tell a from b: the interval holds 0, or there is none."""
        return not (self.low > 0 or self.high < 0)


def interval(values: ArrayLike, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> Interval:
    """The bootstrap interval of the mean.

    Args:
        values: (S,) or (R, S); sequences with NaN are left out.
        level: Share of the bootstrap means inside.
        resamples: Number of bootstrap means.
        seed: Of the draws, so that a report is the same each time.

    Returns:
        The bounds; NaN where fewer than `FEWEST` sequences are left.
    """
    runs = np.atleast_2d(np.asarray(values, dtype=np.float64))
    runs = runs[:, np.isfinite(runs).all(axis=0)]
    rng = np.random.default_rng(seed)
    return Interval(*_bounds(_resample(runs, _draw(runs.shape[1], resamples, rng), rng), level))


def paired_difference(a: ArrayLike, b: ArrayLike, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> Difference:
    """The mean of a - b over the same sequences, with its bootstrap interval.

    Both sides see the same draw of sequences, so that what is hard for both cancels; runs are drawn for each side.

    Args:
        a: (S,) or (R, S), one method's values.
        b: (S,) or (Q, S), the other's; sequences with NaN on either side are left out.
        level: Share of the bootstrap differences inside.
        resamples: Number of bootstrap differences.
        seed: Of the draws.

    Returns:
        Mean and bounds; the bounds are NaN where fewer than `FEWEST` sequences are left.

    Raises:
        ValueError: The numbers of sequences differ.
    """
    first, second = (np.atleast_2d(np.asarray(side, dtype=np.float64)) for side in (a, b))
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"pairs need the same sequences, got {first.shape[1]} and {second.shape[1]}")
    kept = np.isfinite(first).all(axis=0) & np.isfinite(second).all(axis=0)
    first, second = first[:, kept], second[:, kept]
    rng = np.random.default_rng(seed)
    sequences = _draw(first.shape[1], resamples, rng)
    differences = _resample(first, sequences, rng) - _resample(second, sequences, rng)
    mean = float(first.mean() - second.mean()) if kept.any() else np.nan
    return Difference(mean, *_bounds(differences, level))


def seed_difference(a: ArrayLike, b: ArrayLike, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> Difference:
    """The mean of a - b over the same sequences and the same seeds, with its bootstrap interval.

    For runs whose seed decides what both sides have in common, such as the training sequences: run i of `a` is compared with
    run i of `b`, and pairs of runs are drawn, so that what a good training set does for both cancels.

    Args:
        a: (R, S), one method's values.
        b: (Q, S), the other's. Runs beyond the shorter side are left out; a side of one run is compared with all.
        level: As for `paired_difference`.
        resamples: Likewise.
        seed: Likewise.

    Returns:
        As `paired_difference`.

    Raises:
        ValueError: The numbers of sequences differ.
    """
    first, second = (np.atleast_2d(np.asarray(side, dtype=np.float64)) for side in (a, b))
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"pairs need the same sequences, got {first.shape[1]} and {second.shape[1]}")
    if min(len(first), len(second)) > 1:
        common = min(len(first), len(second))
        first, second = first[:common], second[:common]
    differences = first - second
    kept = np.isfinite(differences).all(axis=0)
    mean = float(differences[:, kept].mean()) if kept.any() else np.nan
    return Difference(mean, *interval(differences, level, resamples, seed))


def _draw(size: int, resamples: int, rng: _Generator) -> Values:
    """How often each of `size` items is drawn in each of `resamples` samples with replacement, as weights of sum 1."""
    if size == 0:
        return np.zeros((resamples, 0))
    return rng.multinomial(size, np.full(size, 1 / size), resamples) / size


def _resample(runs: Values, sequences: Values, rng: _Generator) -> Values:
    """Bootstrap means, (R, S) values and (T, S) weights of the sequences -> (T,); NaN for too few sequences."""
    if runs.shape[1] < FEWEST:
        return np.full(len(sequences), np.nan)
    rows = _draw(len(runs), len(sequences), rng) if len(runs) > 1 else np.ones((len(sequences), 1))
    return np.sum((rows @ runs) * sequences, axis=1)


def _bounds(means: Values, level: float) -> tuple[float, float]:
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)
