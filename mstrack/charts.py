"""Line charts as numbers: ticks and path coordinates in a fixed frame, which a template turns into SVG. Numpy only."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

WIDTH, HEIGHT = 420, 300
LEFT, TOP, RIGHT, BOTTOM = 48, 12, 408, 254

Range = tuple[float, float]


class Line(NamedTuple):
    """One curve: `key` says whose it is (its colour), `x` and `y` are (N,) in data units."""

    key: int
    x: NDArray[np.float64]
    y: NDArray[np.float64]


class Tick(NamedTuple):
    """A mark on an axis: where, in units of the frame, and what it says."""

    position: float
    text: str


class Path(NamedTuple):
    """A curve in units of the frame: the `d` of an SVG path, and whose it is."""

    key: int
    d: str


@dataclass(frozen=True)
class Chart:
    """Everything a template needs to draw one chart; `mark` is the position of a vertical line, or None."""

    title: str
    x_label: str
    y_label: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    paths: list[Path]
    mark: float | None


def draw_chart(
    title: str,
    lines: Sequence[Line],
    x_label: str,
    y_label: str,
    x_range: Range | None = None,
    y_range: Range | None = None,
    mark: float | None = None,
    powers: bool = False,
) -> Chart:
    """Lay out curves in the frame.

    Args:
        title: What a reader who cannot see the chart is told.
        lines: The curves; points that are not finite are left out.
        x_label: What the horizontal axis measures, with its unit.
        y_label: The same of the vertical axis.
        x_range: Lowest and highest value of the axis; from the data where None.
        y_range: The same of the vertical axis, widened to whole ticks where None.
        mark: A value of x to point out.
        powers: Whether x are powers of ten, which the ticks write out.
    """
    finite = [_finite(line) for line in lines]
    x_low, x_high = x_range or _extent([line.x for line in finite])
    y_low, y_high = y_range or _widen(*_extent([line.y for line in finite]))

    def across(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return LEFT + (x - x_low) / (x_high - x_low) * (RIGHT - LEFT)

    def up(y: NDArray[np.float64]) -> NDArray[np.float64]:
        return BOTTOM - (y - y_low) / (y_high - y_low) * (BOTTOM - TOP)

    x_values, y_values = find_powers(x_low, x_high) if powers else find_ticks(x_low, x_high), find_ticks(y_low, y_high)
    x_texts = [f"{10**v if powers else v:,g}" for v in x_values]
    return Chart(
        title,
        x_label,
        y_label,
        [Tick(round(float(p), 1), text) for p, text in zip(across(x_values), x_texts, strict=True)],
        [Tick(round(float(p), 1), f"{v:,g}") for p, v in zip(up(y_values), y_values, strict=True)],
        [Path(line.key, _path(across(line.x), up(line.y))) for line in finite if len(line.x)],
        None if mark is None else round(float(across(np.array(mark))), 1),
    )


def find_ticks(low: float, high: float, count: int = 5) -> NDArray[np.float64]:
    """About `count` round values (1, 2 or 5 times a power of ten apart) inside [low, high]."""
    step = _step(low, high, count)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return np.array([float(f"{k * step:.12g}") for k in range(first, last + 1)])


def find_powers(low: float, high: float) -> NDArray[np.float64]:
    """The powers of ten inside [low, high]; with twice and five times them where that is few."""
    whole = range(math.floor(low), math.ceil(high) + 1)
    found = [[e + math.log10(factor) for e in whole for factor in factors] for factors in ((1, 2, 5), (1,))]
    fine, coarse = (np.array([v for v in values if low - 1e-9 <= v <= high + 1e-9]) for values in found)
    return fine if len(fine) <= 6 else coarse


def thin(points: ArrayLike, limit: int = 200) -> NDArray[np.float64]:
    """(N, 2) -> at most (limit, 2): means of neighbouring points, so that a long curve stays small and readable."""
    values = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    if len(values) <= limit:
        return values
    return np.array([chunk.mean(axis=0) for chunk in np.array_split(values, limit)])


def _finite(line: Line) -> Line:
    kept = np.isfinite(line.x) & np.isfinite(line.y)
    return Line(line.key, line.x[kept], line.y[kept])


def _extent(values: Sequence[NDArray[np.float64]]) -> Range:
    """Lowest and highest of all values; one apart where they are all the same, 0 and 1 where there is none."""
    together = np.concatenate([*values, np.zeros(0)])
    if not len(together):
        return 0.0, 1.0
    low, high = float(together.min()), float(together.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _widen(low: float, high: float) -> Range:
    step = _step(low, high, 5)
    return math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step


def _step(low: float, high: float, count: int) -> float:
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


def _path(x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    """Straight lines from point to point; a single point becomes a short dash that ends there, so that it is seen."""
    if len(x) == 1:
        x, y = np.array([x[0] - 8, x[0]]), np.repeat(y, 2)
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))
