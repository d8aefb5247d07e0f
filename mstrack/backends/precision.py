"""bfloat16: a copy of a network whose products take bfloat16 weights, to be run under autocast."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from mstrack.models.blocks import Prediction

PRECISIONS = ("fp32", "bf16")
PRODUCTS = (nn.Linear, nn.Conv1d, nn.Conv2d)


def halve(network: nn.Module) -> nn.Module:
    """A copy whose linear and convolution weights are bfloat16.

    Under autocast it gives the same numbers as the network itself, to the bit, and casts no weights on the way.
    """
    halves: dict[int, Tensor] = {}
    for module in network.modules():
        if isinstance(module, PRODUCTS):
            for parameter in module.parameters(recurse=False):
                halves[id(parameter)] = nn.Parameter(parameter.detach().to(torch.bfloat16), requires_grad=False)
    return copy.deepcopy(network, halves)


def in_halves(network: nn.Module, device: torch.device) -> Callable[[Tensor, Tensor], Prediction]:
    """The network under autocast to bfloat16."""

    def run(template: Tensor, search: Tensor) -> Prediction:
        with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):
            prediction: Prediction = network(template, search)
        return prediction

    return run
