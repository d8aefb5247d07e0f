"""Hyper-parameters chosen on the validation split: committed sweeps, sweeps that were just run, and the choice among them."""

import csv
import statistics
from collections.abc import Iterable
from functools import cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from mstrack.errors import UserError
from mstrack.reproduce.plan import Plan
from mstrack.results import write_text

FIELDS = ("scale", "sweep", "modality", "value", "seed", "loss", "SR")
FILE = "sweeps.csv"
Line = dict[str, str]


class Choice(NamedTuple):
    """What a sweep says.

    Attributes:
        value: The best, by mean success rate on the validation split.
        modality: Where it was swept: another modality's choice stands in where there is no own one.
        points: (value, mean success rate) of all values, ascending.
        runs: How many runs each value had at least.
    """

    value: float
    modality: str
    points: list[tuple[float, float]]
    runs: int

    @property
    def inside(self) -> bool:
        """Whether both neighbours of the best value were tried."""
        return self.points[0][0] < self.value < self.points[-1][0]


def choose(plan: Plan, sweep: str, scale: str, modality: str, out: Path | None = None, provisional: bool = False) -> float:
    """The value with the best mean success rate on the validation split.

    Args:
        plan: Says which sweeps there are.
        sweep: Name of one.
        scale: Where it was run.
        modality: Likewise; where a modality was not swept, another one's choice stands in for it.
        out: Folder whose sweeps go before the committed ones.
        provisional: Take the first value of a sweep that nobody has run.

    Raises:
        UserError: Nobody has run this sweep.
    """
    found = look(sweep, scale, modality, out)
    if found is not None:
        return found.value
    if provisional:
        return plan.sweeps[sweep].values[0]
    row = plan.rows[plan.sweeps[sweep].row].label
    raise UserError(f"no sweep '{sweep}' ({row}) at scale '{scale}': run `mst reproduce sweep --only {sweep}` first.")


def look(sweep: str, scale: str, modality: str, out: Path | None = None) -> Choice | None:
    """What a sweep says on a modality; None where nobody has run it at this scale."""
    files = ([] if out is None else read_sweeps(out / FILE), committed())
    here = [[line for line in lines if (line["scale"], line["sweep"]) == (scale, sweep)] for lines in files]
    own = [[line for line in lines if line["modality"] == modality] for lines in here]
    lent = [[line for line in lines if line["modality"] == lines[0]["modality"]] for lines in here if lines]
    for lines in (*own, *lent):
        scores: dict[float, list[float]] = {}
        for line in lines:
            scores.setdefault(float(line["value"]), []).append(float(line["SR"]))
        if scores:
            points = sorted((value, statistics.mean(found)) for value, found in scores.items())
            best = max(scores, key=lambda value: statistics.mean(scores[value]))
            return Choice(best, lines[0]["modality"], points, min(map(len, scores.values())))
    return None


@cache
def committed() -> list[Line]:
    """The sweeps that come with the package."""
    return list(csv.DictReader((resources.files("mstrack") / "reproduce" / FILE).read_text().splitlines()))


def read_sweeps(path: Path) -> list[Line]:
    """Sweeps in a file; none where there is none."""
    return list(csv.DictReader(path.read_text().splitlines())) if path.is_file() else []


def write_sweeps(path: Path, lines: Iterable[Line]) -> None:
    """Save sweeps, whole or not at all."""
    rows = [",".join(FIELDS), *(",".join(line[field] for field in FIELDS) for line in lines)]
    write_text(path, "\n".join(rows) + "\n")


def merge_sweeps(path: Path, lines: Iterable[Line]) -> None:
    """Add sweeps to a file; a run that it holds already is replaced."""
    known = {_identity(line): line for line in read_sweeps(path)}
    write_sweeps(path, (known | {_identity(line): line for line in lines}).values())


def _identity(line: Line) -> tuple[str | float, ...]:
    return line["scale"], line["sweep"], line["modality"], float(line["value"]), line["seed"]
