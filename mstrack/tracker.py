"""The online protocol: `init(frame, box)`, then `update(frame)`; crop, forward, windowed decoding, back to the image.

As the published trackers do it (OSTrack, ViPT, SDSTrack): the template is the first frame's and never updated, the search
crop is taken around the previous box, the score map is multiplied by a Hann window, the box is read at its peak and kept
inside the image with a margin of 10 pixels.
"""

import math
import time
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as List
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from mstrack.boxes import clip
from mstrack.data.crops import crop, from_crop
from mstrack.data.images import Image
from mstrack.data.sequence import Frame, Sequence, check_policy, fill
from mstrack.errors import UserError
from mstrack.models.blocks import normalise
from mstrack.registry import unknown
from mstrack.results import Track

PRECISIONS = ("fp32", "bf16")
READERS = 4


class Output(NamedTuple):
    """Where the target is in one frame."""

    box: NDArray[np.float64]
    """(4,) x, y, w, h in pixels."""
    score: float
    """Peak of the windowed score map, in [0, 1]."""


@dataclass
class Clock:
    """How long the network took: its forward pass and the reading of the box, without crops and files."""

    frames: int = 0
    seconds: float = 0.0

    @property
    def fps(self) -> float | None:
        """Frames per second."""
        return self.frames / self.seconds if self.seconds else None


