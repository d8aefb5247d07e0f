"""Methods that go around another one: `of` says which, and there is no other way of combining two."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from mstrack.errors import UserError
from mstrack.registry import resolve
from mstrack.tuning.base import Tuning, kernel_rule
from mstrack.tuning.chunks import Chunk
from mstrack.tuning.rules import Rule

Of = Tuning | str | Mapping[str, Any]
"""A method, its name, or `{name: ..., arguments: {...}}`, as a recipe says it."""


class Around(Tuning):
    """A method around another one, which does all that the outer one leaves to it.

    Args:
        of: The inner method.

    Raises:
        UserError: No such method, arguments that it does not take, the same kind of method twice, or a subclass with an
            `adjust` of its own around a method that does its work in `apply`.
    """

    def __init__(self, of: Of = "full") -> None:
        self.of = build_tuning(of)
        around = [inner for inner in _layers(self.of) if isinstance(inner, Around)]
        if any(isinstance(inner, type(self)) or isinstance(self, type(inner)) for inner in around):
            raise UserError(f"a {type(self).__name__} of a {type(self).__name__} was asked for; one of a kind is expected.")
        lost = [type(inner).__name__ for inner in _layers(self.of) if _does_more(type(inner))]
        if type(self).adjust is not Around.adjust and lost:
            raise UserError(
                f"{type(self).__name__} decides on steps in `adjust`, around {lost[0]}, which does its work in `apply`:"
                f" the one would leave out the other. Put {lost[0]} around it, or override `apply`."
            )
        self.choices = self.of.choices
        self.batches = self.of.batches
        self.keeps = (*type(self).keeps, *self.of.keeps)

    def select(self, name: str) -> float:
        """As the inner method."""
        return self.of.select(name)

    def choose_betas(self, betas: Sequence[float] | None) -> tuple[float, float]:
        """As the inner method."""
        return self.of.choose_betas(betas)

    def prepare(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """As the inner method."""
        self.of.prepare(parameters)

    def remember(self, parameter: Tensor, state: dict[str, Any]) -> None:
        """What the inner method keeps."""
        self.of.remember(parameter, state)

    def receive(self, sensitivities: Sequence[Tensor], states: Sequence[dict[str, Any]]) -> None:
        """Pass the sensitivities on to an inner method that asked for them."""
        if self.of.batches:
            self.of.receive(sensitivities, states)

    def change_gradient(self, gradient: Tensor, state: dict[str, Any]) -> None:
        """As the inner method."""
        self.of.change_gradient(gradient, state)

    def begin_step(self, groups: Sequence[Mapping[str, Any]], states: Mapping[Tensor, dict[str, Any]]) -> None:
        """As the inner method."""
        self.of.begin_step(groups, states)

    def adjust(self, step: Tensor, gradient: Tensor, state: dict[str, Any]) -> Tensor:
        """As the inner method; what the outer one adds is in `apply`."""
        return self.of.adjust(step, gradient, state)

    def apply(self, chunk: Chunk) -> None:
        """As the inner method, whose `adjust` a subclass may change by one of its own."""
        if type(self).adjust is Around.adjust:
            self.of.apply(chunk)
        else:
            super().apply(chunk)

    def rule(self) -> Rule | None:
        """As the inner method, for outer ones that leave `adjust` and `apply` to it."""
        return kernel_rule(self.of)

    def mean_step(self) -> float:
        """As the inner method."""
        return self.of.mean_step()

    def evaluation_weight(self, weight: Tensor, state: dict[str, Any], choice: float | None) -> Tensor:
        """As the inner method."""
        return self.of.evaluation_weight(weight, state, choice)


def check_method(method: Tuning) -> None:
    """Refuse a method that would be left out without a word.

    Raises:
        UserError: It, or one inside, has a `receive` of its own and no `batches`, so that it is never called.
    """
    for layer in _layers(method):
        if type(layer).receive not in (Tuning.receive, Around.receive) and not layer.batches:
            raise UserError(
                f"{type(layer).__name__} has a `receive`, which is called only where `batches` is above 0: set it to the number"
                " of batches that sensitivities are measured over."
            )


def build_tuning(of: Of) -> Tuning:
    """The tuning method that a name, or a name with arguments, stands for.

    Raises:
        UserError: No such method, or arguments that it does not take.
    """
    if isinstance(of, Tuning):
        return of
    row: Mapping[str, Any] = {"name": of} if isinstance(of, str) else of
    if not isinstance(row, Mapping) or "name" not in row or set(row) - {"name", "arguments"}:
        raise UserError(f"of = {of!r}: expected the name of a tuning method, or {{name: mst, arguments: {{...}}}}.")
    try:
        method = resolve("tunings", row["name"])(**(row.get("arguments") or {}))
    except TypeError as error:
        raise UserError(f"tuning '{row['name']}': {error}") from error
    if not isinstance(method, Tuning):
        raise UserError(f"tuning '{row['name']}' makes a {type(method).__name__}, expected a mstrack.tuning.Tuning.")
    return method


def _layers(method: Tuning) -> Iterator[Tuning]:
    """A method around others and all that are inside, from the outside in."""
    yield method
    if isinstance(method, Around):
        yield from _layers(method.of)


def _does_more(kind: type[Tuning]) -> bool:
    """Whether `apply` of a method does something that its `adjust` does not say: it is overridden further down."""
    adjust, apply = (next(i for i, k in enumerate(kind.__mro__) if name in vars(k)) for name in ("adjust", "apply"))
    return apply < adjust


def contains(method: Tuning, kind: type[Tuning]) -> bool:
    """Whether a method is of a kind, or goes around one that is."""
    return any(isinstance(layer, kind) for layer in _layers(method))
