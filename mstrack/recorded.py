"""A forward and backward pass that is recorded as a CUDA graph and played again: one launch instead of thousands."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from mstrack.capture import capture
from mstrack.data.sampling import Batch

WARM_UP = 3
"""Passes that are computed as they come before one is recorded: libraries choose their kernels, a compiler compiles."""


class RecordedPass:
    """Losses and gradients of batches of one shape.

    The first passes are ordinary ones, of the same numbers. On a device other than CUDA all are. What is drawn in a pass is
    drawn anew in each play, from the seed that is set before it.

    Args:
        backward: Gives the parameters the gradients of a batch on the device, and returns the loss terms, detached. It must not
            wait for the device.
        parameters: They get gradients, which are added to those they have.
        device: Where they are.

    Raises:
        UserError: When it is called: the pass cannot be recorded, because it waits for the device.
    """

    def __init__(
        self, backward: Callable[[Batch], dict[str, Tensor]], parameters: Iterable[nn.Parameter], device: torch.device
    ) -> None:
        self._backward, self._device = backward, device
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._aside = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._calls = 0
        self._batch: Batch | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._terms: dict[str, Tensor] = {}
        self._gradients: list[Tensor | None] = []

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Gradients of a batch; its loss terms, detached."""
        held = self._take(batch)
        self._calls += 1
        if self._aside is None:
            return self._backward(held)
        if self._calls <= WARM_UP:
            return self._backward_aside(held, self._aside)
        before = [parameter.grad for parameter in self._parameters]
        if self._graph is None:
            self._record(held, self._aside)
        assert self._graph is not None
        pairs = [
            (new, old.clone()) for new, old in zip(self._gradients, before, strict=True) if new is not None and old is not None
        ]
        self._graph.replay()
        if pairs:
            torch._foreach_add_([new for new, _ in pairs], [old for _, old in pairs])
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        return {name: term.clone() for name, term in self._terms.items()}

    def _take(self, batch: Batch) -> Batch:
        """The batch at the place on the device where it is always looked for."""
        parts = {name: part for name, part in batch._asdict().items() if isinstance(part, Tensor)}
        if self._batch is None:
            places: dict[str, Any] = {name: torch.empty_like(part, device=self._device) for name, part in parts.items()}
            self._batch = batch._replace(**places, names=())
        for name, part in parts.items():
            getattr(self._batch, name).copy_(part, non_blocking=True)
        return self._batch

    def _backward_aside(self, batch: Batch, aside: torch.cuda.Stream) -> dict[str, Tensor]:
        """On the stream that will be recorded."""
        main = torch.cuda.current_stream(self._device)
        aside.wait_stream(main)
        with torch.cuda.stream(aside):
            terms = self._backward(batch)
        main.wait_stream(aside)
        return terms

    def _record(self, batch: Batch, aside: torch.cuda.Stream) -> None:
        """Nothing is computed here; gradients are where every play will write them."""
        for parameter in self._parameters:
            parameter.grad = None
        self._graph = torch.cuda.CUDAGraph()
        with capture(self._graph, aside, "Leave out run.graph=true."):
            self._terms = self._backward(batch)
        self._gradients = [parameter.grad for parameter in self._parameters]
