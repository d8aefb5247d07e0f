"""Training pairs: which frames, cropped and varied, batched. A sample is a function of (seed, epoch, index) alone."""

import os
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as List
from multiprocessing import queues
from pathlib import Path
from typing import Any, NamedTuple, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from mstrack.data import augment
from mstrack.data.augment import Augmentation, Variation
from mstrack.data.cropcache import CropCache
from mstrack.data.crops import crop_mask, jitter, to_crop
from mstrack.data.cutting import Cut, Cutout, Cutter, LackingError
from mstrack.data.pairs import ATTEMPTS, STRIDE, Candidate, Group, Pairing, candidates, draw_frames
from mstrack.data.sequence import Sequence
from mstrack.errors import UserError, warn


class Batch(NamedTuple):
    """B pairs, in the order of their indices."""

    template: torch.Tensor
    """(B, M, 3, h, w) uint8."""
    search: torch.Tensor
    """(B, M, 3, H, W) uint8."""
    boxes: torch.Tensor
    """(B, 4) float32 x, y, w, h of the target in the search crop, in units of its side; may reach outside [0, 1]."""
    photometry: torch.Tensor
    """(B, 2, M, 2) float32, see `augment.Variation`."""
    keep: torch.Tensor
    """(B, 2, M) float32 for template and search, 0 where the modality is dropped or missing: its crop holds zeros."""
    names: tuple[str, ...]
    """Sequence of each pair."""
    error: str | None = None
    """Why there is no batch: raised in the main process, where it can be shown as it is."""


class PairDataset(Dataset[Batch]):
    """Batches of training pairs; `dataset[(epoch, [indices])]` is a `Batch`.

    Sources are drawn by weight, their sequences uniformly, frames by `pairs.draw_frames`. Under the policy `error`, a pair
    whose second modality is wanted and missing is drawn again, with a warning for each sequence. What cannot be drawn in a
    bounded number of tries is an error that names the sequence.

    Args:
        sources: A `Group`, or its fields as a tuple, for each source.
        pairing: Frames and crops.
        augmentation: Variation.
        seed: Of all draws.
        cache_bytes: Decoded frames that are kept by each process; 0: none, beyond the one that is read.
        crops: The folder of a crop cache (`cropbuild.build`), or None.
        scaled: Decode JPEG files at a fraction of their size where the crops shrink as much anyway, and no frames are kept.

    Raises:
        UserError: A source has no usable sequence, or a sequence lacks a modality.
    """

    def __init__(
        self,
        sources: List[Group | tuple[Any, ...]],
        pairing: Pairing,
        augmentation: Augmentation,
        seed: int = 0,
        cache_bytes: float = 0,
        crops: Path | None = None,
        scaled: bool = False,
    ) -> None:
        self.pairing, self.augmentation, self.seed = pairing, augmentation, seed
        groups = [Group(*source) for source in sources]
        self.sources = [candidates(group, pairing) for group in groups]
        self._shares = np.cumsum([group.weight for group in groups]) / sum(group.weight for group in groups)
        self._lacking: set[str] = set()
        self._cutter = Cutter(pairing.missing, cache_bytes, scaled, CropCache(crops) if crops is not None else None)

    def __getitem__(self, key: tuple[int, List[int]]) -> Batch:
        epoch, indices = key
        try:
            samples = [self.sample(epoch, index) for index in indices]
        except UserError as error:
            empty = torch.empty(0)
            return Batch(empty, empty, empty, empty, empty, (), str(error))
        columns = list(zip(*samples, strict=True))
        template, search, boxes, photometry, keep = (torch.from_numpy(np.stack(column)) for column in columns[:5])
        return Batch(template, search, boxes, photometry, keep, names=columns[5])

    def sample(self, epoch: int, index: int) -> tuple[Any, ...]:
        """One pair as numpy arrays in the order of `Batch`'s fields.

        Raises:
            UserError: A file cannot be read, or nothing usable was drawn in `ATTEMPTS` tries.
        """
        rng = np.random.default_rng((self.seed, epoch, index))
        for _ in range(ATTEMPTS):
            candidate = self._draw_sequence(rng)
            frames = draw_frames(rng, candidate, self.pairing.max_gap)
            pair = self._cut(rng, candidate, frames)
            if not isinstance(pair, str):
                return pair
        raise UserError(f"no usable pair in {ATTEMPTS} tries, the last in sequence '{candidate.sequence.name}': {pair}.")

    def _draw_sequence(self, rng: np.random.Generator) -> Candidate:
        group = self.sources[int(np.searchsorted(self._shares, rng.random(), side="right"))]
        return group[int(rng.integers(len(group)))]

    def _cut(self, rng: np.random.Generator, candidate: Candidate, frames: tuple[int, int]) -> tuple[Any, ...] | str:
        """Both crops of a pair, or why there are none."""
        p, sequence = self.pairing, candidate.sequence
        variation = augment.draw(rng, self.augmentation, p.modalities)
        cuts = []
        for frame, (centre, scale), factor, size in (
            (frames[0], p.template_jitter, p.template_factor, p.template_size),
            (frames[1], p.search_jitter, p.search_factor, p.search_size),
        ):
            around = jitter(sequence.boxes[frame], scale, centre, rng.standard_normal(2), rng.random(2))
            if np.ceil(np.sqrt(around[2] * around[3]) * factor) < 1:
                return f"the box of frame {frame} is too small"
            cuts.append(Cut(around, factor, size))
        if variation.grayscale and self.augmentation.grayscale_redraw:
            return "grey was drawn every time (data.grayscale_redraw)"
        wanted = (variation.keep > 0).tolist()
        try:
            if frames[0] == frames[1]:
                found = self._cutter.cut(sequence, frames[0], cuts, wanted)
            else:
                found = [self._cutter.cut(sequence, *one, wanted)[0] for one in ((frames[0], cuts[:1]), (frames[1], cuts[1:]))]
        except LackingError as error:
            self._warn(sequence, error.reason)
            return f"{error.reason} (data.missing=zero, copy or last goes on without)"
        if p.reject_padding:
            for cut, cutout in zip(cuts, found, strict=True):
                if crop_mask(cutout.frame, *cut)[::STRIDE, ::STRIDE].all():
                    return "a crop is all padding (data.reject_padding)"
        crops, keep = zip(*(_finish(cutout, variation, side) for side, cutout in enumerate(found)), strict=True)
        box = to_crop(sequence.boxes[frames[1]], cuts[1].around, found[1].scale, p.search_size)
        box = augment.mirror_box(box, p.search_size, variation.flips, self.augmentation.published_flip)
        return *crops, box.astype(np.float32), variation.photometry, np.stack(keep), sequence.name

    def _warn(self, sequence: Sequence, reason: str) -> None:
        """Say once that not all frames of a sequence are drawn."""
        if sequence.name not in self._lacking:
            self._lacking.add(sequence.name)
            warn(sequence.name, "missing", f"{reason}: this frame, and others like it, are not drawn (data.missing=error).")


