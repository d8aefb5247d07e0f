"""Ranks: the sort against counting pairs by hand, the histogram against the sort."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from mstrack.tuning.chunks import LIMITS, split_runs
from mstrack.tuning.ranks import (
    SORTED,
    add_keys,
    choose_bits,
    count_keys,
    exact_ranks,
    histogram_ranks,
    magnitude_keys,
    narrow_keys,
    plan_runs,
    ranks_of_rows,
)

SIZES = (256, 1000, SORTED + 1, 40_000, 300_000)
SHAPES: dict[str, Callable[[int], Tensor]] = {
    "normal": lambda n: torch.randn(n),
    "cauchy": lambda n: torch.distributions.Cauchy(0, 1).sample((n,)),
    "log-normal over 100 octaves": lambda n: torch.randn(n) * torch.exp(10 * torch.randn(n)),
    "uniform in [0, 1)": lambda n: torch.rand(n),
    "uniform in [1, 2)": lambda n: 1 + torch.rand(n),
    "mostly exact zeros": lambda n: torch.randn(n) * (torch.rand(n) < 0.3),
    "small integers": lambda n: torch.randint(-4, 5, (n,)).float(),
    "bf16": lambda n: torch.randn(n).bfloat16(),
    "fp16": lambda n: torch.randn(n).half(),
    "float64": lambda n: torch.randn(n, dtype=torch.float64),
    "at 1e-20": lambda n: torch.randn(n) * 1e-20,
    "at 1e10": lambda n: torch.randn(n) * 1e10,
}


def count_by_hand(gradient: Tensor) -> list[float]:
    """The definition: how many are below, and half of how many others are equal, over N - 1."""
    sensitivity = [float(g) ** 2 for g in gradient.double().flatten()]
    if len(sensitivity) == 1:
        return [0.5]
    return [
        (sum(t < s for t in sensitivity) + (sum(t == s for t in sensitivity) - 1) / 2) / (len(sensitivity) - 1)
        for s in sensitivity
    ]


@pytest.mark.parametrize("kind", SHAPES)
def test_the_sort_is_the_definition(kind: str) -> None:
    torch.manual_seed(1)
    gradient = SHAPES[kind](120).view(3, 40)
    torch.testing.assert_close(exact_ranks(gradient).flatten(), torch.tensor(count_by_hand(gradient)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", SHAPES)
def test_the_histogram_agrees_with_the_sort(kind: str, size: int) -> None:
    torch.manual_seed(2)
    gradient = SHAPES[kind](size)
    error = (histogram_ranks(gradient) - exact_ranks(gradient)).abs()
    assert error.max() <= 0.03
    assert error.mean() <= 0.007


def test_ties_take_the_middle_of_their_ranks() -> None:
    gradient = torch.tensor([0.0, -1.0, 1.0, 0.0, 0.0, 3.0])
    expected = torch.tensor([0.2, 0.7, 0.7, 0.2, 0.2, 1.0])
    torch.testing.assert_close(exact_ranks(gradient), expected)
    torch.testing.assert_close(histogram_ranks(gradient), expected)
    constant = torch.full((10_000,), -0.3)
    for ranks in (exact_ranks(constant), histogram_ranks(constant)):
        torch.testing.assert_close(ranks, torch.full_like(constant, 0.5))


@pytest.mark.parametrize("rank", [exact_ranks, histogram_ranks])
def test_corner_cases(rank: Callable[[Tensor], Tensor]) -> None:
    assert rank(torch.empty(0, 4)).shape == (0, 4)
    assert rank(torch.tensor([[7.0]])).tolist() == [[0.5]]
    assert rank(torch.tensor(0.0)).tolist() == 0.5
    odd = torch.tensor([float("nan"), -float("inf"), 2.0, -0.0, 1e-45])
    assert rank(odd).tolist() == [1.0, 0.75, 0.5, *rank(odd)[3:].tolist()]
    assert exact_ranks(odd).tolist() == [1.0, 0.75, 0.5, 0.0, 0.25]


@pytest.mark.parametrize("rank", [exact_ranks, histogram_ranks])
def test_a_factor_on_the_gradient_changes_no_rank(rank: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(3)
    gradient = torch.randn(20_000)
    assert torch.equal(rank(gradient), rank(-gradient * 2.0**-40))


@pytest.mark.parametrize("rank", [exact_ranks, histogram_ranks])
def test_ranks_are_monotone_in_sensitivity(rank: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(4)
    gradient = torch.randn(50_000)
    ranks = rank(gradient)[gradient.abs().argsort()]
    assert (ranks.diff() >= 0).all()
    assert ranks[-1] - ranks[0] > 0.99


def test_rows_are_ranked_each_on_its_own() -> None:
    torch.manual_seed(5)
    rows = torch.stack([torch.randn(300), torch.randint(0, 9, (300,)).float()])
    keys = magnitude_keys(rows).view(2, 300)
    torch.testing.assert_close(ranks_of_rows(keys), torch.stack([exact_ranks(row) for row in rows]))
    torch.testing.assert_close(ranks_of_rows(keys[:1]), exact_ranks(rows[:1]))


def test_both_ways_of_counting_agree() -> None:
    torch.manual_seed(6)
    keys = torch.randint(0, 500, (9000,), dtype=torch.int32)
    by_hand = torch.from_numpy(np.bincount(keys.numpy(), minlength=512))
    assert torch.equal(count_keys(keys, 512), by_hand)
    for dtype in (torch.int32, torch.int64):
        assert torch.equal(add_keys(torch.zeros(512, dtype=dtype), keys).long(), by_hand)


@pytest.mark.parametrize("values", [[5, 9, 7, 5], [0, 6, 4, 0], [0, 0, 0], [1, 0], [3]])
def test_a_narrowed_table_keeps_order_and_ties(values: list[int]) -> None:
    keys = torch.tensor(values, dtype=torch.int32)
    bins = narrow_keys(keys, 16)
    assert keys.min() >= 0
    assert keys.max() < bins <= max(values) + 1
    order = [[(a > b) - (a < b) for a in values] for b in values]
    assert [[(a > b) - (a < b) for a in keys.tolist()] for b in keys.tolist()] == order


def test_runs_cover_a_buffer_in_order() -> None:
    sizes = (0, 1, 96, 96, 384, SORTED, SORTED + 1, 10_000, 40_000, 1 << 18, 1 << 22)
    runs = plan_runs(sizes)
    assert [size for run in runs for size in run.sizes] == [size for size in sizes if size]
    assert [run.start for run in runs[1:]] == [run.stop for run in runs[:-1]]
    assert runs[-1].stop == sum(sizes)
    assert all(len(set(run.sizes)) == 1 for run in runs if run.bits == 0)
    assert all(run.bits == choose_bits(size) for run in runs if run.bits for size in run.sizes)
    assert all(1 << choose_bits(size) <= 2 * size for size in sizes if size > SORTED)


def test_a_chunk_is_no_larger_than_the_limit_or_one_tensor() -> None:
    sizes = [3, 7, LIMITS["cpu"] // 2, LIMITS["cpu"] // 2, LIMITS["cpu"] + 5, 2 * LIMITS["cpu"], 1]
    runs = split_runs([torch.nn.Parameter(torch.empty(size)) for size in sizes])
    assert sorted(p.numel() for run in runs for p in run) == sorted(sizes)
    assert all(len(run) == 1 or sum(p.numel() for p in run) <= LIMITS["cpu"] for run in runs)
