"""Training pairs: which frames, cropped and varied, batched. A sample is a function of (seed, epoch, index) alone."""

from collections import OrderedDict
from collections.abc import Iterator
from collections.abc import Sequence as List
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from mstrack.data import augment
from mstrack.data.augment import Augmentation
from mstrack.data.crops import crop, jitter, to_crop
from mstrack.data.sequence import Frame, Sequence
from mstrack.errors import UserError

ATTEMPTS = 100


@dataclass(frozen=True)
class Pairing:
    """How template and search frames are found and cropped. The defaults are the published ones for 256-pixel models.

    Attributes:
        template_size, search_size: Sides of the crops in pixels.
        template_factor, search_factor: Sides of the crops in target sizes.
        template_jitter, search_jitter: (centre, scale) of the random displacement of the box a crop is taken around.
        max_gap: Largest distance of the two frames.
        min_frames: Shorter sequences are left out.
        modalities: 1 (RGB) or 2 (RGB and the second modality).
    """

    template_size: int = 128
    search_size: int = 256
    template_factor: float = 2.0
    search_factor: float = 4.0
    template_jitter: tuple[float, float] = (0.0, 0.0)
    search_jitter: tuple[float, float] = (3.0, 0.25)
    max_gap: int = 200
    min_frames: int = 20
    modalities: int = 2


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
    """(B, M) float32, 0 where the modality is dropped."""
    names: tuple[str, ...]
    """Sequence of each pair."""
    error: str | None = None
    """Why there is no batch: raised in the main process, where it can be shown as it is."""


class PairDataset(Dataset[Batch]):
    """Batches of training pairs; `dataset[(epoch, [indices])]` is a `Batch`.

    Sources are drawn by weight, their sequences uniformly. Frames are drawn in causal order as the published sampler does:
    a visible template frame, then a visible search frame at most `max_gap` later; when none is found both are drawn again
    and the gap grows by 5.

    Args:
        sources: (sequences, weight) for each source.
        pairing: Frames and crops.
        augmentation: Variation.
        seed: Of all draws.
        cache_bytes: Decoded frames that are kept by each process.

    Raises:
        UserError: A source has no usable sequence, or a sequence lacks a modality.
    """

    def __init__(
        self,
        sources: List[tuple[List[Sequence], float]],
        pairing: Pairing,
        augmentation: Augmentation,
        seed: int = 0,
        cache_bytes: float = 0,
    ) -> None:
        self.pairing, self.augmentation, self.seed = pairing, augmentation, seed
        self.sources = [[s for s in sequences if _usable(s, pairing)] for sequences, _ in sources]
        for (given, _), usable in zip(sources, self.sources, strict=True):
            if not usable:
                raise UserError(
                    f"none of {len(given)} sequence(s) can be trained on: each needs {pairing.min_frames} frames"
                    " (data.min_frames) and more than 4 with a visible target."
                )
        lacking = next((s for group in self.sources for s in group if pairing.modalities == 2 and s.aux is None), None)
        if lacking is not None:
            raise UserError(f"sequence '{lacking.name}' has no second modality, and the model needs one: set data.modality.")
        self._shares = np.cumsum([weight for _, weight in sources]) / sum(weight for _, weight in sources)
        self._frames = _FrameCache(cache_bytes)

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
        """One pair as numpy arrays in the order of `Batch`'s fields."""
        rng = np.random.default_rng((self.seed, epoch, index))
        for _ in range(ATTEMPTS):
            sequence = self._draw_sequence(rng)
            frames = _draw_frames(rng, np.flatnonzero(sequence.valid), self.pairing.max_gap)
            pair = self._cut(rng, sequence, *frames)
            if pair is not None:
                return pair
        raise UserError(f"no usable crop in {ATTEMPTS} tries, the last in sequence '{sequence.name}': its boxes are too small.")

    def _draw_sequence(self, rng: np.random.Generator) -> Sequence:
        group = self.sources[int(np.searchsorted(self._shares, rng.random(), side="right"))]
        return group[int(rng.integers(len(group)))]

    def _cut(self, rng: np.random.Generator, sequence: Sequence, template: int, search: int) -> tuple[Any, ...] | None:
        """Both crops of a pair, or None where a box is too small to be cut."""
        p = self.pairing
        variation = augment.draw(rng, self.augmentation, p.modalities)
        plan = (
            (template, p.template_jitter, p.template_factor, p.template_size, variation.mirrored[0]),
            (search, p.search_jitter, p.search_factor, p.search_size, variation.mirrored[1]),
        )
        crops, box = [], np.zeros(4)
        for index, (centre, scale), factor, size, mirrored in plan:
            target = sequence.boxes[index]
            around = jitter(target, scale, centre, rng.standard_normal(2), rng.random(2))
            if np.ceil(np.sqrt(around[2] * around[3]) * factor) < 1:
                return None
            patch = crop(self._frames.read(sequence, index, p.modalities), around, factor, size)
            box = to_crop(target, around, patch.scale, size)
            image = patch.image[:, ::-1] if mirrored else patch.image
            box = augment.mirror_box(box, size) if mirrored else box
            image = np.ascontiguousarray(image)
            if variation.grayscale:
                image[..., :3] = augment.to_grey(np.ascontiguousarray(image[..., :3]))
            crops.append(image.transpose(2, 0, 1).reshape(p.modalities, 3, size, size))
        return *crops, box.astype(np.float32), variation.photometry, variation.keep, sequence.name


