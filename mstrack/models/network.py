"""What all trackers share: geometry, position embeddings, the head, the shape of `forward`, the reading of checkpoints."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from mstrack.errors import UserError
from mstrack.models.blocks import Block, Prediction, initialise
from mstrack.models.head import CentreHead
from mstrack.models.positions import interpolate_positions
from mstrack.models.remap import FAMILIES, translate


class Shared(TypedDict, total=False):
    """The arguments of `Network`, for the constructors that pass them on."""

    template_size: int
    search_size: int
    template_factor: float
    search_factor: float | None
    patch: int
    width: int
    depth: int
    heads: int
    mlp_ratio: float
    head_channels: int
    droptrack: bool
    drop_path: float


class Network(nn.Module, ABC):
    """Base of the trackers that cut both crops into tokens and read the box from the search tokens.

    A subclass sets `modalities`, and `fresh` where it starts from a one-stream tracker, and defines `features`; one that reads
    published checkpoints sets `family` and `unread_rows` too. The constructor's arguments are keyword-only and all have a
    meaning for every size of model, so that `create_model("ostrack-tiny", width=128)` works; a subclass takes its own and
    passes the rest on (`**shared: Unpack[Shared]`).

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
        reads: Which of them it looks at; all, as a rule.
        family: Whose checkpoints hold this network's entries, of `mstrack.models.remap.FAMILIES`; none: only its own do.
        fresh: Glob patterns (`*` matches dots too) of the entries that the checkpoint it starts from cannot have, and leaves at
            the values they are created with.
        head_inputs: How many widths the head reads of each cell.
        unread_rows: Rows of `width` that the published model of this kind also counts as parameters and never reads
            (`mstrack.models.remap.UNREAD`: class token 1, position embeddings of ViT 197).
        idle: Glob patterns of the parameters that train by the published groups and that the forward never reads, so that
            they get no gradient and stay as they are.
        name: The name it was created by, and
        arguments: with which arguments; `create_model` sets both.
        provenance: What made the weights; `mstrack.load` sets it, and it is empty for fresh ones.
    """

    modalities: int
    reads: tuple[int, ...] = (0, 1)
    family: str | None = None
    fresh: tuple[str, ...] = ()
    head_inputs: int = 1
    unread_rows: int = 0
    idle: tuple[str, ...] = ()
    name: str
    arguments: dict[str, Any]
    provenance: dict[str, Any]

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
        droptrack: bool = False,
        drop_path: float = 0.0,
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
        self.head = CentreHead(self.head_inputs * width, head_channels)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let a constructor that passes arguments on show them in its signature, where `create_model` looks them up."""
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            _show_shared(vars(cls)["__init__"], super(cls, cls).__init__)

    def _blocks(self, layers: range | tuple[int, ...], kind: type[Block] = Block) -> nn.ModuleList:
        """Blocks that stand at the given layers, with the drop path of those layers."""
        last = max(self.depth - 1, 1)
        return nn.ModuleList(kind(*self._block, drop_path=self._drop_path * layer / last) for layer in layers)

    def _initialise(self) -> None:
        """Give every parameter outside the head its starting value; the subclass calls it when all modules exist."""
        self.apply(initialise)
        for name, parameter in self.named_parameters(recurse=False):
            if name.startswith(("position_", "temporal_")):
                nn.init.trunc_normal_(parameter, std=0.02, a=-0.04, b=0.04)

    def _tokens(self, embedding: nn.Module, template: Tensor, search: Tensor) -> Tensor:
        """Embed both crops of one modality and join them, template first: B x (Nz + Nx) x width."""
        return self._place(embedding(template), embedding(search))

    def _place(self, template: Tensor, search: Tensor) -> Tensor:
        """Add the position (and temporal) embeddings to B x Nz and B x Nx embedded patches and join them, template first."""
        first = template + self.position_template
        second = search + self.position_search
        if self.temporal_template is not None and self.temporal_search is not None:
            first = first + self.temporal_template
            second = second + self.temporal_search
        return torch.cat((first, second), dim=1)

    def inputs(self, batch: int = 1) -> tuple[Tensor, ...]:
        """Tensors of the shapes that `forward` takes, on the meta device and without content."""
        sides = (self.template_size, self.search_size)
        return tuple(torch.empty(batch, self.modalities, 3, side, side, device="meta") for side in sides)

    def _check(self, what: str, images: Tensor, size: int) -> None:
        """Refuse images of another shape than B x M x 3 x size x size."""
        expected = (self.modalities, 3, size, size)
        if images.dim() != 5 or tuple(images.shape[1:]) != expected:
            raise ValueError(f"{what} has shape {tuple(images.shape)}; expected (B, {', '.join(map(str, expected))}).")

    def _train_only(self, *patterns: str) -> None:
        """Freeze every parameter that no glob pattern matches: what this network's own paper leaves as it is."""
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(_matches(name, patterns))

    def remap(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Make this network's entries of those of a checkpoint.

        Args:
            state_dict: Of this network, of another of its family, or of a one-stream tracker (OSTrack, DropTrack); as
                published, or our own. Or of a ViT (MAE), which leaves the head at the values it is created with.

        Returns:
            Entries under our names, without those that the forward never reads (`mstrack.models.remap.UNREAD`). Names that
            nobody knows stay as they are, for the caller's error message.

        Raises:
            UserError: The checkpoint is of another kind of network, or of none we know.
        """
        if state_dict.keys() == self.state_dict().keys():
            return dict(state_dict)
        family, entries = translate(state_dict)
        if family == self.family:
            return self._add_fresh(entries)
        if family == "vit":
            entries = self._from_vit(entries)
        if family in ("ostrack", "vit"):
            return self._add_fresh(self.start(entries))
        own = "this very network" if self.family is None else FAMILIES[self.family].what
        raise UserError(
            f"this is the checkpoint of {FAMILIES[family].what}; expected one of {own}"
            f"{'' if self.family == 'ostrack' else ' or of ' + FAMILIES['ostrack'].what}. A model {family}-* can hold it."
        )

    def _from_vit(self, entries: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Make the entries of a one-stream tracker of those of a ViT, its position embeddings interpolated as in OSTrack."""
        tracker = {name: value for name, value in self.state_dict().items() if name.startswith("head.")}
        for name, value in entries.items():
            if name == "positions":
                for part in ("position_template", "position_search"):
                    tracker[part] = interpolate_positions(value, round(self.get_parameter(part).shape[1] ** 0.5))
            else:
                tracker[name] = value
        return tracker

    def start(self, entries: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Make this network's entries, but for what is `fresh`, of those of a one-stream tracker, which have our names."""
        return dict(entries)

    def _add_fresh(self, entries: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The entries, and what is `fresh` as it is now, where none of it is among them."""
        if any(_matches(name, self.fresh) for name in entries):
            return dict(entries)
        return {**entries, **{name: value for name, value in self.state_dict().items() if _matches(name, self.fresh)}}

    @abstractmethod
    def features(self, template: Tensor, search: Tensor) -> Tensor:
        """Tokens that the head reads, template first: B x (Nz + Nx) x width. Arguments as in `forward`."""

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

    def training_loss(
        self,
        model: nn.Module,
        template: Tensor,
        search: Tensor,
        losses: Callable[[Prediction], dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        """Loss terms of a training step; a tracker whose loss has more to it than its prediction overrides this.

        Args:
            model: This network, or its wrapper for several processes; what is called, once.
            template: As in `forward`.
            search: As in `forward`.
            losses: The terms of a prediction, `total` among them.

        Returns:
            Scalars by name; `total` is what the gradient is taken of.
        """
        return losses(model(template, search))


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _show_shared(constructor: Callable[..., None], parent: Callable[..., None]) -> None:
    """Replace `**shared` in a constructor's signature by the parent's arguments that it does not name itself."""
    signature = inspect.signature(constructor)
    own = {p.name: p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD}
    if len(own) < len(signature.parameters):
        passed = (p for name, p in inspect.signature(parent).parameters.items() if name not in own)
        vars(constructor)["__signature__"] = signature.replace(parameters=[*own.values(), *passed])
