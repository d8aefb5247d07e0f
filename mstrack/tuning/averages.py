"""Averages of weights that are evaluated and shipped in the place of the trained ones; training itself does not change."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mstrack.errors import UserError
from mstrack.tuning.chunks import Chunk
from mstrack.tuning.combination import Around, Of, contains


class WiSE(Around):
    """WiSE-FT: weights on the line from the pre-trained to the tuned ones (Wortsman et al., CVPR 2022).

    What is evaluated and shipped is (1 - alpha) * pre-trained + alpha * tuned. Buffers (statistics of batch norms) stay as
    they were trained. Memory: the pre-trained weights.

    Args:
        alpha: In [0, 1]; 1 is the tuned network. Several: after training the one with the best score on the validation data
            is shipped (success rate, and the loss where that is equal or not measured); validations before the end are then
            of the tuned network.
        of: The method that tunes.

    Raises:
        UserError: An alpha outside [0, 1], or none.
    """

    keeps: tuple[str, ...] = ("anchor",)

    def __init__(self, alpha: float | Sequence[float] = 0.5, of: Of = "full") -> None:
        super().__init__(of)
        given = tuple(alpha) if isinstance(alpha, Sequence) else (alpha,)
        if not given or not all(isinstance(a, (int, float)) and 0 <= a <= 1 for a in given):
            raise UserError(f"alpha = {alpha}: expected a number in [0, 1], or several.")
        self.choices = tuple(map(float, given)) if isinstance(alpha, Sequence) else ()
        self.alpha = 1.0 if self.choices else float(given[0])

    def remember(self, parameter: Tensor, state: dict[str, Any]) -> None:
        """Keep the pre-trained value."""
        super().remember(parameter, state)
        state["anchor"] = parameter.clone()

    def evaluation_weight(self, weight: Tensor, state: dict[str, Any], choice: float | None) -> Tensor:
        """The weight between the pre-trained one and what the inner method evaluates."""
        tuned = super().evaluation_weight(weight, state, choice)
        return state["anchor"].to(tuned.dtype).lerp(tuned, self.alpha if choice is None else choice)


class EMA(Around):
    """Exponential moving average of the weights over the steps (Polyak and Juditsky 1992; Tarvainen and Valpola 2017).

    average <- average + (1 - d) * (weight - average) after every step that is taken, from the pre-trained weights on, with
    d = min(decay, (1 + t) / (10 + t)) at the t-th step, so that the start is forgotten in short runs too (the rule of
    TensorFlow's ExponentialMovingAverage). Memory: one buffer, float32 or wider.

    Args:
        decay: In [0, 1); 0.999 averages over about the last thousand steps.
        of: The method that tunes; not one that interpolates with the pre-trained weights, which goes around this one.

    Raises:
        UserError: A decay outside [0, 1), or a `wise` inside.
    """

    keeps: tuple[str, ...] = ("average",)

    def __init__(self, decay: float = 0.999, of: Of = "full") -> None:
        super().__init__(of)
        if not 0 <= decay < 1:
            raise UserError(f"decay = {decay}: expected a number of at least 0 and below 1.")
        if contains(self.of, WiSE):
            raise UserError("an average of 'wise' was asked for; put it the other way round: wise of ema.")
        self.decay = float(decay)

    def remember(self, parameter: Tensor, state: dict[str, Any]) -> None:
        """The average begins at the pre-trained value."""
        super().remember(parameter, state)
        wide = torch.promote_types(parameter.dtype, torch.float32)
        state["average"] = torch.empty_like(parameter, dtype=wide).copy_(parameter)

    def apply(self, chunk: Chunk) -> None:
        """Take the step, then move the averages; a step that is skipped does not count."""
        super().apply(chunk)
        shares = torch._foreach_add([state["step"].to(chunk.proposal.device) for state in chunk.states], 10)
        torch._foreach_reciprocal_(shares)
        torch._foreach_mul_(shares, 9)
        torch._foreach_clamp_min_(shares, 1 - self.decay)
        if chunk.skip is not None:
            torch._foreach_mul_(shares, (~chunk.skip).to(shares[0].device, shares[0].dtype))
        for parameter, state, share in zip(chunk.parameters, chunk.states, shares, strict=True):
            average = state["average"]
            average.lerp_(parameter.to(average.dtype), share.to(average.dtype))

    def evaluation_weight(self, weight: Tensor, state: dict[str, Any], choice: float | None) -> Tensor:
        """The average."""
        average: Tensor = state["average"]
        return average
