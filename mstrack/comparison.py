"""Methods against each other on the same sequences: means with intervals, differences, groups of sequences."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mstrack.metrics.ope import MEASURES, SequenceScore, per_sequence
from mstrack.metrics.uncertainty import Difference, Interval, interval, paired_difference

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


def measure_runs(runs: Sequence[Sequence[SequenceScore]]) -> Runs:
    """The measures of the runs of one method, each over the same S sequences."""
    measured = [per_sequence(run) for run in runs]
    return {name: np.stack([values[name] for values in measured]) for name in MEASURES}


def compare_methods(labels: Sequence[str], methods: Sequence[Runs], reference: int) -> list[Row]:
    """Every measure with its bootstrap interval over sequences (and runs), and the paired difference to the reference.

    Args:
        labels: What to call each method.
        methods: What each scored; at least one.
        reference: Index of the method that the others are compared with.
    """
    printed = {name: [f"{_mean(runs[name]):.1f}" for runs in methods] for name in MEASURES}
    best = {name: max((text for text in texts if text != "nan"), key=float, default="") for name, texts in printed.items()}
    rows = []
    for index, runs in enumerate(methods):
        cells = {name: Cell(_mean(runs[name]), interval(runs[name]), printed[name][index] == best[name]) for name in MEASURES}
        compared = None if index == reference else paired_difference(runs["SR"], methods[reference]["SR"])
        rows.append(Row(labels[index], cells, compared))
    return rows


def compare_groups(sr: NDArray[np.float64], groups: Mapping[str, NDArray[np.bool_]]) -> list[Group]:
    """Mean SR of M methods over groups of S sequences.

    Args:
        sr: (M, S) in percent; sequences with NaN are left out.
        groups: (S,) membership by name; a group without a sequence is left out.
    """
    kept = {name: member & np.isfinite(sr).all(axis=0) for name, member in groups.items()}
    means = {name: sr[:, member].mean(axis=1) for name, member in kept.items() if member.any()}
    if not means:
        return []
    low, high = np.min(list(means.values())), np.max(list(means.values()))
    span = max(high - low, 1e-9)
    return [
        Group(name, int(kept[name].sum()), mean.tolist(), (100 * (mean - low) / span).tolist()) for name, mean in means.items()
    ]


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


def _mean(values: NDArray[np.float64]) -> float:
    finite = values[:, np.isfinite(values).all(axis=0)]
    return float(finite.mean()) if finite.size else float("nan")
