"""The centre head of OSTrack (Ye et al. 2022): a score map, and a size and an offset for every cell of it."""

from collections import OrderedDict
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from mstrack.models.blocks import Prediction
from mstrack.models.branches import side_by_side

STAGES = 4
FLOOR = 1e-4


def _tower(width: int, channels: int, out: int) -> nn.Sequential:
    """Four stages of 3x3 convolution, batch norm and ReLU, each half as wide as the one before, then a 1x1 convolution."""
    widths = [width, *(max(channels // 2**stage, 1) for stage in range(STAGES))]
    stages: list[nn.Module] = [
        nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(before, after, kernel_size=3, padding=1), norm=nn.BatchNorm2d(after), relu=nn.ReLU(inplace=True)
            )
        )
        for before, after in pairwise(widths)
    ]
    return nn.Sequential(*stages, nn.Conv2d(widths[-1], out, kernel_size=1))


def _full(values: Tensor) -> Tensor:
    """Back to float32 from the 16 bits of autocast; float64 stays."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _bounded(logits: Tensor) -> Tensor:
    """Sigmoid, kept away from 0 and 1 so that a logarithm stays finite."""
    return torch.sigmoid(_full(logits)).clamp(FLOOR, 1.0 - FLOOR)


class CentreHead(nn.Module):
    """Three towers over the search tokens: `score` (1 map), `offset` (2) and `size` (2).

    Args:
        width: Channels of the tokens.
        channels: Channels of the first stage of each tower (256 as published).
    """

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.score = _tower(width, channels, 1)
        self.offset = _tower(width, channels, 2)
        self.size = _tower(width, channels, 2)
        for weight in self.parameters():
            if weight.dim() > 1:
                nn.init.xavier_uniform_(weight)

    def forward(self, tokens: Tensor) -> Prediction:
        """Predict from the search tokens.

        Args:
            tokens: B x n^2 x width, row by row.

        Returns:
            Maps of n x n cells, float32 under autocast too.
        """
        batch, count, width = tokens.shape
        n = round(count**0.5)
        features = tokens.reshape(batch, n, n, width).permute(0, 3, 1, 2)  # channels last in memory, as tokens have them
        features = features.contiguous(memory_format=torch.channels_last)
        towers = (partial(tower, features) for tower in (self.score, self.size, self.offset))
        score, size, offset = side_by_side(features, *towers)
        return Prediction(_bounded(score), _bounded(size), _full(offset))
