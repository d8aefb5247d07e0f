"""Modality sensitivity-aware tuning (MST), the method of the paper, and its halves: momentum alone, sensitivity alone."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from mstrack.errors import UserError
from mstrack.registry import unknown
from mstrack.tuning.base import BETAS, Tuning
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
from mstrack.tuning.rules import Rule

Scope = Literal["tensor", "network"]
Update = Literal["interpolate", "velocity", "released"]
Rank = Literal["histogram", "exact"]
Order = Literal["ascending", "inverse"]
By = Literal["gradient", "moment"]


class MST(Tuning):
    """MST (the paper, Sec. 3.2-3.3): the more sensitive a parameter, the more of its previous state it keeps.

    Source: the MST paper, sections 3.2-3.3 and Algorithm 1, in the reading of this project. For an element with gradient G the
    sensitivity is G * G, r in [0, 1] its rank among the sensitivities of its scope, and m = a + (b - a) * r its momentum
    coefficient. With theta the parameter and delta the step that AdamW proposes (weight decay included), the updates are:

    - `interpolate`: theta <- m * theta + (1 - m) * (theta + delta), which is theta <- theta + (1 - m) * delta. With a constant
      m this is *exactly* a smaller learning rate, (1 - m) times the given one; with ranked m it is an element-wise scale of
      the step. It costs no memory.
    - `velocity`: rho <- m * rho + (1 - m) * delta, theta <- theta + rho, from rho = 0. One buffer more; AdamW runs with its
      first beta at 0.
    - `released`: what the authors' later public trainer computes, for reproduction only. The sensitivity is the mean of the
      previous and the current 1e8 * G * G, and m = linspace(a, b, N)[argsort(sensitivity)], then `interpolate`. Indexing by
      argsort is not a rank mapping but its inverse permutation: m is unrelated to the sensitivity (correlation 0.002). It
      sorts, so it is slow, and its scope is the tensor.

    Args:
        momentum: (a, b), the coefficients of the least and the most sensitive element; 0 <= a <= b <= 1. None: the paper's
            (0.8, 0.85), and (0.25, 0.65) for `released`.
        scope: Ranks inside each `tensor`, or over all that trains together (`network`).
        update: As above.
        rank: By `histogram`, fast, or `exact`, by sorting: the reference it is tested against.
        order: `ascending`, as above; `inverse`: b for the least sensitive and a for the most, to see what ranking is worth.
        by: What is ranked: the `gradient` of the step, or the second `moment` of Adam with that gradient in it, which is a
            sensitivity over many batches.

    Raises:
        UserError: A value that is none of these.
    """

    def __init__(
        self,
        momentum: Sequence[float] | None = None,
        scope: Scope = "tensor",
        update: Update = "interpolate",
        rank: Rank = "histogram",
        order: Order = "ascending",
        by: By = "gradient",
    ) -> None:
        settings = {"scope": (scope, Scope), "update": (update, Update), "rank": (rank, Rank), "order": (order, Order)}
        for what, (given, known) in (settings | {"by": (by, By)}).items():
            if given not in get_args(known):
                raise UserError(unknown(f"{what} of MST", str(given), get_args(known)))
        if update == "released":
            for what, given, only in (("scope", scope, "tensor"), ("order", order, "ascending"), ("by", by, "gradient")):
                if given != only:
                    raise UserError(f"update 'released' has the {what} '{only}'; '{given}' was given. Leave the {what} out.")
        if momentum is None:
            momentum = (0.25, 0.65) if update == "released" else (0.8, 0.85)
        numbers = isinstance(momentum, Sequence) and all(isinstance(value, (int, float)) for value in momentum)
        if not numbers or len(momentum) != 2 or not 0 <= momentum[0] <= momentum[1] <= 1:
            raise UserError(f"momentum = {momentum}: expected two numbers (a, b) with 0 <= a <= b <= 1.")
        self.momentum = (float(momentum[0]), float(momentum[1]))
        self.scope = scope
        self.update = update
        self.rank = rank
        self.by = by
        self._ends = self.momentum if order == "ascending" else self.momentum[::-1]
        self._network: Tensor | None = None

    def choose_betas(self, betas: Sequence[float] | None) -> tuple[float, float]:
        """AdamW's own; for `velocity` the first is 0."""
        if self.update != "velocity":
            return super().choose_betas(betas)
        if betas is None:
            return 0.0, BETAS[1]
        if betas[0] > 0:
            raise UserError(
                f"betas = {tuple(betas)}: the update 'velocity' needs a first beta of 0. Its rho is a momentum of its own; on"
                f" top of AdamW's, {betas[0]}, it is momentum twice, which hurt at every learning rate that was tried."
                " Leave betas out, or take the update 'interpolate'."
            )
        return super().choose_betas(betas)

    def mean_step(self) -> float:
        """The mean of 1 - m; 1 for `velocity`, whose rho adds up to all that was proposed."""
        return 1.0 if self.update == "velocity" else 1.0 - sum(self.momentum) / 2

    def rule(self) -> Rule | None:
        """Ranks of gradients by histogram, and one coefficient for all, are what the fused kernels know."""
        low, high = self._ends
        if self.update == "released" or (low != high and (self.rank == "exact" or self.by == "moment")):
            return None
        return Rule(low, high, self.update == "velocity", None if low == high else self._network)

    # ---------------------------------------------------------------- one parameter
    def coefficient(self, gradient: Tensor) -> Tensor:
        """Momentum coefficient m of every element of a parameter.

        Args:
            gradient: Of the parameter, or the moment that is ranked in its place. For the scope `network` inside a step only,
                where `begin_step` has seen the others.

        Returns:
            float32 of its shape.
        """
        low, high = self._ends
        if low == high:
            return torch.full(gradient.shape, low, device=gradient.device)
        return low + (high - low) * self._ranks(gradient)

    def _ranks(self, gradient: Tensor) -> Tensor:
        if self.scope == "tensor":
            return exact_ranks(gradient) if self.rank == "exact" else histogram_ranks(gradient)
        if self._network is None:
            raise UserError("scope 'network' ranks over all gradients: begin_step(groups) comes before coefficient(gradient).")
        keys = magnitude_keys(gradient)
        if self.rank == "histogram":
            return self._network[keys.bitwise_right_shift_(31 - MOST_BITS)].view(gradient.shape)
        size = self._network.numel()
        if size < 2:
            return torch.full(gradient.shape, 0.5, device=gradient.device)
        below = torch.searchsorted(self._network, keys)
        upto = torch.searchsorted(self._network, keys, right=True)
        return ((below + upto - 1) * (0.5 / (size - 1))).clamp_(0, 1).to(torch.float32).view(gradient.shape)

    def adjust(self, step: Tensor, gradient: Tensor, state: dict[str, Any]) -> Tensor:
        """The step under the momentum coefficients of the parameter's elements; the plain version of `apply`."""
        if self.momentum == (0.0, 0.0) and self.update != "velocity":
            return step
        if self.update == "released":
            return step.mul_(1 - self._released(gradient, state).to(step.dtype))
        ranked = state["exp_avg_sq"] if self.by == "moment" else gradient
        scale = (1 - self.coefficient(ranked)).to(step.dtype)
        if self.update == "interpolate":
            return step.mul_(scale)
        rho = state.setdefault("rho", torch.zeros_like(step))
        return rho.lerp_(step, scale)

    def _released(self, gradient: Tensor, state: dict[str, Any]) -> Tensor:
        """Momentum coefficients as the released trainer has them."""
        current = 1e8 * gradient.to(torch.float32) ** 2
        previous = state.setdefault("previous", torch.zeros_like(current))
        sensitivity = ((previous + current) / 2).flatten()
        previous.copy_(current)
        if sensitivity.numel():
            sensitivity = sensitivity / sensitivity.max()
        ladder = torch.linspace(*self.momentum, sensitivity.numel(), device=gradient.device)
        return ladder[sensitivity.argsort()].view(gradient.shape)

    # ---------------------------------------------------------------- many parameters
    def begin_step(self, groups: Sequence[Mapping[str, Any]], states: Mapping[Tensor, dict[str, Any]]) -> None:
        """For the scope `network`: rank all together, in one pass over the gradients or the moments that they lead to."""
        low, high = self._ends
        if self.scope != "network" or low == high:
            return
        present = [(p, group) for group in groups for p in group["params"] if p.grad is not None]
        if not present:
            self._network = None
            return
        moment = self.by == "moment"
        signals = (_moment(p, states[p], group) if moment else p.grad for p, group in present)
        if self.rank == "exact":
            self._network = torch.cat([magnitude_keys(s) for s in signals]).sort().values
            return
        counts = torch.zeros(1 << MOST_BITS, dtype=torch.int64, device=present[0][0].device)
        for some in ([signal] for signal in signals) if moment else [list(signals)]:
            add_magnitudes(counts, some)
        self._network = rank_table(counts, sum(p.numel() for p, _ in present))

    def apply(self, chunk: Chunk) -> None:
        """Move the parameters of a chunk; the fast version of `adjust`, with one pass for all ranks of the chunk."""
        low, high = self._ends
        if self.update == "released" or (self.rank == "exact" and low != high):
            super().apply(chunk)
        elif self.update == "velocity":
            self._accelerate(chunk)
        elif low == high:
            torch._foreach_lerp_(chunk.parameters, chunk.proposals, 1 - low)
        else:
            self._scale(chunk)
            torch._foreach_lerp_(chunk.parameters, chunk.proposals, chunk.spares)

    def _accelerate(self, chunk: Chunk) -> None:
        """The update `velocity`."""
        rhos = []
        for state, like in zip(chunk.states, chunk.proposals, strict=True):
            if "rho" not in state:
                state["rho"] = torch.zeros_like(like)
            rhos.append(state["rho"])
        self._scale(chunk)
        torch._foreach_sub_(chunk.proposals, chunk.parameters)
        if chunk.skip is None:
            torch._foreach_lerp_(rhos, chunk.proposals, chunk.spares)
            torch._foreach_add_(chunk.parameters, rhos)
            return
        chunk.spare.masked_fill_(chunk.skip, 0)
        torch._foreach_lerp_(rhos, chunk.proposals, chunk.spares)
        torch._foreach_copy_(chunk.spares, rhos)
        chunk.spare.masked_fill_(chunk.skip, 0)
        torch._foreach_add_(chunk.parameters, chunk.spares)

    def _scale(self, chunk: Chunk) -> None:
        """Fill `chunk.spare` with 1 - m of every element."""
        low, high = self._ends
        if low == high:
            chunk.spare.fill_(1 - low)
            return
        ranked = [state["exp_avg_sq"] for state in chunk.states] if self.by == "moment" else chunk.gradients
        torch._foreach_copy_(chunk.magnitudes, ranked)
        keys = chunk.keys.bitwise_and_(0x7FFFFFFF)
        if self._network is not None:
            table = (self._network * (low - high) + (1 - low)).to(chunk.spare.dtype)
            torch.index_select(table, 0, keys.bitwise_right_shift_(31 - MOST_BITS), out=chunk.spare)
            return
        for run in plan_runs(chunk.sizes):
            if run.bits == 0:
                rows = keys[run.start : run.stop].view(len(run.sizes), -1)
                chunk.spare[run.start : run.stop] = ranks_of_rows(rows).mul_(low - high).add_(1 - low).view(-1)
            else:
                self._scale_by_histogram(chunk, run, keys[run.start : run.stop])

    def _scale_by_histogram(self, chunk: Chunk, run: Run, keys: Tensor) -> None:
        """Fill the part of `chunk.spare` that is a run of large tensors: all are counted in one pass."""
        low, high = self._ends
        bins = narrow_keys(keys.bitwise_right_shift_(31 - run.bits), 1 << run.bits)
        torch._foreach_add_(keys.split(run.sizes), [row * bins for row in range(len(run.sizes))])
        edges = bin_edges(count_keys(keys, len(run.sizes) * bins), chunk.scratch).view(-1, bins)
        slope, start = _slopes(chunk, run, low - high, 1 - low)
        table = torch.addcmul(start, edges, slope, out=edges).to(chunk.spare.dtype)
        torch.index_select(table.view(-1), 0, keys, out=chunk.spare[run.start : run.stop])


