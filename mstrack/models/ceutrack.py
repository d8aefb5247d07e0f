"""CEUTrack (Tang et al. 2022): one ViT over the tokens of both modalities, tuned as a whole."""

from collections.abc import Mapping
from functools import partial
from typing import Literal, Unpack, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mstrack.errors import UserError
from mstrack.models.blocks import PatchEmbedding, Prediction
from mstrack.models.network import Network, Shared
from mstrack.models.ostrack import TINY
from mstrack.registry import unknown

Events = Literal["frames", "voxels"]

COORDINATES = 3
POINTS = 16
"""Events that a voxel of COESOT keeps, in no particular order: 1 where brighter, -1 where darker, 0 where there are fewer."""
SIDE = 4
"""Voxels of a token, along both sides of the grid they are laid on."""
CELL = 10
"""Pixels of a voxel along x and y."""
MOMENTS = 19
"""What the published tracker divides a voxel's moment by; the window has 20."""


class VoxelEmbedding(nn.Module):
    """Event voxels to tokens: their coordinates become as many channels as their events, row by row on a grid cut to patches.

    Neighbours on the grid are neighbours in the list, wherever they lie in the image: the published network has no other order.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.place = nn.Conv1d(COORDINATES, POINTS, kernel_size=1)
        self.patches = nn.Conv2d(2 * POINTS, width, kernel_size=SIDE, stride=SIDE)

    def forward(self, voxels: Tensor) -> Tensor:
        """Embed B x 19 x n^2 voxels: B x (n / 4)^2 x width."""
        side = round(voxels.shape[2] ** 0.5)
        places = F.relu(self.place(voxels[:, :COORDINATES]))
        grid = torch.cat((places, voxels[:, COORDINATES:]), dim=1).unflatten(2, (side, side))
        return self.patches(grid).flatten(2).transpose(1, 2)


class CEUTrack(Network):
    """RGB and auxiliary tokens, of both crops, run through one ViT together.

    The head reads, for each cell of the search crop, the RGB token after the final norm and, as published, the auxiliary token
    as it was before the first block. Published with event voxels, without candidate elimination (`keep` 1).

    Args:
        events: `frames`: the second modality is an image with a patch embedding of its own; M = 2, any modality.
            `voxels`: as published; M = 1, and `forward` takes the voxels of both crops as well (`select_voxels`). Checkpoints
            load and predict, but no data set of mstrack feeds voxels: train, track and evaluate with `frames`.
        others: As in `Network`.
    """

    family = "ceutrack"
    head_inputs = 2
    unread_rows = 1 + 197

    def __init__(self, *, events: Events = "frames", **shared: Unpack[Shared]) -> None:
        super().__init__(**shared)
        if events not in get_args(Events):
            raise UserError(unknown("form of events", str(events), get_args(Events)))
        self.modalities = 2 if events == "frames" else 1
        self.events = events
        self.embed = PatchEmbedding(self.stride, self.width)
        framed = events == "frames"
        self.embed_aux = PatchEmbedding(self.stride, self.width) if framed else VoxelEmbedding(self.width)
        self.fresh = () if events == "frames" else ("embed_aux.*",)
        self.blocks = self._blocks(range(self.depth))
        self.norm = nn.LayerNorm(self.width, eps=1e-6)
        self._initialise()

    def inputs(self, batch: int = 1) -> tuple[Tensor, ...]:
        """Tensors of the shapes that `forward` takes, on the meta device and without content."""
        images = super().inputs(batch)
        if self.events == "frames":
            return images
        sides = (self.template_size, self.search_size)
        return (*images, *(torch.empty(batch, *self._voxel_shape(side), device="meta") for side in sides))

    def _voxel_shape(self, size: int) -> tuple[int, int]:
        """Of the voxels of a crop: 19 x 1024 at 128 pixels, 19 x 4096 at 256."""
        return COORDINATES + POINTS, (SIDE * size // self.stride) ** 2

    def _check_voxels(self, *voxels: Tensor) -> None:
        """Refuse voxels of another shape than the crops have, and calls without any."""
        if not voxels:
            raise UserError(
                "this CEUTrack takes event voxels (events=voxels), and only crops of images were given: mstrack trains, tracks"
                " and evaluates with event frames (events=frames). Published results are scored by `mst score`; how to call"
                " the network with voxels is in docs/weights.md."
            )
        expected = [self._voxel_shape(size) for size in (self.template_size, self.search_size)]
        given = [tuple(part.shape[1:]) for part in voxels]
        if given != expected:
            raise ValueError(f"voxels have shapes (B, ...) {given}; expected {expected}, of the template and the search crop.")

    def forward(self, template: Tensor, search: Tensor, *voxels: Tensor) -> Prediction:
        """Find the template's target in the search crop.

        Args:
            template: B x M x 3 x template_size x template_size, normalised float; M is `modalities`, RGB first.
            search: B x M x 3 x search_size x search_size, likewise.
            voxels: Of `events="voxels"`: those of the template, B x 19 x (4 template_size / patch)^2, and of the search crop.

        Raises:
            ValueError: Another number of modalities or another size.
            UserError: No voxels, where the network takes them.
        """
        self._check("template", template, self.template_size)
        self._check("search", search, self.search_size)
        if voxels or self.events == "voxels":
            self._check_voxels(*voxels)
        tokens = self.features(template, search, *voxels)
        return self.head(tokens[:, self.position_template.shape[1] :])

    def features(self, template: Tensor, search: Tensor, *voxels: Tensor) -> Tensor:
        """RGB tokens after the final norm beside auxiliary ones before the blocks: B x (Nz + Nx) x 2 width, template first."""
        rgb = self._tokens(self.embed, template[:, 0], search[:, 0])
        aux = self._tokens(self.embed_aux, *(voxels or (template[:, 1], search[:, 1])))
        tokens = torch.cat((rgb, aux), dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return torch.cat((self.norm(tokens[:, : rgb.shape[1]]), aux), dim=2)

    def start(self, entries: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Embed frames as the one-stream tracker embeds RGB, voxels afresh; the head begins blind to the auxiliary tokens."""
        started = super().start(entries)
        for name, value in entries.items():
            if name.startswith("embed.") and self.events == "frames":
                started[name.replace("embed.", "embed_aux.")] = value.clone()
            elif name.startswith("head.") and name.endswith(".0.conv.weight") and value.shape[1] == self.width:
                started[name] = torch.cat((value, torch.zeros_like(value)), dim=1)
        return started


