"""What the momentum coefficient of every element is: one parameter at a time, and a whole chunk in one pass."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from mstrack.errors import UserError
from mstrack.registry import unknown
from mstrack.tuning.chunks import Chunk
from mstrack.tuning.counting import add_magnitudes
from mstrack.tuning.ranks import (
    MOST_BITS,
    Run,
    bin_edges,
    count_keys,
    exact_ranks,
    histogram_ranks,
    magnitude_keys,
    narrow_keys,
    plan_runs,
    rank_table,
    ranks_of_rows,
)

Scope = Literal["tensor", "network"]
Rank = Literal["histogram", "exact"]
Order = Literal["ascending", "inverse"]
By = Literal["gradient", "moment"]


class Coefficients:
    """m = low + (high - low) * r, where r in [0, 1] is the rank of an element's sensitivity in its scope.

    Args:
        momentum: (a, b): `low` and `high`, or the other way round for the order `inverse`.
        scope: As of `MST`.
        rank: As of `MST`.
        order: As of `MST`.
        by: As of `MST`.

    Attributes:
        table: What the scope `network` ranks by in this step: the rank of every key (histogram), or all keys in order (exact).

    Raises:
        UserError: Not two numbers with 0 <= a <= b <= 1, or a value that is none of those there are.
    """

    def __init__(self, momentum: Sequence[float], scope: Scope, rank: Rank, order: Order, by: By) -> None:
        given = {"scope": (scope, Scope), "rank": (rank, Rank), "order": (order, Order), "by": (by, By)}
        for what, (value, known) in given.items():
            if value not in get_args(known):
                raise UserError(unknown(f"{what} of MST", str(value), get_args(known)))
        numbers = isinstance(momentum, Sequence) and all(isinstance(value, (int, float)) for value in momentum)
        if not numbers or len(momentum) != 2 or not 0 <= momentum[0] <= momentum[1] <= 1:
            raise UserError(f"momentum = {momentum}: expected two numbers (a, b) with 0 <= a <= b <= 1.")
        ends = float(momentum[0]), float(momentum[1])
        self.low, self.high = ends if order == "ascending" else ends[::-1]
        self.scope, self.rank, self.by = scope, rank, by
        self.table: Tensor | None = None

    @property
    def constant(self) -> bool:
        """Whether m is the same for all, so that nothing need be ranked."""
        return self.low == self.high

    @property
    def mean(self) -> float:
        """Of m: ranks spread evenly."""
        return (self.low + self.high) / 2

    @property
    def by_histogram(self) -> bool:
        """Whether a chunk's can be found in one pass, by `fill_steps`; not where a subclass finds others."""
        return (self.constant or self.rank == "histogram") and type(self).find is Coefficients.find

    def look(self, groups: Sequence[Mapping[str, Any]], states: Mapping[Tensor, dict[str, Any]]) -> None:
        """For the scope `network`: rank all together, in one pass over the gradients or the moments that they lead to.

        Args:
            groups: As of `Tuning.begin_step`.
            states: As of `Tuning.begin_step`.
        """
        if self.scope != "network" or self.constant:
            return
        present = [(p, group) for group in groups for p in group["params"] if p.grad is not None]
        if not present:
            self.table = None
            return
        moment = self.by == "moment"
        signals = (_moment(p, states[p], group) if moment else p.grad for p, group in present)
        if self.rank == "exact":
            self.table = torch.cat([magnitude_keys(s) for s in signals]).sort().values
            return
        counts = torch.zeros(1 << MOST_BITS, dtype=torch.int64, device=present[0][0].device)
        for some in ([signal] for signal in signals) if moment else [list(signals)]:
            add_magnitudes(counts, some)
        self.table = rank_table(counts, sum(p.numel() for p, _ in present))

    def find(self, gradient: Tensor, state: Mapping[str, Any]) -> Tensor:
        """The m of every element of a parameter: the plain version of `fill_steps`.

        Args:
            gradient: Of the parameter. For the scope `network` inside a step only, where `look` has seen the others.
            state: `optimizer.state[parameter]`.

        Returns:
            float32 of its shape.
        """
        if self.constant:
            return torch.full(gradient.shape, self.low, device=gradient.device)
        return self.low + (self.high - self.low) * self._ranks(state["exp_avg_sq"] if self.by == "moment" else gradient)

    def _ranks(self, signal: Tensor) -> Tensor:
        if self.scope == "tensor":
            return exact_ranks(signal) if self.rank == "exact" else histogram_ranks(signal)
        if self.table is None:
            raise UserError("scope 'network' ranks over all gradients: begin_step(groups, states) comes before adjust(...).")
        keys = magnitude_keys(signal)
        if self.rank == "histogram":
            return self.table[keys.bitwise_right_shift_(31 - MOST_BITS)].view(signal.shape)
        size = self.table.numel()
        if size < 2:
            return torch.full(signal.shape, 0.5, device=signal.device)
        below = torch.searchsorted(self.table, keys)
        upto = torch.searchsorted(self.table, keys, right=True)
        return ((below + upto - 1) * (0.5 / (size - 1))).clamp_(0, 1).to(torch.float32).view(signal.shape)

    def fill_steps(self, chunk: Chunk) -> None:
        """Fill `chunk.spare` with 1 - m of every element; for ranks `by_histogram` only."""
        if self.constant:
            chunk.spare.fill_(1 - self.low)
            return
        slope, start = self.low - self.high, 1 - self.low
        ranked = [state["exp_avg_sq"] for state in chunk.states] if self.by == "moment" else chunk.gradients
        torch._foreach_copy_(chunk.magnitudes, ranked)
        keys = chunk.keys.bitwise_and_(0x7FFFFFFF)
        if self.table is not None:
            table = (self.table * slope + start).to(chunk.spare.dtype)
            torch.index_select(table, 0, keys.bitwise_right_shift_(31 - MOST_BITS), out=chunk.spare)
            return
        for run in plan_runs(chunk.sizes):
            part = keys[run.start : run.stop]
            if run.bits == 0:
                ranks = ranks_of_rows(part.view(len(run.sizes), -1))
                chunk.spare[run.start : run.stop] = ranks.mul_(slope).add_(start).view(-1)
            else:
                _fill_run(chunk, run, part, slope, start)


