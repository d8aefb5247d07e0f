"""The pattern table: which parameters train, and at which factor of the learning rate."""

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from torch import nn

from mstrack.errors import UserError

Pattern = tuple[str, float | None]
"""A glob pattern over parameter names (`*` matches dots too), and a factor of the learning rate; none or 0 freezes."""


class Selection(NamedTuple):
    """The trainable parameters by their factor of the learning rate, in the given order, and the names of the frozen ones."""

    trained: dict[float, list[tuple[str, nn.Parameter]]]
    frozen: list[str]


def select_parameters(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    select: Callable[[str], float],
    patterns: Sequence[Pattern] | None,
) -> Selection:
    """Sort parameters by learning rate; the frozen ones get `requires_grad` off, those that a pattern trains get it on.

    Args:
        named_parameters: As of `nn.Module.named_parameters()`.
        select: Factor that the tuning method itself gives a name.
        patterns: The first pattern that matches a name counts. Without a table everything that requires a gradient trains.

    Raises:
        UserError: Names that no pattern covers (all are listed), a factor below 0, nothing left to train, or parameters
            without names.
    """
    given = _read_rows(named_parameters)
    table = None if patterns is None else [(pattern, _factor(pattern, factor)) for pattern, factor in patterns]
    factors = {}
    for name, parameter in given:
        if table is not None:
            factors[name] = next((factor for pattern, factor in table if fnmatchcase(name, pattern)), None)
        else:
            factors[name] = 1.0 if parameter.requires_grad else 0.0
    uncovered = [name for name, factor in factors.items() if factor is None]
    if table is not None and uncovered:
        known = ", ".join(f"'{pattern}'" for pattern, _ in table) or "none"
        raise UserError(
            f"{len(uncovered)} parameters match no pattern: {', '.join(uncovered)}. Patterns given: {known}."
            " Add one for each, with 0 to freeze, or end the table with '*'."
        )
    trained: dict[float, list[tuple[str, nn.Parameter]]] = {}
    frozen = []
    for name, parameter in given:
        factor = (factors[name] or 0.0) * select(name)
        parameter.requires_grad_(factor > 0)
        if factor > 0:
            trained.setdefault(factor, []).append((name, parameter))
        else:
            frozen.append(name)
    if not trained:
        raise UserError(f"nothing trains: all of the {len(given)} parameters given are frozen.")
    return Selection(trained, frozen)


def useless_patterns(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """The patterns that are the first to match none of the names: they say nothing, or come after one that says it all."""
    used = {next((pattern for pattern in patterns if fnmatchcase(name, pattern)), None) for name in names}
    return [pattern for pattern in patterns if pattern not in used]


def _read_rows(named_parameters: Any) -> list[tuple[str, nn.Parameter]]:
    rows = [] if isinstance(named_parameters, nn.Module) else list(named_parameters)
    wrong = [row for row in rows if not (isinstance(row, tuple) and len(row) == 2 and isinstance(row[0], str))]
    if wrong or isinstance(named_parameters, nn.Module):
        kind = type(wrong[0] if wrong else named_parameters).__name__
        raise UserError(f"expected pairs of a name and a parameter, got a {kind}: give model.named_parameters().")
    return rows


def _factor(pattern: str, factor: float | None) -> float:
    if factor is None:
        return 0.0
    if not factor >= 0:
        raise UserError(f"pattern '{pattern}' has the factor {factor}; expected a number of at least 0, or none to freeze.")
    return float(factor)