def _finish(cutout: Cutout, variation: Variation, side: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A crop as the network's (M, 3, size, size), varied, and which of its modalities are there: (M,)."""
    size = next(image.shape[0] for image in cutout.images if image is not None)
    crop = np.zeros((len(cutout.images), 3, size, size), dtype=np.uint8)
    keep = np.zeros(len(cutout.images), dtype=np.float32)
    for modality, image in enumerate(cutout.images):
        if image is not None:
            image = augment.to_grey(image) if variation.grayscale and modality == 0 else image
            image = np.asarray(cv2.flip(image, 1)) if variation.mirrored[side] else image
            for plane, channel in zip(crop[modality], cv2.split(image), strict=True):
                plane[:] = channel
            keep[modality] = 1
    return crop, keep


def vary(images: torch.Tensor, photometry: torch.Tensor) -> torch.Tensor:
    """Contrast about mid-grey, then a factor, clamped: (B, M, 3, H, W) uint8 -> float32 in [0, 255].

    Args:
        images: (B, M, 3, H, W) uint8.
        photometry: (B, M, 2) contrast and factor.
    """
    contrast, factor = (photometry[..., i, None, None, None] for i in range(2))
    middle = 127.5
    return ((images.float() - middle) * contrast + middle).mul_(factor).clamp_(0, 255)


def load_batches(dataset: PairDataset, epoch: int, batches: List[List[int]], workers: int) -> Iterator[Batch]:
    """Batches of one epoch, as `load_keys`."""
    return load_keys(dataset, [(epoch, indices) for indices in batches], workers if batches else 0)


def load_keys(dataset: PairDataset, keys: Iterable[tuple[int, List[int]]], workers: int, pin: bool = False) -> Iterator[Batch]:
    """Batches in order, read ahead by `workers` processes, which live as long as there are any.

    Args:
        dataset: What is read.
        keys: Epoch and indices of each batch.
        workers: How many; 0: this process reads, a batch when it is asked for.
        pin: Put them into memory that a GPU can copy from beside its work.

    Raises:
        UserError: What a worker could not read, by name.
    """
    options: dict[str, Any] = {"prefetch_factor": 4, "worker_init_fn": _calm} if workers else {}
    loader = DataLoader(
        dataset,
        batch_size=None,
        sampler=cast(Any, keys),
        num_workers=workers,
        pin_memory=pin,
        generator=torch.Generator(),  # its own, so that making the iterator draws nothing from the training's generator
        **options,
    )
    for batch in loader:
        if batch.error:
            raise UserError(batch.error)
        yield batch


def _calm(_: int) -> None:
    """A loading process uses one thread: the cores belong to the model.

    It also leaves the group of processes that torchrun, or a terminal, sends a signal to: only the one that loads for may say
    when it ends, or that one would lose its data before it has saved where it stands.
    """
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    setattr(queues.Queue, "_on_queue_feeder_error", staticmethod(_give_up))  # noqa: B010 - the hook has no public name
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _give_up(error: Exception, _: object) -> None:
    """End a loading process that cannot hand a batch over, for lack of shared memory: it would be waited for for ever."""
    os.write(2, f"a loading process cannot hand over what it has read: {error}\n".encode())
    os._exit(1)


def batches_of(samples: int, batch: int, rank: int = 0, world: int = 1, skip: int = 0) -> list[list[int]]:
    """The indices that one rank reads in each step of an epoch: its share of every global batch, in order.

    Args:
        samples: Pairs in an epoch; a last incomplete batch is left out.
        batch: Global batch size, a multiple of `world`.
        rank: Which share.
        world: Number of shares.
        skip: Steps that have been done already.
    """
    share = batch // world
    starts = range(skip * batch, samples - batch + 1, batch)
    return [list(range(start + rank * share, start + (rank + 1) * share)) for start in starts]
