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
        skip: 0-dim bool tensor on the device, or none: when it is true, nothing may change.
        notes: A tuning method may keep constants of this chunk here.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], scratch: "Scratch") -> None:
        self.parameters: list[Tensor] = list(parameters)
        self.sizes = tuple(p.numel() for p in parameters)
        total = sum(self.sizes)
        like = parameters[0]
        self.proposal = scratch.take("proposal", total, like.dtype, like.device)
        self.spare = scratch.take("spare", total, like.dtype, like.device)
        magnitude = scratch.take("keys", total, torch.float32, like.device)
        self.keys = magnitude.view(torch.int32)
        self.proposals = self._views(self.proposal)
        self.spares = self._views(self.spare)
        self.magnitudes = self._views(magnitude)
        self.gradients: list[Tensor] = []
        self.states: list[dict[str, Any]] = []
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
    """Flat buffers as large as the largest chunk, made once.

    Args:
        runs: The parameters of each chunk that is to share them.
    """

    def __init__(self, runs: Sequence[Sequence[nn.Parameter]]) -> None:
        sizes: dict[tuple[str, torch.dtype, torch.device], int] = {}
        for run in runs:
            total = sum(p.numel() for p in run)
            for name, dtype in (("proposal", run[0].dtype), ("spare", run[0].dtype), ("keys", torch.float32)):
                key = (name, dtype, run[0].device)
                sizes[key] = max(total, sizes.get(key, 0))
        self._buffers = {key: torch.zeros(size, dtype=key[1], device=key[2]) for key, size in sizes.items()}

    def take(self, name: str, total: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """The first `total` elements of a buffer."""
        return self._buffers[name, dtype, device][:total]


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
