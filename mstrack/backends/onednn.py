"""The CPU's layout: weights ordered once as oneDNN multiplies them, batch norms folded into the convolutions before them.

`torch.nn.functional.linear` hands float32 products to MKL and orders bfloat16 weights anew at every call. These operators are
the ones that `torch.compile` puts in their place on a CPU, without its compiler.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mstrack.backends.precision import has_instructions, protect
from mstrack.models.blocks import Mlp

ROWS = 320
"""Tokens for which the layout is chosen; it serves any number."""


def is_supported(precision: str = "fp32") -> bool:
    """Whether this torch has the operators, and for `bf16` this processor the instructions (on x86, AVX-512)."""
    has_operators = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return has_operators and (precision == "fp32" or has_instructions(torch.device("cpu")))


class PackedLinear(nn.Module):
    """A linear layer with its weights in the layout of oneDNN.

    Args:
        layer: What it does.
        dtype: Of the product.
        activation: `none`, or `gelu` (the exact one) on top.
    """

    def __init__(self, layer: nn.Linear, dtype: torch.dtype, activation: str = "none") -> None:
        super().__init__()
        self._dtype, self._activation = dtype, activation
        self._weight: Tensor = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach().to(dtype).contiguous(), ROWS)
        self._bias = None if layer.bias is None else layer.bias.detach().to(dtype)

    def forward(self, tokens: Tensor) -> Tensor:
        """Transform ... x n to ... x m."""
        found: Tensor = torch.ops.mkldnn._linear_pointwise(
            tokens.to(self._dtype), self._weight, self._bias, self._activation, [], "none"
        )
        return found


class PackedMlp(nn.Module):
    """`Mlp`, its activation computed with the first product."""

    def __init__(self, mlp: Mlp, dtype: torch.dtype) -> None:
        super().__init__()
        self.fc1 = PackedLinear(mlp.fc1, dtype, "gelu")
        self.fc2 = PackedLinear(mlp.fc2, dtype)

    def forward(self, tokens: Tensor) -> Tensor:
        """Transform each token by itself."""
        found: Tensor = self.fc2(self.fc1(tokens))
        return found


@torch.no_grad()
def repack(network: nn.Module, precision: str) -> nn.Module:
    """A copy of a network, for inference in `fp32` or `bf16` (then under autocast); equal to it but for the order of sums."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    linear = [layer for layer in network.modules() if type(layer) is nn.Linear]
    found = copy.deepcopy(network, {id(p): p for layer in linear for p in layer.parameters(recurse=False)})
    _fold_norms(found)
    _pack(found, dtype)
    return found if precision == "fp32" else protect(found, torch.device("cpu"))


def _pack(module: nn.Module, dtype: torch.dtype) -> None:
    """Replace what is known to the last line; a subclass may do something else, and stays as it is."""
    for name, child in module.named_children():
        if type(child) is Mlp:
            setattr(module, name, PackedMlp(child, dtype))
        elif type(child) is nn.Linear:
            setattr(module, name, PackedLinear(child, dtype))
        else:
            _pack(child, dtype)


def _fold_norms(module: nn.Module) -> None:
    for child in module.modules():
        conv, norm = getattr(child, "conv", None), getattr(child, "norm", None)
        if isinstance(child, nn.Sequential) and isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            child.conv, child.norm = fuse_conv_bn_eval(conv, norm), nn.Identity()
