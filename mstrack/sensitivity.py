"""The sensitivities of a network's parameters on data, for the paper's Fig. 6."""

import torch

from mstrack.assembly import batch_losses, pair_dataset, read_sources, split
from mstrack.config import Config
from mstrack.data.sampling import load_batches
from mstrack.models.network import Network

SEED = 1_000_033


def measure_sensitivity(
    network: Network, config: Config, patterns: tuple[str, ...], batches: int = 8
) -> dict[str, torch.Tensor]:
    """Mean squared gradient of some parameters over batches of training pairs (Sec. 3.2: s = beta G * G, with beta = 1).

    Args:
        network: The network, on the CPU; it is left in eval mode and without gradients.
        config: Says which data and which losses.
        patterns: Ends of the names of the parameters that are wanted.
        batches: How many batches the gradient is squared over.

    Returns:
        By name, a tensor of the parameter's shape.
    """
    network.eval()
    chosen = {name: p.requires_grad_() for name, p in network.named_parameters() if name.endswith(patterns)}
    pairs = pair_dataset(config, network, read_sources(config.data.train, config), SEED, training=False)
    plan = split(list(range(batches * config.train.batch)), config.train.batch)
    sums = {name: torch.zeros_like(p) for name, p in chosen.items()}
    for batch in load_batches(pairs, 0, plan, workers=0):
        loss = batch_losses(network, batch, config, next(network.parameters()).device)["total"]
        for name, gradient in zip(chosen, torch.autograd.grad(loss, list(chosen.values())), strict=True):
            sums[name] += gradient.square()
    return {name: total / batches for name, total in sums.items()}
