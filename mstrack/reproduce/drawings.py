"""Charts of a study: test scores over training, over momentum coefficients, and the sweeps that rates were chosen by."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mstrack import charts
from mstrack.report import Figure
from mstrack.reproduce.agenda import Agenda
from mstrack.reproduce.outcomes import read_curve
from mstrack.reproduce.plan import Ground
from mstrack.reproduce.rates import Choice, look
from mstrack.reproduce.table import Line, Table

SHOWN = ("SR", "PR")

Points = list[tuple[float, float]]
Ends = tuple[float] | tuple[float, float]


class Named(NamedTuple):
    """Whose curve it is."""

    label: str


class Swept(NamedTuple):
    """What was swept: the row, and the key of its configuration."""

    label: str
    key: str


class Curve(NamedTuple):
    """(N,) points."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]


class Drawing(NamedTuple):
    """A chart, and the names that its legend counts."""

    item: Figure
    names: list[Named]


def draw_courses(agenda: Agenda, table: Table, ground: Ground) -> list[Drawing]:
    """Test scores of the checkpoints that were kept, over the steps of training: the mean over seeds (the paper's Fig. 1)."""
    rows = {}
    for line in (line for line in table.lines if not line.needs):
        jobs = [job for job in agenda.finished(line.key, ground.name) if job.kept]
        if jobs:
            rows[Named(line.label)] = [read_curve(job) for job in jobs]
    drawings = []
    for measure in SHOWN if rows else ():
        curves = []
        for runs in rows.values():
            steps = np.array([step for step, _ in runs[0]], np.float64)
            curves.append(Curve(steps, np.mean([[means[measure] for _, means in run] for run in runs], axis=0)))
        heading = f"{measure} on {ground.name} over training"
        drawings.append(_draw(heading, list(rows), curves, "Iteration", f"{measure} (%)", name_rows(table, ground)))
    return drawings


def name_rows(table: Table, ground: Ground) -> list[Named]:
    """The rows measured on a ground: in this order, they have their colours in all charts of it."""
    return [Named(line.label) for line in table.lines if ground.name in line.measured]


def draw_momentum(agenda: Agenda, table: Table, ground: Ground) -> list[Drawing]:
    """Scores over the momentum coefficient, measured and printed; a range is a bar from end to end (the paper's Table 6)."""
    kinds: dict[Named, list[tuple[Ends, Line]]] = {}
    for line in table.lines:
        ends = _coefficients(agenda, line.key)
        if ends is not None:
            called = "one coefficient" if len(ends) == 1 else f"[{ends[0]:g}, {ends[1]:g}]"
            kinds.setdefault(Named(called), []).append((ends, line))
    drawings = []
    for measure in SHOWN:
        measured: dict[Named, Points] = {}
        printed: dict[Named, Points] = {}
        for name, lines in kinds.items():
            there = [(ends, line) for ends, line in lines if ground.name in line.measured]
            cells = [(x, line.measured[ground.name].cells[measure].mean) for ends, line in there for x in ends]
            paper = [(x, row.percent[measure]) for ends, line in lines for row in line.published.values() for x in ends]
            measured |= {name: sorted(cells)} if cells else {}
            printed |= {name: sorted(paper)} if paper else {}
        for heading, points in ((f"{measure} measured on {ground.name}", measured), (f"{measure} in the paper", printed)):
            curves = [Curve(*np.array(values, np.float64).T) for values in points.values()]
            drawings.append(_draw(heading, list(points), curves, "Momentum coefficient", f"{measure} (%)", kinds))
    return drawings


def draw_sweeps(choices: Mapping[Swept, Choice], heading: str, order: Iterable[Named] = ()) -> list[Drawing]:
    """Success rate on the validation split over what was swept, a chart for each key; the legends have what was chosen.

    Args:
        choices: What was chosen, by what was swept.
        heading: Of all charts, before the key.
        order: Names in the order of their colours; others come after them.
    """
    order = [*order, *(Named(swept.label) for swept in choices)]
    drawings = []
    for key in dict.fromkeys(swept.key for swept in choices):
        own = {Named(swept.label): choice for swept, choice in choices.items() if swept.key == key}
        points = [np.array(choice.points, np.float64).T for choice in own.values()]
        scaled = all((values > 0).all() for values, _ in points) and key != "data.modality_dropout"
        curves = [Curve(np.log10(values) if scaled else values, success) for values, success in points]
        chosen = [f"{choice.value:g}" for choice in own.values()]
        drawings.append(_draw(f"{heading}: {key}", list(own), curves, key, "Validation SR (%)", order, chosen, scaled))
    return drawings


def find_choices(agenda: Agenda, ground: Ground) -> dict[Swept, Choice]:
    """The sweeps that the rows of a study took their hyper-parameters from."""
    site = agenda.site
    wanted = dict.fromkeys(sweep for key in agenda.study.rows for sweep in site.plan.rows[key].chosen.values())
    found = {name: look(name, site.scale_name, ground.name, site.out) for name in wanted}
    sweeps, rows = site.plan.sweeps, site.plan.rows
    named = {name: Swept(rows[sweeps[name].row].label, sweeps[name].key) for name in found}
    return {named[name]: choice for name, choice in found.items() if choice is not None}


def _draw(
    heading: str,
    names: list[Named],
    curves: list[Curve],
    x_label: str,
    y_label: str,
    order: Iterable[Named],
    ends: list[str] | None = None,
    powers: bool = False,
) -> Drawing:
    """A chart in which a name has the colour of its place in `order`, or one after all those."""
    every = list(dict.fromkeys([*order, *names]))
    shown = ends or [f"{curve.y[-1]:.1f}" for curve in curves]
    words = ", ".join(f"{name.label} {end}" for name, end in zip(names, shown, strict=True))
    keys = [every.index(name) for name in names]
    lines = [charts.Line(key, curve.x, curve.y) for key, curve in zip(keys, curves, strict=True)]
    chart = charts.draw_chart(f"{heading}. {words}.", lines, x_label, y_label, powers=powers)
    return Drawing(Figure(heading, chart, list(zip(keys, shown, strict=True))), every)


def _coefficients(agenda: Agenda, key: str) -> Ends | None:
    """The one momentum coefficient of a row, or the ends of its range; None where it has none."""
    changes = agenda.site.plan.rows[key].changes
    given = changes.get("tuning.arguments", {})
    if changes.get("tuning.name") == "mst":
        low, high = given.get("momentum", (0.8, 0.85))
        return float(low), float(high)
    return (float(given["momentum"]),) if changes.get("tuning.name") == "momentum" else None
