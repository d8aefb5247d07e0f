"""What one-stream and dual-stream trackers share: geometry, position embeddings, the head and the shape of `forward`."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mstrack.errors import UserError
from mstrack.models.blocks import Block, PatchEmbedding, Prediction, initialise
from mstrack.models.head import CentreHead


class Network(nn.Module):
    """Base of the trackers that cut both crops into tokens and read the box from the search tokens.

    A subclass sets `modalities` and defines `features`. The constructor's arguments are keyword-only and all have a meaning
    for every size of model, so that `create_model("ostrack-tiny", width=128)` works.

    Args:
        template_size: Side of the template crop in pixels.
        search_size: Side of the search crop in pixels.
        template_factor: Side of the template crop in units of sqrt(w h) of the target.
        search_factor: The same for the search crop; None: 5 with `droptrack`, 4 without.
        patch: Side of a patch in pixels, the stride of the score map.
        width: Channels of a token.
        depth: Number of transformer blocks (of one stream).
        heads: Attention heads.
        mlp_ratio: Hidden width of the MLP over `width`.
        head_channels: Channels of the head's first convolution.
        droptrack: Add DropTrack's two temporal embeddings, one to all template and one to all search tokens
            (Wu et al. 2023).
        drop_path: Stochastic depth of the last block; earlier ones less, linearly from 0.

    Attributes:
        modalities: Images per crop, M of `forward`.
        unread_rows: Rows of `width` that the published model of this kind also counts as parameters and never reads
            (`mstrack.models.remap.UNREAD`: class token 1, position embeddings of ViT 197).
        name: The name it was created by, and
        arguments: with which arguments; `create_model` sets both.
        provenance: What made the weights; `mstrack.load` sets it, and it is empty for fresh ones.
    """

    modalities: int
    unread_rows: int
    name: str
    arguments: dict[str, Any]
    provenance: dict[str, Any]

    def __init__(
        self,
        *,
        template_size: int,
        search_size: int,
        template_factor: float,
        search_factor: float | None,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        mlp_ratio: float,
        head_channels: int,
        droptrack: bool,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.provenance = {}
        for what, size in (("template_size", template_size), ("search_size", search_size)):
            if size < patch or size % patch:
                raise UserError(f"{what}={size} is not a multiple of patch={patch}; give one that is.")
        if width % heads:
            raise UserError(f"width={width} does not divide into heads={heads}; give a width that is a multiple of heads.")
        if depth < 1 or not 0.0 <= drop_path < 1.0:
            raise UserError(f"depth={depth}, drop_path={drop_path}: expected at least 1 block and a rate in [0, 1).")
        self.template_size = template_size
        self.search_size = search_size
        self.template_factor = float(template_factor)
        self.search_factor = (5.0 if droptrack else 4.0) if search_factor is None else float(search_factor)
        self.stride = patch
        self.width = width
        self.depth = depth
        self._block = (width, heads, mlp_ratio)
        self._drop_path = drop_path
        self.position_template = nn.Parameter(torch.zeros(1, (template_size // patch) ** 2, width))
        self.position_search = nn.Parameter(torch.zeros(1, (search_size // patch) ** 2, width))
        self.temporal_template: nn.Parameter | None = nn.Parameter(torch.zeros(1, 1, width)) if droptrack else None
        self.temporal_search: nn.Parameter | None = nn.Parameter(torch.zeros(1, 1, width)) if droptrack else None
        self.head = CentreHead(width, head_channels)

    def _blocks(self, layers: range | tuple[int, ...]) -> nn.ModuleList:
        """Blocks that stand at the given layers, with the drop path of those layers."""
        last = max(self.depth - 1, 1)
        return nn.ModuleList(Block(*self._block, drop_path=self._drop_path * layer / last) for layer in layers)

    def _initialise(self) -> None:
        """Give every parameter outside the head its starting value; the subclass calls it when all modules exist."""
        self.apply(initialise)
        for name, parameter in self.named_parameters(recurse=False):
            if name.startswith(("position_", "temporal_")):
                nn.init.trunc_normal_(parameter, std=0.02, a=-0.04, b=0.04)

    def _tokens(self, embedding: PatchEmbedding, template: Tensor, search: Tensor) -> Tensor:
        """Embed both crops of one modality and join them, template first: B x (Nz + Nx) x width."""
        first = embedding(template) + self.position_template
        second = embedding(search) + self.position_search
        if self.temporal_template is not None and self.temporal_search is not None:
            first = first + self.temporal_template
            second = second + self.temporal_search
        return torch.cat((first, second), dim=1)

    def _check(self, what: str, images: Tensor, size: int) -> None:
        """Refuse images of another shape than B x M x 3 x size x size."""
        expected = (self.modalities, 3, size, size)
        if images.dim() != 5 or tuple(images.shape[1:]) != expected:
            raise ValueError(f"{what} has shape {tuple(images.shape)}; expected (B, {', '.join(map(str, expected))}).")

    def remap(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename the entries of a checkpoint, published or our own, to this network's names."""
        raise NotImplementedError

    def features(self, template: Tensor, search: Tensor) -> Tensor:
        """Tokens after the final norm, template first: B x (Nz + Nx) x width. Arguments as in `forward`."""
        raise NotImplementedError

    def forward(self, template: Tensor, search: Tensor) -> Prediction:
        """Find the template's target in the search crop.

        Args:
            template: B x M x 3 x template_size x template_size, normalised float; M is `modalities`, RGB first.
            search: B x M x 3 x search_size x search_size, likewise.

        Raises:
            ValueError: Another number of modalities or another size.
        """
        self._check("template", template, self.template_size)
        self._check("search", search, self.search_size)
        tokens = self.features(template, search)
        return self.head(tokens[:, self.position_template.shape[1] :])
