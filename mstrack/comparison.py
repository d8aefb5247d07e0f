"""Methods against each other on the same sequences: means with intervals, differences, pairs, groups of sequences."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mstrack.metrics.ope import MEASURES, SequenceScore, per_sequence, summarise
from mstrack.metrics.uncertainty import FEWEST, Difference, Interval, interval, paired_difference

TIE = 0.05
"""Two scores of a sequence that are closer than this, in percent, are equal: one decimal is all that is printed."""
RESAMPLES, FLIPS = 2000, 9999

Values = NDArray[np.float64]
Runs = Mapping[str, NDArray[np.float64]]
"""The measures of one method in percent, each (R, S): R runs with different seeds, S sequences."""


class Cell(NamedTuple):
    """A mean with its interval, in percent, and whether it is the largest of its column as printed."""

    mean: float
    interval: Interval
    best: bool


class Row(NamedTuple):
    """One method: a cell per measure, and its difference in SR to the reference, None for the reference itself."""

    label: str
    cells: dict[str, Cell]
    difference: Difference | None


class Group(NamedTuple):
    """Some of the sequences: how many, each method's mean SR there, and those means as positions in [0, 100].

    The positions share one scale over all groups that are compared together.
    """

    name: str
    sequences: int
    means: list[float]
    positions: list[float]


class Pair(NamedTuple):
    """Method `a` against method `b` on the sequences that both have.

    Attributes:
        a: Index of the one.
        b: Index of the other.
        sequences: How many both have.
        difference: Mean of a - b in percent, with its bootstrap interval.
        wins: On how many sequences a is better, by more than `TIE`.
        losses: On how many it is worse.
        p: Two-sided sign-flip test of the mean difference; NaN for too few sequences.
        adjusted: The same after Holm's correction for all pairs that are compared together.
    """

    a: int
    b: int
    sequences: int
    difference: Difference
    wins: int
    losses: int
    p: float
    adjusted: float


def measure_runs(runs: Sequence[Sequence[SequenceScore]]) -> Runs:
    """The measures of the runs of one method, each over the same S sequences.

    A sequence that is 0 throughout is 0, also where the protocol leaves it out of a mean: see `measure_means`.
    """
    measured = [per_sequence(run, dropped=None) for run in runs]
    return {name: np.stack([values[name] for values in measured]) for name in MEASURES}


def measure_means(runs: Sequence[Sequence[SequenceScore]]) -> dict[str, float]:
    """The means of one method as its protocol forms them for each run, averaged over the runs."""
    summaries = [summarise(run) for run in runs]
    return {name: float(np.mean([summary[name] for summary in summaries])) for name in MEASURES}


def compare_methods(
    labels: Sequence[str], methods: Sequence[Runs], means: Sequence[Mapping[str, float]], reference: int
) -> list[Row]:
    """Every measure with its bootstrap interval over sequences (and runs), and the paired difference to the reference.

    Args:
        labels: What to call each method.
        methods: What each scored; at least one.
        means: What is printed of each, see `measure_means`.
        reference: Index of the method that the others are compared with.
    """
    printed = {name: [f"{mean[name]:.1f}" for mean in means] for name in MEASURES}
    best = {name: max((text for text in texts if text != "nan"), key=float, default="") for name, texts in printed.items()}
    rows = []
    for index, runs in enumerate(methods):
        cells = {name: Cell(means[index][name], interval(runs[name]), printed[name][index] == best[name]) for name in MEASURES}
        compared = None if index == reference else paired_difference(runs["SR"], methods[reference]["SR"])
        rows.append(Row(labels[index], cells, compared))
    return rows


def compare_groups(sr: Sequence[Values], groups: Mapping[str, NDArray[np.bool_]]) -> list[Group]:
    """Mean SR of methods over groups of S sequences.

    Args:
        sr: Of each method, (R, S) in percent for R runs; NaN where no frame counts, or where the protocol leaves a sequence
            that is 0 throughout out of the mean. A group of which that leaves nothing is 0.
        groups: (S,) membership by name; a group without a scored sequence is left out.
    """
    scored = np.isfinite(np.concatenate(sr)).any(axis=0)
    kept = {name: member & scored for name, member in groups.items()}
    means = {
        name: np.array([_mean_of_runs(values[:, member]) for values in sr]) for name, member in kept.items() if member.any()
    }
    if not means:
        return []
    low, high = np.min(list(means.values())), np.max(list(means.values()))
    span = max(high - low, 1e-9)
    return [
        Group(name, int(kept[name].sum()), mean.tolist(), (100 * (mean - low) / span).tolist()) for name, mean in means.items()
    ]


def _mean_of_runs(values: Values) -> float:
    finite = np.isfinite(values)
    return float((np.where(finite, values, 0).sum(axis=1) / np.maximum(finite.sum(axis=1), 1)).mean())


def find_intervals(values: Values) -> Values:
    """`uncertainty.interval` of many methods at once: (M, S) values in percent -> (M, 2) low and high.

    Sequences with NaN are left out, for each method its own; NaN where fewer than `FEWEST` are left.
    """
    bounds = np.full((len(values), 2), np.nan)
    for rows, kept in _by_mask(np.isfinite(values)):
        if len(kept) >= FEWEST:
            bounds[rows] = _bounds(_draws(len(kept)) @ values[rows][:, kept].T)
    return bounds


def compare_pairs(values: Values) -> list[Pair]:
    """Every pair of M methods, by `uncertainty.paired_difference`, wins and losses, and a paired test.

    The test draws the sign of each sequence's difference anew (Fisher's randomisation test): if neither method were
    better, both signs would be equally likely.

    Args:
        values: (M, S) in percent, NaN where a method has no score.
    """
    indices = list(combinations(range(len(values)), 2))
    if not indices:
        return []
    first, second = np.array(indices).T
    differences = values[first] - values[second]
    pairs: dict[int, Pair] = {}
    for rows, kept in _by_mask(np.isfinite(differences)):
        observed = differences[rows][:, kept]
        means = observed.mean(axis=1) if len(kept) else np.full(len(rows), np.nan)
        bounds, p = np.full((len(rows), 2), np.nan), np.full(len(rows), np.nan)
        if len(kept) >= FEWEST:
            bounds = _bounds(_draws(len(kept)) @ observed.T)
            extreme = np.abs(_flips(len(kept)) @ observed.T) / len(kept) >= np.abs(means) - 1e-9
            p = (1 + extreme.sum(axis=0)) / (1 + FLIPS)
        for i, row in enumerate(rows):
            difference = Difference(float(means[i]), float(bounds[i, 0]), float(bounds[i, 1]))
            wins, losses = int((observed[i] > TIE).sum()), int((observed[i] < -TIE).sum())
            pairs[row] = Pair(*indices[row], len(kept), difference, wins, losses, float(p[i]), np.nan)
    adjusted = adjust_holm(np.array([pairs[row].p for row in range(len(indices))]))
    return [pairs[row]._replace(adjusted=float(adjusted[row])) for row in range(len(indices))]


def adjust_holm(p: Values) -> Values:
    """Holm's step-down correction of (K,) p-values; NaN stay NaN and are not counted."""
    adjusted = np.full(len(p), np.nan)
    order = [int(i) for i in np.argsort(p, kind="stable") if np.isfinite(p[i])]
    highest = 0.0
    for step, index in enumerate(order):
        highest = max(highest, min(1.0, float(p[index]) * (len(order) - step)))
        adjusted[index] = highest
    return adjusted


