"""What was measured, as one self-contained HTML page: tables with intervals, curves, frames, training, provenance."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
from numpy.typing import NDArray

from mstrack.boxes import Boxes
from mstrack.charts import Chart, Line, draw_chart, thin
from mstrack.comparison import (
    Cell,
    Group,
    Row,
    compare_groups,
    compare_methods,
    format_difference,
    judge,
    measure_means,
    measure_runs,
)
from mstrack.data.sequence import Sequence
from mstrack.metrics.ope import MEASURES, OVERLAPS, PIXELS, SequenceScore, per_sequence, summarise
from mstrack.metrics.protocols import find_protocol
from mstrack.metrics.uncertainty import FEWEST
from mstrack.pictures import HeatMaps, Moment, choose_sequences, draw_heat_maps, draw_strip
from mstrack.results import write_text

STRIPS = 4


@dataclass
class Method:
    """What one method did.

    Attributes:
        name: Unique in its report.
        label: What a reader calls it.
        scores: One per sequence of the report, in that order.
        fps: Frames per second, or None where nobody measured.
        boxes: (N, 4) predicted x, y, w, h in pixels by sequence name, for the frame pictures.
        baseline: Whether the others are compared with it; the first method is where no method says so.
        settings: Learning rate, iterations and the like, ready to print.
        curve: Training loss, validation SR and the like: (step, value) points by name.
        repeats: Scores of further runs with other seeds, each like `scores`; means and intervals cover them all.
    """

    name: str
    label: str
    scores: list[SequenceScore]
    fps: float | None = None
    boxes: dict[str, Boxes] = field(default_factory=dict)
    baseline: bool = False
    settings: dict[str, str] = field(default_factory=dict)
    curve: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    repeats: list[list[SequenceScore]] = field(default_factory=list)

    @property
    def runs(self) -> list[list[SequenceScore]]:
        """The scores of every run."""
        return [self.scores, *self.repeats]


@dataclass
class SensitivityPicture:
    """The sensitivities of one weight matrix before and after tuning, both (rows, columns) and not negative."""

    name: str
    before: NDArray[np.float64]
    after: NDArray[np.float64]


@dataclass
class Report:
    """Everything a page shows.

    Attributes:
        title: The headline.
        subtitle: One line under it: data, split, date.
        methods: At least one; the order is kept and decides the colours.
        sequences: What all of them tracked.
        settings: Provenance, ready to print: command, seed, hardware, versions.
        notes: Sentences that a reader must know, shown before any number.
        sensitivity: Matrices for the picture of parameter sensitivity (the paper's Fig. 6).
        protocol: Name of the scoring convention.
        reproduce: Shell commands that make this page again.

    Raises:
        ValueError: No method, a name twice, or scores that are not one per sequence.
    """

    title: str
    subtitle: str
    methods: list[Method]
    sequences: list[Sequence]
    settings: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    sensitivity: list[SensitivityPicture] = field(default_factory=list)
    protocol: str = "plain"
    reproduce: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.methods or len({m.name for m in self.methods}) != len(self.methods):
            raise ValueError("a report needs at least one method, each with a name of its own")
        for method in self.methods:
            counts = [len(run) for run in method.runs]
            if set(counts) != {len(self.sequences)}:
                raise ValueError(f"method '{method.name}': {counts} scores for {len(self.sequences)} sequences")

    @property
    def reference(self) -> int:
        """Index of the method that the others are compared with."""
        return next((i for i, method in enumerate(self.methods) if method.baseline), 0)


def table_rows(report: Report) -> tuple[list[str], list[list[str]]]:
    """The results as text, for a terminal: headers, and one row per method; `±` is half the 95 % interval."""
    headers = ["Method", *MEASURES, "FPS", f"SR against {report.methods[report.reference].label}"]
    rows = []
    for method, row in zip(report.methods, build_table(report), strict=True):
        numbers = [_format_cell(cell) for cell in row.cells.values()]
        d = row.difference
        compared = "reference" if d is None else f"{format_difference(d)} {judge(d)}"
        rows.append([method.label, *numbers, format_speed(method.fps), compared])
    return headers, rows


def summarise_findings(report: Report) -> str:
    """One sentence on how every method stands against the reference, within noise or not."""
    reference = report.methods[report.reference].label
    found = [(row.label, row.difference) for row in build_table(report) if row.difference is not None]
    if not found:
        return f"Only {reference} was measured, so nothing is compared."
    if all(np.isnan(difference.low) for _, difference in found):
        return f"With fewer than {FEWEST} scored sequences there is no interval, so the methods are not compared."
    parts = [f"{label} is {judge(d)} ({format_difference(d)} SR)" for label, d in found]
    return f"Against {reference}: {'; '.join(parts)}."


def build_table(report: Report) -> list[Row]:
    """The results as numbers, one row per method."""
    runs = [method.runs for method in report.methods]
    labels = [method.label for method in report.methods]
    return compare_methods(labels, [*map(measure_runs, runs)], [*map(measure_means, runs)], report.reference)


def format_number(value: float) -> str:
    """One decimal, or a dash where there is no number."""
    return "-" if np.isnan(value) else f"{value:.1f}"


def format_speed(fps: float | None) -> str:
    """Frames per second, or a dash where nobody measured."""
    if fps is None:
        return "-"
    return f"{fps:.0f}" if fps >= 100 else f"{fps:.1f}"


def write_report(path: Path, report: Report) -> None:
    """Write the page: one HTML file without any other, whole or not at all.

    Raises:
        UserError: A frame cannot be read, the protocol is unknown, or the file cannot be written.
    """
    write_text(Path(path), open_templates().get_template("report.html.j2").render(_collect(report)))


def open_templates() -> jinja2.Environment:
    """The templates of the package, with the filters that pages share."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mstrack"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        difference=format_difference,
        judge=judge,
        number=format_number,
        speed=format_speed,
        minus=lambda text: text.replace("-", "\u2212"),
    )
    return environment


