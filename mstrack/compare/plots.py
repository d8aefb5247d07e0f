"""Standings as vector figures for a paper: curves, attributes, pairs, as PDF or SVG in the style of a LaTeX column."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mstrack.compare.naming import words
from mstrack.compare.standings import COMPARED, THRESHOLDS, Standings
from mstrack.errors import UserError
from mstrack.registry import unknown
from mstrack.results import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN, PAGE = 3.4, 6.9
"""Widths of a column and of a page in inches."""
COLOURS = ("#0a62ad", "#c24d0c", "#0b7d5c", "#a03c8b", "#866500", "#1581ad", "#5b5d61", "#7d3f30")
DASHES = ("-", (0, (4.5, 1.6)), (0, (1.2, 1.2)), (0, (5, 1.6, 1.2, 1.6)))
STYLE: Any = {
    "font.family": "serif",
    "font.serif": ["STIXGeneral", "Times New Roman", "DejaVu Serif"],
    "mathtext.fontset": "stix",
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 6.6,
    "axes.linewidth": 0.5,
    "axes.edgecolor": "#444444",
    "xtick.major.width": 0.5,
    "ytick.major.width": 0.5,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "grid.linewidth": 0.4,
    "grid.color": "#dedede",
    "lines.linewidth": 1.1,
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "mstrack",
    "savefig.bbox": "tight",
    "savefig.pad_inches": 0.02,
    "text.parse_math": False,
    "axes.unicode_minus": True,
}
CURVES = {
    "success": ("SR", "Overlap threshold", None),
    "precision": ("PR", "Centre error threshold (pixels)", 20.0),
    "normalised-precision": ("NPR", "Normalised error threshold", 0.2),
}


def write_figures(
    folder: Path,
    standings: Standings,
    kind: Literal["pdf", "svg"] = "pdf",
    measure: str = "SR",
    names: Sequence[str] = (),
    part: str = "",
    pair: tuple[str, str] | None = None,
    which: Sequence[str] = (),
) -> list[Path]:
    """Write every figure that the standings allow.

    Args:
        folder: Where to; one file per figure.
        standings: What is drawn.
        kind: The format.
        measure: `SR`, `PR` or `NPR`, by which attributes and pairs are compared.
        names: Trackers to draw; none: all.
        part: The attribute whose curves and pairs are drawn; empty: the sequences that all trackers have.
        pair: Two trackers for the scatter; None: the two best.
        which: Names of the figures to write; none: all.

    Returns:
        The files.

    Raises:
        UserError: matplotlib is not installed; an unknown measure, tracker or attribute; a file cannot be written.
    """
    if measure not in COMPARED:
        raise UserError(unknown("measure", measure, COMPARED))
    for name in (*names, *(pair or ())):
        if name not in standings.names:
            raise UserError(unknown("tracker", name, standings.names))
    known = {p.name: i for i, p in enumerate(standings.parts)}
    if part and part not in known:
        raise UserError(unknown("attribute", part, known))
    shown = [i for i, name in enumerate(standings.names) if not names or name in names]
    chosen = standings.parts[known[part]] if part else standings.whole
    figures: dict[str, Callable[[], Figure]] = {
        name: lambda name=name: _draw_curves(standings, chosen.curves, chosen.percent, name, shown)  # type: ignore[misc]
        for name in CURVES
    }
    if len(standings.attributes) >= 3:
        figures["attributes-radar"] = lambda: _draw_radar(standings, measure, shown)
    if standings.attributes:
        figures["attributes-heat"] = lambda: _draw_heat(standings, measure, shown)
    if len(shown) > 1:
        figures["intervals"] = lambda: _draw_intervals(standings, chosen.percent, chosen.intervals, measure, shown)
        a, b = (standings.names.index(n) for n in pair) if pair else shown[:2]
        figures["scatter"] = lambda: _draw_scatter(standings, chosen.members, measure, a, b)
    files = []
    with _style() as save:
        for name, draw in figures.items():
            if which and name not in which:
                continue
            files.append(folder / f"{name}.{kind}")
            save(draw(), files[-1])
    return files


@contextmanager
def _style() -> Iterator[Callable[["Figure", Path], None]]:
    try:
        import matplotlib
        from matplotlib import pyplot
    except ImportError as error:
        raise UserError("figures need matplotlib: pip install 'mstrack[plot]'.") from error
    matplotlib.use("agg")

    def save(figure: "Figure", path: Path) -> None:
        date = {"Date": None} if path.suffix == ".svg" else {"CreationDate": None}
        with replacing(path) as part:
            figure.savefig(part, metadata=date)
        pyplot.close(figure)

    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **STYLE, "backend": "agg"}):
        yield save


def _look(index: int) -> dict[str, Any]:
    """Colour and dash of a tracker, as on the page."""
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[(index + index // len(COLOURS)) % len(DASHES)]}


def _short(name: str, length: int = 28) -> str:
    """A name that fits beside a figure of a column; both ends of a long one, as names often differ at the end."""
    return name if len(name) <= length else f"{name[: length - 11]}…{name[-10:]}"


def _new(width: float, height: float, **options: Any) -> tuple["Figure", "Axes"]:
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(width, height), **options)


def _draw_curves(standings: Standings, curves: Any, percent: Any, name: str, shown: Sequence[int]) -> "Figure":
    measure, label, mark = CURVES[name]
    figure, axes = _new(COLUMN, 2.5)
    x = THRESHOLDS[measure]
    for i in sorted(shown, key=lambda i: -np.nan_to_num(percent[measure][i])):
        axes.plot(x, 100 * curves[measure][i], label=f"{_short(standings.names[i])} {percent[measure][i]:.1f}", **_look(i))
    if mark is not None:
        axes.axvline(mark, color="#888888", linewidth=0.6, linestyle=(0, (1, 2)))
    axes.set(xlim=(x[0], x[-1]), ylim=(0, 100), xlabel=label, ylabel="Frames (%)")
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    place: dict[str, Any] = {"loc": "best"}
    if len(shown) > 6:
        place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "ncols": 3}
    axes.legend(frameon=False, title=standings.label(measure), title_fontsize=7, handlelength=2.2, labelspacing=0.25, **place)
    return figure


def _draw_radar(standings: Standings, measure: str, shown: Sequence[int]) -> "Figure":
    parts = standings.attributes
    angles = np.linspace(0, 2 * np.pi, len(parts), endpoint=False)
    values = np.array([part.percent[measure] for part in parts])[:, list(shown)]
    low = max(0, 10 * np.floor(np.nanmin(values) / 10) - 10)
    high = min(100, 10 * np.ceil(np.nanmax(values) / 10))
    figure, axes = _new(COLUMN, COLUMN, subplot_kw={"projection": "polar"})
    axes.set_theta_offset(np.pi / 2)  # type: ignore[attr-defined]
    axes.set_theta_direction(-1)  # type: ignore[attr-defined]
    for k, i in enumerate(shown):
        ring = np.append(values[:, k], values[0, k])
        axes.plot(np.append(angles, angles[0]), ring, label=_short(standings.names[i]), **_look(i))
    rings = np.arange(low, high + 1, 20 if high - low > 50 else 10)[1:]
    axes.set(ylim=(low, high), xticks=angles, yticks=rings)
    dataset = standings.dataset
    axes.set_xticklabels([part.name if len(part.name) <= 5 else words(part.name, dataset).replace(" ", "\n") for part in parts])
    axes.set_yticklabels([f"{ring:.0f}" for ring in rings], fontsize=6, color="#666666")
    axes.spines["polar"].set_visible(False)
    columns = 3 if len(shown) > 4 else 2
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=columns, frameon=False, handlelength=2.2, labelspacing=0.25
    )
    return figure


def _draw_heat(standings: Standings, measure: str, shown: Sequence[int]) -> "Figure":
    parts = standings.attributes
    values = np.array([part.percent[measure] for part in parts])[:, list(shown)].T
    figure, axes = _new(PAGE, 0.5 + 0.2 * len(shown))
    low, high = np.nanmin(values), np.nanmax(values)
    edges = [np.arange(n + 1) - 0.5 for n in values.shape[::-1]]
    shade = {"cmap": "Blues", "vmin": low, "vmax": high + 0.6 * max(high - low, 1e-9)}
    axes.pcolormesh(*edges, values, edgecolors="white", linewidth=0.6, **shade)
    axes.invert_yaxis()
    for (row, column), value in np.ndenumerate(values):
        best = value == np.nanmax(values[:, column])
        weight = "bold" if best and len(shown) > 1 else "normal"
        axes.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=6, weight=weight)
    scored = np.isfinite(standings.values["SR"]).any(axis=0)
    labels = [f"{part.name.replace('_', ' ')} ({int((part.members & scored).sum())})" for part in parts]
    axes.set_xticks(range(len(parts)), labels, rotation=45, ha="left", rotation_mode="anchor")
    axes.set_yticks(range(len(shown)), [_short(standings.names[i]) for i in shown])
    axes.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)
    return figure


def _draw_intervals(standings: Standings, percent: Any, intervals: Any, measure: str, shown: Sequence[int]) -> "Figure":
    figure, axes = _new(COLUMN, 0.5 + 0.17 * len(shown))
    order = sorted(shown, key=lambda i: np.nan_to_num(percent[measure][i]))
    for y, i in enumerate(order):
        colour = COLOURS[i % len(COLOURS)]
        axes.plot(intervals[measure][i], [y, y], color=colour, linewidth=1)
        axes.plot(percent[measure][i], y, "o", color=colour, markersize=3.4)
    axes.set_yticks(range(len(order)), [_short(standings.names[i]) for i in order])
    axes.set_ylim(-0.7, len(order) - 0.3)
    axes.set_xlabel(f"{standings.label(measure)} (%), 95 % interval")
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    return figure


def _draw_scatter(standings: Standings, members: Any, measure: str, a: int, b: int) -> "Figure":
    figure, axes = _new(2.6, 2.6)
    y, x = (standings.values[measure][i][members] for i in (a, b))
    ahead = y >= x
    axes.plot([0, 100], [0, 100], color="#888888", linewidth=0.6, linestyle=(0, (1, 2)))
    for kept, i in ((ahead, a), (~ahead, b)):
        axes.scatter(x[kept], y[kept], s=7, color=COLOURS[i % len(COLOURS)], alpha=0.75, linewidths=0)
    label = standings.label(measure)
    axes.set(
        xlim=(0, 100),
        ylim=(0, 100),
        xlabel=f"{_short(standings.names[b])}, {label} (%)",
        ylabel=f"{_short(standings.names[a])}, {label} (%)",
    )
    axes.set_aspect("equal")
    axes.grid()
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
