"""Modality sensitivity-aware tuning (MST), the method of the paper, and its halves: momentum alone, sensitivity alone."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from mstrack.errors import UserError
from mstrack.registry import unknown
from mstrack.tuning.base import BETAS, Tuning
from mstrack.tuning.chunks import Chunk
from mstrack.tuning.coefficients import By, Coefficients, Order, Rank, Scope, released_coefficients
from mstrack.tuning.rules import Rule

Update = Literal["interpolate", "velocity", "released"]


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
        if update not in get_args(Update):
            raise UserError(unknown("update of MST", str(update), get_args(Update)))
        if momentum is None:
            momentum = (0.25, 0.65) if update == "released" else (0.8, 0.85)
        self.update = update
        self.coefficients = Coefficients(momentum, scope, rank, order, by)
        if update == "released":
            for what, given, only in (("scope", scope, "tensor"), ("order", order, "ascending"), ("by", by, "gradient")):
                if given != only:
                    raise UserError(f"update 'released' has the {what} '{only}'; '{given}' was given. Leave the {what} out.")

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
                " Leave betas out, or take the update 'interpolate'; a scheduler that changes betas, as OneCycleLR does, leaves"
                " them with cycle_momentum=False."
            )
        return super().choose_betas(betas)

    def mean_step(self) -> float:
        """The mean of 1 - m; 1 for `velocity`, whose rho adds up to all that was proposed."""
        return 1.0 if self.update == "velocity" else 1.0 - self.coefficients.mean

    def rule(self) -> Rule | None:
        """Ranks of gradients by histogram, and one coefficient for all, are what the fused kernels know."""
        m = self.coefficients
        if self.update == "released" or not m.by_histogram or (m.by == "moment" and not m.constant):
            return None
        return Rule(m.low, m.high, self.update == "velocity", None if m.constant else m.table)

    def begin_step(self, groups: Sequence[Mapping[str, Any]], states: Mapping[Tensor, dict[str, Any]]) -> None:
        """For the scope `network`: rank all together."""
        self.coefficients.look(groups, states)

    def adjust(self, step: Tensor, gradient: Tensor, state: dict[str, Any]) -> Tensor:
        """The step under the momentum coefficients of the parameter's elements; the plain version of `apply`."""
        m = self.coefficients
        if m.low == m.high == 0 and self.update != "velocity":
            return step
        if self.update == "released":
            return step.mul_(1 - released_coefficients(m.low, m.high, gradient, state).to(step.dtype))
        scale = (1 - m.find(gradient, state)).to(step.dtype)
        if self.update == "interpolate":
            return step.mul_(scale)
        rho = state.setdefault("rho", torch.zeros_like(step))
        return rho.lerp_(step, scale)

    def apply(self, chunk: Chunk) -> None:
        """Move the parameters of a chunk; the fast version of `adjust`, with one pass for all ranks of the chunk.

        A subclass with an `adjust` of its own has that called instead.
        """
        if type(self).adjust is not MST.adjust or self.update == "released" or not self.coefficients.by_histogram:
            super().apply(chunk)
        elif self.update == "velocity":
            self._accelerate(chunk)
        elif self.coefficients.constant:
            torch._foreach_lerp_(chunk.parameters, chunk.proposals, 1 - self.coefficients.low)
        else:
            self.coefficients.fill_steps(chunk)
            torch._foreach_lerp_(chunk.parameters, chunk.proposals, chunk.spares)

    def _accelerate(self, chunk: Chunk) -> None:
        """The update `velocity`."""
        rhos = []
        for state, like in zip(chunk.states, chunk.proposals, strict=True):
            if "rho" not in state:
                state["rho"] = torch.zeros_like(like)
            rhos.append(state["rho"])
        self.coefficients.fill_steps(chunk)
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
