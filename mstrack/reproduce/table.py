"""A study in numbers: every row on every ground, measured with intervals, beside what the paper prints."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from mstrack.compare.naming import SPELLING
from mstrack.compare.published import Published, published_results
from mstrack.comparison import format_difference, judge
from mstrack.metrics.ope import MEASURES
from mstrack.metrics.uncertainty import FEWEST, Difference, Interval, interval, paired_difference, seed_difference
from mstrack.reproduce.agenda import Agenda
from mstrack.reproduce.jobs import Job
from mstrack.reproduce.outcomes import Scores, check_lists, read_means, read_runs
from mstrack.reproduce.plan import Ground, draws_data

PRINTED = ("SR", "OP50", "OP75", "PR")
"""The measures that the paper prints."""


class Cell(NamedTuple):
    """A mean in percent and its 95 % interval, over sequences and, with several seeds, over seeds.

    The mean is that over seeds of what the protocol says of each run. Where it leaves out sequences that are 0 throughout, the
    interval has them nevertheless.
    """

    mean: float
    interval: Interval

    @property
    def text(self) -> str:
        """With half the interval, as in `44.6 ±6.0`."""
        if math.isnan(self.mean):
            return "-"
        half = (self.interval.high - self.interval.low) / 2
        return f"{self.mean:.1f}" + ("" if math.isnan(half) else f" ±{half:.1f}")


class Runs(NamedTuple):
    """The runs of a row on one ground: all measures (R, S), their R seeds, and each run's means by its protocol, (R,)."""

    scores: Scores
    seeds: list[int]
    means: Scores

    @classmethod
    def read(cls, jobs: Sequence[Job], seeds: list[int]) -> "Runs":
        """What finished jobs have left."""
        means = [read_means(job) for job in jobs]
        return cls(read_runs(jobs), seeds, {name: np.array([run[name] for run in means]) for name in MEASURES})

    def of_seeds(self, others: list[int]) -> np.ndarray:
        """SR of the runs whose seeds another row has too, by seed; all runs where either has one, or none is shared."""
        common = [seed for seed in others if seed in self.seeds]
        if min(len(self.seeds), len(others)) == 1 or not common:
            return self.scores["SR"]
        return self.scores["SR"][[self.seeds.index(seed) for seed in sorted(common)]]


@dataclass(frozen=True)
class Measured:
    """A row on one ground.

    Attributes:
        cells: By measure.
        runs: Its runs, one for each seed; all measures (R, S).
        difference: In SR to the row it is compared with; None for one that is compared with none.
    """

    cells: dict[str, Cell]
    runs: Scores
    difference: Difference | None = None

    @property
    def seeds(self) -> int:
        """How many runs."""
        return len(self.runs["SR"])

    @property
    def leaves_out(self) -> bool:
        """Whether a mean leaves out sequences that are 0 throughout."""
        each = {name: self.runs[name][np.isfinite(self.runs[name])] for name in self.cells}
        return any(len(each[name]) > 0 and cell.mean > each[name].mean() + 1e-6 for name, cell in self.cells.items())

    @property
    def sequences(self) -> int:
        """How many sequences."""
        return self.runs["SR"].shape[1]

    @property
    def resolved(self) -> float:
        """The smallest difference in SR that this comparison can tell from none: half the width of its interval."""
        d = self.difference
        return math.nan if d is None else (d.high - d.low) / 2


@dataclass(frozen=True)
class Line:
    """A row of the study.

    Attributes:
        key: Of the plan.
        label: For people.
        printed: Its name in the paper's table, where it has one.
        against: Key of the row that it is compared with, where there is one.
        needs: What it needs that is not here, where it is not ours.
        measured: By name of the ground; nothing where it has not been run.
        published: By data set of the paper.
    """

    key: str
    label: str
    printed: str | None
    against: str | None
    needs: str | None
    measured: dict[str, Measured] = field(default_factory=dict)
    published: dict[str, Published] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """A study in numbers.

    Attributes:
        title: Of the study.
        name: Its name.
        synthetic: Whether the embedded benchmark stands for the paper's data.
        grounds: What it was measured on.
        lines: Its rows.
        baseline: Key of the row that most are compared with.
        drawn: Whether each seed draws its own training sequences.
    """

    title: str
    name: str
    synthetic: bool
    grounds: list[Ground]
    lines: list[Line]
    baseline: str | None
    drawn: bool = False

    def label(self, key: str) -> str:
        """What a row is called."""
        return next(line.label for line in self.lines if line.key == key)


