"""One network on several processes: gradients are means over all, statistics those of the first."""

from inspect import signature
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mstrack import distributed
from mstrack.assembly import batch_norms, learns
from mstrack.distributed import Place
from mstrack.models.network import Network


def join_processes(network: Network, place: Place, recorded: bool = False) -> nn.Module:
    """The network so wrapped that all processes get the mean of their gradients; with one process, or recorded, itself.

    Batch norms that learn have the statistics of the first process everywhere, at each step; others never change.
    """
    if place.world == 1 or recorded:
        return network
    known = signature(DistributedDataParallel).parameters
    synchronise = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # its older name
    changing: dict[str, Any] = {synchronise: any(learns(module) for module in batch_norms(network))}
    return DistributedDataParallel(network, find_unused_parameters=bool(network.idle), gradient_as_bucket_view=True, **changing)


def average_gradients(network: nn.Module) -> None:
    """What the wrapper does, for passes that were recorded without it."""
    distributed.average_over_ranks(p.grad for p in network.parameters() if p.grad is not None)
    share_statistics(network)


def share_statistics(network: nn.Module) -> None:
    """Give batch norms that learn the statistics of the first process; the wrapper does so before a pass, and not after it."""
    changing = (module for module in batch_norms(network) if learns(module))
    distributed.copy_from_first(buffer for module in changing for buffer in module.buffers())
