"""Trackers on one dataset: how each stands on all sequences and on those of every attribute, with intervals and pairs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mstrack.compare.naming import SPELLING
from mstrack.comparison import Pair, compare_pairs, find_intervals
from mstrack.data.truths import Truth, load_truths
from mstrack.metrics.ope import NORMALISED, OVERLAPS, PIXELS, per_sequence
from mstrack.metrics.protocols import find_protocol, protocol_of
from mstrack.scoring import Scored, score_paths, stamp

Values = NDArray[np.float64]

SHOWN = ("SR", "OP50", "OP75", "PR", "NPR", "AO", "FR")
"""The measures of a ranking; FR, the failure rate, is the one where less is better."""
COMPARED = ("SR", "PR", "NPR")
"""The measures with a curve, by which trackers are compared in pairs and by attribute."""

EVERY, COMMON = "all sequences", "sequences of all trackers"


@dataclass(frozen=True)
class Part:
    """Some of the S sequences, and how M trackers did there.

    Attributes:
        name: An attribute, `EVERY` or `COMMON`.
        members: (S,) whether a sequence is among them.
        counts: (M,) on how many of them each tracker has a score.
        percent: Means by measure, each (M,); as `ope.summarise` of the tracker's scores there.
        intervals: Bootstrap bounds by measure, each (M, 2).
        curves: By measure of `COMPARED`, (M, T) as fractions; see `THRESHOLDS`.
        pairs: By measure of `COMPARED`, every pair of trackers on the sequences that both have.
    """

    name: str
    members: NDArray[np.bool_]
    counts: NDArray[np.intp]
    percent: dict[str, Values]
    intervals: dict[str, Values]
    curves: dict[str, Values]
    pairs: dict[str, list[Pair]]


THRESHOLDS = {"SR": OVERLAPS, "PR": PIXELS, "NPR": NORMALISED}
"""Of the curves of each measure."""


@dataclass(frozen=True)
class Standings:
    """M trackers on S sequences.

    Attributes:
        dataset: Its name.
        protocol: Name of the scoring convention.
        results: The trackers, the best first by SR on the sequences that all have.
        truths: The sequences, in the order of the dataset.
        parts: First all sequences; then, where trackers lack some, those that all have; then by attribute.
        values: Each measure of each sequence in percent, (M, S), NaN where there is no score.
        long_term: Measures of `metrics/longterm.py` over all sequences in percent, each (M,), where trackers have them.
        stamp: How the scores were computed, see `scoring.stamp`.
        notes: Sentences that a reader must know.
    """

    dataset: str
    protocol: str
    results: list[Scored]
    truths: list[Truth]
    parts: list[Part]
    values: dict[str, Values]
    long_term: dict[str, Values] = field(default_factory=dict)
    stamp: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The dataset as it spells itself."""
        return SPELLING.get(self.dataset, self.dataset)

    @property
    def facts(self) -> dict[str, str]:
        """Provenance, ready to print."""
        if not self.stamp:
            return {}
        used = self.stamp["list"]
        return {
            "Sequences": f"list {used['name']}, hash {used['hash']}: {self.stamp['sequences']} sequences, "
            f"{self.stamp['frames']} frames",
            "Software": f"mstrack {self.stamp['mstrack']}",
        }

    @property
    def names(self) -> list[str]:
        """The trackers."""
        return [result.name for result in self.results]

    @property
    def attributes(self) -> list[Part]:
        """The parts that are attributes."""
        return [part for part in self.parts if part.name not in (EVERY, COMMON)]

    @property
    def whole(self) -> Part:
        """Where trackers are compared as a whole: on the sequences that all have, where there are such."""
        return self.parts[1] if len(self.parts) > 1 and self.parts[1].name == COMMON else self.parts[0]

    def label(self, measure: str) -> str:
        """What the protocol calls a measure."""
        return find_protocol(self.protocol).names.get(measure, measure)


def rank(
    results: Sequence[Scored],
    truths: Sequence[Truth],
    dataset: str,
    protocol: str,
    stamp: Mapping[str, Any] | None = None,
) -> Standings:
    """Put trackers in order and compare them.

    Args:
        results: At least one, each with a name of its own; sequences without a score are left out of its means.
        truths: The sequences of the dataset.
        dataset: Its name.
        protocol: Name of the scoring convention of all the scores.
        stamp: How the scores were computed.

    Raises:
        ValueError: No tracker, or a name twice.
    """
    if not results or len({result.name for result in results}) != len(results):
        raise ValueError("standings need at least one tracker, each with a name of its own")
    every, kept = _columns(results, truths, np.nan), _columns(results, truths, None)
    common = np.isfinite(kept["SR"]).all(axis=0)
    sr = _mean(every["SR"][:, common] if common.any() else every["SR"])
    order = sorted(range(len(results)), key=lambda i: (-np.nan_to_num(sr[i], nan=-1), i))
    ranked = [results[i] for i in order]
    averaged, values = ({name: rows[order] for name, rows in columns.items()} for columns in (every, kept))
    curves = {name: np.stack([_curves(result, truths, name) for result in ranked]) for name in COMPARED}
    parts = [_measure(name, members, averaged, values, curves) for name, members in _divide(truths, values["SR"]).items()]
    notes = _say_incomplete([result.name for result in ranked], np.isfinite(values["SR"]))
    return Standings(dataset, protocol, ranked, list(truths), parts, values, _long_term(ranked), dict(stamp or {}), notes)


