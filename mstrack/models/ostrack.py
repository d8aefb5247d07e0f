"""The one-stream RGB trackers: OSTrack (Ye et al. 2022) and, with `droptrack=True`, DropTrack (Wu et al. 2023)."""

from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from mstrack.errors import UserError
from mstrack.models.blocks import Block, PatchEmbedding
from mstrack.models.elimination import eliminate, elimination_layers, restore
from mstrack.models.network import Network
from mstrack.models.remap import from_ostrack, source_of


class OSTrack(Network):
    """A plain ViT over template and search tokens together, and a centre head on the search tokens.

    Args:
        elimination: Drop search tokens at a quarter, half and three quarters of the depth (`mstrack.models.elimination`).
        others: As in `Network`.

    Attributes:
        removed: With `elimination`, the search tokens dropped by the last forward pass, one B x k tensor per layer that
            drops, by descending attention; else empty.
    """

    modalities = 1
    unread_rows = 1 + 197

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
        elimination: bool = False,
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
        if elimination and depth < 4:
            raise UserError(f"elimination=True needs a depth of at least 4; depth={depth} was given.")
        self.eliminating = elimination_layers(depth) if elimination else ()
        self.removed: list[Tensor] = []
        self.embed = PatchEmbedding(patch, width)
        self.blocks = self._blocks(range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self._initialise()

    def features(self, template: Tensor, search: Tensor) -> Tensor:
        """Tokens after the final norm, template first, zeros for eliminated ones: B x (Nz + Nx) x width."""
        tokens = self._tokens(self.embed, template[:, 0], search[:, 0])
        template_count, search_count = self.position_template.shape[1], self.position_search.shape[1]
        kept = torch.arange(search_count, device=tokens.device).expand(len(tokens), -1)
        dropped = []
        for layer, block in enumerate(self.blocks):
            if layer in self.eliminating:
                tokens, kept, removed = eliminate(cast("Block", block), tokens, kept, template_count)
                dropped.append(removed)
            else:
                tokens = block(tokens)
        tokens = self.norm(tokens)
        if self.eliminating:
            self.removed = dropped
            tokens = restore(tokens, kept, template_count, search_count)
        return tokens

    def remap(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename the entries of a checkpoint to this network's names.

        Args:
            state_dict: The `net` of an OSTrack or DropTrack checkpoint, or our own.

        Returns:
            Entries under our names, without those that the forward never reads (`mstrack.models.remap.UNREAD`). Names that
            nobody knows stay as they are, for the caller's error message.

        Raises:
            UserError: The checkpoint is of a dual-stream network, or of none we know.
        """
        source = source_of(state_dict)
        if source in ("mst", "dual-stream"):
            raise UserError(
                "this is the checkpoint of a dual-stream tracker; a one-stream model cannot hold it, a model mst-* can."
            )
        return from_ostrack(state_dict) if source == "ostrack" else dict(state_dict)


TINY: dict[str, Any] = {
    "template_size": 32,
    "search_size": 64,
    "patch": 8,
    "width": 96,
    "depth": 4,
    "heads": 4,
    "head_channels": 48,
}

ostrack_b256 = OSTrack
ostrack_b384 = partial(OSTrack, template_size=192, search_size=384, search_factor=5.0)
ostrack_tiny = partial(OSTrack, search_factor=4.0, **TINY)
