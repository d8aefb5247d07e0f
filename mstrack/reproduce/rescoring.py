"""The results of rows scored once more, for what a file of scores does not hold: curves, attributes, vector figures."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mstrack.compare.plots import write_figures
from mstrack.compare.standings import Standings, rank
from mstrack.data import Sequence, load_sequences
from mstrack.data.truths import Truth, public, truths_of
from mstrack.errors import UserError
from mstrack.metrics.ope import SequenceScore
from mstrack.metrics.protocols import protocol_of
from mstrack.rawresults import RawResults
from mstrack.report import Method, Report
from mstrack.reproduce.agenda import Agenda
from mstrack.reproduce.jobs import Job
from mstrack.reproduce.plan import Ground
from mstrack.reproduce.table import Table
from mstrack.results import read_track
from mstrack.scoring import Scored, score_results

VECTOR = ("success", "precision", "attributes-radar", "attributes-heat")


@dataclass(frozen=True)
class Rescored:
    """Rows on one ground.

    Attributes:
        dataset: What was tracked.
        sequences: Of it.
        truths: Their annotations.
        rows: By key of the row, its runs.
    """

    dataset: str
    sequences: list[Sequence]
    truths: list[Truth]
    rows: dict[str, list[Scored]]


def rescore(agenda: Agenda, table: Table, ground: Ground) -> Rescored:
    """Score everything of a study that is finished on a ground."""
    every = Agenda(agenda.site, agenda.study, list(agenda.study.rows), [], agenda.seeds)
    keys = [line.key for line in table.lines if ground.name in line.measured]
    jobs = {key: every.finished(key, ground.name) for key in keys}
    tests = next(iter(jobs.values()))[0].tests or {}
    split = tests.get("split", "test")
    reading: dict[str, Any] = {name: tests.get(name) for name in ("modality", "arguments", "data_root")}
    sequences = list(load_sequences(tests["on"], split, **reading))
    truths = public(tests["on"], truths_of(sequences, tests["on"], split, None, tests.get("data_root")))
    scorable = {truth.name for truth in truths}
    rows = {key: [_score(job, truths, tests["on"]) for job in found] for key, found in jobs.items()}
    return Rescored(tests["on"], [s for s in sequences if s.name in scorable], truths, rows)


def report_of(table: Table, scored: Rescored) -> Report:
    """What the charts of a report are drawn from."""
    methods = []
    for key, runs in scored.rows.items():
        first, *others = [list(run.scores.values()) for run in runs]
        methods.append(Method(key, table.label(key), first, repeats=others))
    return Report(table.title, "", methods, scored.sequences)


def write_vectors(folder: Path, table: Table, scored: Rescored) -> list[Path]:
    """Success, precision and attributes as PDF, the mean over the runs of each row.

    Returns:
        The files; none where matplotlib is not installed.
    """
    try:
        return write_figures(folder, standings_of(table, scored), which=VECTOR)
    except UserError as error:
        if "matplotlib" not in str(error):
            raise
        return []


def standings_of(table: Table, scored: Rescored) -> Standings:
    """The rows as trackers that are compared, each with the mean of its runs."""
    results = [
        replace(
            runs[0],
            name=table.label(key),
            scores={t.name: _average([run.scores[t.name] for run in runs]) for t in scored.truths},
        )
        for key, runs in scored.rows.items()
    ]
    return rank(results, scored.truths, scored.dataset, protocol_of(scored.dataset))


def _average(runs: list[SequenceScore]) -> SequenceScore:
    """The mean curves of the runs on one sequence."""
    curves = {
        name: np.mean([getattr(run, name) for run in runs], axis=0)
        for name in ("success", "precision", "normalised_precision", "iou")
    }
    return replace(runs[0], **curves)


def _score(job: Job, truths: list[Truth], dataset: str) -> Scored:
    found = {truth.name: read_track(job.folder / "results", truth.name) for truth in truths}
    missing = [name for name, track in found.items() if track is None]
    if missing:
        raise UserError(f"{job.folder / 'results'} has no result of {missing[0]}. Remove its scores.json and call again.")
    tracks = {name: track for name, track in found.items() if track is not None}
    return score_results(RawResults(job.name, tracks, "mst reproduce"), truths, protocol_of(dataset))
