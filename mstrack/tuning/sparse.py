"""Sparse tuning: only the most sensitive weights train, chosen before training."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mstrack.errors import UserError
from mstrack.tuning.chunks import Chunk
from mstrack.tuning.combination import Around, Of


class SparseTuning(Around):
    """Sparse SPT: the share of weights with the highest sensitivity trains (He et al., ICCV 2023; the paper's Table 11).

    Sensitivity is the mean squared gradient at the pre-trained weights over batches of training pairs; the weights of the
    whole network compete. This is SPT's unstructured part (its structured part, LoRA or adapters in the matrices that hold many
    of them, is none). The gradients of all others are set to 0 before clipping, so that neither the norm nor a moment sees
    them, and they stay bit for bit, whatever weight decay does. Memory: one buffer, of 0 and 1.

    Args:
        share: Of all weights that could train; above 0, at most 1. Ties at the border train; where the sensitivity is exactly
            0 nothing does, unless the share is 1.
        batches: How many batches the sensitivity is measured on, before training.
        of: The method that tunes those that train.

    Raises:
        UserError: A share outside (0, 1], or no batches.
    """

    keeps: tuple[str, ...] = ("mask",)

    def __init__(self, share: float = 0.2, batches: int = 16, of: Of = "full") -> None:
        super().__init__(of)
        if not isinstance(share, (int, float)) or not 0 < share <= 1:
            raise UserError(f"share = {share}: expected a number above 0 and at most 1, such as 0.5, 0.2 or 0.1.")
        if not isinstance(batches, int) or batches < 1:
            raise UserError(f"batches = {batches}: expected at least 1, to measure sensitivities on.")
        self.share = float(share)
        self.batches = max(int(batches), self.of.batches)

    def receive(self, sensitivities: Sequence[Tensor], states: Sequence[dict[str, Any]]) -> None:
        """Choose what trains."""
        super().receive(sensitivities, states)
        border = _border(sensitivities, self.share)
        for sensitivity, state in zip(sensitivities, states, strict=True):
            chosen = (sensitivity >= border) & ((sensitivity > 0) | (self.share == 1))
            state["mask"] = torch.empty_like(state["exp_avg"]).copy_(chosen)

    def change_gradient(self, gradient: Tensor, state: dict[str, Any]) -> None:
        """Leave the gradients of what trains."""
        gradient.mul_(state["mask"].to(gradient.dtype))
        super().change_gradient(gradient, state)

    def apply(self, chunk: Chunk) -> None:
        """Propose no step for what does not train, which weight decay would move, then take the steps."""
        for parameter, proposal, _, state in chunk.rows():
            torch.lerp(parameter, proposal, state["mask"], out=proposal)  # exact at 0 and at 1
        super().apply(chunk)

    def mean_step(self) -> float:
        """The share that moves, at the inner method's step."""
        return self.share * self.of.mean_step()


def _border(sensitivities: Sequence[Tensor], share: float) -> Tensor:
    """The lowest sensitivity among that share of all elements that have the highest."""
    everything = torch.cat([s.flatten() for s in sensitivities])
    kept = max(1, round(share * everything.numel()))
    return everything.kthvalue(everything.numel() - kept + 1).values