class _FrameCache:
    """The most recently read frames, as H x W x 3M arrays, up to a number of bytes."""

    def __init__(self, capacity: float) -> None:
        self.capacity, self.size = capacity, 0
        self.frames: OrderedDict[tuple[str, int], NDArray[np.uint8]] = OrderedDict()

    def read(self, sequence: Sequence, index: int, modalities: int) -> NDArray[np.uint8]:
        key = (str(sequence.rgb[index]), index)
        if key in self.frames:
            self.frames.move_to_end(key)
            return self.frames[key]
        image = join(sequence.frame(index), modalities, f"sequence '{sequence.name}', frame {index}")
        if image.nbytes <= self.capacity:
            self.frames[key] = image
            self.size += image.nbytes
            while self.size > self.capacity:
                self.size -= self.frames.popitem(last=False)[1].nbytes
        return image


def join(frame: Frame, modalities: int, where: str) -> NDArray[np.uint8]:
    """The modalities of a frame side by side: H x W x 3M, RGB first."""
    if modalities == 1 or frame.aux is None:
        return frame.rgb
    if frame.aux.shape != frame.rgb.shape:
        raise UserError(f"{where}: the modalities differ in size, {frame.rgb.shape[:2]} and {frame.aux.shape[:2]} (H, W).")
    return np.concatenate([frame.rgb, frame.aux], axis=2)


def _usable(sequence: Sequence, pairing: Pairing) -> bool:
    """The published rule: enough frames, and more than twice the drawn ones visible."""
    return len(sequence) >= pairing.min_frames and int(sequence.valid.sum()) > 4


def _draw_frames(rng: np.random.Generator, visible: NDArray[np.int64], max_gap: int) -> tuple[int, int]:
    """A template frame and a later search frame among the visible ones (at least two)."""
    gap = max_gap
    while True:
        template = int(visible[rng.integers(len(visible) - 1)])
        later = visible[(visible > template) & (visible < template + gap)]
        if len(later):
            return template, int(later[rng.integers(len(later))])
        gap += 5


def vary(images: torch.Tensor, photometry: torch.Tensor) -> torch.Tensor:
    """Contrast about mid-grey, then a factor, clamped: (B, M, 3, H, W) uint8 -> float32 in [0, 255].

    Args:
        images: (B, M, 3, H, W) uint8.
        photometry: (B, M, 2) contrast and factor.
    """
    contrast, factor = (photometry[..., i, None, None, None] for i in range(2))
    middle = 127.5
    return ((images.float() - middle) * contrast + middle).mul_(factor).clamp_(0, 255)


def load_batches(
    dataset: PairDataset, epoch: int, batches: List[List[int]], workers: int, pin: bool = False
) -> Iterator[Batch]:
    """Batches of an epoch in order, read ahead by `workers` processes.

    Raises:
        UserError: What a worker could not read, by name.
    """
    keys: Any = [(epoch, indices) for indices in batches]
    options: dict[str, Any] = {"prefetch_factor": 4, "worker_init_fn": _calm} if workers and keys else {}
    loader = DataLoader(
        dataset,
        batch_size=None,
        sampler=keys,
        num_workers=workers if keys else 0,
        pin_memory=pin,
        generator=torch.Generator(),  # its own, so that making the iterator draws nothing from the training's generator
        **options,
    )
    for batch in loader:
        if batch.error:
            raise UserError(batch.error)
        yield batch


def _calm(_: int) -> None:
    """A loading process uses one thread: the cores belong to the model."""
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)


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
