"""Chunks of parameters that are updated together, and the scratch memory that they share."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

LIMITS = {"cpu": 1 << 17}
"""Elements in a chunk, by kind of device: on a CPU what its caches hold."""

LIMIT = 1 << 22
"""Elements in a chunk elsewhere: enough to fill a GPU, little beside a model."""


class Chunk:
    """Some whole parameters of one group, device and type, and the scratch memory to update them in.

    `proposal`, `spare` (of the parameters' type) and `keys` (int32) are flat, with one element per parameter element; all
    chunks of an optimizer share them, so what they hold lasts until the next chunk. `proposals`, `spares` are views of them
    in the shapes of the parameters, `magnitudes` views of `keys` as float32.

    Attributes:
        parameters: What is updated, smallest first.
        gradients: Their gradients, in their type.
        states: Their optimizer states.
        proposals: Where AdamW alone would move them.
        sizes: Their numbers of elements.
        lr: Learning rate of this step; a tensor where that of the group is one.
        skip: 0-dim bool tensor on the device, or none: when it is true, nothing may change.
        scratch: Where a tuning method may take further buffers, under names of its own.
        notes: Where it may keep constants of this chunk.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], scratch: "Scratch") -> None:
        self.parameters: list[Tensor] = list(parameters)
        self.sizes = tuple(p.numel() for p in parameters)
        total = sum(self.sizes)
        like = parameters[0]
        self.scratch = scratch
        self.proposal, self.spare, magnitude = (
            scratch.take(name, total, dtype, like.device) for name, dtype in _buffers_of(like.dtype)
        )
        self.keys = magnitude.view(torch.int32)
        self.proposals = self._views(self.proposal)
        self.spares = self._views(self.spare)
        self.magnitudes = self._views(magnitude)
        self.gradients: list[Tensor] = []
        self.states: list[dict[str, Any]] = []
        self.lr: float | Tensor = 0.0
        self.skip: Tensor | None = None
        self.notes: dict[str, Any] = {}

    def _views(self, flat: Tensor) -> list[Tensor]:
        """Views of a flat buffer in the shapes and memory orders of the parameters."""
        parts = flat.split(self.sizes)
        orders = [torch.empty_like(p, device="meta").stride() for p in self.parameters]
        return [part.as_strided(p.shape, order) for part, p, order in zip(parts, self.parameters, orders, strict=True)]

    def rows(self) -> Iterator[tuple[Tensor, Tensor, Tensor, dict[str, Any]]]:
        """Parameter, proposal, gradient and state, one parameter after the other."""
        return zip(self.parameters, self.proposals, self.gradients, self.states, strict=True)


class Scratch:
    """Flat buffers that are made once, and again only where a larger one is asked for."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}

    def reserve(self, runs: Sequence[Sequence[nn.Parameter]]) -> None:
        """Make the buffers of chunks of these parameters, so that none is made again after a chunk has taken it."""
        for run in runs:
            total = sum(p.numel() for p in run)
            for name, dtype in _buffers_of(run[0].dtype):
                self.take(name, total, dtype, run[0].device)

    def take(self, name: str, total: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """The first `total` elements of a buffer, holding anything."""
        key = (name, dtype, device)
        if key not in self._buffers or self._buffers[key].numel() < total:
            self._buffers[key] = torch.empty(total, dtype=dtype, device=device)
        return self._buffers[key][:total]


def _buffers_of(dtype: torch.dtype) -> tuple[tuple[str, torch.dtype], ...]:
    return ("proposal", dtype), ("spare", dtype), ("keys", torch.float32)


def is_dense(tensor: Tensor) -> bool:
    """Whether a tensor fills one stretch of memory, in whatever order of its dimensions."""
    return tensor.is_contiguous() or torch.empty_like(tensor, device="meta").stride() == tensor.stride()


def split_runs(parameters: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Split parameters, smallest first, into runs of at most the device's limit; a larger parameter is a run of its own."""
    runs: list[list[nn.Parameter]] = []
    room = 0
    for parameter in sorted(parameters, key=lambda p: p.numel()):
        size = parameter.numel()
        if not runs or size > room:
            runs.append([])
            room = max(size, LIMITS.get(parameter.device.type, LIMIT))
        runs[-1].append(parameter)
        room -= size
    return runs
