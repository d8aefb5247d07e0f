"""SDSTrack (Hou et al., CVPR 2024): two streams through one frozen ViT with adapters, trained by masked self-distillation."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Unpack, cast, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mstrack.errors import UserError
from mstrack.models.blocks import Block, Mlp, PatchEmbedding, Prediction
from mstrack.models.elimination import drop, elimination_layers, restore
from mstrack.models.network import Network, Shared
from mstrack.models.ostrack import TINY

SQUEEZE = 4
"""Width of a token over that of an adapter's bottleneck."""

SCALE = 0.5
"""Of the adapters beside the MLPs."""

HIDDEN = 0.3
"""Probability that masked training hides a token of the RGB image, and one of the auxiliary image that RGB still shows."""

WHOLE, MASKED, DISTILLED = 0.6, 0.2, 0.1
"""Weights of the loss of the whole pair, of the masked pair, and of the distance between what both make of it."""


class Adapters(nn.Module):
    """Two bottlenecks at a frozen block: one takes what its attention gives, one what its MLP takes."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn = Mlp(width, width // SQUEEZE)
        self.mlp = Mlp(width, width // SQUEEZE)


class AdapterBlock(Block):
    """A block of ViT that serves three: RGB tokens as it is, auxiliary tokens and both together with adapters of theirs.

    Stochastic depth spares the MLP of RGB tokens, as published.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: float = 4.0, drop_path: float = 0.0) -> None:
        super().__init__(width, heads, mlp_ratio, drop_path)
        self.aux = Adapters(width)
        self.cross = Adapters(width)

    def mix(self, tokens: Tensor, attended: Tensor, adapters: Adapters | None) -> Tensor:
        """Add what the attention gave for B x N x width tokens."""
        return tokens + self.drop_path(attended if adapters is None else attended + adapters.attn(attended))

    def transform(self, tokens: Tensor, adapters: Adapters | None) -> Tensor:
        """Add what the MLP makes of B x N x width tokens."""
        normed = self.norm2(tokens)
        if adapters is None:
            return tokens + self.mlp(normed)
        return tokens + self.drop_path(self.mlp(normed) + SCALE * adapters.mlp(normed))

    def exchange(self, tokens: Tensor) -> Tensor:
        """Let each token attend to those of the other modality, and to none of its own.

        Args:
            tokens: B x 2 N x width, the RGB half first.
        """
        batch, count, width = tokens.shape
        halves = self.norm1(tokens).reshape(2 * batch, count // 2, width)
        query, key, value = self.attn.split(halves)
        key, value = (x.unflatten(0, (batch, 2)).flip(1).flatten(0, 1) for x in (key, value))
        attended = self.attn.merge(query, key, value).reshape(batch, count, width)
        return self.transform(self.mix(tokens, attended, self.cross), self.cross)


class Branches(NamedTuple):
    """What masked training compares.

    Attributes:
        whole: The prediction from all tokens.
        masked: That from the tokens left.
        distance: Scalar, the mean squared difference of their tokens after the exchanges between the modalities.
    """

    whole: Prediction
    masked: Prediction
    distance: Tensor


class SDSTrack(Network):
    """RGB and auxiliary tokens run through the same frozen blocks, auxiliary ones past adapters; in some layers they meet.

    Only adapters, the auxiliary patch embedding and the final norm train, the norm at a tenth of the learning rate in the
    published runs: `{norm.*: 0.1, embed_aux.*: 1, blocks.*.aux.*: 1, blocks.*.cross.*: 1, "*": 0}` as a pattern table. The
    adapters for both modalities together are there in every layer, as published, and read in `cross_layers` alone; the
    others never move.

    Each stream drops search tokens by its own attention, and both meet again with what each has left. Dropped tokens are put
    back as zeros, then the mean of the two streams goes through the final norm. (The published training starts with all
    tokens and lowers the share that stays from its 5th to its 20th epoch; here it is 0.7 throughout.)

    Args:
        cross_layers: The layers after which the modalities attend to each other (0-based, ascending).
        elimination: Drop search tokens at a quarter, half and three quarters of the depth (`mstrack.models.elimination`).
        others: As in `Network`.

    Attributes:
        removed: With `elimination`, the auxiliary search tokens dropped by the last forward pass, one B x k tensor per layer
            that drops, by descending attention; else empty.
        removed_rgb: The same of the RGB stream.
    """

    modalities = 2
    family = "sdstrack"
    fresh = ("embed_aux.*", "blocks.*.aux.*", "blocks.*.cross.*")

    def __init__(
        self, *, cross_layers: Sequence[int] = (3, 6, 9, 11), elimination: bool = True, **shared: Unpack[Shared]
    ) -> None:
        super().__init__(**shared)
        self.cross_layers = tuple(cross_layers)
        if list(self.cross_layers) != sorted(set(self.cross_layers) & set(range(self.depth))):
            raise UserError(f"cross_layers={list(cross_layers)}: expected ascending layers from 0 to {self.depth - 1}.")
        if elimination and self.depth < 4:
            raise UserError(f"elimination=True needs a depth of at least 4; depth={self.depth} was given.")
        self.eliminating = elimination_layers(self.depth) if elimination else ()
        self.removed: list[Tensor] = []
        self.removed_rgb: list[Tensor] = []
        self.template_count, self.search_count = self.position_template.shape[1], self.position_search.shape[1]
        self.unread_rows = 1 + 197 + 2 * (self.template_count + self.search_count)
        self.idle = tuple(f"blocks.{layer}.cross.*" for layer in range(self.depth) if layer not in self.cross_layers)
        self.embed = PatchEmbedding(self.stride, self.width)
        self.embed_aux = PatchEmbedding(self.stride, self.width)
        self.blocks = self._blocks(range(self.depth), AdapterBlock)
        self.norm = nn.LayerNorm(self.width, eps=1e-6)
        self._initialise()
        self._train_only(*self.fresh, "norm.*")

    def _initialise(self) -> None:
        """As in `Network`, but the new parts as published: the embedding as torch does, adapters normal and not cut."""
        super()._initialise()
        self.embed_aux.reset_parameters()
        for adapters in (module for module in self.modules() if isinstance(module, Adapters)):
            for name, parameter in adapters.named_parameters():
                if name.endswith("weight"):
                    nn.init.normal_(parameter, std=0.02)

    def features(self, template: Tensor, search: Tensor) -> Tensor:
        """The mean of the two streams after the final norm, template first: B x (Nz + Nx) x width."""
        return self._encode(template, search, None)[0]

    def _encode(self, template: Tensor, search: Tensor, hidden: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """Features of B pairs, or of B pairs and then the same with hidden tokens; and the tokens after each exchange."""
        hidden_rgb, hidden_aux = (None, None) if hidden is None else hidden.unbind(1)
        rgb = self._embed(self.embed, template[:, 0], search[:, 0], hidden_rgb)
        aux = self._embed(self.embed_aux, template[:, 1], search[:, 1], hidden_aux)
        kept_rgb = kept_aux = torch.arange(self.search_count, device=rgb.device).expand(rgb.shape[0], -1)
        self.removed, self.removed_rgb = [], []
        exchanged = []
        for layer, module in enumerate(self.blocks):
            block = cast("AdapterBlock", module)
            rgb, kept_rgb = self._advance(layer, block, None, rgb, kept_rgb, self.removed_rgb)
            aux, kept_aux = self._advance(layer, block, block.aux, aux, kept_aux, self.removed)
            if layer in self.cross_layers:
                exchanged.append(block.exchange(torch.cat((rgb, aux), dim=1)))
                rgb, aux = exchanged[-1].chunk(2, dim=1)
        if self.eliminating:
            rgb, aux = (
                restore(tokens, kept, self.template_count, self.search_count)
                for tokens, kept in ((rgb, kept_rgb), (aux, kept_aux))
            )
        return self.norm((rgb + aux) / 2), exchanged

    def _embed(self, embedding: PatchEmbedding, template: Tensor, search: Tensor, hidden: Tensor | None) -> Tensor:
        """Tokens of one modality, template first; with `hidden` (B x (Nz + Nx)), 2 B items, where it is zeros in the second B.

        Hidden tokens keep their position embeddings.
        """
        first, second = embedding(template), embedding(search)
        if hidden is not None:
            hidden_first, hidden_second = hidden[:, :, None].split([self.template_count, self.search_count], dim=1)
            first = torch.cat((first, first.masked_fill(hidden_first, 0.0)))
            second = torch.cat((second, second.masked_fill(hidden_second, 0.0)))
        return self._place(first, second)

    def _advance(
        self,
        layer: int,
        block: AdapterBlock,
        adapters: Adapters | None,
        tokens: Tensor,
        kept: Tensor,
        removed: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Run one stream through a block; where the layer eliminates, what is dropped is added to `removed`."""
        query, key, value = block.attn.split(block.norm1(tokens))
        tokens = block.mix(tokens, block.attn.merge(query, key, value), adapters)
        if layer in self.eliminating:
            tokens, kept, dropped = drop(tokens, query, key, kept, self.template_count)
            removed.append(dropped)
        return block.transform(tokens, adapters), kept

    @overload
    def forward(self, template: Tensor, search: Tensor) -> Prediction: ...
    @overload
    def forward(self, template: Tensor, search: Tensor, hidden: Tensor) -> Branches: ...
    def forward(self, template: Tensor, search: Tensor, hidden: Tensor | None = None) -> Prediction | Branches:
        """Find the template's target in the search crop.

        Args:
            template: B x 2 x 3 x template_size x template_size, normalised float, RGB first.
            search: B x 2 x 3 x search_size x search_size, likewise.
            hidden: For training, B x 2 x (Nz + Nx) bool: tokens of either modality to hide in a second pass.

        Raises:
            ValueError: Another number of modalities or another size.
        """
        if hidden is None:
            return super().forward(template, search)
        self._check("template", template, self.template_size)
        self._check("search", search, self.search_size)
        tokens, exchanged = self._encode(template, search, hidden)
        maps = self.head(tokens[:, self.template_count :])
        whole, masked = (Prediction(*half) for half in zip(*(m.chunk(2) for m in maps), strict=True))
        return Branches(whole, masked, distance(exchanged))

    def training_loss(
        self,
        model: nn.Module,
        template: Tensor,
        search: Tensor,
        losses: Callable[[Prediction], dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        """Loss terms of masked self-distillation, as published: 0.6 whole + 0.2 masked + 0.1 distance, gradients through all.

        Args:
            model: This network, or its wrapper for several processes.
            template: As in `forward`.
            search: As in `forward`.
            losses: The terms of a prediction.

        Returns:
            The terms of the whole pair, of which `total` becomes the weighted sum; `whole` and `masked`, the totals that go
            into it, and `distance`.
        """
        hidden = hide(len(template), self.template_count + self.search_count, template.device)
        branches: Branches = model(template, search, hidden)
        whole, masked = losses(branches.whole), losses(branches.masked)["total"]
        total = WHOLE * whole["total"] + MASKED * masked + DISTILLED * branches.distance
        return {**whole, "total": total, "whole": whole["total"], "masked": masked, "distance": branches.distance}


def hide(batch: int, count: int, device: torch.device) -> Tensor:
    """Draw the tokens to hide, never the same patch in both modalities: batch x 2 x count, bool; RGB 0.3, auxiliary 0.21."""
    rgb, aux = (torch.rand(batch, 2, count, device=device) < HIDDEN).unbind(1)
    return torch.stack((rgb, aux & ~rgb), dim=1)


def distance(exchanged: Sequence[Tensor]) -> Tensor:
    """Mean squared difference of the first and the second half of the batch, the mean over the layers of the exchange.

    Tokens are compared in the order in which they stand: after the first elimination that is by descending attention in each
    half, so that two compared tokens need not be of one place. So it is published.

    Args:
        exchanged: For each layer, 2 B x N x width.
    """
    halves = [tokens.float().chunk(2) for tokens in exchanged]
    return torch.stack([F.mse_loss(whole, masked) for whole, masked in halves]).mean()


sdstrack_b256 = SDSTrack
sdstrack_b384 = partial(SDSTrack, template_size=192, search_size=384, search_factor=5.0)
sdstrack_tiny = partial(SDSTrack, search_factor=4.0, cross_layers=(1, 2, 3), **TINY)
