"""A forward pass that is recorded once for each batch size and played again: CUDA graphs."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from mstrack.capture import capture
from mstrack.models.blocks import Prediction
from mstrack.models.branches import branching

WARM_UP = 3
"""Passes before recording, in which libraries choose their kernels and a compiler compiles."""


class _Recorded(NamedTuple):
    """A pass over inputs that stay where they are."""

    template: Tensor
    search: Tensor
    play: Callable[[], Prediction]


class Graphs:
    """Runs a network in batches of 1, 2, 4, 8, ..., each recorded at its first use; other batches are filled up.

    The maps that a call returns are overwritten by the next one. On a device other than CUDA nothing is recorded, and the
    passes are computed as they come.

    Args:
        run: The network; it must not wait for the device.

    Raises:
        UserError: At a call: it does wait.
    """

    def __init__(self, run: Callable[[Tensor, Tensor], Prediction]) -> None:
        self._run = run
        self._recorded: dict[int, _Recorded] = {}

    @torch.inference_mode()
    def __call__(self, template: Tensor, search: Tensor) -> Prediction:
        """As of a network: B x M x 3 x h x w and B x M x 3 x H x W to maps."""
        count = len(search)
        size = 1 << (count - 1).bit_length()
        if size not in self._recorded:
            self._recorded[size] = self._record(size, template, search)
        recorded = self._recorded[size]
        recorded.template[:count].copy_(template)
        recorded.search[:count].copy_(search)
        return Prediction(*(maps[:count] for maps in recorded.play()))

    def _record(self, size: int, template: Tensor, search: Tensor) -> _Recorded:
        inputs = template.new_zeros(size, *template.shape[1:]), search.new_zeros(size, *search.shape[1:])
        if search.device.type != "cuda":
            return _Recorded(*inputs, lambda: self._run(*inputs))
        aside = torch.cuda.Stream(search.device)
        aside.wait_stream(torch.cuda.current_stream(search.device))
        with torch.cuda.device(search.device), branching():
            with torch.cuda.stream(aside):
                for _ in range(WARM_UP):
                    self._run(*inputs)
            torch.cuda.current_stream(search.device).wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            with capture(graph, aside, "Use the backend eager."):
                maps = self._run(*inputs)

        def play() -> Prediction:
            graph.replay()
            return maps

        return _Recorded(*inputs, play)
