"""AdamW by torch's own operations: in place, or only as far as where it alone would go."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mstrack.tuning.chunks import Chunk


def propose(chunk: Chunk, group: Mapping[str, Any]) -> None:
    """Update the moments and fill `chunk.proposal`, in the order of operations of torch's own foreach AdamW."""
    lr, (beta1, beta2) = float(group["lr"]), group["betas"]
    means = [state["exp_avg"] for state in chunk.states]
    squares = [state["exp_avg_sq"] for state in chunk.states]
    torch._foreach_add_([state["step"] for state in chunk.states], torch.ones(()))
    step = chunk.states[0]["step"].item()

    torch._foreach_lerp_(means, chunk.gradients, 1 - beta1)
    torch._foreach_mul_(squares, beta2)
    torch._foreach_addcmul_(squares, chunk.gradients, chunk.gradients, 1 - beta2)
    torch._foreach_copy_(chunk.spares, squares)
    chunk.spare.sqrt_().div_((1 - beta2**step) ** 0.5).add_(group["eps"])
    torch._foreach_copy_(chunk.proposals, chunk.parameters)
    if group["weight_decay"] != 0:
        chunk.proposal.mul_(1 - lr * group["weight_decay"])
    torch._foreach_addcdiv_(chunk.proposals, means, chunk.spares, -(lr / (1 - beta1**step)))


def propose_fused(chunk: Chunk, group: Mapping[str, Any]) -> None:
    """Update the moments and fill `chunk.proposal` by torch's fused kernel, which heeds the skip flag on the device."""
    torch._foreach_copy_(chunk.proposals, chunk.parameters)
    move_fused(chunk.proposals, chunk.gradients, chunk.states, group, group["lr"], chunk.skip)


def move_fused(
    parameters: list[Tensor],
    gradients: list[Tensor],
    states: Sequence[Mapping[str, Any]],
    group: Mapping[str, Any],
    lr: float,
    skip: Tensor | None,
) -> None:
    """One step of torch's fused AdamW, in place.

    Args:
        parameters: Dense, of one type and device.
        gradients: Theirs, alike.
        states: Theirs; step counts on the device.
        group: Hyperparameters besides the learning rate.
        lr: The learning rate; torch also takes a tensor on the device.
        skip: Nothing changes where it is true.
    """
    beta1, beta2 = group["betas"]
    steps = [state["step"] for state in states]
    bad = None if skip is None else skip.to(parameters[0].device, torch.float32)
    torch._foreach_add_(steps, 1)
    torch._fused_adamw_(
        parameters,
        gradients,
        [state["exp_avg"] for state in states],
        [state["exp_avg_sq"] for state in states],
        [],
        steps,
        lr=lr,
        beta1=beta1,
        beta2=beta2,
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        amsgrad=False,
        maximize=False,
        grad_scale=None,
        found_inf=bad,
    )
    if bad is not None:
        torch._foreach_sub_(steps, [bad] * len(steps))
