"""Position embeddings of one grid made into those of another."""

import math

from torch import Tensor
from torch.nn import functional as F


def interpolate_positions(positions: Tensor, side: int) -> Tensor:
    """Resize the position embeddings of a square grid, bicubic with `align_corners=False`, as OSTrack does.

    Args:
        positions: 1 x N x width; N a square, or a square plus one, where the first entry is a class token and is dropped.
        side: Side of the new grid.

    Returns:
        1 x side^2 x width.

    Raises:
        ValueError: N is neither.
    """
    count = positions.shape[1]
    if math.isqrt(count) ** 2 != count:
        positions, count = positions[:, 1:], count - 1
    before = math.isqrt(count)
    if before**2 != count or count == 0:
        raise ValueError(f"{count + 1} position embeddings are not those of a square grid, with or without a class token.")
    grid = positions.transpose(1, 2).reshape(1, -1, before, before)
    return F.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)
