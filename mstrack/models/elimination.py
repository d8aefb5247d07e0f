"""Candidate elimination (OSTrack, Ye et al. 2022): search tokens that the target does not attend to leave the network early."""

import math

import torch
from torch import Tensor

from mstrack.models.blocks import Block

KEEP = 0.7


def elimination_layers(depth: int) -> tuple[int, ...]:
    """The blocks that drop tokens: 3, 6 and 9 of 12 (0-based), in proportion for other depths."""
    return tuple(depth // 4 * quarter for quarter in (1, 2, 3))


def centre_token(count: int) -> int:
    """Flat index of the template token that asks: (3, 3) of 8 x 8, (5, 5) of 12 x 12, as published."""
    side = math.isqrt(count)
    middle = (side - 1) // 2
    return middle * side + middle


def eliminate(block: Block, tokens: Tensor, kept: Tensor, template_count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Run a block, and between its attention and its MLP drop the search tokens that matter least.

    Args:
        block: The transformer block.
        tokens: B x (Nz + n) x width, template first.
        kept: B x n, which search token of the crop each of the n is.
        template_count: Nz.

    Returns:
        As of `drop`.
    """
    query, key, value = block.attn.split(block.norm1(tokens))
    tokens = tokens + block.drop_path(block.attn.merge(query, key, value))
    tokens, kept, removed = drop(tokens, query, key, kept, template_count)
    return tokens + block.drop_path(block.mlp(block.norm2(tokens))), kept, removed


def drop(tokens: Tensor, query: Tensor, key: Tensor, kept: Tensor, template_count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Drop the search tokens that matter least.

    A search token matters as much as the centre template token attends to it, in the mean over the heads. ceil(0.7 n) of n
    stay, in descending order.

    Args:
        tokens: B x (Nz + n) x width, template first, after the attention that the next two are of.
        query: B x heads x (Nz + n) x (width / heads).
        key: The same.
        kept: B x n, which search token of the crop each of the n is.
        template_count: Nz.

    Returns:
        Tokens B x (Nz + ceil(0.7 n)) x width; `kept` for them; and the dropped search tokens, B x (n - ceil(0.7 n)), both by
        descending attention.
    """
    centre = centre_token(template_count)
    logits = query[:, :, centre : centre + 1] @ key.transpose(2, 3) * query.shape[-1] ** -0.5
    attention = logits.float().softmax(dim=3)[:, :, 0, template_count:].mean(dim=1)
    order = attention.argsort(dim=1, descending=True, stable=True)
    stay = math.ceil(KEEP * kept.shape[1])
    where = order[:, :stay, None].expand(-1, -1, tokens.shape[2])
    tokens = torch.cat((tokens[:, :template_count], tokens[:, template_count:].gather(1, where)), dim=1)
    order = kept.gather(1, order)
    return tokens, order[:, :stay], order[:, stay:]


def restore(tokens: Tensor, kept: Tensor, template_count: int, search_count: int) -> Tensor:
    """Put the surviving search tokens back where they stood and zeros where tokens were dropped.

    Args:
        tokens: B x (Nz + n) x width.
        kept: B x n, where each of the n belongs.
        template_count: Nz.
        search_count: Number of search tokens of a whole crop.

    Returns:
        B x (Nz + search_count) x width.
    """
    search = tokens.new_zeros(tokens.shape[0], search_count, tokens.shape[2])
    where = kept[:, :, None].expand(-1, -1, tokens.shape[2])
    return torch.cat((tokens[:, :template_count], search.scatter(1, where, tokens[:, template_count:])), dim=1)
