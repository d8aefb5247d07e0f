"""The one-stream RGB trackers: OSTrack (Ye et al. 2022) and, with `droptrack=True`, DropTrack (Wu et al. 2023)."""

from functools import partial
from typing import Any, Literal, Unpack, cast, get_args

import torch
from torch import Tensor, nn

from mstrack.errors import UserError
from mstrack.models.blocks import Block, PatchEmbedding
from mstrack.models.elimination import eliminate, elimination_layers, restore
from mstrack.models.network import Network, Shared
from mstrack.registry import unknown

Input = Literal["rgb", "aux"]


class OneStream(Network):
    """A plain ViT over template and search tokens together, and a centre head on the search tokens.

    Args:
        elimination: Drop search tokens at a quarter, half and three quarters of the depth (`mstrack.models.elimination`), in
            training too: the published training begins without and gets there over some epochs.
        others: As in `Network`.

    Attributes:
        removed: With `elimination`, the search tokens dropped by the last forward pass, one B x k tensor per layer that
            drops, by descending attention; else empty.
    """

    family = "ostrack"
    unread_rows = 1 + 197

    def __init__(self, *, elimination: bool = False, **shared: Unpack[Shared]) -> None:
        super().__init__(**shared)
        if elimination and self.depth < 4:
            raise UserError(f"elimination=True needs a depth of at least 4; depth={self.depth} was given.")
        self.eliminating = elimination_layers(self.depth) if elimination else ()
        self.removed: list[Tensor] = []
        self.embed = PatchEmbedding(self.stride, self.width)
        self.blocks = self._blocks(range(self.depth))
        self.norm = nn.LayerNorm(self.width, eps=1e-6)
        self._initialise()

    def _pass(self, template: Tensor, search: Tensor) -> Tensor:
        """Tokens of one image per crop, B x 3 x H x W, after the final norm, as `features` returns them."""
        tokens = self._tokens(self.embed, template, search)
        kept = self._begin(tokens)
        for layer in range(self.depth):
            tokens, kept = self._advance(layer, tokens, kept)
        return self._restore(self.norm(tokens), kept)

    def _begin(self, tokens: Tensor) -> Tensor:
        """Before the first block: forget what was removed last time; which search tokens there are, B x Nx: all."""
        self.removed = []
        return torch.arange(self.position_search.shape[1], device=tokens.device).expand(tokens.shape[0], -1)

    def _advance(self, layer: int, tokens: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Run a block, which may drop search tokens; the tokens and which search tokens are left."""
        block = cast("Block", self.blocks[layer])
        if layer not in self.eliminating:
            return block(tokens), kept
        tokens, kept, removed = eliminate(block, tokens, kept, self.position_template.shape[1])
        self.removed.append(removed)
        return tokens, kept

    def _restore(self, tokens: Tensor, kept: Tensor) -> Tensor:
        """Put search tokens back where they stood, zeros for those dropped: B x (Nz + Nx) x width."""
        template_count, search_count = self.position_template.shape[1], self.position_search.shape[1]
        return tokens if kept.shape[1] == search_count else restore(tokens, kept, template_count, search_count)


class OSTrack(OneStream):
    """OSTrack, or DropTrack, on one of the modalities.

    Args:
        input: `rgb`: the colour image alone, M = 1. `aux`: both are taken, M = 2, as every tracker of two modalities does, and
            the auxiliary one alone is looked at (and never lost to modality dropout).
        others: As in `OneStream` and `Network`.
    """

    def __init__(self, *, input: Input = "rgb", elimination: bool = False, **shared: Unpack[Shared]) -> None:
        super().__init__(elimination=elimination, **shared)
        if input not in get_args(Input):
            raise UserError(unknown("input of a one-stream tracker", str(input), get_args(Input)))
        self.modalities, self.reads = (1, (0,)) if input == "rgb" else (2, (1,))

    def features(self, template: Tensor, search: Tensor) -> Tensor:
        """Tokens after the final norm, template first, zeros for eliminated ones: B x (Nz + Nx) x width."""
        (which,) = self.reads
        return self._pass(template[:, which], search[:, which])


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
