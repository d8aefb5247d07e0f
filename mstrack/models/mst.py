"""The dual-stream tracker of the paper: two ViT streams that meet in cross-modal blocks, one centre head."""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from mstrack.errors import UserError
from mstrack.models.blocks import PatchEmbedding
from mstrack.models.network import Network
from mstrack.models.ostrack import TINY
from mstrack.models.remap import double, from_dual_stream, from_ostrack, source_of


class MSTrack(Network):
    """RGB and auxiliary tokens run through a stream each; after some layers all of them attend to each other.

    Both streams share the position embeddings. The head reads the mean of the two normalised streams.

    Args:
        cross_layers: A cross-modal block follows each of these layers (0-based, ascending), with its drop path.
        others: As in `Network`.
    """

    modalities = 2
    unread_rows = 1

    def __init__(
        self,
        *,
        template_size: int = 128,
        search_size: int = 256,
        template_factor: float = 2.0,
        search_factor: float | None = None,
        patch: int = 16,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        mlp_ratio: float = 4.0,
        head_channels: int = 256,
        cross_layers: Sequence[int] = (2, 5, 8, 11),
        droptrack: bool = False,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__(
            template_size=template_size,
            search_size=search_size,
            template_factor=template_factor,
            search_factor=search_factor,
            patch=patch,
            width=width,
            depth=depth,
            heads=heads,
            mlp_ratio=mlp_ratio,
            head_channels=head_channels,
            droptrack=droptrack,
            drop_path=drop_path,
        )
        self.cross_layers = tuple(cross_layers)
        if list(self.cross_layers) != sorted(set(self.cross_layers) & set(range(depth))):
            raise UserError(f"cross_layers={list(cross_layers)}: expected ascending layers from 0 to {depth - 1}.")
        self.embed_rgb = PatchEmbedding(patch, width)
        self.embed_aux = PatchEmbedding(patch, width)
        self.blocks_rgb = self._blocks(range(depth))
        self.blocks_aux = self._blocks(range(depth))
        self.cross = self._blocks(self.cross_layers)
        self.norm_rgb = nn.LayerNorm(width, eps=1e-6)
        self.norm_aux = nn.LayerNorm(width, eps=1e-6)
        self._initialise()

    def features(self, template: Tensor, search: Tensor) -> Tensor:
        """Mean of the two streams after their final norms, template first: B x (Nz + Nx) x width."""
        rgb = self._tokens(self.embed_rgb, template[:, 0], search[:, 0])
        aux = self._tokens(self.embed_aux, template[:, 1], search[:, 1])
        crossing = dict(zip(self.cross_layers, self.cross, strict=True))
        for layer, (block_rgb, block_aux) in enumerate(zip(self.blocks_rgb, self.blocks_aux, strict=True)):
            rgb, aux = block_rgb(rgb), block_aux(aux)
            if layer in crossing:
                rgb, aux = crossing[layer](torch.cat((rgb, aux), dim=1)).chunk(2, dim=1)
        return (self.norm_rgb(rgb) + self.norm_aux(aux)) / 2

    def remap(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename the entries of a checkpoint to this network's names.

        A one-stream checkpoint is copied to both streams; a cross-modal block starts as a copy of the layer it follows.

        Args:
            state_dict: A dual-stream checkpoint as published, the `net` of an OSTrack or DropTrack checkpoint, or our own of
                either kind.

        Returns:
            Entries under our names, without those that the forward never reads (`mstrack.models.remap.UNREAD`). Names that
            nobody knows stay as they are, for the caller's error message.

        Raises:
            UserError: The checkpoint is of no network we know.
        """
        source = source_of(state_dict)
        if source == "dual-stream":
            return from_dual_stream(state_dict)
        if source == "mst":
            return dict(state_dict)
        one_stream = from_ostrack(state_dict) if source == "ostrack" else state_dict
        return double(one_stream, self.cross_layers)


mst_b256 = MSTrack
mst_b384 = partial(MSTrack, template_size=192, search_size=384)
mst_tiny = partial(MSTrack, search_factor=4.0, cross_layers=(1, 3), **TINY)