def _moment(parameter: Tensor, state: Mapping[str, Any], group: Mapping[str, Any]) -> Tensor:
    """The second moment of Adam as this step will leave it."""
    beta = group["betas"][1]
    gradient = parameter.grad
    assert gradient is not None
    moment: Tensor = state["exp_avg_sq"]
    return (moment * beta).addcmul_(gradient.to(moment.dtype), gradient.to(moment.dtype), value=1 - beta)


def _slopes(chunk: Chunk, run: Run, slope: float, start: float) -> tuple[Tensor, Tensor]:
    """Columns that turn the bin edges of a run, which go on from tensor to tensor, into start + slope * rank of each."""
    name = f"slopes of elements {run.start} to {run.stop}"
    if name not in chunk.notes:
        slopes = torch.tensor([[slope * 0.5 / (size - 1)] for size in run.sizes], dtype=torch.float64)
        before = torch.tensor(run.sizes, dtype=torch.float64).cumsum(0).sub_(torch.tensor(run.sizes)).view(-1, 1)
        columns = torch.stack([slopes, start - slopes * (2 * before + 1)])
        chunk.notes[name] = columns.to(chunk.keys.device, torch.float32)
    first, second = chunk.notes[name]
    return first, second


class ScalarMomentum(MST):
    """One momentum coefficient for every parameter (the paper's Table 6; Table 3, row d).

    With the update `interpolate` this is exactly plain fine-tuning at (1 - momentum) times the learning rate.

    Args:
        momentum: The coefficient m.
        update: `interpolate` or `velocity`, as of `MST`.

    Raises:
        UserError: A coefficient outside [0, 1], or no such update.
    """

    def __init__(self, momentum: float = 0.8, update: Literal["interpolate", "velocity"] = "interpolate") -> None:
        if update not in ("interpolate", "velocity"):
            raise UserError(unknown("update of scalar momentum", str(update), ("interpolate", "velocity")))
        super().__init__((momentum, momentum), update=update)


class SensitivityOnly(MST):
    """Step factors by sensitivity rank from 0.4 to 0, without a floor of momentum (Table 3, row c, in our reading).

    The paper does not say what row (c) computes. Here it is `interpolate` with m from 0.6 for the least sensitive element to 1
    for the most sensitive one, which stands still: the same mean step, 0.2, as the scalar momentum 0.8 of row (d).

    Args:
        momentum: (a, b), as of `MST`.
        scope: As of `MST`.
        rank: As of `MST`.
    """

    def __init__(self, momentum: Sequence[float] = (0.6, 1.0), scope: Scope = "tensor", rank: Rank = "histogram") -> None:
        super().__init__(momentum, scope=scope, rank=rank)