def _fill_run(chunk: Chunk, run: Run, keys: Tensor, slope: float, start: float) -> None:
    """Fill the part of `chunk.spare` that is a run of large tensors with start + slope * rank: all are counted in one pass."""
    bins = narrow_keys(keys.bitwise_right_shift_(31 - run.bits), 1 << run.bits)
    torch._foreach_add_(keys.split(run.sizes), [row * bins for row in range(len(run.sizes))])
    edges = bin_edges(count_keys(keys, len(run.sizes) * bins), chunk.scratch).view(-1, bins)
    slopes, starts = _columns(chunk, run, slope, start)
    table = torch.addcmul(starts, edges, slopes, out=edges).to(chunk.spare.dtype)
    torch.index_select(table.view(-1), 0, keys, out=chunk.spare[run.start : run.stop])


def _columns(chunk: Chunk, run: Run, slope: float, start: float) -> tuple[Tensor, Tensor]:
    """Columns that turn the bin edges of a run, which go on from tensor to tensor, into start + slope * rank of each."""
    name = f"slopes of elements {run.start} to {run.stop}"
    if name not in chunk.notes:
        slopes = torch.tensor([[slope * 0.5 / (size - 1)] for size in run.sizes], dtype=torch.float64)
        before = torch.tensor(run.sizes, dtype=torch.float64).cumsum(0).sub_(torch.tensor(run.sizes)).view(-1, 1)
        columns = torch.stack([slopes, start - slopes * (2 * before + 1)])
        chunk.notes[name] = columns.to(chunk.keys.device, torch.float32)
    first, second = chunk.notes[name]
    return first, second


def _moment(parameter: Tensor, state: Mapping[str, Any], group: Mapping[str, Any]) -> Tensor:
    """The second moment of Adam as this step will leave it."""
    beta = group["betas"][1]
    gradient = parameter.grad
    assert gradient is not None
    moment: Tensor = state["exp_avg_sq"]
    return (moment * beta).addcmul_(gradient.to(moment.dtype), gradient.to(moment.dtype), value=1 - beta)


def released_coefficients(low: float, high: float, gradient: Tensor, state: dict[str, Any]) -> Tensor:
    """The m that the authors' later public trainer computes: see `MST`. Keeps the previous sensitivities in the state."""
    current = 1e8 * gradient.to(torch.float32) ** 2
    previous = state.setdefault("previous", torch.zeros_like(current))
    sensitivity = ((previous + current) / 2).flatten()
    previous.copy_(current)
    if sensitivity.numel():
        sensitivity = sensitivity / sensitivity.max()
    ladder = torch.linspace(low, high, sensitivity.numel(), device=gradient.device)
    return ladder[sensitivity.argsort()].view(gradient.shape)
