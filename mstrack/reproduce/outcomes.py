"""What finished jobs say: scores of every sequence, curves over training, the last look at the validation split."""

import json
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mstrack.errors import UserError
from mstrack.metrics.ope import MEASURES
from mstrack.reproduce.jobs import Job
from mstrack.results import read_json

Values = NDArray[np.float64]
Scores = dict[str, Values]
"""Measures in percent by name, each (S,), one value per sequence."""


def read_scores(job: Job) -> Scores:
    """The scores of a finished job; NaN where the protocol leaves a sequence out of a mean."""
    return _scores(job.folder / "results" / "scores.json")


def read_runs(jobs: Iterable[Job]) -> Scores:
    """The scores of the jobs of one row with different seeds, each measure (R, S)."""
    runs = [read_scores(job) for job in jobs]
    return {name: np.stack([run[name] for run in runs]) for name in MEASURES}


def check_lists(jobs: Iterable[Job]) -> None:
    """Whether all were tested on the same sequences.

    Raises:
        UserError: Some were tested on fewer, or on others.
    """
    lists = {job.folder / "results": list(read_json(job.folder / "results" / "scores.json")["per_sequence"]) for job in jobs}
    most = max(lists.values(), key=len, default=[])
    others = [str(folder) for folder, names in lists.items() if names != most]
    if others:
        raise UserError(
            f"tested on other sequences than the rest, which are {len(most)}: {', '.join(others)}."
            " Remove these folders and give the same command again: they are made anew, without training."
        )


def read_curve(job: Job) -> list[tuple[int, Scores]]:
    """Steps of a finished training and the scores of the checkpoint that was kept there."""
    steps = job.config.train.samples // job.config.train.batch
    return [(epoch * steps, _scores(job.folder / "curve" / f"{epoch:04d}" / "scores.json")) for epoch in job.kept]


def read_validation(job: Job) -> tuple[float, float]:
    """Loss (NaN where it was not asked for) and success rate of the last look at the validation split."""
    lines = [json.loads(line) for line in (job.folder / "log.jsonl").read_text().splitlines()]
    last = next(line for line in reversed(lines) if "val/SR" in line)
    return last.get("val/loss", math.nan), last["val/SR"]


def _scores(path: Path) -> Scores:
    stored = read_json(path)
    each = stored["per_sequence"].values()
    found = {name: np.array([np.nan if row[name] is None else row[name] for row in each]) for name in MEASURES}
    for name in stored.get("dropped", {}):
        if name in found:
            found[name][found[name] == 0] = np.nan
    return found
