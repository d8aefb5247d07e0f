"""From a configuration to the parts of a run: network, optimizer, training pairs, losses."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable
from collections.abc import Sequence as List
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mstrack import checkpoint
from mstrack.config import Config, Source
from mstrack.data import Sequence, load_sequences
from mstrack.data.augment import NONE, Augmentation
from mstrack.data.cropbuild import Built, build
from mstrack.data.pairs import Group, Pairing
from mstrack.data.sampling import Batch, PairDataset, vary
from mstrack.data.splits import describe_list
from mstrack.data.stills import Stills
from mstrack.errors import UserError, warn
from mstrack.losses import tracking_losses
from mstrack.models import create_model
from mstrack.models.blocks import Block, Prediction, normalise, transform_tokens
from mstrack.models.network import Network
from mstrack.provenance import warn_of_modality
from mstrack.registry import resolve
from mstrack.tuning import TunedAdamW
from mstrack.tuning.patterns import useless_patterns


def build_model(config: Config) -> Network:
    """The network with its weights loaded, on the CPU; a warning says where they are of another second modality."""
    network = create_model(config.model.name, **config.model.arguments)
    if config.model.weights is not None:
        made = checkpoint.load_into(network, config.model.weights)
        warn_of_modality(made, config.data.modality, str(config.model.weights))
        network.provenance = {"started_from": checkpoint.describe_file(config.model.weights, made)}
    return network


def build_optimizer(network: Network, config: Config) -> TunedAdamW:
    """AdamW under the configured tuning method; frozen parameters get `requires_grad` off."""
    try:
        tuning = resolve("tunings", config.tuning.name)(**config.tuning.arguments)
        optimizer = TunedAdamW(
            network.named_parameters(),
            tuning,
            lr=config.train.lr,
            weight_decay=config.train.weight_decay,
            betas=config.train.betas,
            patterns=None if config.tuning.parameters is None else list(config.tuning.parameters.items()),
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"tuning '{config.tuning.name}': {error}") from error
    absent = [name for name, value in vars(network).items() if value is None]  # that another variant of the network has
    names = [*(name for name, _ in network.named_parameters()), *absent]
    for pattern in useless_patterns(names, config.tuning.parameters or {}):
        warn(
            "tuning.parameters",
            "pattern",
            f"'{pattern}' decides on no parameter of {network.name}; the first that matches counts.",
        )
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]  # what the loop multiplies
    return optimizer


class Footage(NamedTuple):
    """A source of a configuration, and its sequences."""

    source: Source
    sequences: List[Sequence]


def read_sources(sources: Iterable[Source], config: Config) -> list[Footage]:
    """The sequences of sources of a configuration."""
    data, run = config.data, config.run
    return [
        Footage(s, load_sequences(s.name, s.split, s.root, data.modality, s.arguments, data.encoding, run.data_root))
        for s in sources
    ]


def describe_lists(footage: Iterable[Footage]) -> list[dict[str, Any]]:
    """Which lists of sequences were used, see `splits.describe_list`."""
    return [describe_list(source.name, source.split, sequences) for source, sequences in footage]


def warn_of_overlap(train: List[Footage], val: List[Footage]) -> None:
    """Warn of sequences that are both trained and validated on: what validation then says is worth nothing."""
    for source, sequences in val:
        same = [f.sequences for f in train if (f.source.name, f.source.root) == (source.name, source.root)]
        trained = {str(sequence.rgb[0]) for part in same for sequence in part}
        both = [sequence.name for sequence in sequences if str(sequence.rgb[0]) in trained] if trained else []
        if both:
            text = f"{len(both)} of {len(sequences)} validation sequences are also trained on: {', '.join(both[:3])}"
            warn(f"{source.name}/{source.split}", "overlap", text)


def build_pairing(config: Config, network: Network) -> Pairing:
    """How pairs are found and cropped: the network's sizes, the configuration's rules."""
    data = config.data
    return Pairing(
        template_size=network.template_size,
        search_size=network.search_size,
        template_factor=network.template_factor,
        search_factor=network.search_factor,
        template_jitter=(data.template_jitter.centre, data.template_jitter.scale),
        search_jitter=(data.search_jitter.centre, data.search_jitter.scale),
        max_gap=data.max_gap,
        min_frames=data.min_frames,
        modalities=network.modalities,
        missing=data.missing,
        reject_padding=data.reject_padding,
    )


def cache_crops(
    config: Config,
    folder: Path,
    max_bytes: float,
    workers: int | None = None,
    verify: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
) -> Built:
    """Keep the annotated regions of a configuration's training and validation data in a folder, see `cropbuild.build`.

    Stills (COCO) are left out, and read from the dataset: each is drawn a few times in a whole training.
    """
    with torch.device("meta"):
        network = create_model(config.model.name, **config.model.arguments)
    footage = read_sources([*config.data.train, *config.data.val], config)
    sequences = [sequence for _, part in footage if not isinstance(part, Stills) for sequence in part]
    report = None if progress is None else lambda done, total: progress(done, total, "")
    scaled = config.data.scaled_decode
    return build(sequences, build_pairing(config, network), folder, max_bytes, workers, report, verify=verify, scaled=scaled)


def pair_dataset(config: Config, network: Network, footage: Iterable[Footage], seed: int, training: bool) -> PairDataset:
    """Training pairs of some sources, in the network's sizes; without variation when not `training`.

    A network that reads a single modality never loses it to modality dropout.
    """
    data, pairing = config.data, build_pairing(config, network)
    chosen = {field.name: getattr(data, field.name) for field in dataclasses.fields(Augmentation)}
    if len(network.reads) == 1:
        chosen["modality_dropout"] = 0.0
    groups = [Group(sequences, source.weight, source.min_size) for source, sequences in footage]
    variation = Augmentation(**chosen) if training else NONE
    return PairDataset(groups, pairing, variation, seed, data.cache * 1e9, data.crops, data.scaled_decode)


def set_mode(network: nn.Module) -> None:
    """Training mode; batch norms whose weights are frozen keep their statistics too."""
    network.train()
    for module in batch_norms(network):
        module.train(learns(module))


def batch_norms(network: nn.Module) -> list[nn.Module]:
    """The batch norms of a network."""
    return [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def learns(module: nn.Module) -> bool:
    """Whether a module has a parameter that trains."""
    return any(parameter.requires_grad for parameter in module.parameters())


def prepare_blocks(network: Network, config: Config, backend: str | Callable[..., Any] = "inductor") -> None:
    """Let the transformer blocks be computed again in the backward pass, and compiled, where the configuration says so.

    One compiled form serves all blocks: they differ in their weights and in the shapes of a few layers, not in their code.

    Args:
        network: The network.
        config: `run.checkpointing` and `run.compile` count.
        backend: Of `torch.compile`.
    """
    if config.run.compile:
        torch._dynamo.config.optimize_ddp = False  # which would cut every block where a bucket of gradients ends
    compute = torch.compile(transform_tokens, backend=backend) if config.run.compile else transform_tokens
    for module in network.modules():
        if isinstance(module, Block):
            module.compute, module.checkpointed = compute, config.run.checkpointing


def batch_losses(model: nn.Module, batch: Batch, config: Config, device: torch.device) -> dict[str, torch.Tensor]:
    """Forward pass and loss terms of a batch: the network's own in training mode, those of its prediction in eval mode."""
    send = partial(torch.Tensor.to, device=device, non_blocking=True)
    keep = send(batch.keep)[..., None, None, None]
    photometry = send(batch.photometry)
    template = normalise(vary(send(batch.template), photometry[:, 0])) * keep[:, 0]
    search = normalise(vary(send(batch.search), photometry[:, 1])) * keep[:, 1]
    boxes = send(batch.boxes)
    half = config.train.precision == "bf16"
    weights = (config.train.losses.focal, config.train.losses.giou, config.train.losses.l1)

    def losses(prediction: Prediction) -> dict[str, torch.Tensor]:
        with torch.autocast(device.type, enabled=False) if half else contextlib.nullcontext():
            return tracking_losses(prediction, boxes, weights=weights, box_at=config.train.box_at)

    network = cast("Network", model.module if isinstance(model, DistributedDataParallel) else model)
    with torch.autocast(device.type, torch.bfloat16) if half else contextlib.nullcontext():
        if network.training:
            return network.training_loss(model, template, search, losses)
        return losses(model(template, search))


def split(indices: list[int], size: int) -> list[list[int]]:
    """Parts of at most `size`, in order."""
    return [indices[i : i + size] for i in range(0, len(indices), size)]
