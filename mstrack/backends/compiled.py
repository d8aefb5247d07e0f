"""`torch.compile` for tracking: one compiled form serves all transformer blocks of a network."""

import copy
from collections.abc import Callable
from itertools import chain
from typing import Any

import torch
import torch._dynamo
from torch import Tensor, nn

from mstrack.errors import UserError
from mstrack.models.blocks import Block, Prediction, transform_tokens

RECOMPILE_LIMIT = 128
"""Networks, precisions, batch sizes and numbers of tokens share one code object."""


def compile_network(
    network: nn.Module, backend: str | Callable[..., Any] = "inductor"
) -> Callable[[Tensor, Tensor], Prediction]:
    """A copy of a network, with its own weights, that runs compiled code, made at the first call with a batch size.

    Blocks are compiled and what joins them is not: that takes seconds and not minutes, and the streams of a dual-stream
    network stay branches of a graph. A network without plain blocks is compiled as a whole.

    Args:
        network: In eval mode.
        backend: Of `torch.compile`.

    Raises:
        UserError: At a call: it cannot be compiled here.
    """
    limits = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, RECOMPILE_LIMIT)
    weights = {id(tensor): tensor for tensor in chain(network.parameters(), network.buffers())}
    copied = copy.deepcopy(network, weights)
    blocks = [module for module in copied.modules() if type(module) is Block]
    compute = torch.compile(transform_tokens, fullgraph=True, dynamic=False, backend=backend)
    for block in blocks:
        block.compute = compute
    compiled = copied if blocks else torch.compile(copied, fullgraph=True, dynamic=False, backend=backend)

    def run(template: Tensor, search: Tensor) -> Prediction:
        try:
            found: Prediction = compiled(template, search)
        except torch._dynamo.exc.TorchDynamoException as error:
            said = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise UserError(f"backend 'compiled': torch.compile cannot do it here: {said} Use graph or eager.") from error
        return found

    return run
