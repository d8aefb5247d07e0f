"""Ranks of sensitivities in [0, 1]: exact by sorting, and fast by counting.

A sensitivity beta * G * G orders like |G|, and a non-negative float orders like its bit pattern. So nothing is squared (and
nothing underflows), and the top bits of |G| index a histogram whose cumulative sum is the rank: no sort, one read of the
gradient, the same result at any scale of the gradient, and counts that add up over shards.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from mstrack.tuning.chunks import Scratch

SORTED = 8191
"""Tensors of up to this many elements are ranked exactly: there a sort is as cheap as a histogram."""

FEWEST_BITS, MOST_BITS = 14, 16
"""Resolution of a histogram: 8 bits of exponent, the rest of mantissa."""


class Run(NamedTuple):
    """Neighbouring tensors of a flat buffer that are ranked alike: elements start to stop; bits 0 means by sorting."""

    start: int
    stop: int
    sizes: tuple[int, ...]
    bits: int


@lru_cache(maxsize=4096)
def plan_runs(sizes: tuple[int, ...]) -> tuple[Run, ...]:
    """Divide tensors that lie one after the other into runs: small ones of equal size, large ones of equal resolution."""
    runs: list[Run] = []
    start = 0
    for size in sizes:
        bits = tensor_bits(size)
        last = runs[-1] if runs else None
        if last is not None and last.bits == bits and (bits or last.sizes[0] == size):
            runs[-1] = Run(last.start, start + size, (*last.sizes, size), bits)
        else:
            runs.append(Run(start, start + size, (size,), bits))
        start += size
    return tuple(run for run in runs if run.stop > run.start)


def tensor_bits(size: int) -> int:
    """Resolution that a tensor is ranked at; 0: exactly."""
    return 0 if size <= SORTED else choose_bits(size)


def choose_bits(size: int) -> int:
    """Resolution for a tensor: as fine as it can be while the table stays small beside the tensor."""
    return min(MOST_BITS, max(FEWEST_BITS, size.bit_length() - 4))


def magnitude_keys(gradient: Tensor) -> Tensor:
    """Integers, flat, that order as the magnitudes of the gradient do; NaN comes last.

    Types shorter than float32 are widened, which is exact; float64 is rounded to float32.
    """
    return gradient.detach().to(torch.float32).flatten().view(torch.int32).bitwise_and(0x7FFFFFFF)


def exact_ranks(gradient: Tensor) -> Tensor:
    """Rank of every element's sensitivity inside its tensor, by sorting; the reference.

    Args:
        gradient: Of any shape and floating type.

    Returns:
        float32 of the same shape: (0-based rank) / (N - 1); ties, exact zeros among them, take the middle of their ranks;
        0.5 for a single element.
    """
    return ranks_of_rows(magnitude_keys(gradient).view(1, -1)).view(gradient.shape)


def histogram_ranks(gradient: Tensor, bits: int | None = None) -> Tensor:
    """Rank of every element's sensitivity inside its tensor, by counting; elements of one bin are ties.

    Args:
        gradient: Of any shape and floating type.
        bits: Resolution; none: by the size of the tensor.

    Returns:
        float32 of the same shape.
    """
    bits = choose_bits(gradient.numel()) if bits is None else bits
    keys = magnitude_keys(gradient).bitwise_right_shift_(31 - bits)
    table = rank_table(count_keys(keys, 1 << bits), gradient.numel())
    return table.index_select(0, keys).view(gradient.shape)


def ranks_of_rows(keys: Tensor) -> Tensor:
    """Exact ranks inside each row of (R, N) integer keys, as float32 (R, N)."""
    size = keys.shape[1]
    if size < 2:
        return torch.full(keys.shape, 0.5, device=keys.device)
    ordered, origin = keys.sort(dim=1)
    place = torch.arange(size, dtype=torch.int32, device=keys.device)
    differs = ordered[:, 1:] != ordered[:, :-1]
    if keys.device.type == "cpu" and bool(differs.all()):
        middle = place.to(torch.float32).mul_(1 / (size - 1)).expand(keys.shape)
        return torch.empty(keys.shape).scatter_(1, origin, middle)
    edge = torch.ones_like(ordered[:, :1], dtype=torch.bool)
    first = torch.where(torch.cat([edge, differs], 1), place, 0).cummax(1).values
    last = torch.where(torch.cat([differs, edge], 1), place, size - 1).flip(1).cummin(1).values.flip(1)
    middle = (first + last).to(torch.float32).mul_(0.5 / (size - 1))
    return torch.empty_like(middle).scatter_(1, origin, middle)


def narrow_keys(keys: Tensor, bins: int) -> int:
    """Leave out the bins that hold nothing below and above all others; zero stays apart from the smallest key.

    No rank changes by this, only the length of the table. It asks for the values of keys, which would make the host wait for a
    GPU: there the table keeps its full length.

    Args:
        keys: int32 in [0, bins), not empty; changed in place.
        bins: Length of the table.

    Returns:
        Length of the table now.
    """
    if keys.device.type != "cpu":
        return bins
    low, high = (int(edge) for edge in keys.aminmax())
    if low == 0:
        low = int(torch.where(keys == 0, bins, keys).amin()) - 1
        low = max(0, min(low, high))
        keys.sub_(low).clamp_(min=0)
    else:
        keys.sub_(low)
    return high - low + 1


def count_keys(keys: Tensor, bins: int) -> Tensor:
    """How often each of `bins` values occurs among int32 keys.

    On a GPU integers are added into a table of fixed size: `bincount` would wait for the device to learn the largest key.
    Sums of integers do not depend on their order, so every rank and every run counts the same.
    """
    if keys.device.type == "cpu":
        return torch.bincount(keys, minlength=bins)
    return add_keys(torch.zeros(bins, dtype=torch.int32, device=keys.device), keys)


def add_keys(counts: Tensor, keys: Tensor) -> Tensor:
    """Add the occurrences of keys to a table of counts, in place and without a look at their values from the host."""
    return counts.index_add_(0, keys, torch.ones((), dtype=counts.dtype, device=keys.device).expand(keys.shape))


def rank_table(counts: Tensor, size: int) -> Tensor:
    """Rank of each bin of a histogram.

    Args:
        counts: (bins,) integers.
        size: Their sum.

    Returns:
        float32 (bins,): the middle of the ranks that the elements of the bin take, over N - 1; 0.5 where N is 1.
    """
    if size < 2:
        return torch.full(counts.shape, 0.5, device=counts.device)
    return bin_edges(counts).sub_(1).mul_(0.5 / (size - 1))


def bin_edges(counts: Tensor, scratch: Scratch | None = None) -> Tensor:
    """Elements up to each bin without it, plus those with it: one more than twice the middle 0-based rank.

    Args:
        counts: (bins,) integers.
        scratch: Gives the memory, of the result too; none: new memory.

    Returns:
        float32 (bins,).
    """
    bins, device = counts.numel(), counts.device
    take = (scratch or Scratch()).take
    upto = take("upto", bins + 1, torch.float32, device)
    upto[:1].zero_()  # an assignment would send a number, and wait for it
    upto[1:] = torch.cumsum(counts, 0, out=take("sums", bins, torch.int64, device))
    return torch.add(upto[1:], upto[:-1], out=take("edges", bins, torch.float32, device))
