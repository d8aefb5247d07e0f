"""The sensitivities of a network's parameters on data: for the paper's Fig. 6, and for the methods that want them first."""

from collections.abc import Mapping

import torch
from torch import Tensor

from mstrack.assembly import Footage, batch_losses, pair_dataset, read_sources, split
from mstrack.config import Config
from mstrack.data.sampling import load_batches
from mstrack.distributed import Place, mean_over_ranks
from mstrack.errors import UserError
from mstrack.models.network import Network

SEED = 1_000_033


def measure_sensitivity(network: Network, config: Config, patterns: tuple[str, ...], batches: int = 8) -> dict[str, Tensor]:
    """Mean squared gradient of some parameters over batches of training pairs (Sec. 3.2: s = beta G * G, with beta = 1).

    Args:
        network: The network, where it is to compute; it is left in eval mode, and nothing but what is wanted needs gradients.
        config: Says which data and losses, and by `train.batch` and `train.accumulate` how many pairs are computed at once.
        patterns: Ends of the names of the parameters that are wanted.
        batches: How many batches the gradient is squared over.

    Returns:
        By name, a tensor of the parameter's shape.
    """
    network.requires_grad_(False)
    chosen = {name: p.requires_grad_() for name, p in network.named_parameters() if name.endswith(patterns)}
    footage = read_sources(config.data.train, config)
    place = Place(0, 1, next(network.parameters()).device)
    size = config.train.batch // config.train.accumulate
    sums, count = _add_squares(network, config, footage, chosen, batches, size, SEED, place)
    return {name: total / count for name, total in sums.items()}


def measure_trained(
    network: Network,
    config: Config,
    footage: list[Footage],
    chosen: Mapping[str, Tensor],
    batches: int,
    size: int,
    place: Place,
) -> dict[str, Tensor]:
    """Mean squared gradient of the parameters that train, for a tuning method; each process computes a share of it.

    Args:
        network: The network as it was loaded; it is left in eval mode and without gradients.
        config: Says which losses; its seed decides which pairs.
        footage: The training data. Pairs are drawn from it as in training, without augmentation.
        chosen: The parameters, by name.
        batches: How many batches of `train.batch` pairs are looked at.
        size: Pairs that are computed at once; their mean gradient is what is squared.
        place: This process.

    Returns:
        By name, a tensor of the parameter's shape, the same on all processes.

    Raises:
        UserError: The gradients are not finite.
    """
    sums, count = _add_squares(network, config, footage, chosen, batches, size, SEED + config.train.seed, place)
    means = {name: mean_over_ranks(total) * (place.world / count) for name, total in sums.items()}
    broken = [name for name, mean in means.items() if not bool(torch.isfinite(mean).all())]
    if broken:
        raise UserError(
            f"the gradients of {len(broken)} parameters are not finite before training: {', '.join(broken[:3])}."
            " Look at model.weights and train.losses."
        )
    return means


def _add_squares(
    network: Network,
    config: Config,
    footage: list[Footage],
    chosen: Mapping[str, Tensor],
    batches: int,
    size: int,
    seed: int,
    place: Place,
) -> tuple[dict[str, Tensor], int]:
    """Sum of the squared gradients over this process's parts, and the number of parts of all processes."""
    network.eval()
    pairs = pair_dataset(config, network, footage, seed, training=False)
    parts = split(list(range(batches * config.train.batch)), size)
    sums = {name: torch.zeros_like(p) for name, p in chosen.items()}
    for batch in load_batches(pairs, 0, parts[place.rank :: place.world], config.run.workers):
        loss = batch_losses(network, batch, config, place.device)["total"]
        gradients = torch.autograd.grad(loss, list(chosen.values()), allow_unused=True, materialize_grads=True)
        for total, gradient in zip(sums.values(), gradients, strict=True):
            total += gradient.square()
    return sums, len(parts)