def read_standings(
    paths: Sequence[Path],
    dataset: str,
    split: str = "test",
    annotations: Path | None = None,
    root: Path | None = None,
    data_root: Path | None = None,
    protocol: str | None = None,
    form: Literal["auto", "xywh", "corners"] = "auto",
    size: tuple[int, int] | None = None,
) -> Standings:
    """Read and score raw results of trackers, and compare them.

    Args:
        paths: Folders and archives, see `rawresults.read_results`.
        dataset: A name of the catalogue, or a folder of your own data.
        split: One of its splits.
        annotations: Annotations without frames; None: those of the dataset's folder.
        root: The dataset's folder; None: it is looked for below `data_root`.
        data_root: Where datasets are looked for.
        protocol: Name of the scoring convention; None: that of the dataset's published numbers.
        form: What four values are.
        size: Width and height in pixels of images that are not there.

    Raises:
        UserError: As `load_truths` and `score_paths`.
    """
    truths = load_truths(dataset, split, annotations, root, data_root, size)
    chosen = protocol or protocol_of(dataset)
    scored = score_paths(paths, truths, dataset, chosen, form)
    made = stamp(dataset, split, truths, chosen)
    return rank(scored, truths, made["dataset"], chosen, made)


def _long_term(results: Sequence[Scored]) -> dict[str, Values]:
    summaries = [result.long_term for result in results if result.long_term is not None]
    if not summaries:
        return {}
    return {
        name: np.array([np.nan if result.long_term is None else result.long_term[name] for result in results])
        for name in summaries[0]
    }


def _divide(truths: Sequence[Truth], sr: Values) -> dict[str, NDArray[np.bool_]]:
    scored = np.isfinite(sr)
    parts: dict[str, NDArray[np.bool_]] = {EVERY: np.ones(len(truths), bool)}
    common = np.all(scored, axis=0)
    if (common != scored.any(axis=0)).any() and common.any():
        parts[COMMON] = common
    for name in dict.fromkeys(name for truth in truths for name in sorted(truth.attributes)):
        members = np.array([name in truth.attributes for truth in truths])
        if (members & scored.any(axis=0)).any():
            parts.setdefault(name, members)
    first = [name for name in parts if name in (EVERY, COMMON)]
    return {name: parts[name] for name in [*first, *sorted(parts.keys() - set(first))]}


def _measure(
    name: str,
    members: NDArray[np.bool_],
    averaged: Mapping[str, Values],
    values: Mapping[str, Values],
    curves: Mapping[str, Values],
) -> Part:
    """Means of `averaged`, in which NaN stands for what the protocol leaves out; pairs of `values`, which keep it as 0."""
    kept = {measure: averaged[measure][:, members] for measure in SHOWN}
    return Part(
        name,
        members,
        np.isfinite(values["SR"][:, members]).sum(axis=1),
        percent={measure: _mean(columns) for measure, columns in kept.items()},
        intervals={measure: find_intervals(columns) for measure, columns in kept.items()},
        curves={measure: _mean_curves(curves[measure][:, members], kept[measure]) for measure in COMPARED},
        pairs={measure: compare_pairs(values[measure][:, members]) for measure in COMPARED},
    )


def _columns(results: Sequence[Scored], truths: Sequence[Truth], dropped: float | None) -> dict[str, Values]:
    """Each measure, (M, S); NaN where there is no score."""
    columns = {name: np.full((len(results), len(truths)), np.nan) for name in SHOWN}
    for i, result in enumerate(results):
        found = [j for j, truth in enumerate(truths) if truth.name in result.scores]
        measured = per_sequence([result.scores[truths[j].name] for j in found], dropped)
        for name in SHOWN:
            columns[name][i, found] = measured[name]
    return columns


def _curves(result: Scored, truths: Sequence[Truth], measure: str) -> Values:
    """(S, T), NaN where there is no score."""
    attribute = {"SR": "success", "PR": "precision", "NPR": "normalised_precision"}[measure]
    nothing = np.full(len(THRESHOLDS[measure]), np.nan)
    rows = [getattr(result.scores[t.name], attribute) if t.name in result.scores else nothing for t in truths]
    return np.array(rows).reshape(-1, len(nothing))


def _mean(rows: Values) -> Values:
    """(M, S) -> (M,) over what is finite; NaN where nothing is."""
    finite = np.isfinite(rows)
    counts = finite.sum(axis=1)
    return np.where(counts, np.where(finite, rows, 0).sum(axis=1) / np.maximum(counts, 1), np.nan)


def _mean_curves(curves: Values, kept: Values) -> Values:
    """(M, S, T) -> (M, T) over the sequences whose `kept`, (M, S), is finite."""
    rows = [curve[np.isfinite(column)] for curve, column in zip(curves, kept, strict=True)]
    return np.stack([row.mean(axis=0) if len(row) else np.full(curves.shape[2], np.nan) for row in rows])


def _say_incomplete(names: Sequence[str], scored: NDArray[np.bool_]) -> list[str]:
    """What (M, S), who has a score where, means for a reader."""
    anyone, total = scored.any(axis=0), scored.shape[1]
    notes = []
    if nobody := int((~anyone).sum()):
        notes.append(f"Left out for want of a score: {nobody} of {total} sequences.")
    partial = [f"{name} {row.sum()}" for name, row in zip(names, scored, strict=True) if (row != anyone).any()]
    if partial:
        common = int(scored.all(axis=0).sum())
        shown = f"Means are first of the {common} that all have (“{COMMON}”)" if common else "None is common to all"
        notes.append(
            f"Not all trackers have results on the same sequences ({', '.join(partial)} of {total}). {shown}; over all"
            " sequences they do not compare. Differences between two trackers use what both have."
        )
    return notes
