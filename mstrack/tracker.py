"""The online protocol: `init(frame, box)`, then `update(frame)`; crop, forward, windowed decoding, back to the image.

As the published trackers do it (OSTrack, ViPT, SDSTrack): the template is the first frame's and never updated, the search
crop is taken around the previous box, the score map is multiplied by a Hann window, the box is read at its peak and kept
inside the image with a margin of 10 pixels.
"""

import math
import time
from collections.abc import Callable, Iterable
from collections.abc import Sequence as List
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from mstrack.backends import Backend, open_backend
from mstrack.boxes import clip
from mstrack.data.crops import from_crop
from mstrack.data.images import Image
from mstrack.data.sequence import Frame, check_policy, fill
from mstrack.errors import UserError
from mstrack.inputs import check_box, check_images, cutter_of
from mstrack.models.blocks import Prediction


class Output(NamedTuple):
    """Where the target is in one frame."""

    box: NDArray[np.float64]
    """(4,) x, y, w, h in pixels."""
    score: float
    """Peak of the windowed score map, in [0, 1]."""


@dataclass
class Clock:
    """How long the network took: its forward pass and the reading of the box, without crops and files.

    Attributes:
        frames: How many boxes.
        seconds: For all of them.
        cropping: Seconds for crops and their normalisation beside that, and
        decoding: of `seconds`, those after the forward pass. On a GPU, which is not waited for, work shows up where its result
            is needed, unless
        apart: the device is waited for between the parts.
        ticked: Is called after every step.
    """

    frames: int = 0
    seconds: float = 0.0
    cropping: float = 0.0
    decoding: float = 0.0
    apart: bool = False
    ticked: Callable[[], None] | None = None

    @property
    def fps(self) -> float | None:
        """Frames per second."""
        return self.frames / self.seconds if self.seconds else None


