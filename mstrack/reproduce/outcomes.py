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
Means = dict[str, float]
"""Measures in percent by name."""


def read_scores(job: Job) -> Scores:
    """The scores of a finished job; NaN where no frame of a sequence counts.

    Sequences that are 0 throughout, which some protocols leave out of a tracker's mean, are 0 here: left out, they would be
    missing for every seed and for what it is compared with.
    """
    each = read_json(job.folder / "results" / "scores.json")["per_sequence"].values()
    return {name: np.array([np.nan if row[name] is None else row[name] for row in each]) for name in MEASURES}


def read_means(job: Job) -> Means:
    """The means of a finished job as its protocol forms them, without the sequences that it leaves out."""
    return _means(job.folder / "results" / "scores.json")


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


def read_curve(job: Job) -> list[tuple[int, Means]]:
    """Steps of a finished training and the means of the checkpoint that was kept there."""
    steps = job.config.train.samples // job.config.train.batch
    return [(epoch * steps, _means(job.folder / "curve" / f"{epoch:04d}" / "scores.json")) for epoch in job.kept]


def read_validation(job: Job) -> tuple[float, float]:
    """Loss (NaN where it was not asked for) and success rate of the last look at the validation split."""
    lines = [json.loads(line) for line in (job.folder / "log.jsonl").read_text().splitlines()]
    last = next(line for line in reversed(lines) if "val/SR" in line)
    return last.get("val/loss", math.nan), last["val/SR"]


def _means(path: Path) -> Means:
    found = read_json(path)["scores"]
    return {name: math.nan if found[name] is None else float(found[name]) for name in MEASURES}
