"""What a network does on data it is not trained on: loss on pairs, success rate on short tracked clips."""

import torch

from mstrack.assembly import Footage, batch_losses, pair_dataset, set_mode, split
from mstrack.config import Config
from mstrack.data.sampling import load_batches
from mstrack.distributed import Place, mean_over_ranks
from mstrack.lockstep import follow
from mstrack.metrics import ope
from mstrack.models.network import Network

SEED = 1_000_003


@torch.no_grad()
def validate(network: Network, config: Config, footage: list[Footage], place: Place) -> dict[str, float]:
    """Loss on held-out pairs, and the success rate (percent) of short tracked clips where the recipe asks for them."""
    settings = config.train
    scores: dict[str, float] = {}
    if not footage:
        return scores
    network.eval()
    if settings.val_samples:
        pairs = pair_dataset(config, network, footage, SEED, training=False)
        own = [i for i in range(settings.val_samples) if i % place.world == place.rank]
        size = max(1, settings.batch // place.world)
        loader = load_batches(pairs, 0, split(own, size), config.run.workers)
        sums = torch.zeros(2, device=place.device, dtype=torch.float64)
        for batch in loader:
            loss = batch_losses(network, batch, config, place.device)["total"].double()
            sums += torch.stack([loss, torch.ones_like(loss)]) * len(batch.names)
        loss_sum, count = mean_over_ranks(sums).tolist()
        scores["loss"] = loss_sum / max(count, 1e-9)
    if settings.val_clips:
        clips = [s.cut(0, min(settings.val_frames, len(s))) for _, sequences in footage for s in sequences]
        clips = clips[: settings.val_clips]
        own_clips = clips[place.rank :: place.world]
        tracked = follow(network, own_clips, missing=config.data.missing)  # in an order of its own; names may be shared
        each = [ope.score(track.boxes, None, clip.boxes, clip.valid) for clip, track in tracked]
        success = torch.tensor([sum(s.success.mean() for s in each), len(each)], device=place.device, dtype=torch.float64)
        total, count = mean_over_ranks(success).tolist()
        scores["SR"] = 100 * total / count
    set_mode(network)
    return scores