class TrackerBatch:
    """One target in each of B sequences, followed in lock step.

    The boxes are those of one sequence at a time but for the last bits of a convolution, which depend on the batch size.

    Args:
        model: A network of `mstrack.models`, which is put into eval mode, or one that `backends.open_backend` made ready; then
            `device`, `precision` and `backend` are left out.
        device: Where it runs; None: where it is.
        precision: `fp32` or `bf16`.
        missing: What a network of two modalities does with a frame without `aux`, see `sequence.fill`: `error`; `zero`, an
            input of zeros after normalisation as in training with modality dropout; `copy`, the colour image; `last`, the
            sequence's last image of that modality.
        window: Share of the Hann window, 1 as published; 0 decodes the bare score map.
        backend: How it is run, see `mstrack.backends`.

    Raises:
        UserError: Unknown `precision`, `missing` or `backend`, or one that cannot be; `window` outside [0, 1].
    """

    def __init__(
        self,
        model: nn.Module | Backend,
        device: torch.device | str | None = None,
        precision: str = "fp32",
        missing: str = "error",
        window: float = 1.0,
        backend: str = "eager",
    ) -> None:
        if not 0 <= window <= 1:
            raise UserError(f"window is {window}: it is the share of the Hann window, from 0 (none) to 1 (as published).")
        self._network = model if isinstance(model, Backend) else open_backend(model, backend, device, precision)
        self._device, self._geometry = self._network.device, self._network.geometry
        self._cutter = cutter_of(self._device)
        self._missing, self._influence = check_policy(missing), window
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
    def make_room(self, count: int) -> None:
        """Forget all sequences, and have places for so many."""
        size = self._geometry.template_size
        self._names, self._last, self.lacking = [""] * count, [None] * count, [[] for _ in range(count)]
        self._steps, self._boxes = np.zeros(count, dtype=np.int64), np.empty((count, 4))
        self._templates = torch.zeros(count, self._geometry.modalities, 3, size, size, device=self._device)

    @torch.inference_mode()
    def init(
        self,
        frames: List[Frame],
        boxes: Iterable[ArrayLike],
        names: List[str] | None = None,
        places: List[int] | None = None,
    ) -> None:
        """Start B sequences, or new ones in some places of those that run.

        Args:
            frames: The first frame of each.
            boxes: (B, 4) x, y, w, h of each target in pixels.
            names: What to call the sequences in error messages.
            places: Whose places they take; None: all are replaced.

        Raises:
            UserError: Images that are not H x W x 3 uint8 or whose modalities differ in size; a box that is not four finite
                numbers, has no size or lies outside its image. What was followed before goes on.
        """
        called = list(names) if names is not None else [f"sequence {i}" for i in range(len(frames))]
        rows = list(boxes)
        if not len(frames) == len(rows) == len(called):
            raise UserError(f"{len(frames)} frames, {len(rows)} boxes, {len(called)} names: each sequence needs one of each.")
        complete = [self._complete(frame, name, 0, None) for frame, name in zip(frames, called, strict=True)]
        starts = [check_box(*item) for item in zip(rows, frames, called, strict=True)]
        if places is None:
            self.make_room(len(called))
        where = list(range(len(called))) if places is None else list(places)
        self._steps[where] = 0
        for i, name, frame in zip(where, called, frames, strict=True):
            self._names[i], self._last[i], self.lacking[i] = name, None, []
            self._remember(frame, i)
        self._boxes[where] = np.array(starts).reshape(-1, 4)
        self._templates[where], _ = self._cut(
            complete, self._boxes[where], self._geometry.template_factor, self._geometry.template_size
        )

    def move(self, boxes: Iterable[ArrayLike]) -> None:
        """Say where the targets are, as after a detection: the next crops are cut around these (B, 4) x, y, w, h in pixels."""
        self._boxes = np.array(list(boxes), dtype=np.float64).reshape(self._boxes.shape)

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
        complete = [
            self._complete(frame, self._names[i], int(self._steps[i]) + 1, self._last[i])
            for frame, i in zip(frames, which, strict=True)
        ]
        self._steps[which] += 1
        for frame, i in zip(frames, which, strict=True):
            self._remember(frame, int(i))
        size, before = self._geometry.search_size, self._boxes[which]
        started = time.perf_counter()
        search, scales = self._cut(complete, before, self._geometry.search_factor, size)
        cut = self._now()
        everyone = active is None or np.array_equal(which, np.arange(len(self._boxes)))
        template = self._templates if everyone else self._templates[torch.from_numpy(which)]
        prediction = self._network(template, search)
        predicted = self._now()
        found = self._decode(prediction)
        ended = time.perf_counter()
        self.clock.frames += len(frames)
        self.clock.seconds += ended - cut
        self.clock.cropping += cut - started
        self.clock.decoding += ended - predicted
        if self.clock.ticked is not None:
            self.clock.ticked()
        if not np.isfinite(found).all():
            names = ", ".join(self._names[i] for i in which[~np.isfinite(found).all(1)])
            raise UserError(f"{names}: the network's output is not finite. Its weights are damaged, or need precision fp32.")
        boxes = from_crop(found[:, :4], before, scales, size)
        for i, frame in enumerate(frames):
            boxes[i] = clip(boxes[i], *frame.rgb.shape[:2])
        self._boxes[which] = boxes
        return boxes, found[:, 4]

    def _now(self) -> float:
        """Seconds of the clock."""
        if self.clock.apart and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def _decode(self, prediction: Prediction) -> NDArray[np.float64]:
        """(A, 5): centre x, centre y, w, h in units of the search crop, and the windowed score they were read at."""
        score = prediction.score.float()
        if self._window.shape[-1] != score.shape[-1]:
            self._window = (1 - self._influence) + self._influence * hann(score.shape[-1]).to(self._device)
        peak, index = (score * self._window).flatten(1).max(1)
        return torch.cat([prediction.boxes_at(index).float(), peak[:, None]], 1).double().cpu().numpy()

    def _cut(
        self, frames: List[Frame], boxes: NDArray[np.float64], factor: float, size: int
    ) -> tuple[Tensor, NDArray[np.float64]]:
        """Normalised crops (A, M, 3, size, size) on the device, and their (A,) scales."""
        pairs = [(frame.rgb, frame.aux)[: self._geometry.modalities] for frame in frames]
        return self._cutter(pairs, boxes, factor, size, self._device)

    def _complete(self, frame: Frame, name: str, step: int, last: Image | None) -> Frame:
        """A frame as the network is fed: images that would be tracked wrongly are refused, a missing modality is filled."""
        check_images(frame, name)
        return frame if self._geometry.modalities == 1 else fill(frame, self._missing, last, f"{name}, frame {step}")

    def _remember(self, frame: Frame, i: int) -> None:
        """Whether a frame of sequence i came without its second modality; else that image, where the policy needs it."""
        if self._geometry.modalities == 1:
            return
        if frame.aux is None:
            self.lacking[i].append(int(self._steps[i]))
        elif self._missing == "last":
            self._last[i] = frame.aux


class Tracker:
    """One target in one sequence: a `TrackerBatch` of one, with its arguments.

    >>> tracker = Tracker(model)                                   # doctest: +SKIP
    >>> tracker.init(Frame(rgb=rgb, aux=aux), (x, y, w, h))        # doctest: +SKIP
    >>> box, score = tracker.update(Frame(rgb=rgb, aux=aux))       # doctest: +SKIP
    """

    def __init__(
        self,
        model: nn.Module | Backend,
        device: torch.device | str | None = None,
        precision: str = "fp32",
        missing: str = "error",
        window: float = 1.0,
        backend: str = "eager",
    ) -> None:
        self._batch = TrackerBatch(model, device, precision, missing, window, backend)

    def init(self, frame: Frame, box: ArrayLike) -> None:
        """Start with the target's box (x, y, w, h in pixels) in the first frame; errors as `TrackerBatch.init`."""
        self._batch.init([frame], [box], ["the sequence"])

    def update(self, frame: Frame) -> Output:
        """Find the target in the next frame; errors as `TrackerBatch.update`."""
        boxes, scores = self._batch.update([frame])
        return Output(boxes[0], float(scores[0]))


def hann(n: int) -> Tensor:
    """The published window over an n x n score map: 0.5 (1 - cos(2 pi k / (n + 1))), k = 1..n, along both axes."""
    angles = torch.arange(1, n + 1, dtype=torch.float32) * (2 * math.pi / (n + 1))
    side = 0.5 * (1 - torch.cos(angles))
    return torch.outer(side, side)
