"""ViPT (Zhu et al., CVPR 2023): a frozen one-stream RGB tracker, and learned prompts that carry the second modality in."""

from functools import partial
from typing import Unpack, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mstrack.errors import UserError
from mstrack.models.blocks import PatchEmbedding
from mstrack.models.network import Shared
from mstrack.models.ostrack import TINY, OneStream


class Pointwise(nn.Conv2d):
    """A 1x1 convolution on tokens, which need no grid for it: B x N x channels -> B x N x out."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(channels, out, kernel_size=1)
        nn.init.xavier_uniform_(self.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """Transform each token by itself."""
        return F.linear(tokens, self.weight.flatten(1), self.bias)


class PromptBlock(nn.Module):
    """Makes a prompt of tokens and of the prompt before (the modality-complementary prompter).

    Both are squeezed to a few channels. Each squeezed channel of the tokens is multiplied by its softmax over the crop, so that
    little but its peaks are left (the fovea); the squeezed prompt is added, and the sum expanded.

    Args:
        width: Channels of a token.
        hidden: Channels in between.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.squeeze_tokens = Pointwise(width, hidden)
        self.squeeze_prompt = Pointwise(width, hidden)
        self.expand = Pointwise(hidden, width)
        self.sharpness = nn.Parameter(torch.full((1,), 10.0))

    def forward(self, tokens: Tensor, prompt: Tensor) -> Tensor:
        """Combine the N tokens of one whole crop and their prompt, both B x N x width and normalised: B x N x width."""
        squeezed = self.squeeze_tokens(tokens)
        peaks = squeezed * (squeezed * self.sharpness).softmax(dim=1)
        return self.expand(peaks + self.squeeze_prompt(prompt))


class ViPT(OneStream):
    """A one-stream RGB tracker whose patch embeddings, and before every block whose tokens, a prompt is added to.

    The first prompt is made of both images' embedded patches. Each further one is made of the tokens, normalised by the norm of
    the prompt before, and of that prompt, normalised by its own; template and search crop each for themselves. Where
    candidates were eliminated, the tokens are put back on their crop for it, zeros for those dropped, and the prompt of those
    kept is added. The prompts, their norms and the auxiliary image's patch embedding train; the tracker itself is frozen.
    Published depth weights expect the JET colours of depth in BGR order, as the encoding `jet` makes them.

    Args:
        deep: A prompt before every block; without it (shallow) only that at the patch embeddings.
        prompt_width: Channels in the middle of a prompt block.
        elimination: As in `OneStream`; on, as published. `ostrack-tiny` as shipped was trained without and loses the target
            with: start from it with `elimination=False`.
        others: As in `Network`.
    """

    modalities = 2
    fresh = ("embed_aux.*", "prompts.*", "prompt_norms.*")

    def __init__(self, *, deep: bool = True, prompt_width: int = 8, elimination: bool = True, **shared: Unpack[Shared]) -> None:
        super().__init__(elimination=elimination, **shared)
        if prompt_width < 1 or (deep and self.depth < 2):
            raise UserError(f"prompt_width={prompt_width}, depth={self.depth}: expected at least 1, and 2 if deep.")
        self.family = "vipt" if deep else "vipt-shallow"
        prompts = range(self.depth if deep else 1)
        self.embed_aux = PatchEmbedding(self.stride, self.width)
        self.prompts = nn.ModuleList(PromptBlock(self.width, prompt_width) for _ in prompts)
        self.prompt_norms = nn.ModuleList(nn.LayerNorm(self.width, eps=1e-6) for _ in prompts)
        self._train_only(*self.fresh)

    def features(self, template: Tensor, search: Tensor) -> Tensor:
        """Tokens after the final norm, template first, zeros for eliminated ones: B x (Nz + Nx) x width."""
        z, x = self.embed(template[:, 0]), self.embed(search[:, 0])
        norm = self.prompt_norms[0]
        aux = norm(torch.cat((self.embed_aux(template[:, 1]), self.embed_aux(search[:, 1])), dim=1))
        prompt = self._prompt(0, norm(torch.cat((z, x), dim=1)), aux)
        count = z.shape[1]
        tokens = self._place(z + prompt[:, :count], x + prompt[:, count:])
        kept = self._begin(tokens)
        for layer in range(self.depth):
            if 0 < layer < len(self.prompts):
                whole = self.prompt_norms[layer - 1](self._restore(tokens, kept))
                prompt = self._prompt(layer, whole, self.prompt_norms[layer](prompt))
                tokens = tokens + self._select(prompt, kept)
            tokens, kept = self._advance(layer, tokens, kept)
        return self._restore(self.norm(tokens), kept)

    def _prompt(self, layer: int, tokens: Tensor, prompt: Tensor) -> Tensor:
        """The prompt of a layer, for each crop by itself; all B x (Nz + Nx) x width, template first."""
        block = cast("PromptBlock", self.prompts[layer])
        count = self.position_template.shape[1]
        return torch.cat((block(tokens[:, :count], prompt[:, :count]), block(tokens[:, count:], prompt[:, count:])), dim=1)

    def _select(self, prompt: Tensor, kept: Tensor) -> Tensor:
        """The prompt of the template and of the search tokens that are left, in their order."""
        count = self.position_template.shape[1]
        search = prompt[:, count:]
        if kept.shape[1] == search.shape[1]:
            return prompt
        where = kept[:, :, None].expand(-1, -1, prompt.shape[2])
        return torch.cat((prompt[:, :count], search.gather(1, where)), dim=1)


vipt_b256 = ViPT
vipt_b384 = partial(ViPT, template_size=192, search_size=384, search_factor=5.0)
vipt_tiny = partial(ViPT, search_factor=4.0, **TINY)
vipt_shallow_b256 = partial(ViPT, deep=False)
vipt_shallow_b384 = partial(ViPT, deep=False, template_size=192, search_size=384, search_factor=5.0)
vipt_shallow_tiny = partial(ViPT, deep=False, search_factor=4.0, **TINY)
