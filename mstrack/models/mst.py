"""The dual-stream tracker of the paper: two ViT streams that meet in cross-modal blocks, one centre head."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Unpack

import torch
from torch import Tensor, nn

from mstrack.errors import UserError
from mstrack.models.blocks import PatchEmbedding
from mstrack.models.branches import side_by_side
from mstrack.models.network import Network, Shared
from mstrack.models.ostrack import TINY
from mstrack.models.remap import double


class MSTrack(Network):
    """RGB and auxiliary tokens run through a stream each; after some layers all of them attend to each other.

    Both streams share the position embeddings. The head reads the mean of the two normalised streams.

    Args:
        cross_layers: A cross-modal block follows each of these layers (0-based, ascending), with its drop path.
        others: As in `Network`.
    """

    modalities = 2
    family = "mst"
    unread_rows = 1

    def __init__(self, *, cross_layers: Sequence[int] = (2, 5, 8, 11), **shared: Unpack[Shared]) -> None:
        super().__init__(**shared)
        self.cross_layers = tuple(cross_layers)
        if list(self.cross_layers) != sorted(set(self.cross_layers) & set(range(self.depth))):
            raise UserError(f"cross_layers={list(cross_layers)}: expected ascending layers from 0 to {self.depth - 1}.")
        self.embed_rgb = PatchEmbedding(self.stride, self.width)
        self.embed_aux = PatchEmbedding(self.stride, self.width)
        self.blocks_rgb = self._blocks(range(self.depth))
        self.blocks_aux = self._blocks(range(self.depth))
        self.cross = self._blocks(self.cross_layers)
        self.norm_rgb = nn.LayerNorm(self.width, eps=1e-6)
        self.norm_aux = nn.LayerNorm(self.width, eps=1e-6)
        self._initialise()

    def features(self, template: Tensor, search: Tensor) -> Tensor:
        """Mean of the two streams after their final norms, template first: B x (Nz + Nx) x width."""
        rgb, aux = side_by_side(
            search,
            lambda: self._tokens(self.embed_rgb, template[:, 0], search[:, 0]),
            lambda: self._tokens(self.embed_aux, template[:, 1], search[:, 1]),
        )
        crossing = dict(zip(self.cross_layers, self.cross, strict=True))
        for layer, (block_rgb, block_aux) in enumerate(zip(self.blocks_rgb, self.blocks_aux, strict=True)):
            rgb, aux = side_by_side(rgb, partial(block_rgb, rgb), partial(block_aux, aux))
            if layer in crossing:
                rgb, aux = crossing[layer](torch.cat((rgb, aux), dim=1)).chunk(2, dim=1)
        return (self.norm_rgb(rgb) + self.norm_aux(aux)) / 2

    def start(self, entries: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copy a one-stream tracker to both streams; a cross-modal block starts as a copy of the layer it follows."""
        return double(entries, self.cross_layers)


mst_b256 = MSTrack
mst_b384 = partial(MSTrack, template_size=192, search_size=384)
mst_tiny = partial(MSTrack, search_factor=4.0, cross_layers=(1, 3), **TINY)
