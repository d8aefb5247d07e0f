"""Raw results against annotations: aligned, scored by a named protocol, and stamped with how that was done."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from mstrack import __version__
from mstrack.data.splits import describe_list
from mstrack.data.truths import Truth
from mstrack.errors import UserError, some
from mstrack.metrics import longterm, ope
from mstrack.metrics.longterm import LongTermSummary
from mstrack.metrics.ope import SequenceScore, Summary
from mstrack.metrics.protocols import find_protocol, metrics_of, protocol_of
from mstrack.metrics.uncertainty import interval
from mstrack.rawresults import RawResults, read_all
from mstrack.rawresults.form import Form
from mstrack.results import Track

FOREIGN = 5
"""From so many sequences on, results whose lengths hardly ever fit are taken for those of other data."""


@dataclass(frozen=True)
class Scored:
    """A tracker's scores on a list of sequences.

    Attributes:
        name: Of the tracker.
        scores: By sequence, in the order of the list.
        summary: Their means.
        tracks: What was scored: results aligned with the annotation, by sequence.
        lacking: Sequences without a result; the means leave them out.
        notes: What is to be said of the results, and what the protocol did about it; a line each.
        recognised: Layout and format of the results.
        long_term: The F-score over confidence thresholds, where the data set is scored by it.
        fps: Frames per second, by the files of times; None where there are none.
    """

    name: str
    scores: dict[str, SequenceScore]
    summary: Summary
    tracks: dict[str, Track]
    lacking: list[str]
    notes: list[str] = field(default_factory=list)
    recognised: str = ""
    long_term: LongTermSummary | None = None
    fps: float | None = None

    @property
    def percent(self) -> dict[str, float]:
        """All measures in percent, unrounded, those of the published figure first."""
        return {**(self.long_term or {}), **self.summary}


def score_paths(
    paths: Iterable[Path],
    truths: list[Truth],
    dataset: str,
    protocol: str | None = None,
    form: Form = "auto",
    strict: bool = False,
) -> list[Scored]:
    """Read and score every tracker in some folders and archives; the best first.

    Args:
        paths: See `rawresults.read_results`.
        truths: See `truths.load_truths`.
        dataset: Name of the data set, which has a protocol and metrics of its own.
        protocol: Another protocol.
        form: What four values are.
        strict: Whether a sequence without a result is an error.

    Raises:
        UserError: No results, or of other data; the protocol does not take them; or, where it is strict, some are lacking.
    """
    protocol = find_protocol(protocol or protocol_of(dataset)).name
    boxes = {truth.name: truth.boxes for truth in truths}
    found = read_all(paths, boxes, boxes, form)
    scored = [score_results(results, truths, protocol, "longterm" in metrics_of(dataset)) for results in found]
    lacking = [f"{s.name} has no result of {len(s.lacking)}: {some(s.lacking, 10)}" for s in scored if s.lacking]
    if strict and lacking:
        raise UserError("sequences without a result (--strict):\n" + "\n".join(lacking))
    return sorted(scored, key=lambda s: -np.nan_to_num(next(iter(s.percent.values())), nan=-1))


def score_results(results: RawResults, truths: list[Truth], protocol: str, long_term: bool = False) -> Scored:
    """Score one tracker.

    Results of a sequence whose leading absent frames were cut off (VisEvent's and COESOT's runners) are aligned to its end.

    Args:
        results: What was read.
        truths: The list, with annotations.
        protocol: Name of the convention.
        long_term: Whether to form the F-score over confidence thresholds too.

    Raises:
        UserError: The protocol does not take some of the results, or they are of other data.
    """
    scores: dict[str, SequenceScore] = {}
    tracks: dict[str, Track] = {}
    refused, cut, said = [], [], defaultdict[str, list[tuple[str, str]]](list)
    sure: list[longterm.LongTermScore] = []
    _check_lengths(results, truths)
    for truth in truths:
        track = results.tracks.get(truth.name)
        if track is None:
            continue
        lead = _leading_frames(truth, len(track.boxes))
        if lead:
            cut.append(f"{truth.name} ({lead})")
        boxes = np.concatenate([np.zeros((lead, 4)), track.boxes])
        confidence = np.concatenate([np.full(lead, np.nan), track.confidence])
        if truth.name in results.given:
            boxes[lead] = truth.boxes[lead]
        tracks[truth.name] = Track(boxes, confidence, tuple(frame + lead for frame in track.lacking))
        try:
            score = ope.score(
                boxes, confidence, truth.boxes, truth.valid, protocol, present=truth.present, aux_truths=truth.aux_boxes
            )
        except UserError as error:
            refused.append(f"{truth.name}: {error}")
            continue
        scores[truth.name] = score
        for note in score.notes:
            said[re.sub(r"\d+", "", note)].append((truth.name, note))
        if long_term:
            sure.append(_score_long_term(track, lead, truth.name in results.given, truth))
    if refused:
        more = f"\n  and {len(refused) - 3} more" if len(refused) > 3 else ""
        raise UserError(f"{results.name}: {len(refused)} result(s) cannot be scored.\n  " + "\n  ".join(refused[:3]) + more)
    notes = list(results.notes)
    if cut:
        notes.append(f"without their leading absent frames, aligned to the end: {some(cut)}")
    if results.given:
        notes.append(f"frame 0 is the box that was given in {len(results.given)} sequence(s)")
    notes += [_merge(entries) for entries in said.values()]
    partly = [f"{t.name} ({len(t.boxes)} of {t.rows} rows)" for t in truths if t.rows is not None and t.name in scores]
    if partly:
        notes.append(f"only frames that are there are scored, not all that are annotated: {some(partly)}")
    unsized = sum(truth.size is None for truth in truths if truth.name in scores)
    if long_term and unsized:
        notes.append(f"F, Pr, Re: boxes are not cut to the images in {unsized} sequence(s), whose size is not known (--size)")
    summary = ope.summarise(list(scores.values()), protocol)
    dropped = ", ".join(f"{name} {summary.dropped[name]}" for name in ope.MEASURES if summary.dropped[name])
    if dropped:
        notes.append(f"sequences that are 0 throughout, left out of the mean by this protocol: {dropped}")
    seconds = sum(float(np.nansum(times)) for times in results.times.values())
    return Scored(
        name=results.name,
        scores=scores,
        summary=summary,
        tracks=tracks,
        lacking=[truth.name for truth in truths if truth.name not in results.tracks],
        notes=notes,
        recognised=results.recognised,
        long_term=longterm.summarise(sure) if long_term else None,
        fps=sum(len(times) for times in results.times.values()) / seconds if seconds > 0 else None,
    )


def stamp(dataset: str, split: str, truths: Sequence[Truth], protocol: str) -> dict[str, Any]:
    """How scores were computed: protocol and its absent rule, list and its hash, sequences and frames, version."""
    convention = find_protocol(protocol)
    return {
        "dataset": Path(dataset).name,
        "protocol": convention.name,
        "absent": convention.absent.value,
        "description": convention.description,
        "source": convention.source,
        "list": describe_list(dataset, split, cast(Any, truths)),
        "sequences": len(truths),
        "frames": sum(len(truth.boxes) for truth in truths),
        "mstrack": __version__,
    }


def describe(scored: Scored) -> dict[str, Any]:
    """What the file of scores holds of a tracker: measures in percent, unrounded; None where there is none."""
    each = ope.per_sequence(list(scored.scores.values()), dropped=None)
    kept = ope.per_sequence(list(scored.scores.values()))
    return {
        "name": scored.name,
        "scores": _numbers(scored.percent),
        "intervals": {name: [_number(bound) for bound in interval(values)] for name, values in kept.items()},
        "sequences": len(scored.scores),
        "frames": scored.summary.frames,
        "lacking": scored.lacking,
        "dropped": {name: count for name, count in scored.summary.dropped.items() if count},
        "fps": scored.fps,
        "recognised": scored.recognised,
        "notes": scored.notes,
        "per_sequence": {
            name: {
                **_numbers({measure: values[index] for measure, values in each.items()}),
                "frames": score.frames,
                **({"notes": list(score.notes)} if score.notes else {}),
            }
            for index, (name, score) in enumerate(scored.scores.items())
        },
    }


def table_rows(scored: Sequence[Scored], protocol: str, total: int) -> tuple[list[str], list[list[str]]]:
    """Headers and cells of the table: a row per tracker, percent with two decimals."""
    called = find_protocol(protocol).names
    long_term = longterm.MEASURES if any(s.long_term is not None for s in scored) else ()
    measures = (*long_term, *ope.MEASURES)
    headers = ["tracker", *(called.get(name, name) for name in measures), "sequences"]
    rows = [
        [s.name, *(_cell(s.percent.get(name, math.nan)) for name in measures), f"{len(s.scores)} of {total}"] for s in scored
    ]
    return headers, rows


def findings(scored: Scored) -> list[str]:
    """What there is to say of a tracker's results, a line each."""
    lines = [scored.recognised, *scored.notes]
    if scored.lacking:
        lines.insert(1, f"{len(scored.lacking)} without a result, left out of the mean: {some(scored.lacking, 10)}")
    if scored.fps is not None:
        lines.append(f"{scored.fps:.1f} frames per second by its files of times")
    return lines


