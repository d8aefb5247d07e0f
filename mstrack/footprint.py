"""What a step of training keeps in the memory of a machine, and whether that has it: a CPU's system kills without a word."""

import os
from contextlib import nullcontext
from itertools import chain

import torch
from torch import Tensor

from mstrack.config import Config
from mstrack.errors import UserError
from mstrack.machine import installed_memory
from mstrack.models.network import Network

PER_PARAMETER = 16
"""Bytes of a parameter that trains: itself, its gradient and two moments, in float32."""


def kept_bytes(network: Network, pairs: int = 1, precision: str = "fp32") -> int:
    """Bytes that the backward pass finds in memory, weights aside, as a forward pass leaves them.

    Where `run.checkpointing` holds that is what lies outside of the blocks.

    Args:
        network: As it trains; statistics of batch norms and random numbers are afterwards what they were.
        pairs: Of crops.
        precision: `fp32` or `bf16`, which keeps copies of the weights too.
    """
    owned = {tensor.untyped_storage().data_ptr() for tensor in chain(network.parameters(), network.buffers())}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    device = network.position_search.device
    crops = [torch.zeros(part.shape, device=device) for part in network.inputs(pairs)]
    statistics = [(buffer, buffer.clone()) for buffer in network.buffers()]
    half = torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
    with torch.random.fork_rng(devices=[]), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), half:
        network(*crops)
    for buffer, before in statistics:
        buffer.copy_(before)
    return sum(tensor.untyped_storage().nbytes() for pointer, tensor in kept.items() if pointer not in owned)


def refuse_what_does_not_fit(network: Network, config: Config, share: int) -> None:
    """Stop a training on a CPU that would be killed in its first step.

    Args:
        network: With what trains in it.
        config: Its settings.
        share: Pairs that a process computes at once.

    Raises:
        UserError: All processes of this machine together need more than it has.
    """
    installed = installed_memory()
    if installed is None or network.position_search.device.type != "cpu":
        return
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    one = kept_bytes(network, 1, config.train.precision)
    fixed = PER_PARAMETER * sum(p.numel() for p in network.parameters() if p.requires_grad)
    if processes * (fixed + share * one) <= installed:
        return
    further = kept_bytes(network, 2, config.train.precision) - one
    fixed, one = fixed + one - further, further
    if processes * (fixed + share * one) <= installed:
        return
    fitting = max(0, int((0.8 * installed / processes - fixed) / one))
    needed, has = (fixed + share * one) / 1e9, installed / 1e9
    raise UserError(
        f"train.batch = {config.train.batch}: {share} pairs at once need {needed:.0f} GB of memory"
        f"{f' in each of {processes} processes' if processes > 1 else ''}, and this machine has {has:.0f}."
        f" {f'About {fitting} fit' if fitting else 'Not even one fits'}: train.accumulate=N computes the batch in N parts, with"
        " the same result; run.checkpointing=true and a smaller train.batch take less."
    )
