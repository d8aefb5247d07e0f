"""How fast a network tracks, by one backend: from frames in memory to boxes, alone and in lock step, and from files."""

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from mstrack.backends import Backend
from mstrack.data.sequence import Frame, Sequence
from mstrack.lockstep import follow
from mstrack.machine import describe_processor, usable_cores
from mstrack.plain import PlainTracker
from mstrack.tracker import Clock, TrackerBatch

WIDTH, HEIGHT = 640, 480
BOX = (300.0, 220.0, 60.0, 80.0)
WORTH = 1.03
"""A larger batch is tried as long as the last one has gained so much."""
STILL = 4.0
"""Seconds of a step beyond which no larger batch is tried."""
PLAIN = "plain loop"


class Speed(NamedTuple):
    """Milliseconds of a frame, by one way to run a network.

    Attributes:
        backend: Of `backends.BACKENDS`, or `PLAIN`.
        precision: Of its numbers.
        batch: Sequences in lock step.
        crop: Cutting, resizing and normalising; NaN where it was not measured apart.
        network: The forward pass.
        decode: From its maps to boxes on the host.
        total: From frames in memory to boxes; on a GPU less than the sum, which waits between the parts.
    """

    backend: str
    precision: str
    batch: int
    crop: float
    network: float
    decode: float
    total: float

    @property
    def fps(self) -> float:
        """Frames per second."""
        return 1e3 / self.total


class FileSpeed(NamedTuple):
    """From files to boxes.

    Attributes:
        fps: Frames per second, with reading and decoding.
        network_fps: Of the network alone, in the same run.
        batch: Sequences in lock step.
    """

    fps: float
    network_fps: float
    batch: int


# ---------------------------------------------------------------- from frames in memory to boxes
def measure_single(
    plain: PlainTracker | None, runners: dict[tuple[str, str], Backend], seconds: float, rounds: int | None = None
) -> list[Speed]:
    """One sequence at a time by every backend in turn, so that whatever else the machine does meets all of them alike.

    Args:
        plain: The plain loop, or None.
        runners: By name and precision.
        seconds: To spend on each.
        rounds: Steps of each; None: as many as fit.

    Returns:
        Medians; the plain loop first.
    """
    frame, box = make_frames(1)[0], BOX
    steps = {key: _Step(runner, 1) for key, runner in runners.items()}
    times: list[float] = []

    def step_plainly() -> float:
        if plain is None:
            return 0.0
        plain.init(frame, box)
        started = time.perf_counter()
        plain.update(frame)
        times.append(time.perf_counter() - started)
        return times[-1]

    for step in steps.values():
        step.warm_up()
    slowest = max([step_plainly(), *(step.run() for step in steps.values())])
    for _ in range(max(2, int(seconds / max(slowest, 1e-4))) if rounds is None else rounds):
        step_plainly()
        for step in steps.values():
            step.run()
    found = [step.speed() for step in steps.values()]
    if plain is not None:
        nan = float("nan")
        found.insert(0, Speed(PLAIN, "fp32", 1, nan, nan, nan, 1e3 * statistics.median(times)))
    return found


def measure_batch(runner: Backend, batch: int, seconds: float) -> Speed:
    """Medians for so many sequences in lock step."""
    step = _Step(runner, batch)
    step.warm_up()
    once = step.run()
    for _ in range(max(2, int(seconds / max(once, 1e-4)))):
        step.run()
    return step.speed()


def best_batch(runner: Backend, largest: int, seconds: float) -> Speed:
    """The batch with most frames per second, of 1, 2, 4, ... for as long as it pays, and fits into the memory of a GPU."""
    best, batch = measure_batch(runner, 1, seconds), 2
    while batch <= largest:
        try:
            found = measure_batch(runner, batch, seconds)
        except torch.OutOfMemoryError:
            break
        pays = found.fps > WORTH * best.fps
        best = max(best, found, key=lambda speed: speed.fps)
        if not pays or found.total * batch > 1e3 * STILL:
            break
        batch *= 2
    return best


