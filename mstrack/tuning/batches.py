"""Parameters that a fused kernel moves together, and which kernel that is."""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor

from mstrack.errors import UserError
from mstrack.registry import unknown
from mstrack.tuning.chunks import is_dense
from mstrack.tuning.native import NativeBatch, load_library
from mstrack.tuning.proposals import move_fused
from mstrack.tuning.rules import Rule

Kernel = Literal["torch", "native", "triton"]
"""`native`: compiled for the CPU (`native.c`); `triton`: for a GPU (`kernels.py`); `torch`: neither."""


class Batch(Protocol):
    """Dense parameters of one group, type and device."""

    parameters: list[Tensor]

    def step(
        self,
        gradients: Sequence[Tensor],
        states: Sequence[Mapping[str, Any]],
        group: Mapping[str, Any],
        rule: Rule,
        skip: Tensor | None,
    ) -> None:
        """Take one step.

        Args:
            gradients: Of `parameters`, in their memory order.
            states: Theirs, step counts on their device, `rho` among them where the rule is of velocity.
            group: The hyperparameters.
            rule: What becomes of the step.
            skip: 0-dim bool tensor on the device; when it is true, nothing changes.
        """


class TorchBatch:
    """Parameters under one constant momentum: torch's fused AdamW, in place, at (1 - m) times the learning rate.

    That is what `interpolate` amounts to, weight decay included; at m = 0 bit for bit.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.parameters = list(parameters)

    def step(
        self,
        gradients: Sequence[Tensor],
        states: Sequence[Mapping[str, Any]],
        group: Mapping[str, Any],
        rule: Rule,
        skip: Tensor | None,
    ) -> None:
        """Take one step."""
        alike = [g.to(p.dtype) for g, p in zip(gradients, self.parameters, strict=True)]
        move_fused(self.parameters, alike, states, group, group["lr"] * (1 - rule.low), skip)


def check_kernel(kernel: str | None) -> None:
    """Whether a kernel can be used here.

    Raises:
        UserError: No such kernel, or what it needs is not there.
    """
    if kernel is not None and kernel not in get_args(Kernel):
        raise UserError(unknown("kernel of TunedAdamW", kernel, get_args(Kernel)))
    if kernel == "native" and load_library() is None:
        raise UserError("the kernel 'native' needs a C compiler (cc, gcc, clang, $CC), and none worked. Leave the kernel out.")
    if kernel == "triton":
        if find_spec("triton") is None:
            raise UserError("the kernel 'triton' needs the package triton: pip install triton. Or leave the kernel out.")
        from mstrack.tuning.launches import is_usable

        if not is_usable():
            raise UserError("the kernel 'triton' needs a GPU, a C compiler and Python's headers. Leave the kernel out.")


def choose_batch(parameter: Tensor, rule: Rule | None, kernel: str | None) -> Callable[[Sequence[Tensor]], Batch] | None:
    """The kind of batch that a parameter belongs to; none: in a chunk.

    Args:
        parameter: To be trained.
        rule: Of the tuning method, if it has one.
        kernel: The kernel that was asked for; none: the one that suits the device, where it can be used.
    """
    if rule is None or not is_dense(parameter):
        return None
    if rule.low == rule.high and not rule.velocity:
        return TorchBatch
    if parameter.device.type == "cpu" and kernel != "triton":
        fits = kernel != "torch" and parameter.dtype is torch.float32 and load_library() is not None
        return NativeBatch if fits else None
    if kernel in (None, "triton") and find_spec("triton") is not None:
        from mstrack.tuning.launches import TritonBatch, runs_on

        return TritonBatch if runs_on(parameter) else None
    return None
