"""The slow obvious tracker, as published code has it: what our speed is measured against, and our boxes are tested equal to.

Eager, float32, a softmax written by hand, one frame at a time, every number fetched where it is used.
"""

import copy

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from mstrack.boxes import clip
from mstrack.data.crops import crop
from mstrack.data.sequence import Frame
from mstrack.models.blocks import MEAN, STD, Attention
from mstrack.models.network import Network


class PlainAttention(Attention):
    """`Attention` with the matrix of all pairs of tokens, as ViT's first implementations have it."""

    def merge(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend, join the heads and project: B x N x width."""
        weights = (query @ key.transpose(2, 3) * query.shape[-1] ** -0.5).softmax(dim=3)
        projected: Tensor = self.proj((weights @ value).transpose(1, 2).flatten(2))
        return projected


def plain_network(network: Network) -> Network:
    """A copy of a network, with its own weights, and the attention written out."""
    found = copy.deepcopy(network)
    for module in list(found.modules()):
        for name, child in module.named_children():
            if isinstance(child, Attention):
                with torch.device("meta"):
                    plain = PlainAttention(child.qkv.in_features, child.heads)
                plain.qkv, plain.proj = child.qkv, child.proj
                setattr(module, name, plain)
    return found


class PlainTracker:
    """One target, followed as OSTrack's own loop follows it.

    Args:
        network: The network, from `plain_network`.
    """

    def __init__(self, network: Network) -> None:
        self.network: nn.Module = network.eval()
        self._geometry = network
        self._device = next(network.parameters()).device
        self._box = np.empty(4)
        self._template = torch.empty(0)
        cells = network.search_size // network.stride
        line = 0.5 * (1 - torch.cos(2 * torch.pi * torch.arange(1, cells + 1) / (cells + 1)))
        self._window = (line[:, None] * line[None, :]).to(self._device)

    @torch.no_grad()
    def init(self, frame: Frame, box: ArrayLike) -> None:
        """Start with the target's box, x, y, w, h in pixels, in the first frame."""
        self._box = np.array(box, dtype=np.float64)
        self._template, _ = self._cut(frame, self._geometry.template_factor, self._geometry.template_size)

    @torch.no_grad()
    def update(self, frame: Frame) -> NDArray[np.float64]:
        """Find it in the next frame: x, y, w, h in pixels."""
        size = self._geometry.search_size
        search, scale = self._cut(frame, self._geometry.search_factor, size)
        maps = self.network(self._template, search)
        response = self._window * maps.score[0, 0]
        cells = response.shape[0]
        index = int(response.argmax().item())
        row, column = index // cells, index % cells
        x = (column + maps.offset[0, 0, row, column].item()) / cells * size / scale
        y = (row + maps.offset[0, 1, row, column].item()) / cells * size / scale
        w, h = (maps.size[0, i, row, column].item() * size / scale for i in (0, 1))
        left, top = self._box[:2] + self._box[2:] / 2 - size / scale / 2
        self._box = clip(np.array([left + x - w / 2, top + y - h / 2, w, h]), *frame.rgb.shape[:2])
        return self._box

    def _cut(self, frame: Frame, factor: float, size: int) -> tuple[Tensor, float]:
        images, scale = [], 1.0
        mean, std = (torch.tensor(values, device=self._device).view(1, 3, 1, 1) for values in (MEAN, STD))
        for image in (frame.rgb, frame.aux)[: self._geometry.modalities]:
            patch, scale = crop(np.zeros_like(frame.rgb) if image is None else image, self._box, factor, size)
            pixels = torch.tensor(patch, device=self._device).float().permute(2, 0, 1)[None]
            images.append((pixels / 255.0 - mean) / std)
        return torch.stack(images, dim=1), scale
