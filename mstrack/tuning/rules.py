"""What the fused kernels know: AdamW under a momentum coefficient by rank, as data."""

from typing import NamedTuple

from torch import Tensor


class Rule(NamedTuple):
    """An update of `MST`: m = low + (high - low) * rank, where the rank is that of |gradient|.

    Attributes:
        low: m of the lowest rank.
        high: m of the highest rank; where it equals `low` nothing is ranked.
        velocity: rho <- m * rho + (1 - m) * delta, theta <- theta + rho; otherwise theta <- theta + (1 - m) * delta.
        table: float32 (65536,), rank by the top 16 bits of |gradient|, where a larger scope than the tensor is ranked.
    """

    low: float = 0.0
    high: float = 0.0
    velocity: bool = False
    table: Tensor | None = None
