"""What a network costs: parameters, and floating-point operations of one forward pass."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from mstrack.models.network import Network

ATTENTION = ("bmm", "baddbmm", "scaled_dot_product")
"""Parts of the names of the operators that multiply two activations; every other product has a weight in it."""


class Parameters(NamedTuple):
    """Parameter counts of a network.

    Attributes:
        total: All.
        trainable: Those with `requires_grad`.
        positions: Position and temporal embeddings; papers count without them.
        published: As the published code counts: `total` and the embeddings that its forward never reads (class token, and
            in OSTrack the position embeddings of the ViT it started from).
    """

    total: int
    trainable: int
    positions: int
    published: int


class Flops(NamedTuple):
    """Floating-point operations of one pair of crops, 2 per multiply-add.

    Counted as by the profiler `thop`, whose figures papers print: linear layers without bias, convolutions with bias, batch
    norms as two per element; activations, layer norms and sums are free.

    Attributes:
        weights: Operations with weights only. Comes to the 58.1, 130.6, 149.0 and 335.3 G of the paper's Table 7, which counts
            without candidate elimination (and to 58.6 and 131.8 where it has 59.9 and 131.9 G for ViPT).
        total: With the two products inside attention.
    """

    weights: int
    total: int


def count_parameters(model: Network) -> Parameters:
    """Count the parameters of a network."""
    named = dict(model.named_parameters())
    total = sum(p.numel() for p in named.values())
    return Parameters(
        total=total,
        trainable=sum(p.numel() for p in named.values() if p.requires_grad),
        positions=sum(p.numel() for name, p in named.items() if name.startswith(("position_", "temporal_"))),
        published=total + model.unread_rows * model.width,
    )


def count_flops(model: Network) -> Flops:
    """Count the operations of a forward pass with one template and one search crop, without computing it.

    Candidate elimination counts as it runs. For a model on any device; neither weights nor gradients are touched.
    """
    state = {name: value.to("meta") for name, value in model.state_dict().items()}
    elements = 0

    def count_elements(module: nn.Module, _: object, output: Tensor) -> None:
        nonlocal elements
        elements += output.numel() * (2 if isinstance(module, nn.BatchNorm2d) else module.bias is not None)

    counted = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d | nn.Conv2d)]
    hooks = [module.register_forward_hook(count_elements) for module in counted]
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            functional_call(model, state, model.inputs())
    finally:
        for hook in hooks:
            hook.remove()
    counts = {str(operator): count for operator, count in counter.get_flop_counts()["Global"].items()}
    inside = sum(count for operator, count in counts.items() if any(part in operator for part in ATTENTION))
    total = sum(counts.values()) + 2 * elements
    return Flops(weights=total - inside, total=total)