def format_difference(difference: Difference) -> str:
    """For example `+1.9 [−0.3, +4.1]`, with the minus sign of print; without bounds where there are none."""
    mean, low, high = (f"{value:+.1f}".replace("-", "\u2212") for value in difference)
    return mean if np.isnan(difference.low) else f"{mean} [{low}, {high}]"


def judge(difference: Difference) -> str:
    """`better`, `worse`, `within noise` or `too few sequences`."""
    if np.isnan(difference.low):
        return "too few sequences"
    if difference.within_noise:
        return "within noise"
    return "better" if difference.mean > 0 else "worse"


def _by_mask(finite: NDArray[np.bool_]) -> Iterator[tuple[list[int], NDArray[np.intp]]]:
    """(M, S) -> rows that have the same sequences, and these sequences."""
    groups: dict[bytes, list[int]] = {}
    for row, mask in enumerate(finite):
        groups.setdefault(mask.tobytes(), []).append(row)
    for rows in groups.values():
        yield rows, np.flatnonzero(finite[rows[0]])


def _bounds(means: Values) -> Values:
    """(T, M) bootstrap means -> (M, 2) bounds that hold 95 % of them."""
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    return np.stack([low, high], axis=1)


@lru_cache(maxsize=16)
def _draws(size: int) -> Values:
    """The weights of `uncertainty.interval`: how often each of `size` sequences is drawn, (T, size), rows of sum 1."""
    return np.random.default_rng(0).multinomial(size, np.full(size, 1 / size), RESAMPLES) / size


@lru_cache(maxsize=1)
def _flips(size: int) -> Values:
    return 2 * np.random.default_rng(0).integers(0, 2, (FLIPS, size)).astype(np.float64) - 1
