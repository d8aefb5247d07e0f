"""`mst export`: a network as an ONNX file, and the proof that it still is the network."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mstrack import checkpoint
from mstrack.backends import Backend, open_backend
from mstrack.backends.onnxfile import write_onnx
from mstrack.data import load_sequences
from mstrack.errors import UserError
from mstrack.models.blocks import Prediction
from mstrack.models.network import Network
from mstrack.results import name_part
from mstrack.tracker import TrackerBatch

Progress = Callable[[int, int, str], None]
FRAMES = 20
BATCHES = (1, 3)
"""Pairs at a time that the maps are compared for."""
LIMITS = {"score": 1e-4, "size": 1e-4, "offset": 1e-3}
"""Largest difference of each map; seen: 2e-6."""
PIXELS = 0.05
"""Largest difference of a box."""
STEPS = ("loading", "writing", "comparing maps", "comparing boxes", "done")


class Parity(NamedTuple):
    """How far a file is from the network that it was made of.

    Attributes:
        maps: Largest difference of each map of the head.
        boxes: Of a number of a box, in pixels, each following its own boxes through `frames` frames of the embedded benchmark.
        frames: How many.
    """

    maps: dict[str, float]
    boxes: float
    frames: int

    @property
    def holds(self) -> bool:
        """Whether all of it is within the limits."""
        return self.boxes <= PIXELS and all(self.maps[name] <= limit for name, limit in LIMITS.items())


def export(source: Network | str | Path, target: Path, progress: Progress | None = None) -> Parity:
    """Write a checkpoint as an ONNX file; where parity does not hold, there is no file.

    Args:
        source: A checkpoint, the name of a shipped weight, or a network.
        target: The .onnx file.
        progress: Called with (steps done, all, what comes).

    Raises:
        UserError: No such checkpoint; `target` is no .onnx name; what `backends.onnxfile.write_onnx` cannot write.
    """
    said = iter(enumerate(STEPS))

    def advance() -> None:
        done, text = next(said)
        if progress is not None:
            progress(done, len(STEPS) - 1, text)

    if target.suffix != ".onnx":
        raise UserError(f"{target} should end in .onnx: that is what export writes.")
    if not target.parent.is_dir():
        raise UserError(f"there is no folder {target.parent}: make it first.")
    advance()
    network = source if isinstance(source, Network) else checkpoint.load(source)
    part = name_part(target)
    try:
        advance()
        write_onnx(network, part)
        written = open_backend(part)
        advance()
        maps = compare_maps(network, written)
        advance()
        parity = Parity(maps, compare_boxes(network, written), FRAMES)
        if parity.holds:
            part.replace(target)
        advance()
    finally:
        part.unlink(missing_ok=True)
    return parity


@torch.inference_mode()
def compare_maps(network: Network, other: Backend) -> dict[str, float]:
    """The largest difference of each map of the head, over batches of normal numbers."""
    generator = torch.Generator().manual_seed(0)
    largest = dict.fromkeys(Prediction._fields, 0.0)
    for batch in BATCHES:
        template, search = (torch.randn(part.shape, generator=generator) for part in network.inputs(batch))
        for name, ours, theirs in zip(largest, network(template, search), other(template, search), strict=True):
            largest[name] = float(np.maximum(largest[name], float((ours - theirs).abs().max())))  # NaN stays
    return largest


def compare_boxes(network: Network, other: Backend) -> float:
    """The largest difference of a number of a box, in pixels, in the first frames of a sequence of the embedded benchmark."""
    sequence = load_sequences("synthetic", "test", modality="thermal", arguments={"sequences": 1, "frames": FRAMES + 1})[0]

    def track(runner: Network | Backend) -> NDArray[np.float64]:
        tracker = TrackerBatch(runner)
        tracker.init([sequence.frame(0)], [sequence.boxes[0]])
        return np.concatenate([tracker.update([sequence.frame(i)])[0] for i in range(1, FRAMES + 1)])

    return float(np.abs(track(network) - track(other)).max())