class _Step:
    """A step of a tracker, which starts from the same boxes every time: where a network leads is not to matter."""

    def __init__(self, runner: Backend, batch: int) -> None:
        self._runner, self._batch = runner, batch
        self._frames, self._boxes = make_frames(batch), np.tile(BOX, (batch, 1))
        self._tracker = TrackerBatch(runner)
        self._tracker.init(self._frames, self._boxes)
        self._parts: list[tuple[float, float, float]] = []
        self._totals: list[float] = []

    def warm_up(self) -> None:
        """What happens once: kernels are chosen, graphs recorded, code compiled."""
        self._step(apart=False)

    def run(self) -> float:
        """Seconds of a step, which is measured; on a GPU its parts are those of a second one, which waits between them."""
        clock, seconds = self._step(apart=False)
        self._totals.append(seconds)
        if self._runner.device.type == "cuda":
            clock, _ = self._step(apart=True)
        self._parts.append((clock.cropping, clock.seconds - clock.decoding, clock.decoding))
        return seconds

    def _step(self, apart: bool) -> tuple[Clock, float]:
        self._tracker.move(self._boxes)
        clock = self._tracker.clock = Clock(apart=apart)
        started = time.perf_counter()
        self._tracker.update(self._frames)
        return clock, time.perf_counter() - started

    def speed(self) -> Speed:
        """Medians, by frame."""
        crop, network, decode = (1e3 * statistics.median(part) / self._batch for part in zip(*self._parts, strict=True))
        total = 1e3 * statistics.median(self._totals) / self._batch
        return Speed(self._runner.name, self._runner.precision, self._batch, crop, network, decode, total)


def make_frames(count: int) -> list[Frame]:
    """Frames of both modalities that compress like photographs: 60 to 80 kB at JPEG quality 90."""
    rng = np.random.default_rng(0)
    return [Frame(_make_image(rng), _make_image(rng)) for _ in range(count)]


def _make_image(rng: np.random.Generator) -> Any:
    coarse = rng.integers(0, 256, (HEIGHT // 24, WIDTH // 24, 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    grain = cv2.GaussianBlur(rng.normal(0, 18, (HEIGHT, WIDTH, 3)).astype(np.float32), (0, 0), 1.0)
    return np.clip(smooth + grain, 0, 255).astype(np.uint8)


# ---------------------------------------------------------------- from files to boxes
def measure_files(runner: Backend, batch: int, seconds: float, shortest: int = 8) -> FileSpeed:
    """Whole sequences of JPEG pairs on disk, `batch` of them in lock step, as `mst eval` follows them.

    Args:
        runner: The network.
        batch: How many.
        seconds: To spend, more or less; at least
        shortest: so many frames of each.
    """
    with tempfile.TemporaryDirectory(prefix="mstrack-") as folder:
        files: list[tuple[Path, Path]] = []
        for number, frame in enumerate(make_frames(4)):
            pair = Path(folder) / f"rgb{number}.jpg", Path(folder) / f"aux{number}.jpg"
            for path, image in zip(pair, (frame.rgb, frame.aux), strict=True):
                cv2.imwrite(str(path), np.asarray(image), [cv2.IMWRITE_JPEG_QUALITY, 90])
            files.append(pair)

        def walk(length: int) -> tuple[float, float]:
            order = [files[i % len(files)] for i in range(length)]
            boxes, valid = np.tile(BOX, (length, 1)), np.ones(length, dtype=bool)
            rgb, aux = [pair[0] for pair in order], [pair[1] for pair in order]
            walks = [Sequence(f"walk{i}", rgb, boxes, valid, aux, "event") for i in range(batch)]
            clock, started = Clock(), time.perf_counter()
            for _ in follow(runner, walks, batch=batch, clock=clock):
                pass
            return batch * (length - 1) / (time.perf_counter() - started), clock.fps or float("nan")

        walk(2)  # graphs are recorded, kernels chosen
        rate, _ = walk(4)
        fps, network_fps = walk(max(shortest, int(seconds * rate / batch)))
    return FileSpeed(fps, network_fps, batch)


def describe_machine(device: torch.device) -> str:
    """The device in words, with what else it does."""
    if device.type == "cuda":
        what = torch.cuda.get_device_name(device)
    else:
        what = f"{describe_processor()}, {torch.get_num_threads()} thread(s) of {usable_cores()} core(s)"
    busy = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{what}{busy}, torch {torch.__version__}"