def _collect(report: Report) -> dict[str, Any]:
    """What the template names."""
    sr = np.array([measure_runs(method.runs)["SR"].mean(axis=0) for method in report.methods])
    runs = [len(method.runs) for method in report.methods]
    return {
        "report": report,
        "rows": build_table(report),
        "measures": MEASURES,
        "findings": summarise_findings(report),
        "protocol": find_protocol(report.protocol),
        "runs": (min(runs), max(runs)),
        "curves": draw_scores(report),
        "attributes": group_scores(report),
        "sequences": _list_sequences(report, sr),
        "strips": _draw_strips(report, sr),
        "training": draw_training(report),
        "sensitivity": draw_sensitivity(report),
        "setting_names": list(dict.fromkeys(name for m in report.methods for name in m.settings)),
    }


class Figure(NamedTuple):
    """A chart and its legend: (method index, number to show) in the order to show them."""

    heading: str
    chart: Chart
    legend: list[tuple[int, str]]


def draw_scores(report: Report) -> list[Figure]:
    """Success and precision curves, the mean over all runs of each method."""
    summaries = [[summarise(run) for run in m.runs] for m in report.methods]

    def draw(measure: str, attribute: str, x: NDArray[np.float64], heading: str, x_label: str, **options: Any) -> Figure:
        curves = [100 * np.mean([getattr(s, attribute) for s in runs], axis=0) for runs in summaries]
        numbers = [float(np.mean([s[measure] for s in runs])) for runs in summaries]
        order = sorted(range(len(numbers)), key=lambda i: (-np.nan_to_num(numbers[i]), i))
        words = ", ".join(f"{report.methods[i].label} {format_number(numbers[i])}" for i in order)
        lines = [Line(i, x, curve) for i, curve in enumerate(curves)]
        chart = draw_chart(f"{heading}. {measure}: {words}.", lines, x_label, "Frames (%)", y_range=(0, 100), **options)
        return Figure(f"{heading}: {measure}", chart, [(i, format_number(numbers[i])) for i in order])

    return [
        draw("SR", "success", OVERLAPS, "Success", "Overlap threshold", x_range=(0, 1)),
        draw("PR", "precision", PIXELS, "Precision", "Centre error threshold (pixels)", x_range=(0, 50), mark=20),
    ]


def draw_training(report: Report) -> list[Figure]:
    """A chart for each name in the methods' curves."""
    figures = []
    for name in dict.fromkeys(name for method in report.methods for name in method.curve):
        points = {i: thin(m.curve[name]) for i, m in enumerate(report.methods) if m.curve.get(name)}
        lines = [Line(i, values[:, 0], values[:, 1]) for i, values in points.items()]
        last = max(1.0, *(float(m.curve[name][-1][0]) for m in report.methods if m.curve.get(name)))
        ends = [(i, f"{values[-1, 1]:.2f}") for i, values in points.items()]
        words = ", ".join(f"{report.methods[i].label} ends at {end}" for i, end in ends)
        figures.append(Figure(name, draw_chart(f"{name} over training. {words}.", lines, "Iteration", "", (0, last)), ends))
    return figures


def group_scores(report: Report) -> list[Group]:
    """Mean SR over all sequences, as in the table, then by attribute; nothing where no sequence has any."""
    sr = [np.stack([per_sequence(run)["SR"] for run in method.runs]) for method in report.methods]
    names = sorted({name for sequence in report.sequences for name in sequence.attributes})
    groups = {_words(name): np.array([name in s.attributes for s in report.sequences]) for name in names}
    return compare_groups(sr, {"all sequences": np.ones(len(report.sequences), bool), **groups}) if names else []


class Listed(NamedTuple):
    """One line of the per-sequence table."""

    name: str
    attributes: str
    frames: int
    values: list[float]
    spread: float


def _list_sequences(report: Report, sr: NDArray[np.float64]) -> list[Listed]:
    return [
        Listed(s.name, ", ".join(map(_words, s.attributes)), len(s), list(sr[:, i]), float(np.ptp(sr[:, i])))
        for i, s in enumerate(report.sequences)
    ]


class Strip(NamedTuple):
    """The frame pictures of one sequence, with each method's SR there."""

    sequence: Listed
    moments: list[Moment]


def _draw_strips(report: Report, sr: NDArray[np.float64]) -> list[Strip]:
    if not any(method.boxes for method in report.methods):
        return []
    listed, names = _list_sequences(report, sr), {i: m.label for i, m in enumerate(report.methods)}
    strips = []
    for index in choose_sequences(sr, STRIPS):
        sequence = report.sequences[index]
        tracks = {i: m.boxes[sequence.name] for i, m in enumerate(report.methods) if sequence.name in m.boxes}
        strips.append(Strip(listed[index], draw_strip(sequence, tracks, names)))
    return strips


def draw_sensitivity(report: Report) -> list[tuple[str, HeatMaps]]:
    """Heat maps by name of the matrix."""
    return [(picture.name, draw_heat_maps(picture.before, picture.after)) for picture in report.sensitivity]


def _format_cell(cell: Cell) -> str:
    half = (cell.interval.high - cell.interval.low) / 2
    return format_number(cell.mean) + ("" if np.isnan(half) else f" ±{half:.1f}")


def _words(name: str) -> str:
    return name.replace("_", " ")
