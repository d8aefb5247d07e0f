"""Charts of a study: test scores over training, over momentum coefficients, and the sweeps that rates were chosen by."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mstrack.charts import Line, draw_chart
from mstrack.report import Figure
from mstrack.reproduce.agenda import Agenda
from mstrack.reproduce.outcomes import read_curve
from mstrack.reproduce.plan import Ground
from mstrack.reproduce.rates import Choice, look
from mstrack.reproduce.table import Table

SHOWN = ("SR", "PR")


class Named(NamedTuple):
    """Whose curve it is."""

    label: str


class Drawing(NamedTuple):
    """A chart, and the names that its legend counts."""

    item: Figure
    names: list[Named]


def draw_courses(agenda: Agenda, table: Table, ground: Ground) -> list[Drawing]:
    """Test scores of the checkpoints that were kept, over the steps of training: the mean over seeds (the paper's Fig. 1)."""
    names, points = [], []
    for line in table.lines:
        jobs = [job for job in agenda.jobs_of(line.key, ground.name, listing=True) if job.done] if not line.needs else []
        curves = [read_curve(job) for job in jobs if job.kept]
        if curves:
            names.append(Named(line.label))
            points.append(curves)
    drawings = []
    for measure in SHOWN if names else ():
        lines = [
            (
                np.array([step for step, _ in curves[0]]),
                np.mean([[np.nanmean(s[measure]) for _, s in curve] for curve in curves], axis=0),
            )
            for curves in points
        ]
        drawings.append(_draw(f"{measure} on {ground.name} over training", names, lines, "Iteration", f"{measure} (%)"))
    return drawings


def draw_momentum(agenda: Agenda, table: Table, ground: Ground) -> list[Drawing]:
    """Scores over the momentum coefficient, measured and printed; ranges at their middle (the paper's Table 6)."""
    coefficients = {line.key: _coefficient(agenda, line.key) for line in table.lines if not line.needs}
    scalar = [line for line in table.lines if isinstance(coefficients.get(line.key), float)]
    ranged = [line for line in table.lines if isinstance(coefficients.get(line.key), tuple)]
    drawings = []
    for measure in SHOWN:
        names, lines = [], []
        for label, part in (("scalar", scalar), ("range", ranged)):
            measured = [
                (_middle(coefficients[x.key]), x.measured[ground.name].cells[measure].mean)
                for x in part
                if ground.name in x.measured
            ]
            printed = [(_middle(coefficients[x.key]), row.percent[measure]) for x in part for row in x.published.values()]
            for what, points in (("measured", measured), ("paper", printed)):
                if points:
                    names.append(Named(f"{label}, {what}"))
                    lines.append(tuple(np.array(sorted(points)).T))
        if lines:
            drawings.append(
                _draw(f"{measure} on {ground.name} by coefficient", names, lines, "Momentum coefficient", f"{measure} (%)")
            )
    return drawings


def draw_sweeps(choices: dict[str, Choice], heading: str) -> Drawing | None:
    """Success rate on the validation split over the learning rate; the legend has the rates that were chosen."""
    if not choices:
        return None
    lines = [np.array(choice.points).T for choice in choices.values()]
    ends = [f"{choice.value:g}" for choice in choices.values()]
    curves = [(np.log10(x), y) for x, y in lines]
    return _draw(heading, [Named(label) for label in choices], curves, "Learning rate, power of ten", "Validation SR (%)", ends)


def find_choices(agenda: Agenda, ground: Ground) -> dict[str, Choice]:
    """The sweeps that the rows of a study took their rates from, by label of the row that was swept."""
    site = agenda.site
    wanted = dict.fromkeys(sweep for key in agenda.study.rows for sweep in site.plan.rows[key].chosen.values())
    found = {name: look(name, site.scale_name, ground.name, site.out) for name in wanted}
    return {site.plan.rows[site.plan.sweeps[name].row].label: choice for name, choice in found.items() if choice is not None}


def _draw(
    heading: str,
    names: list[Named],
    curves: list[tuple[ArrayLike, ArrayLike]],
    x_label: str,
    y_label: str,
    ends: list[str] | None = None,
) -> Drawing:
    arrays = [(np.asarray(x, np.float64), np.asarray(y, np.float64)) for x, y in curves]
    shown = ends or [f"{y[-1]:.1f}" for _, y in arrays]
    words = ", ".join(f"{name.label} {end}" for name, end in zip(names, shown, strict=True))
    chart = draw_chart(f"{heading}. {words}.", [Line(i, x, y) for i, (x, y) in enumerate(arrays)], x_label, y_label)
    return Drawing(Figure(heading, chart, list(enumerate(shown))), names)


def _coefficient(agenda: Agenda, key: str) -> float | tuple[float, float] | None:
    """The momentum coefficient of a row: one, or two ends; None where it has none."""
    changes = agenda.site.plan.rows[key].changes
    if changes.get("tuning.name") == "mst":
        low, high = changes.get("tuning.arguments", {}).get("momentum", (0.8, 0.85))
        return float(low), float(high)
    if changes.get("tuning.name") == "momentum":
        return float(changes["tuning.arguments"]["momentum"])
    return None


def _middle(coefficient: float | tuple[float, float] | None) -> float:
    return float(np.mean(coefficient if coefficient is not None else np.nan))