def _leading_frames(truth: Truth, rows: int) -> int:
    """How many leading frames without the target a result of so many rows lacks; 0 where that does not explain its length."""
    shorter = len(truth.boxes) - rows
    if shorter <= 0 or not truth.valid.any():
        return 0
    flagged = truth.valid if truth.present is None else truth.present
    return shorter if shorter in (int(np.argmax(truth.valid)), int(np.argmax(flagged))) else 0


def _score_long_term(track: Track, lead: int, coded: bool, truth: Truth) -> longterm.LongTermScore:
    """The first row is the box that the tracker was given, which the VOT toolkit does not take for an answer.

    Its own files have a code there and no confidence, which it reads as 0; a number there counts as it is.

    Args:
        track: The result.
        lead: How many frames of the annotation come before its first row.
        coded: Whether its file has the toolkit's code.
        truth: The annotation.
    """
    frames = len(truth.boxes)
    rows = min(len(track.boxes), frames - lead)
    boxes, confidence = np.full((frames, 4), np.nan), np.full(frames, np.nan)
    boxes[lead + 1 : lead + rows] = track.boxes[1:rows]
    confidence[lead : lead + rows] = track.confidence[:rows]
    if not coded or np.isnan(confidence[lead]):
        confidence[lead] = 0
    return longterm.score(boxes, confidence, truth.boxes, truth.valid, size=truth.size)