def select_voxels(voxels: Tensor, part: tuple[slice, slice], count: int) -> Tensor:
    """Voxels of a crop as the published tracker feeds them.

    Coordinates become those of the voxel's centre: x and y as a fraction of the part, then time as a fraction of the window.
    Voxels outside are left out; where `count` or more are left, the published `topk` sorts every row of the result by itself
    (a voxel's numbers then no longer stand together), and the published weights were trained on that.

    Args:
        voxels: N x 19 of a whole frame, as in COESOT's `<sequence>_voxel/*.mat`: `coor` (moment, x, y) and `features`.
        part: Rows and columns of the image that the crop shows, as `crops.Square.inside` has them.
        count: How many, `(4 size / patch)^2`.

    Returns:
        19 x count; zeros where there are fewer.
    """
    top, bottom, left, right = (edge / CELL for side in part for edge in (side.start, side.stop))
    moment, x, y = (voxels[:, column] + 0.5 for column in range(COORDINATES))
    places = torch.stack(((x - left) / (right - left), (y - top) / (bottom - top), moment / MOMENTS), dim=1)
    inside = ((places[:, :2] >= 0) & (places[:, :2] <= 1)).all(dim=1)
    chosen = torch.cat((places, voxels[:, COORDINATES:]), dim=1)[inside].T
    if chosen.shape[1] >= count:
        return chosen.topk(count, dim=1).values
    return F.pad(chosen, (0, count - chosen.shape[1]))


ceutrack_b256 = CEUTrack
ceutrack_b384 = partial(CEUTrack, template_size=192, search_size=384)
ceutrack_tiny = partial(CEUTrack, search_factor=4.0, **TINY)
