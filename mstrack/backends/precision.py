"""bfloat16: a copy of a network whose linear layers compute with 16-bit weights and numbers, to be run under autocast."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from mstrack.errors import warn
from mstrack.models.blocks import Prediction
from mstrack.models.head import CentreHead

PRECISIONS = ("fp32", "bf16")
EXACT = (CentreHead, nn.Conv1d, nn.Conv2d)
"""What stays in float32: the head, where a rounding moves the box itself, and the embeddings, which all else is added to. They
are 3 % of the operations of mst-b256, and in bfloat16 would make half of the deviation."""


def has_instructions(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 numbers; on x86 that takes AVX-512."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def warn_of_emulation(device: torch.device) -> None:
    """Say so where bfloat16 saves no time but costs it."""
    if not has_instructions(device):
        text = "this processor has no instructions for it, so that it takes several times as long as fp32: use fp32 here."
        warn("bf16", "precision", text)


def keep_float32(device: torch.device) -> None:
    """Let convolutions of a GPU multiply float32 and not TF32: in the head a rounding moves the box itself."""
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False


class Exact(nn.Module):
    """A module that computes in float32 under autocast too."""

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.module, self._kind = module, device.type

    def forward(self, inputs: Tensor) -> Tensor | Prediction:
        """As of the module."""
        with torch.autocast(self._kind, enabled=False):
            found: Tensor | Prediction = self.module(inputs.float())
        return found


def halve(network: nn.Module, device: torch.device) -> nn.Module:
    """A copy whose linear layers hold bfloat16, so that autocast need not cast them at every call, and with `Exact` parts."""
    halves: dict[int, Tensor] = {}
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            for parameter in layer.parameters(recurse=False):
                halves[id(parameter)] = nn.Parameter(parameter.detach().to(torch.bfloat16), requires_grad=False)
    return protect(copy.deepcopy(network, halves), device)


def protect(network: nn.Module, device: torch.device) -> nn.Module:
    """The same network, what must stay in float32 wrapped in `Exact`."""
    for name, child in network.named_children():
        if isinstance(child, EXACT):
            setattr(network, name, Exact(child, device))
        else:
            protect(child, device)
    return network


def in_halves(network: nn.Module, device: torch.device) -> Callable[[Tensor, Tensor], Prediction]:
    """The network under autocast to bfloat16."""

    def run(template: Tensor, search: Tensor) -> Prediction:
        with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):
            prediction: Prediction = network(template, search)
        return prediction

    return run