def build_table(name: str, agenda: Agenda) -> Table:
    """Read what has been measured of a study, whichever command did."""
    site, study = agenda.site, agenda.study
    whole = Agenda(site, study, list(study.rows), [], agenda.seeds)
    printed = {(row.table, row.label, row.dataset): row for column in study.columns for row in published_results(column)}
    runs: dict[tuple[str, str], Runs] = {}
    for ground in agenda.grounds:
        found = {key: whole.finished(key, ground.name) for key in study.rows if site.plan.rows[key].needs is None}
        check_lists(job for jobs in found.values() for job in jobs)
        for key, jobs in found.items():
            if jobs:
                runs[key, ground.name] = Runs.read(jobs, [job.config.train.seed for job in jobs])
    lines = []
    for key, called in study.rows.items():
        row = site.plan.rows[key]
        against = study.against.get(key, study.baseline if key != study.baseline else None)
        measured = {
            ground.name: measure(runs[key, ground.name], runs.get((against or "", ground.name)), draws_data(site.scale))
            for ground in agenda.grounds
            if (key, ground.name) in runs
        }
        published = {
            column: printed[table, called, column]
            for column in study.columns
            for table in study.tables
            if called is not None and (table, called, column) in printed
        }
        lines.append(Line(key, row.label, called, against, row.needs, measured, published))
    return Table(study.title, name, not site.scale.data, agenda.grounds, lines, study.baseline, draws_data(site.scale))


def measure(own: Runs, other: Runs | None, shared: bool) -> Measured:
    """Means and the difference to a reference; `shared`: runs with the same seed share their training sequences."""
    scores = own.scores
    cells = {name: Cell(float(own.means[name].mean()), interval(scores[name])) for name in MEASURES}
    if other is None:
        return Measured(cells, scores)
    if not shared:
        return Measured(cells, scores, paired_difference(scores["SR"], other.scores["SR"]))
    return Measured(cells, scores, seed_difference(own.of_seeds(other.seeds), other.of_seeds(own.seeds)))


# ---------------------------------------------------------------- in words
def table_rows(table: Table, ground: Ground) -> tuple[list[str], list[list[str]]]:
    """Headers and rows for a terminal: SR and PR with half the 95 % interval, the paper's SR/PR, the difference in SR."""
    headers = ["Row", "SR", "PR", *map(spelled, ground.columns), "SR, difference"]
    rows = []
    for line in table.lines:
        found = line.measured.get(ground.name)
        cells = [found.cells[name].text for name in ("SR", "PR")] if found else ["not ours" if line.needs else "not run", ""]
        paper = ["/".join(filter(None, (percent(line, c, "SR"), percent(line, c, "PR")))) for c in ground.columns]
        rows.append([line.label, *cells, *paper, say_difference(line, found).removesuffix(" within noise")])
    return headers, rows


def say_difference(line: Line, found: Measured | None) -> str:
    """For example `+0.3 [-1.2, +1.8] within noise`; empty where nothing is compared."""
    if found is None:
        return ""
    if found.difference is None:
        return "" if line.against else "reference"
    return f"{format_difference(found.difference)} {judge(found.difference)}"


def summarise(table: Table) -> list[str]:
    """Sentences under a table: what the comparison can resolve, and what it is worth."""
    lines = []
    if table.synthetic:
        lines.append(
            "Measured on the embedded benchmark with tiny networks: made-up videos, not the paper's data. The paper's numbers"
            " stand beside to show what was claimed, not to be matched."
        )
    for ground in table.grounds:
        widths = {line.label: m.resolved for line in table.lines if (m := line.measured.get(ground.name)) and m.difference}
        finite = {label: width for label, width in widths.items() if width > 0}
        if finite:
            low, high = f"{min(finite.values()):.1f}", f"{max(finite.values()):.1f}"
            span = low if low == high else f"{low} to {high}, by row,"
            lines.append(f"{ground.name}: a difference in SR below {span} cannot be told from none here.")
        elif widths and all(map(math.isnan, widths.values())):
            lines.append(f"{ground.name}: fewer than {FEWEST} sequences, so there are no intervals and nothing is compared.")
    if any(m.leaves_out for line in table.lines for m in line.measured.values()):
        lines.append(
            "The protocol leaves sequences that are 0 throughout out of a tracker's mean, so that each mean is of its own"
            " sequences. Intervals and differences are of all sequences, and count these as 0."
        )
    seeds = {m.seeds for line in table.lines for m in line.measured.values()}
    if seeds and max(seeds) == 1:
        lines.append("One run per row: the intervals cover the sequences and say nothing about other seeds.")
    elif seeds:
        lines.append(f"Intervals cover sequences and seeds (up to {max(seeds)}); with few seeds they are too narrow.")
        if not table.drawn:
            lines.append("All seeds train on the same sequences: what other ones would change is not in the intervals.")
    return lines


def percent(line: Line, column: str, measure: str) -> str:
    """What the paper prints of a row on a data set; empty where it prints nothing."""
    row = line.published.get(column)
    return "" if row is None or measure not in row.percent else f"{row.percent[measure]:.1f}"


def spelled(dataset: str) -> str:
    """The data set as it spells itself; a modality of the embedded benchmark as it is."""
    return SPELLING.get(dataset, dataset)
