"""What every network is made of: normalised images in, transformer blocks, a `Prediction` out."""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def normalise(images: Tensor) -> Tensor:
    """Bring uint8 images to the range the networks were trained on.

    `(x / 255 - mean) / std` with ImageNet's statistics, the same for RGB and for every auxiliary modality, as OSTrack and
    all its descendants do.

    Args:
        images: ... x 3 x H x W, uint8 (or float in 0-255).

    Returns:
        float32 of the same shape, on the same device.
    """
    mean, std = _statistics(images.device)
    return (images.float() / 255.0 - mean) / std


@lru_cache
def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """`MEAN` and `STD` as 3 x 1 x 1 on a device: sent there once, because sending numbers waits for the device."""
    with torch.inference_mode(False):
        mean, std = (torch.tensor(values, device="cpu").view(3, 1, 1).to(device) for values in (MEAN, STD))
    return mean, std


class Prediction(NamedTuple):
    """The maps of the centre head, n x n cells over the search crop.

    Attributes:
        score: B x 1 x n x n, probability that the target's centre lies in the cell, in [1e-4, 1 - 1e-4].
        size: B x 2 x n x n, width and height as a fraction of the crop, in [1e-4, 1 - 1e-4].
        offset: B x 2 x n x n, x and y of the centre inside the cell, in cells; not bounded.
    """

    score: Tensor
    size: Tensor
    offset: Tensor

    @property
    def boxes(self) -> Tensor:
        """B x 4: centre x, centre y, width, height in [0, 1] of the crop, read where the score is highest."""
        return self.boxes_at(self.score.flatten(1).argmax(dim=1))

    def boxes_at(self, index: Tensor) -> Tensor:
        """Read one box per item at a given cell.

        Args:
            index: (B,) integer, the flat cell index y * n + x.

        Returns:
            B x 4: centre x, centre y, width, height as fractions of the crop; differentiable in size and offset.
        """
        n = self.score.shape[-1]
        where = index.view(-1, 1, 1).expand(-1, 2, 1)
        size = self.size.flatten(2).gather(2, where).squeeze(2)
        offset = self.offset.flatten(2).gather(2, where).squeeze(2)
        cell = torch.stack((index % n, index // n), dim=1)
        return torch.cat(((cell + offset) / n, size), dim=1)


class PatchEmbedding(nn.Conv2d):
    """Cuts an image into patches and projects each to a token: B x 3 x H x W -> B x (H W / patch^2) x width."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__(3, width, kernel_size=patch, stride=patch)

    def forward(self, images: Tensor) -> Tensor:
        """Embed B x 3 x H x W images; tokens come row by row."""
        return super().forward(images).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention with one joint projection, as in ViT (Dosovitskiy et al. 2021)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def split(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project B x N x width to query, key and value, each B x heads x N x (width / heads)."""
        batch, count, width = tokens.shape
        qkv = self.qkv(tokens).view(batch, count, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return query, key, value

    def merge(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend, join the heads and project: B x N x width."""
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).flatten(2))

    def forward(self, tokens: Tensor) -> Tensor:
        """Let all B x N x width tokens attend to each other."""
        return self.merge(*self.split(tokens))


class Mlp(nn.Module):
    """Two linear layers with the exact (erf) GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Transform each token by itself."""
        return self.fc2(F.gelu(self.fc1(tokens)))


class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016): in training, the branch of an item is dropped at `rate`, else rescaled."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def draw(self, branch: Tensor) -> Tensor | None:
        """The factor of each item of B x N x width, B x 1 x 1; None, which is 1, in eval mode and at rate 0."""
        if not self.training or self.rate == 0.0:
            return None
        keep = 1.0 - self.rate
        return branch.new_empty(len(branch), 1, 1).bernoulli_(keep).div_(keep)

    def forward(self, branch: Tensor) -> Tensor:
        """Drop or rescale B x N x width; the identity in eval mode and at rate 0."""
        return _scale(branch, self.draw(branch))

    def extra_repr(self) -> str:
        """The rate, for `print(model)`."""
        return f"rate={self.rate:.3g}"


class Block(nn.Module):
    """A pre-norm transformer block of ViT: attention, then an MLP, each in a residual branch; LayerNorm eps 1e-6.

    Attributes:
        compute: What computes it, `transform_tokens` or a compiled form of it.
        checkpointed: In training, keep only the input for the backward pass and compute the rest again there.
    """

    compute: "Callable[[Block, Tensor, Tensor | None, Tensor | None], Tensor]"
    checkpointed = False

    def __init__(self, width: int, heads: int, mlp_ratio: float = 4.0, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.drop_path = DropPath(drop_path)
        self.compute = transform_tokens

    def forward(self, tokens: Tensor) -> Tensor:
        """Transform B x N x width tokens."""
        factors = self.drop_path.draw(tokens), self.drop_path.draw(tokens)
        if self.checkpointed and self.training and torch.is_grad_enabled():
            kept: Tensor = checkpoint(self.compute, self, tokens, *factors, use_reentrant=False, preserve_rng_state=False)
            return kept
        return self.compute(self, tokens, *factors)


def transform_tokens(block: Block, tokens: Tensor, first: Tensor | None, second: Tensor | None) -> Tensor:
    """What a block makes of its tokens; nothing is drawn here, so that it can be computed twice, or compiled.

    Args:
        block: The block.
        tokens: B x N x width.
        first: Factors of the attention branch, from `DropPath.draw`.
        second: Factors of the MLP branch.
    """
    tokens = tokens + _scale(block.attn(block.norm1(tokens)), first)
    return tokens + _scale(block.mlp(block.norm2(tokens)), second)


def _scale(branch: Tensor, factor: Tensor | None) -> Tensor:
    return branch if factor is None else branch * factor


def initialise(module: nn.Module) -> None:
    """Initialise the transformer parts of a fresh network; use with `module.apply(initialise)`.

    Linear layers: normal with deviation 0.02 cut at two deviations, bias 0 (ViT); patch embeddings: Xavier over the
    flattened patch (MAE, He et al. 2022), bias 0. Norms keep their ones and zeros.
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)
        nn.init.zeros_(module.bias)
    elif isinstance(module, PatchEmbedding):
        nn.init.xavier_uniform_(module.weight.flatten(1))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