class TrackerBatch:
    """One target in each of B sequences, followed in lock step.

    The boxes are those of one sequence at a time but for the last bits of a convolution, which depend on the batch size.

    Args:
        model: A network of `mstrack.models`; it is put into eval mode.
        device: Where it runs; None: where it is.
        precision: `fp32`, or `bf16` for autocast.
        missing: What a network of two modalities does with a frame without `aux`, see `sequence.fill`: `error`; `zero`, an
            input of zeros after normalisation as in training with modality dropout; `copy`, the colour image; `last`, the
            sequence's last image of that modality.
        window: Share of the Hann window, 1 as published; 0 decodes the bare score map.

    Raises:
        UserError: Unknown `precision` or `missing`; `window` outside [0, 1].
    """

    def __init__(
        self,
        model: nn.Module,
        device: torch.device | str | None = None,
        precision: str = "fp32",
        missing: str = "error",
        window: float = 1.0,
    ) -> None:
        if precision not in PRECISIONS:
            raise UserError(unknown("precision", precision, PRECISIONS))
        if not 0 <= window <= 1:
            raise UserError(f"window is {window}: it is the share of the Hann window, from 0 (none) to 1 (as published).")
        self._model: Any = model.to(device).eval()
        self._device = next(model.parameters()).device
        self._bf16, self._missing, self._influence = precision == "bf16", check_policy(missing), window
        self._window = torch.ones(1, device=self._device)
        self._templates = torch.empty(0)
        self._boxes = np.empty((0, 4))
        self._names: list[str] = []
        self._last: list[Image | None] = []
        self.lacking: list[list[int]] = []
        """For each sequence, the numbers of its frames that came without their second modality."""
        self._steps = np.empty(0, dtype=np.int64)
        self.clock = Clock()

    @torch.inference_mode()
    def init(self, frames: List[Frame], boxes: Iterable[ArrayLike], names: List[str] | None = None) -> None:
        """Start B sequences.

        Args:
            frames: The first frame of each.
            boxes: (B, 4) x, y, w, h of each target in pixels.
            names: What to call the sequences in error messages.

        Raises:
            UserError: Images that are not H x W x 3 uint8 or whose modalities differ in size; a box that is not four finite
                numbers, has no size or lies outside its image.
        """
        called = list(names) if names is not None else [f"sequence {i}" for i in range(len(frames))]
        rows = list(boxes)
        if not len(frames) == len(rows) == len(called):
            raise UserError(f"{len(frames)} frames, {len(rows)} boxes, {len(called)} names: each sequence needs one of each.")
        self._names = called
        self._last, self.lacking = [None] * len(called), [[] for _ in called]
        self._steps = np.zeros(len(called), dtype=np.int64)
        complete = [self._complete(frame, i) for i, frame in enumerate(frames)]
        starts = [_checked_box(*item) for item in zip(rows, frames, called, strict=True)]
        self._boxes = np.array(starts).reshape(-1, 4)
        self._templates, _ = self._cut(complete, self._boxes, self._model.template_factor, self._model.template_size)

    @torch.inference_mode()
    def update(self, frames: List[Frame], active: ArrayLike | None = None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Take one frame further those sequences that have one.

        Args:
            frames: The next frame of each active sequence.
            active: Their A indices; None: all B, in order.

        Returns:
            (A, 4) boxes x, y, w, h in pixels, and (A,) scores.

        Raises:
            UserError: Unusable images as for `init`; not as many frames as active sequences; or the network answers with
                numbers that are not finite.
        """
        which = np.arange(len(self._boxes)) if active is None else np.asarray(active, dtype=np.int64)
        if len(frames) != len(which) or not len(which):
            raise UserError(f"{len(frames)} frames for {len(which)} sequence(s) that were started with init().")
        self._steps[which] += 1
        frames = [self._complete(frame, int(i)) for frame, i in zip(frames, which, strict=True)]
        size, before = self._model.search_size, self._boxes[which]
        search, scales = self._cut(frames, before, self._model.search_factor, size)
        started = time.perf_counter()
        found = self._decode(self._templates if active is None else self._templates[torch.from_numpy(which)], search)
        self.clock.seconds += time.perf_counter() - started
        self.clock.frames += len(frames)
        if not np.isfinite(found).all():
            names = ", ".join(self._names[i] for i in which[~np.isfinite(found).all(1)])
            raise UserError(f"{names}: the network's output is not finite. Its weights are damaged, or need precision fp32.")
        boxes = from_crop(found[:, :4], before, scales, size)
        for i, frame in enumerate(frames):
            boxes[i] = clip(boxes[i], *frame.rgb.shape[:2])
        self._boxes[which] = boxes
        return boxes, found[:, 4]

    def _decode(self, template: Tensor, search: Tensor) -> NDArray[np.float64]:
        """(A, 5): centre x, centre y, w, h in units of the search crop, and the windowed score they were read at."""
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
            prediction = self._model(template, search)
        score = prediction.score.float()
        if self._window.shape[-1] != score.shape[-1]:
            self._window = (1 - self._influence) + self._influence * hann(score.shape[-1]).to(self._device)
        peak, index = (score * self._window).flatten(1).max(1)
        return torch.cat([prediction.boxes_at(index).float(), peak[:, None]], 1).double().cpu().numpy()

    def _cut(
        self, frames: List[Frame], boxes: NDArray[np.float64], factor: float, size: int
    ) -> tuple[Tensor, NDArray[np.float64]]:
        """Normalised crops (A, M, 3, size, size) on the device, and their (A,) scales."""
        modalities = self._model.modalities
        patches = np.zeros((len(frames), modalities, size, size, 3), dtype=np.uint8)
        scales, absent = np.empty(len(frames)), []
        for i, frame in enumerate(frames):
            for m, image in enumerate((frame.rgb, frame.aux)[:modalities]):
                if image is None:
                    absent.append((i, m))
                else:
                    patches[i, m], scales[i] = crop(image, boxes[i], factor, size)
        images = normalise(torch.from_numpy(patches).to(self._device).permute(0, 1, 4, 2, 3).contiguous())
        for i, m in absent:
            images[i, m] = 0
        return images, scales

    def _complete(self, frame: Frame, i: int) -> Frame:
        """A frame as the network is fed: images that would be tracked wrongly are refused, a missing modality is filled."""
        name = self._names[i]
        for what, image in (("rgb", frame.rgb), ("aux", frame.aux)):
            if what == "aux" and image is None:
                continue
            if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                given = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
                raise UserError(f"{name}: {what} is {given}, expected an H x W x 3 uint8 array.")
        if frame.aux is not None and frame.aux.shape != frame.rgb.shape:
            sizes = " and ".join(f"{w} x {h}" for h, w in (frame.rgb.shape[:2], frame.aux.shape[:2]))
            raise UserError(f"{name}: rgb and aux differ in size, {sizes} (width x height). They must be aligned.")
        if self._model.modalities == 1:
            return frame
        if frame.aux is None:
            self.lacking[i].append(int(self._steps[i]))
            return fill(frame, self._missing, self._last[i], f"{name}, frame {self._steps[i]}")
        if self._missing == "last":
            self._last[i] = frame.aux
        return frame


class Tracker:
    """One target in one sequence: a `TrackerBatch` of one, with its arguments.

    >>> tracker = Tracker(model)                                   # doctest: +SKIP
    >>> tracker.init(Frame(rgb=rgb, aux=aux), (x, y, w, h))        # doctest: +SKIP
    >>> box, score = tracker.update(Frame(rgb=rgb, aux=aux))       # doctest: +SKIP
    """

    def __init__(
        self,
        model: nn.Module,
        device: torch.device | str | None = None,
        precision: str = "fp32",
        missing: str = "error",
        window: float = 1.0,
    ) -> None:
        self._batch = TrackerBatch(model, device, precision, missing, window)

    def init(self, frame: Frame, box: ArrayLike) -> None:
        """Start with the target's box (x, y, w, h in pixels) in the first frame; errors as `TrackerBatch.init`."""
        self._batch.init([frame], [box], ["the sequence"])

    def update(self, frame: Frame) -> Output:
        """Find the target in the next frame; errors as `TrackerBatch.update`."""
        boxes, scores = self._batch.update([frame])
        return Output(boxes[0], float(scores[0]))


def follow(
    model: nn.Module,
    sequences: List[Sequence],
    batch: int = 32,
    precision: str = "fp32",
    missing: str = "error",
    clock: Clock | None = None,
) -> Iterator[tuple[Sequence, Track]]:
    """Track whole sequences from their first box, `batch` of them in lock step, and yield each when it ends.

    Sequences of like length go together; the next frames are read while the network works on these. `clock` is added to.

    Raises:
        UserError: A frame cannot be read, or a first box cannot be used (with the sequence's name).
    """
    tracker = TrackerBatch(model, precision=precision, missing=missing)
    tracker.clock = clock or tracker.clock
    ordered = sorted(sequences, key=len, reverse=True)
    with ThreadPoolExecutor(READERS) as readers:
        for start in range(0, len(ordered), batch):
            yield from _follow_group(tracker, ordered[start : start + batch], readers)


def _follow_group(
    tracker: TrackerBatch, group: List[Sequence], readers: ThreadPoolExecutor
) -> Iterator[tuple[Sequence, Track]]:
    """Track sequences that are sorted by length, the longest first, so that the active ones are always the first ones."""
    tracks = [Track(np.empty((len(s), 4)), np.ones(len(s))) for s in group]
    coming = [readers.submit(s.frame, 0) for s in group]
    for step in range(len(group[0])):
        frames = [reading.result() for reading in coming]
        coming = [readers.submit(s.frame, step + 1) for s in group if len(s) > step + 1]
        if step == 0:
            boxes, scores = np.stack([s.boxes[0] for s in group]), np.ones(len(group))
            tracker.init(frames, boxes, [f"sequence '{s.name}'" for s in group])
        else:
            boxes, scores = tracker.update(frames, None if len(frames) == len(group) else np.arange(len(frames)))
        for i in range(len(frames)):
            tracks[i].boxes[step], tracks[i].confidence[step] = boxes[i], scores[i]
        for i in range(len(coming), len(frames)):
            yield group[i], tracks[i]._replace(lacking=tuple(tracker.lacking[i]))


def hann(n: int) -> Tensor:
    """The published window over an n x n score map: 0.5 (1 - cos(2 pi k / (n + 1))), k = 1..n, along both axes."""
    angles = torch.arange(1, n + 1, dtype=torch.float32) * (2 * math.pi / (n + 1))
    side = 0.5 * (1 - torch.cos(angles))
    return torch.outer(side, side)


def _checked_box(box: ArrayLike, frame: Frame, name: str) -> NDArray[np.float64]:
    """The box as four float64 numbers, or a `UserError` that says what is wrong with it."""
    try:
        numbers = np.asarray(box, dtype=np.float64)
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if numbers.shape != (4,) or not np.isfinite(numbers).all():
        raise UserError(f"{name}: the box is {box!r}, expected four finite numbers x, y, w, h in pixels.")
    x, y, w, h = numbers.tolist()
    if w <= 0 or h <= 0:
        raise UserError(f"{name}: the box x, y, w, h = {x:g}, {y:g}, {w:g}, {h:g} has no size: w and h must be above 0.")
    height, width = frame.rgb.shape[:2]
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        raise UserError(
            f"{name}: the box x, y, w, h = {x:g}, {y:g}, {w:g}, {h:g} lies outside the image of {width} x {height} pixels"
            " (width x height). Are these corners, or normalised, or of another image?"
        )
    return numbers