def _check_lengths(results: RawResults, truths: list[Truth]) -> None:
    """Refuse results that bear the names of the sequences but are of other data."""
    known = [(t, len(results.tracks[t.name].boxes)) for t in truths if t.name in results.tracks]
    odd = [
        f"{truth.name} has {rows} rows for {len(truth.boxes)} frames"
        for truth, rows in known
        if abs(rows - len(truth.boxes)) > 0.1 * len(truth.boxes) and not _leading_frames(truth, rows)
    ]
    if len(known) >= FOREIGN and len(odd) > 0.8 * len(known):
        raise UserError(
            f"{results.name}: {len(odd)} of {len(known)} results have another length than the annotation ({some(odd)})."
            " They are results on other data, or this is the annotation of other data."
        )


def _merge(entries: list[tuple[str, str]]) -> str:
    """Notes that differ in their numbers alone, as one."""
    (name, note), *rest = entries
    if not rest:
        return f"{name}: {note}"
    counts = [re.match(r"\d+", text) for _, text in entries]
    if all(counts) and "rows for" not in note:
        total = sum(int(found[0]) for found in counts if found)
        listed = some([f"{each} ({found[0]})" for (each, _), found in zip(entries, counts, strict=True) if found], 10)
        return f"{re.sub(r'^[0-9]+', str(total), note)}, in {len(entries)} sequences: {listed}"
    return f"{name}: {note}; likewise {some([other for other, _ in rest], 10)}"


def _numbers(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _number(value) for name, value in values.items()}


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _cell(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "-"
