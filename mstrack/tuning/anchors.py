"""Methods that pull weights back towards the pre-trained ones: L2-SP, and with each weight's own strength, Fisher's."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mstrack.errors import UserError
from mstrack.tuning.chunks import Chunk
from mstrack.tuning.combination import Around, Of


class L2SP(Around):
    """L2-SP: a pull of every weight towards its pre-trained value (Li et al., ICML 2018), decoupled from AdamW's moments.

    The penalty strength / 2 * |theta - theta0|^2 enters each proposed step as weight decay does in AdamW (Loshchilov and
    Hutter 2019): delta <- delta - min(lr * strength, 1) * (theta - theta0). As a term of the gradient, the paper's form for
    SGD, it would pass through AdamW, which divides it by the root of the second moment: the more a weight is trained, the
    less it would be held. Being part of delta it is scaled by the inner method, as weight decay is: `l2sp` of a constant
    momentum m is `l2sp` at (1 - m) times the learning rate. In a run whose learning rates add up to 1, a displacement that
    nothing renews shrinks by exp(-strength).

    AdamW's weight decay stays what it is, a pull towards 0 (the paper's second term, on new weights only); set
    `train.weight_decay=0` to be without it. Memory: the pre-trained weights.

    Args:
        strength: Of the pull; at least 0.
        of: The method that tunes.

    Raises:
        UserError: A strength below 0.
    """

    keeps: tuple[str, ...] = ("anchor",)

    def __init__(self, strength: float = 1.0, of: Of = "full") -> None:
        super().__init__(of)
        if not strength >= 0:
            raise UserError(f"strength = {strength}: expected a number of at least 0.")
        self.strength = float(strength)

    def remember(self, parameter: Tensor, state: dict[str, Any]) -> None:
        """Keep the pre-trained value."""
        super().remember(parameter, state)
        state["anchor"] = parameter.clone()

    def apply(self, chunk: Chunk) -> None:
        """Pull what AdamW proposes towards the pre-trained weights, then take the step."""
        torch._foreach_copy_(chunk.spares, chunk.parameters)
        torch._foreach_sub_(chunk.spares, [state["anchor"] for state in chunk.states])
        self._weigh(chunk)
        if chunk.skip is not None:
            chunk.spare.masked_fill_(chunk.skip, 0)
        torch._foreach_sub_(chunk.proposals, chunk.spares)
        super().apply(chunk)

    def _weigh(self, chunk: Chunk) -> None:
        """Turn the displacements in `chunk.spare` into what is taken off the proposals."""
        share = chunk.lr * self.strength
        chunk.spare.mul_(share.clamp(max=1.0) if isinstance(share, Tensor) else min(share, 1.0))


class FisherL2SP(L2SP):
    """L2-SP with each weight's Fisher information as its strength (EWC, Kirkpatrick et al., PNAS 2017): prior significance.

    delta <- delta - min(lr * strength * F, 1) * (theta - theta0), where F is the mean squared gradient at the pre-trained
    weights, over batches of the run's own training pairs, divided by its mean over all weights that train: so a strength
    means the same for every network and loss, and equals that of `l2sp` on average. (EWC takes the data of the earlier task;
    those of an RGB tracker need not be at hand. Squares are of batch gradients, as sensitivities are in the MST paper.)
    Decoupled for the reason given at `L2SP`, and more so here: the second moment that AdamW divides by is itself a Fisher
    estimate, and would cancel most of F. F has a heavy tail; the limit of 1 lets no weight overshoot its pre-trained value.
    Memory: two buffers.

    Args:
        strength: Of the pull, on average; at least 0.
        batches: How many batches F is measured on, before training.
        of: The method that tunes.

    Raises:
        UserError: A strength below 0, or no batches.
    """

    keeps: tuple[str, ...] = ("anchor", "fisher")

    def __init__(self, strength: float = 1.0, batches: int = 16, of: Of = "full") -> None:
        super().__init__(strength, of)
        if batches < 1:
            raise UserError(f"batches = {batches}: expected at least 1, to measure Fisher information on.")
        self.batches = max(int(batches), self.of.batches)

    def receive(self, sensitivities: Sequence[Tensor], states: Sequence[dict[str, Any]]) -> None:
        """Keep them, with a mean of 1 over the network."""
        super().receive(sensitivities, states)
        total = torch.stack([s.sum(dtype=torch.float64) for s in sensitivities]).sum()
        mean = (total / sum(s.numel() for s in sensitivities)).clamp(min=torch.finfo(torch.float64).tiny)
        for sensitivity, state in zip(sensitivities, states, strict=True):
            state["fisher"] = torch.empty_like(state["anchor"]).copy_(sensitivity / mean)

    def _weigh(self, chunk: Chunk) -> None:
        """The displacements, each by its own strength."""
        strengths = torch._foreach_mul([state["fisher"] for state in chunk.states], chunk.lr * self.strength)
        torch._foreach_clamp_max_(strengths, 1.0)
        torch._foreach_mul_(chunk.spares, strengths)


class SRFT(FisherL2SP):
    """Prior and transfer significance together: Fisher-weighted L2-SP around MST (after SRFT, arXiv 2508.17488).

    The paper weighs its two regularisations by a schedule in the course of training, and has low-rank projections; neither is
    here: this is the plain combination of the two ideas, the pull of `fisher` as a part of the step that MST scales.

    Args:
        strength: As of `fisher`.
        batches: As of `fisher`.
        of: The method inside: `mst`, or `{name: mst, arguments: {...}}`.
    """

    def __init__(self, strength: float = 1.0, batches: int = 16, of: Of = "mst") -> None:
        super().__init__(strength, batches, of)
