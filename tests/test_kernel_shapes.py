"""The kernels on tensors of any shape, against the plain operations: around every size at which they change their way."""

from typing import Any

import numpy as np
import pytest
import torch
from test_kernels import DEVICE, needs_compiler, needs_triton
from torch import nn

from mstrack.tuning import MST, TunedAdamW
from mstrack.tuning.ranks import SORTED

TILES, STRETCH = 16_384, 131_072
"""Some times what a Triton program moves, and counts at once; and all that it counts."""
FINER = 1 << 18
"""About where histograms get another bit."""


def draw_shapes(seed: int, edges: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Nothing, one, few, and around the edges; as vectors, matrices or stacks of them."""
    rng = np.random.default_rng(seed)
    sizes = [0, 1, *rng.integers(2, 600, 4), *(edge + int(rng.integers(-3, 4)) for edge in edges), int(rng.integers(1, 40_000))]
    shapes = []
    for size in map(int, rng.permutation(sizes)):
        first = int(rng.choice([d for d in range(1, 60) if size % d == 0]))
        second = int(rng.choice([d for d in range(1, 60) if size // first % d == 0]))
        forms = [(size,), (first, size // first), (first, second, size // first // second)]
        shapes.append(forms[int(rng.integers(3))])
    return shapes


def build(shapes: list[tuple[int, ...]], device: str, **how: Any) -> tuple[nn.ParameterDict, TunedAdamW]:
    generator = torch.Generator().manual_seed(len(shapes))
    weights = {f"p{i}": nn.Parameter(torch.randn(shape, generator=generator).to(device)) for i, shape in enumerate(shapes)}
    net = nn.ParameterDict(weights)
    patterns = [("p0", 0.3), ("*", 1.0)]
    return net, TunedAdamW(net.named_parameters(), MST((0.2, 0.9)), lr=1e-2, weight_decay=1e-2, patterns=patterns, **how)


def check(kernel: str, seed: int, edges: tuple[int, ...], steps: int) -> None:
    shapes = draw_shapes(seed, edges)
    assert {int(np.prod(shape)) for shape in shapes} >= {0, 1}
    ours, optimizer = build(shapes, DEVICE if kernel == "triton" else "cpu", kernel=kernel)
    plain, reference = build(shapes, "cpu", fused=False)
    for step in range(steps):
        generator = torch.Generator().manual_seed(1000 * seed + step)
        for mine, other in zip(ours.values(), plain.values(), strict=True):
            spread = torch.exp(3 * torch.randn(other.shape, generator=generator))
            other.grad = 1e-3 * torch.randn(other.shape, generator=generator) * spread
            mine.grad = other.grad.to(mine.device)
        optimizer.step()
        reference.step()
    for mine, other in zip(ours.values(), plain.values(), strict=True):
        torch.testing.assert_close(mine.detach().cpu(), other.detach(), rtol=1e-5, atol=2e-6)


@needs_compiler
@pytest.mark.parametrize("seed", range(5))
def test_tensors_of_any_shape_by_the_native_kernel(seed: int) -> None:
    check("native", seed, (SORTED, TILES, STRETCH, FINER, 2 * FINER), 3)


@needs_triton
@pytest.mark.parametrize(("seed", "edge"), [(0, SORTED), (1, TILES), (2, STRETCH), (3, FINER)])
def test_tensors_of_any_shape_by_triton(seed: int, edge: int) -> None:
    check("triton", seed, (edge,), 1 if edge == SORTED else 2)  # the interpreter takes its time to compare all pairs
